"""Represent design spaces as data: genes, their choices, which genes are active, the conversion to OFA's
configurations, and everything else that a space must provide.

An architecture is a row of small integers, ``genes: int8 (N, G)``. Each of them is the *index* of a choice
(kernel 3/5/7, expand 3/4/6, depth 2/3/4, resolution ...). OFA's dictionaries appear only at the border, in
:meth:`Space.to_config` and :meth:`Space.from_config`. A gene is *inactive* if the depth of its stage switches
its block off. It then changes neither cost nor accuracy, and the canonical form sets it to 0.

Sources: ``ofa.imagenet_classification.elastic_nn.networks`` (choices, widths, strides), and
``ofa.tutorial.evolution_finder`` and ``ofa.nas.accuracy_predictor.arch_encoder`` (which genes mutate
together, and how often).

This module holds the types. Each space has a file of its own, and :mod:`topdown_ray.spaces.registry` finds
them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from topdown_ray.errors import UserError, brief
from topdown_ray.files import parse_json
from topdown_ray.spaces.layers import N_CLASSES, Joined, Layer, OfLayer, strided
from topdown_ray.spaces.terms import Term

if TYPE_CHECKING:
    import torch

Genes = npt.NDArray[np.int8]
Config = dict[str, Any]


@dataclass(frozen=True)
class Gene:
    """One searchable number of an architecture."""

    kind: str
    """Property that the gene decides: `kernel`, `expand`, `depth`, `width`, `stem_depth` or `resolution`."""
    key: str
    """Key in OFA's configuration: `ks`, `e`, `d`, `w` or `image_size`."""
    position: int
    """Index in the list of that key."""
    choices: tuple[float, ...]
    """The possible values, ascending."""
    stage: int = -1
    """Stage that the gene belongs to; -1 for the whole network."""
    depth_gene: int = -1
    """Index of the gene that can switch this one off: it is active if `genes[depth_gene] >= minimum_depth`.
    -1 if it is always active."""
    minimum_depth: int = 0
    """Smallest index into the choices of `depth_gene` at which the gene is active."""


@dataclass(frozen=True)
class MutationGroup:
    """Genes that a mutation redraws together."""

    genes: tuple[int, ...]
    """Indices of the genes."""
    probability: float | None = None
    """Probability with which a mutation redraws them. None stands for the search's `mutate_prob`."""


@dataclass(frozen=True)
class Block:
    """A searchable block of the supernet: its place, and the genes that shape it."""

    stage: int
    """Index of its stage."""
    position: int
    """Index of the block within its stage."""
    stride: int
    """Stride of the block."""
    depth: int
    """Index of the depth gene of its stage; -1 if the block is never switched off."""
    expand: int
    """Index of its expand gene; -1 if it has none."""
    kernel: int = -1
    """Index of its kernel gene; -1 if it has none."""


# --- what a space provides in addition to its genes ---------------------------------------------------------


class Encoding(NamedTuple):
    """A one-hot encoding of architectures."""

    n_features: int
    """Number of features."""
    first: tuple[int, ...]
    """First feature of each gene: choice c of gene g is feature `first[g] + c` while the gene is active. -1
    for a gene that is not encoded.
    """


@dataclass(frozen=True)
class Published:
    """The files that OFA's authors published for a space: paths of `topdown_ray.assets.ASSETS`."""

    weights: str | None = None
    """Weights of the supernet."""
    predictor: str | None = None
    """The accuracy predictor."""
    is_predictor: Callable[[Mapping[str, tuple[int, ...]]], bool] | None = None
    """A function that says whether tensors with these names and shapes are a predictor of the published
    class, of any size.
    """
    predictor_range: tuple[float, float] | None = None
    """The predictor's top-1 accuracies of random architectures, lowest and highest."""
    tables: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Latency tables: for each name, the file of each resolution."""


@dataclass(frozen=True)
class Reference:
    """How OFA's own classes read an architecture, which ``verify`` compares with the tables.

    Nothing here uses the encoding, the terms or the genes of the space, because it checks them. In the
    signatures, ``ofa`` is the imported package, and a network is OFA's supernet."""

    network: str
    """A name of `ofa.model_zoo.ofa_net`."""
    macs_model: str
    """A class of `ofa.nas.efficiency_predictor`."""
    genes: Callable[[Any, Config], list[int]]
    """Genes of a configuration: (network, configuration) -> choice indices."""
    predictor: Callable[[Any, Mapping[str, torch.Tensor]], Callable[[list[Config]], torch.Tensor]]
    """The published predictor: (ofa, state dict) -> a function from configurations to top-1 (N,)."""
    features: Callable[[Any, Config, int], torch.Tensor]
    """Features of a configuration: (ofa, configuration, number of features) -> (features,)."""
    latency: (
        Callable[
            [Any, Mapping[int, Mapping[str, Any]], Callable[[Config], Config]], Callable[[Config], float]
        ]
        | None
    ) = None
    """Latency by a table of the published form: (ofa, a table for each resolution, a function from a
    configuration to OFA's description) -> a function from a configuration to ms."""


