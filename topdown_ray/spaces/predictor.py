"""Accuracy predictors: genes int8 (N, G) -> predicted top-1 float32 (N,), a fraction.

The published predictors are perceptrons on a one-hot encoding of the architecture
(``ofa.tutorial.AccuracyPredictor``, ``ofa.nas.accuracy_predictor``). Their first layer is a sum over terms,
so it is a gather-and-add over (depth, kernel, expand) of each block; the other layers are matrix products in
tiles of one fixed shape, so that a row's bits do not depend on the batch it comes in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from topdown_ray import assets
from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import brief_path, check_file, data
from topdown_ray.spaces.space import MOBILENET_V3, PROXYLESS, RESNET50D, SPACES, Space
from topdown_ray.spaces.terms import Term, TermIndex, concatenate
from topdown_ray.spaces.tiles import Tiles, one_thread
from topdown_ray.tensors import read_header, read_safetensors, read_torch

# --- the one-hot encodings ----------------------------------------------------------------------------------


class Encoding(NamedTuple):
    """A one-hot encoding: choice c of gene g is feature ``first[g] + c`` while the gene is active; -1: not
    encoded.
    """

    n_features: int
    first: tuple[int, ...]


def encoding(space: Space, predictor_space: Space) -> Encoding:
    """How a predictor trained on ``predictor_space`` reads the genes of ``space``.

    The layouts are OFA's: ``ofa.tutorial.AccuracyPredictor.spec2feats`` for the MobileNet family (kernels,
    expand ratios, then resolutions from 112 in steps of 16) and ``ResNetArchEncoder.arch2feature`` for
    ResNet50D (resolutions, stem, widths, expand ratios; its bit "skip" is 1 where the supernet does *not*
    skip the block). A ProxylessNAS architecture is read by the MobileNetV3 predictor without its 21st block.
    """
    if predictor_space.name == RESNET50D.name and space.name == RESNET50D.name:
        resolutions = space.sizes[space.resolution]
        first_width, first_expand = resolutions + 2, resolutions + 2 + 3 * len(space.indices("width"))
        offsets = {
            "resolution": 0,
            "stem_depth": resolutions,
            "width": first_width,
            "expand": first_expand,
        }
        first = [
            offsets[gene.kind] + 3 * gene.position if gene.kind in offsets else -1 for gene in space.genes
        ]
        first[space.indices("stem_depth")[0]] = resolutions
        return Encoding(first_expand + 3 * len(space.indices("expand")), tuple(first))
    if {space.name, predictor_space.name} <= {MOBILENET_V3.name, PROXYLESS.name}:
        n = min(len(predictor_space.blocks), len(space.blocks))
        known = len(predictor_space.blocks)
        lowest = int(space.genes[space.resolution].choices[0])
        first = []
        for gene in space.genes:
            if gene.kind in ("kernel", "expand") and gene.position < n:
                first.append(3 * gene.position + (3 * known if gene.kind == "expand" else 0))
            elif gene.kind == "resolution":
                first.append(6 * known + (lowest - 112) // 16)
            else:
                first.append(-1)
        return Encoding(6 * known + 8, tuple(first))
    raise UserError(f"predictor: expected one for {space.name}, found one for {predictor_space.name}")


def features(space: Space, code: Encoding, genes: torch.Tensor) -> torch.Tensor:
    """The dense one-hot features: genes (N, G) -> float32 (N, n_features)."""
    first = torch.tensor(code.first, device=genes.device)
    used = space.active(genes) & (first >= 0)  # (N, G)
    columns = (first + genes).clamp_min_(0)
    return torch.zeros(len(genes), code.n_features, device=genes.device).scatter_add_(
        1, columns, used.float()
    )


def first_layer_terms(space: Space, code: Encoding, weight: npt.NDArray[np.float32]) -> list[Term]:
    """The first layer without its bias, as terms with values (..., hidden): one per block, one per gene
    outside blocks.
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


# --- the predictor ------------------------------------------------------------------------------------------


