"""Predict the top-1 accuracy of architectures: genes int8 (N, G) -> float32 (N,), a fraction.

The published predictors are perceptrons on a one-hot encoding of the architecture
(``ofa.tutorial.AccuracyPredictor``, ``ofa.nas.accuracy_predictor``). Their first layer is computed as a sum
over terms, which adds one table row for the (depth, kernel, expand) of each block. The other layers are
matrix products in tiles of fixed shapes, so that the bits of a row do not depend on its batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from topdown_ray.errors import UserError
from topdown_ray.spaces.compiled import first_layer
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Encoding, Space
from topdown_ray.spaces.terms import Term, TermIndex, concatenate, flatten
from topdown_ray.spaces.tiles import Tiles

# --- the one-hot encodings ----------------------------------------------------------------------------------


def encoding(space: Space, predictor_space: Space) -> Encoding:
    """Return the encoding with which a predictor trained on ``predictor_space`` reads the genes of ``space``.
    Raises UserError if it cannot read them.

    The layouts are OFA's, see ``encoding`` in the file of each space. A predictor can read the genes of
    another space with the same layout: MobileNetV3's reads a ProxylessNAS architecture without its 21st
    block."""
    layout = predictor_space.traits.encoding
    if space.provides is None or space.provides.encoding is not layout:
        raise UserError(f"predictor: expected one for {space.name}, found one for {predictor_space.name}")
    return layout(space, predictor_space)


def one_hot(space: Space) -> Encoding:
    """Return the encoding for a user's own predictor: that of OFA's predictor of the space, or if there is
    none, every choice of every gene.
    """
    if space.provides is not None:
        return space.provides.encoding(space, SPACES[space.provides.predictor_space])
    first = np.concatenate([[0], np.cumsum(space.sizes)])
    return Encoding(int(first[-1]), tuple(map(int, first[:-1])))


def features(space: Space, code: Encoding, genes: torch.Tensor) -> torch.Tensor:
    """Return the dense one-hot features: genes (N, G) -> float32 (N, n_features)."""
    first = torch.tensor(code.first, device=genes.device)
    used = space.active(genes) & (first >= 0)  # (N, G)
    columns = (first + genes).clamp_min_(0)
    return torch.zeros(len(genes), code.n_features, device=genes.device).scatter_add_(
        1, columns, used.float()
    )


def first_layer_terms(space: Space, code: Encoding, weight: npt.NDArray[np.float32]) -> list[Term]:
    """Return the first layer without its bias as terms with values (..., hidden): one for each block, and one
    for each gene outside blocks.
    """
    groups: list[tuple[int, ...]] = []
    for genes_of_block, depth in space.block_genes():
        own = tuple(g for g in genes_of_block if code.first[g] >= 0)
        if own:
            groups.append((*own, depth) if depth >= 0 else own)
    groups += [(g,) for g in space.genes_outside_blocks() if code.first[g] >= 0]
    terms = []
    for genes in groups:
        sizes = [space.sizes[g] for g in genes]
        combinations = np.indices(sizes).reshape(len(genes), -1).T  # (rows, len(genes))
        rows = torch.zeros(len(combinations), space.G, dtype=torch.int8)
        rows[:, list(genes)] = torch.from_numpy(combinations.astype(np.int8))
        only = Encoding(code.n_features, tuple(f if g in genes else -1 for g, f in enumerate(code.first)))
        values = features(space, only, rows).numpy().astype(np.float64) @ weight.T.astype(np.float64)
        terms.append(Term(genes, values.reshape(*sizes, -1)))
    return terms


class FirstLayer:
    """The first layer of a perceptron as a sum over terms. On a CPU it runs as compiled code, with the same
    bits as the tensor operations.
    """

    def __init__(self, terms: Sequence[Term], G: int, bias: npt.NDArray[np.float32], device: torch.device):
        """bias: float32 (hidden,)."""
        self.index = TermIndex(terms, G).to(device)
        self.table = torch.from_numpy(concatenate(terms).astype(np.float32)).to(device)  # (rows, hidden)
        self.bias = torch.tensor(bias, device=device)
        self.terms = flatten(terms) if device.type == "cpu" else None

    def __call__(self, genes: torch.Tensor, padding: int, relu: bool) -> torch.Tensor:
        """Return the hidden units, with padding at the end: genes int8 (N, G) -> float32 (N + padding,
        hidden).
        """
        if self.terms is not None:
            rows, table, bias = genes.numpy(), self.table.numpy(), self.bias.numpy()
            return torch.from_numpy(first_layer(rows, self.terms, table, bias, padding, relu))
        hidden = functional.embedding_bag(self.index(genes), self.table, mode="sum").add_(self.bias)
        hidden = functional.pad(hidden, (0, 0, 0, padding))
        return hidden.relu_() if relu else hidden


# --- the predictor ------------------------------------------------------------------------------------------


class Linear(NamedTuple):
    """A linear layer: weight (out, in) and bias (out,), float32."""

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predictor:
    """A perceptron with ReLU on one-hot features. Calling it: genes int8 (N, G) -> predicted top-1 float32
    (N,).
    """

    name: str
    sha256: str
    space: Space  # the space whose genes it reads
    predictor_space: str  # the space it was trained on
    layers: tuple[Linear, ...]
    device: str = "cpu"
    _first: FirstLayer = field(init=False, repr=False)
    _tensors: list[tuple[torch.Tensor, torch.Tensor]] = field(init=False, repr=False)
    _tiles: Tiles = field(init=False, repr=False)

    def __post_init__(self) -> None:
        device = torch.device(self.device)
        terms = first_layer_terms(self.space, self.encoding, self.layers[0].weight)
        tensors = [(torch.tensor(layer.weight), torch.tensor(layer.bias)) for layer in self.layers[1:]]
        first = FirstLayer(terms, self.space.G, self.layers[0].bias, device)
        object.__setattr__(self, "_first", first)
        object.__setattr__(
            self, "_tensors", [(weight.to(device), bias.to(device)) for weight, bias in tensors]
        )
        object.__setattr__(self, "_tiles", Tiles(self._products, self._probe))

    @property
    def encoding(self) -> Encoding:
        """The encoding of the genes that it reads."""
        return encoding(self.space, SPACES[self.predictor_space])

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Return predicted top-1: genes int8 (N, G) -> float32 (N,)."""
        n = len(genes)
        hidden = self._first(genes, self._tiles.padding(n), relu=True)
        return self._tiles.map(self._products, hidden)[:n]

    def _products(self, hidden: torch.Tensor) -> torch.Tensor:
        """All layers after the first, on one tile: (rows, hidden) -> (rows,)."""
        *inner, last = self._tensors
        for weight, bias in inner:
            hidden = functional.linear(hidden, weight, bias).relu_()
        return functional.linear(hidden, *last).view(-1)

    def _probe(self, n: int) -> torch.Tensor:
        """n rows of the first hidden layer, for random architectures."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand(n, len(self.layers[0].bias), generator=generator).to(self.device)

    def dense(self, inputs: torch.Tensor) -> torch.Tensor:
        """Evaluate the plain perceptron on dense features: (N, n_features) -> (N,). Benchmarks compare the
        speed of searches with it.
        """
        for layer in self.layers[:-1]:
            inputs = functional.linear(
                inputs, torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
            ).relu_()
        return functional.linear(inputs, *(torch.from_numpy(part) for part in self.layers[-1])).view(-1)