@dataclass(frozen=True)
class Demo:
    """The targets of the demo: under a published table if it is available, and under MACs otherwise."""

    macs: tuple[float, ...]
    """Targets in 1e6 MACs."""
    table: str = ""
    """Name of the table."""
    table_name: str = ""
    """Name of the table in print."""
    table_targets: tuple[float, ...] = ()
    """Targets in ms."""


class LayerTerms(Protocol):
    """Makes terms over the layers of a supernet: ``width`` is relative to the published network."""

    def __call__(
        self,
        space: Space,
        of_layer: OfLayer,
        width: float = 1.0,
        n_classes: int = N_CLASSES,
        joined: Joined = sum,
    ) -> list[Term]:
        """Return terms whose sum is ``of_layer`` summed over all layers of an architecture. With
        ``joined=max``, their maximum is its maximum over the layers.
        """


@dataclass(frozen=True)
class Traits:
    """Everything that costs, predictors, networks and ``verify`` need to know about a space besides its
    genes.

    Use functions from the top level of a module, so that the space can be pickled."""

    title: str
    """Name of the space in print."""
    layer_terms: LayerTerms
    """A function that returns terms over the layers of the supernet."""
    mac_terms: Callable[[Space, float, int], list[Term]]
    """A function that returns terms in single multiply-accumulates: (space, width relative to the published
    network, number of classes) -> terms."""
    encoding: Callable[[Space, Space], Encoding]
    """The one-hot encoding: (space, the predictor's space) -> encoding. Spaces with the same function can
    read each other's predictors.
    """
    predictor_space: str
    """Space of the predictors that read this space, unless a file names another one."""
    build: Callable[[Any, float, int], Any]
    """A function that builds the supernet: (OFA's networks, width relative to the published network, number
    of classes) -> network.
    """
    reference: Reference
    """How OFA's own classes read an architecture."""
    published: Published = Published()
    """The published files of the space."""
    layer_names: Callable[[Space, Sequence[int]], list[str]] | None = None
    """A function that names the layers of an architecture as OFA's `module_str` prints them: (space, genes)
    -> lines. Without it, OFA builds the network to name them.
    """
    table_entry: Callable[[Layer], str] | None = None
    """A function that returns the entry of a layer in a table of OFA's published form, and "" for a layer
    that another entry includes. Without it, the space has no such form.
    """
    demo: Demo | None = None
    """Targets of the demo. Without them, the demo leaves the space out."""
    embedded_range: tuple[float, float] | None = None
    """Top-1 accuracies of random architectures by the embedded predictor, lowest and highest."""
    notebook: bool = False
    """Whether `protocol: notebook` searches this space under every name."""