class Layer(NamedTuple):
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
    layers: tuple[Layer, ...]
    device: str = "cpu"
    _index: TermIndex = field(init=False, repr=False)
    _tensors: list[tuple[torch.Tensor, torch.Tensor]] = field(init=False, repr=False)
    _tiles: Tiles = field(init=False, repr=False)

    def __post_init__(self) -> None:
        device = torch.device(self.device)
        terms = first_layer_terms(self.space, self.encoding, self.layers[0].weight)
        table = torch.from_numpy(concatenate(terms).astype(np.float32))
        tensors = [(table, torch.tensor(self.layers[0].bias))]
        tensors += [(torch.tensor(layer.weight), torch.tensor(layer.bias)) for layer in self.layers[1:]]
        object.__setattr__(self, "_index", TermIndex(terms, self.space.G).to(device))
        object.__setattr__(
            self, "_tensors", [(weight.to(device), bias.to(device)) for weight, bias in tensors]
        )
        object.__setattr__(self, "_tiles", Tiles(self._products, self._probe))

    @property
    def encoding(self) -> Encoding:
        """How it reads the genes."""
        return encoding(self.space, SPACES[self.predictor_space])

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Predicted top-1: genes int8 (N, G) -> float32 (N,)."""
        n = len(genes)
        if padding := self._tiles.padding(n):
            genes = torch.cat([genes, genes.new_zeros(padding, genes.shape[1])])
        hidden = functional.embedding_bag(self._index(genes), self._tensors[0][0], mode="sum")
        hidden.add_(self._tensors[0][1]).relu_()
        return self._tiles.map(self._products, hidden)[:n]

    def _products(self, hidden: torch.Tensor) -> torch.Tensor:
        """All layers but the first, on one tile: (rows, hidden) -> (rows,)."""
        *inner, last = self._tensors[1:]
        for weight, bias in inner:
            hidden = functional.linear(hidden, weight, bias).relu_()
        return functional.linear(hidden, *last).view(-1)

    def _probe(self, n: int) -> torch.Tensor:
        """n rows of a first hidden layer."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand(n, self._tensors[0][0].shape[1], generator=generator).to(self.device)

    def dense(self, inputs: torch.Tensor) -> torch.Tensor:
        """The plain perceptron on dense features (N, n_features) -> (N,): the floor that speed is measured
        against.
        """
        for layer in self.layers[:-1]:
            inputs = functional.linear(
                inputs, torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
            ).relu_()
        return functional.linear(inputs, *(torch.from_numpy(part) for part in self.layers[-1])).view(-1)


# --- loading ------------------------------------------------------------------------------------------------

PUBLISHED = {MOBILENET_V3.name: "acc_predictor.pth", RESNET50D.name: "ofa_resnet50_acc_predictor.pth"}
TRAINED_ON = {
    MOBILENET_V3.name: MOBILENET_V3.name,
    RESNET50D.name: RESNET50D.name,
    PROXYLESS.name: MOBILENET_V3.name,
}
RELU = "relu"  # the ``activation`` that the metadata of a safetensors file states
_PROBED = 1022  # random architectures that a predictor is tried on when it is loaded


def load_predictor(predictor: str, space: Space) -> Predictor:
    """The predictor of a space: ``published``, ``embedded``, or the path of a checkpoint. Raises UserError.

    None is published for ProxylessNAS: its architectures are read by MobileNetV3's, and ``predictor_space``
    says so. A file is refused where it is no perceptron, where its activation is not known to be ReLU, and
    where its values are no accuracies."""
    trained_on = TRAINED_ON[space.name]
    if predictor == "published":
        path = assets.find(PUBLISHED[trained_on])
        return _from_file(f"published:{path.name}", path, space, trained_on)
    if predictor == "embedded":
        name = f"embedded_{trained_on}.safetensors"
        path = data(name)
        return _from_file(f"embedded:{name}", path, space, trained_on)
    return _from_file(Path(predictor).name, Path(predictor), space, None)