@dataclass(frozen=True, eq=False)
class Space:
    """A design space. A search needs only the genes; `provides` holds the facts that everything else needs.

    Two spaces are equal only if they are the same object. Letters in shapes: N architectures, G genes."""

    name: str
    """Name of the space in sweeps and tables."""
    network: str
    """OFA's name of the supernet."""
    genes: tuple[Gene, ...]
    """The genes, in the order of a row of genes."""
    blocks: tuple[Block, ...]
    """The searchable blocks."""
    widths: tuple[tuple[int, ...], ...]
    """Output channels of each stage, ascending; one number for a stage whose width is not searched."""
    prune_kinds: tuple[tuple[str, ...], ...]
    """The groups of gene kinds among which each step of pruning picks at random. Within a group, pruning
    lowers one gene after another. The resolution follows at the end.
    """
    mutation_groups: tuple[MutationGroup, ...]
    """The groups of genes that a mutation redraws."""
    fixed: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Constants that OFA's lists need at their end: keys with their numbers."""
    provides: Traits | None = None
    """Facts that costs, predictors, networks and `verify` need. None for a space that has only genes."""

    @property
    def traits(self) -> Traits:
        """The same as `provides`. Raises UserError for a space that has only genes."""
        if self.provides is None:
            raise UserError(f"{self.name}: provides: expected the traits of the space, found None")
        return self.provides

    @property
    def G(self) -> int:
        """The number of genes."""
        return len(self.genes)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of choices of each gene."""
        return tuple(len(gene.choices) for gene in self.genes)

    @cached_property
    def resolution(self) -> int:
        """The index of the resolution gene."""
        return next(g for g, gene in enumerate(self.genes) if gene.kind == "resolution")

    @property
    def resolutions(self) -> list[int]:
        """The input sizes, in pixels."""
        return [int(size) for size in self.genes[self.resolution].choices]

    def block_sizes(self, size: int) -> list[tuple[int, int]]:
        """Return the sizes (in, out) of the feature maps of each block, in pixels.

        Args:
            size: The size before the first block.
        """
        sizes = []
        for block in self.blocks:
            sizes.append((size, strided(size, block.stride)))
            size = sizes[-1][1]
        return sizes

    def distinct_layers(self) -> tuple[Layer, ...]:
        """Return each layer that some subnet of the space has, once and in a fixed order."""
        seen: set[Layer] = set()

        def see(layer: Layer, resolution: int) -> float:
            seen.add(layer)
            return 0.0

        self.traits.layer_terms(self, see)
        return tuple(sorted(seen))

    def indices(self, *kinds: str) -> tuple[int, ...]:
        """Return the indices of all genes of these kinds, in order."""
        return tuple(g for g, gene in enumerate(self.genes) if gene.kind in kinds)

    def block_genes(self) -> list[tuple[tuple[int, ...], int]]:
        """Return the genes that shape each block, and the depth gene that switches it off (-1 for none)."""
        own = [tuple(g for g in (block.kernel, block.expand) if g >= 0) for block in self.blocks]
        return [(genes, self.genes[genes[0]].depth_gene) for genes in own]

    def genes_outside_blocks(self) -> list[int]:
        """Return the indices of all other genes: depths, widths and resolution."""
        inside = {g for genes, _ in self.block_genes() for g in genes}
        return [g for g in range(self.G) if g not in inside]

    def active(self, genes: torch.Tensor) -> torch.Tensor:
        """Return which genes are active.

        Args:
            genes: Architectures, int8 (N, G).

        Returns:
            A tensor, bool (N, G).

        Raises:
            ValueError: The genes have another type or shape.
        """
        import torch

        self.check(genes)
        controller = torch.tensor([max(gene.depth_gene, 0) for gene in self.genes], device=genes.device)
        threshold = torch.tensor([gene.minimum_depth for gene in self.genes], device=genes.device)
        return genes.index_select(1, controller) >= threshold

    def canonical(self, genes: torch.Tensor) -> torch.Tensor:
        """Return architectures in canonical form, in which inactive genes are 0.

        Args:
            genes: Architectures, int8 (N, G).

        Returns:
            A tensor, int8 (N, G).

        Raises:
            ValueError: The genes have another type or shape.
        """
        return genes * self.active(genes)

    def check(self, genes: torch.Tensor) -> None:
        """Raise ValueError unless genes is an int8 tensor of shape (N, G)."""
        import torch

        if genes.dtype != torch.int8 or genes.ndim != 2 or genes.shape[1] != self.G:
            raise ValueError(f"genes: expected (N, {self.G}) int8, got {tuple(genes.shape)} {genes.dtype}")

    def random(self, n: int, seed: int) -> torch.Tensor:
        """Draw architectures uniformly, for example to fit a predictor. Searches use random numbers of
        their own.

        Args:
            n: The number of architectures.
            seed: The seed of the draw.

        Returns:
            A tensor of genes, int8 (n, G), not in canonical form.
        """
        import torch

        draws = np.random.default_rng(seed).integers(0, self.sizes, size=(n, self.G))
        return torch.from_numpy(draws.astype(np.int8))

    def to_config(self, genes: Sequence[int] | Genes | torch.Tensor) -> Config:
        """Return OFA's configuration of one architecture.

        Args:
            genes: The choice indices (G,).

        Returns:
            `{"ks": [...], "e": [...], "d": [...], "image_size": r}`, or with the keys of another space.
        """
        config: Config = {}
        for gene, index in zip(self.genes, genes, strict=True):
            choice = gene.choices[int(index)]
            if gene.key == "image_size":
                config["image_size"] = choice
            else:
                config.setdefault(gene.key, []).append(choice)
        for key, values in self.fixed:
            config[key] = config[key] + list(values)
        return config

    def texts(self, genes: Genes) -> list[str]:
        """Return the configurations of architectures (N, G) as JSON, as ``json.dumps`` writes the result of
        :meth:`to_config`.
        """
        pattern = self.to_config(np.zeros(self.G, np.int8))
        order: list[int] = []
        for key in pattern:
            places = [g for g, gene in enumerate(self.genes) if gene.key == key]
            order += places
            fixed = pattern[key][len(places) :] if key != "image_size" else []
            pattern[key] = ["%s"] * len(places) + list(fixed) if key != "image_size" else "%s"
        template = json.dumps(pattern).replace('"%s"', "%s")
        columns = []
        for g in order:
            choices = np.array([json.dumps(choice) for choice in self.genes[g].choices], dtype=object)
            columns.append(choices[genes[:, g]])
        return [template % values for values in zip(*columns, strict=True)]

    def from_config(self, config: Mapping[str, Any]) -> Genes:
        """Return the genes of one of OFA's configurations.

        Args:
            config: The configuration, as `to_config` returns it.

        Returns:
            The choice indices, int8 (G,).

        Raises:
            UserError: An entry does not belong to the space; the message names it.
        """
        expected = {gene.key for gene in self.genes}
        if not isinstance(config, Mapping):
            raise UserError(
                f"architecture: expected an object with the keys {sorted(expected)}, found {brief(config)}"
            )
        if set(config) != expected:
            found = brief(sorted(map(str, config)), 300)
            raise UserError(
                f"architecture: expected the keys {sorted(expected)} of {self.name}, found {found}"
            )
        fixed = dict(self.fixed)
        for key in sorted(expected - {"image_size"}):
            length = sum(gene.key == key for gene in self.genes) + len(fixed.get(key, ()))
            if not isinstance(config[key], list | tuple) or len(config[key]) != length:
                raise UserError(
                    f"architecture: {key}: expected a list of {length} numbers, found {brief(config[key])}"
                )
            for constant, found in zip(
                fixed.get(key, ()), config[key][length - len(fixed.get(key, ())) :], strict=True
            ):
                if not _same_number(found, constant):
                    raise UserError(
                        f"architecture: {key}[{length - 1}]: expected {constant}, found {brief(found)}"
                    )
        row = []
        for gene in self.genes:
            found = config["image_size"] if gene.key == "image_size" else config[gene.key][gene.position]
            index = next((i for i, choice in enumerate(gene.choices) if _same_number(found, choice)), None)
            if index is None:
                where = gene.key if gene.key == "image_size" else f"{gene.key}[{gene.position}]"
                raise UserError(
                    f"architecture: {where}: expected one of {list(gene.choices)}, found {brief(found)}"
                )
            row.append(index)
        return np.asarray(row, dtype=np.int8)

    def parse(self, text: Any, where: str = "architecture") -> Config:
        """Return the configuration in a JSON text, in the form of `to_config`.

        Args:
            text: The JSON text.
            where: What the message of an error begins with.

        Raises:
            UserError: The text is not JSON, or not an architecture of the space.
        """
        if not isinstance(text, str | bytes):
            raise UserError(f"{where}: expected JSON, found {brief(text)}")
        try:
            return self.to_config(self.from_config(parse_json(text, "architecture")))
        except UserError as error:
            raise UserError(f"{where}{str(error).removeprefix('architecture')}") from error


def _same_number(found: Any, choice: float) -> bool:
    """Return whether a foreign value is this number. True and False, which equal 1 and 0 in Python, are
    not.
    """
    return isinstance(found, int | float) and not isinstance(found, bool) and found == choice