def _from_file(name: str, path: Path, space: Space, trained_on: str | None) -> Predictor:
    check_file(path, "a predictor checkpoint (.safetensors or .pth)")
    where = brief_path(path)
    state, header = _read(path)
    trained_on = header.get("space") or trained_on or TRAINED_ON[space.name]
    if trained_on not in SPACES:
        raise UserError(
            f"{where}: metadata 'space': expected one of {', '.join(SPACES)}, found {brief(trained_on)}"
        )
    layers = _layers(state, where)
    _check_activation(state, header, where)
    expected = encoding(space, SPACES[trained_on]).n_features
    if layers[0].weight.shape[1] != expected:
        found = layers[0].weight.shape[1]
        raise UserError(f"{where}: expected {expected} inputs (a predictor of {trained_on}), found {found}")
    _check_sums(layers, where)
    predictor = Predictor(name, assets.sha256_of(path), space, trained_on, _without_dead_units(layers))
    _check_range(predictor, where)
    return predictor


def _read(path: Path) -> tuple[Mapping[str, torch.Tensor], Mapping[str, str]]:
    """The tensors of a checkpoint and what its header says (a torch checkpoint has none)."""
    if path.suffix != ".safetensors":
        return read_torch(path, "a torch checkpoint of tensors"), {}
    return read_safetensors(path), read_header(path)


def in_order(key: str) -> list[Any]:
    """Sorts keys as layers follow each other, 2 before 10: a safetensors file holds its tensors by their
    precision.
    """
    parts = re.split(
        r"(\d+)", key
    )  # every second one is a number, which may have more digits than ``int`` reads
    return [(len(part.lstrip("0")), part.lstrip("0")) if i % 2 else part for i, part in enumerate(parts)]


def _layers(state: Mapping[str, torch.Tensor], where: str) -> list[Layer]:
    """The linear layers in order, as either of OFA's predictors names them; ``base_acc`` joins the last
    bias.
    """
    names = sorted((key.removesuffix(".weight") for key in state if key.endswith(".weight")), key=in_order)
    known = {"base_acc", *(f"{name}.{part}" for name in names for part in ("weight", "bias"))}
    for key, value in state.items():
        if key not in known:
            raise UserError(f"{where}: expected the weights and biases of linear layers, found {brief(key)}")
        if not value.is_floating_point():
            raise UserError(f"{where}: {brief(key)}: expected floating-point numbers, found {value.dtype}")
    layers: list[Layer] = []
    for name in names:
        weight = state[f"{name}.weight"].float().numpy()
        bias = (
            state[f"{name}.bias"].float().numpy()
            if f"{name}.bias" in state
            else np.zeros(weight.shape[:1], np.float32)
        )
        if weight.ndim != 2 or not weight.size or bias.shape != (len(weight),):
            shapes = f"{brief(weight.shape)} and {brief(bias.shape)}"
            raise UserError(f"{where}: {one_line(name, 120)}: expected a matrix and a bias, found {shapes}")
        if layers and weight.shape[1] != len(layers[-1].bias):
            raise UserError(
                f"{where}: {one_line(name, 120)}: expected {len(layers[-1].bias)} inputs, found "
                f"{weight.shape[1]}"
            )
        if not np.isfinite(weight).all() or not np.isfinite(bias).all():
            raise UserError(f"{where}: {one_line(name, 120)}: expected finite numbers, found NaN or infinity")
        layers.append(Layer(weight, bias))
    if len(layers) < 2 or len(layers[-1].bias) != 1:
        shapes = brief([tuple(value.shape) for value in state.values()])
        raise UserError(
            f"{where}: expected two or more linear layers that end in one output, found shapes {shapes}"
        )
    if "base_acc" in state:
        base = state["base_acc"].float().numpy()
        if base.size != 1 or not np.isfinite(base).all():
            raise UserError(
                f"{where}: base_acc: expected one finite number, found {brief(base.ravel()[:3].tolist())}"
            )
        weight, bias = layers[-1]
        layers[-1] = Layer(weight, bias + base.reshape(1))
    return layers


def _check_activation(state: Mapping[str, torch.Tensor], header: Mapping[str, str], where: str) -> None:
    """Raise UserError unless the layers are known to have ReLU between them.

    Tensors do not tell. They are known to where a header says so, where ``train-predictor`` or
    ``distill_predictor.py`` wrote the file before headers said so, and where names and shapes are those of
    one of OFA's two predictor classes."""
    activation = header.get("activation")
    if activation is not None and activation != RELU:
        raise UserError(f"{where}: metadata 'activation': expected {RELU}, found {brief(activation)}")
    ours = "space" in header and ("normalisation" in header or "distilled_from" in header)
    if activation is None and not ours and not _is_ofas(state):
        raise UserError(
            f"{where}: expected a predictor whose layers are known to have ReLU between them (safetensors "
            "with metadata "
            f"'activation': '{RELU}', or OFA's own layouts), found {brief(sorted(state))} without a word on "
            "it"
        )


def _is_ofas(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether names and shapes are those of ``ofa.tutorial``'s predictor, or of ``ofa.nas``'s with its
    encoder of ResNet50D.
    """
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    tutorial = [(128, 400), (400, 400), (400, 400), (400, 1)]
    if shapes == {
        key: shape
        for i, (ins, outs) in enumerate(tutorial)
        for key, shape in ((f"{2 * i}.weight", (outs, ins)), (f"{2 * i}.bias", (outs,)))
    }:
        return True
    n = (len(state) - 2) // 2  # hidden layers
    nas = {
        "base_acc",
        f"layers.{n}.weight",
        *(f"layers.{i}.0.{part}" for i in range(n) for part in ("weight", "bias")),
    }
    return set(state) == nas and n > 0 and shapes["layers.0.0.weight"][1:] == (82,)


def _check_sums(layers: Sequence[Layer], where: str) -> None:
    """Raise UserError unless a bound on all sums is within float32: then no architecture has a NaN or an
    infinite value.
    """
    bound = np.ones(layers[0].weight.shape[1])  # one-hot features
    with np.errstate(all="ignore"):
        for weight, bias in layers:
            bound = np.abs(weight.astype(np.float64)) @ bound + np.abs(bias.astype(np.float64))
            if not bound.max() < np.finfo(np.float32).max:
                raise UserError(
                    f"{where}: expected layers whose sums float32 can hold, found sums up to "
                    f"{bound.max():.1g}"
                )


def _check_range(predictor: Predictor, where: str) -> None:
    """Raise UserError unless the smallest, the largest and random architectures have accuracies from 0 to 1.

    A search ends with an error where it meets another value later.
    """
    space = predictor.space
    ends = torch.tensor([[0] * space.G, [size - 1 for size in space.sizes]], dtype=torch.int8)
    with one_thread(), torch.inference_mode():
        top1 = predictor(torch.cat([ends, space.random(_PROBED, 0)]))
    low, high = float(top1.min()), float(top1.max())
    if not 0 <= low <= high <= 1:
        raise UserError(
            f"{where}: expected a predictor of top-1 accuracies as fractions from 0 to 1, found {low:.4g} to "
            f"{high:.4g} on "
            f"{len(top1)} architectures of {space.name}"
        )


def _without_dead_units(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The same function with fewer hidden units.

    The published ResNet50D predictor was trained with weight decay until most of its weights vanished: 97 %
    of its largest layer are denormal numbers (below 1.2e-38). Weights below 1e-20 change nothing in float32
    beside a top-1 of about 0.8, but denormal products make a processor hundreds of times slower. They become
    zeros, and hidden units that nothing reads, or that can never be positive, go: 400-400-400 units become
    55-43-153."""
    tiny = 1e-20
    kept = [
        Layer(*(np.where(np.abs(part) < tiny, np.float32(0), part) for part in layer)) for layer in layers
    ]
    for i in range(len(kept) - 1):
        (weight, bias), (reader, reader_bias) = kept[i : i + 2]
        alive = (reader != 0).any(axis=0) & ((weight != 0).any(axis=1) | (bias > 0))
        alive[0] |= not alive.any()  # a layer keeps at least one unit
        kept[i : i + 2] = [Layer(weight[alive], bias[alive]), Layer(reader[:, alive], reader_bias)]
    return tuple(Layer(np.ascontiguousarray(weight), bias) for weight, bias in kept)
