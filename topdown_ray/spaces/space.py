"""Design spaces as data: genes, their choices, which genes are active, the codec to OFA's configurations, and
what else a space must provide.

An architecture is a row of small integers, ``genes: int8 (N, G)``; each is the *index* of a choice (kernel
3/5/7, expand 3/4/6, depth 2/3/4, resolution ...). OFA's dictionaries appear only at the border:
:meth:`Space.to_config` and :meth:`Space.from_config`. A gene of a block that its stage's depth switches off
is *inactive*: it changes neither cost nor accuracy, and the canonical form sets it to 0.

Sources: ``ofa.imagenet_classification.elastic_nn.networks`` (choices, widths, strides) and
``ofa.tutorial.evolution_finder``, ``ofa.nas.accuracy_predictor.arch_encoder`` (what mutates together, and how
often).

This module holds the types. Every space has a file of its own, and :mod:`topdown_ray.spaces.registry` finds
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
    """One searchable number: its key and position in OFA's configuration, its choices (ascending), and when
    it is active.
    """

    kind: str  # kernel, expand, depth, width, stem_depth, resolution
    key: str  # the key in OFA's configuration: ks, e, d, w, image_size
    position: int  # the index in that key's list
    choices: tuple[float, ...]
    stage: int = -1  # the stage it belongs to, -1: the whole network
    depth_gene: int = -1  # active if genes[depth_gene] >= minimum_depth; -1: always active
    minimum_depth: int = 0  # an index into the depth gene's choices


@dataclass(frozen=True)
class MutationGroup:
    """Genes that are redrawn together, with one probability (None: the search's ``mutate_prob``)."""

    genes: tuple[int, ...]
    probability: float | None = None


@dataclass(frozen=True)
class Block:
    """A searchable block of the supernet: its place and the genes that shape it."""

    stage: int
    position: int  # within its stage
    stride: int
    depth: int  # the index of its stage's depth gene, -1: the block is always there
    expand: int
    kernel: int = -1


# --- the parts of a space in addition to its genes ----------------------------------------------------------


class Encoding(NamedTuple):
    """A one-hot encoding: choice c of gene g is feature ``first[g] + c`` while the gene is active; -1: not
    encoded.
    """

    n_features: int
    first: tuple[int, ...]


@dataclass(frozen=True)
class Published:
    """The files that OFA's authors published for a space: paths of :data:`topdown_ray.assets.ASSETS`."""

    weights: str | None = None  # of the supernet
    predictor: str | None = None
    # whether tensors of these names and shapes are a predictor of the published class, of any size
    is_predictor: Callable[[Mapping[str, tuple[int, ...]]], bool] | None = None
    predictor_range: tuple[float, float] | None = None  # its top-1 of random architectures
    tables: Mapping[str, Mapping[int, str]] = field(default_factory=dict)  # name -> resolution -> file


@dataclass(frozen=True)
class Reference:
    """How OFA's own classes read an architecture: the oracle of ``verify``.

    Nothing here uses the encoding, the terms or the genes of the space, which it is there to check. ``ofa``
    is the imported package; a network is OFA's supernet."""

    network: str  # a name of ``ofa.model_zoo.ofa_net``
    macs_model: str  # a class of ``ofa.nas.efficiency_predictor``
    genes: Callable[[Any, Config], list[int]]  # (network, config)
    # (ofa, state dict) -> the published predictor: configurations -> top-1 (N,)
    predictor: Callable[[Any, Mapping[str, torch.Tensor]], Callable[[list[Config]], torch.Tensor]]
    features: Callable[[Any, Config, int], torch.Tensor]  # (ofa, config, number of features) -> (features,)
    # (ofa, resolution -> table of the published form, config -> OFA's description) -> (config -> ms)
    latency: (
        Callable[
            [Any, Mapping[int, Mapping[str, Any]], Callable[[Config], Config]], Callable[[Config], float]
        ]
        | None
    ) = None


@dataclass(frozen=True)
class Demo:
    """What the demo searches for: targets under MACs, or under a published table where that is to be had."""

    macs: tuple[float, ...]  # in 1e6
    table: str = ""
    table_name: str = ""  # in words
    table_targets: tuple[float, ...] = ()  # ms


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
        """Terms whose sum is ``of_layer`` summed over all layers of an architecture; with ``joined=max``,
        terms whose maximum is its maximum.
        """


@dataclass(frozen=True)
class Traits:
    """All that is special to one space beside its genes. Functions are of a module's top level, so that a
    space can be pickled.
    """

    title: str  # the space's name in print
    layer_terms: LayerTerms  # their sum is ``of_layer`` summed over all layers
    # of (space, width relative to the published network, classes): single multiply-accumulates
    mac_terms: Callable[[Space, float, int], list[Term]]
    # of (space, the predictor's space); spaces with the same function read each other's predictors
    encoding: Callable[[Space, Space], Encoding]
    predictor_space: str  # the space of the predictors that read it, unless a file names another
    # of (OFA's networks, width relative to the published network, classes): the supernet
    build: Callable[[Any, float, int], Any]
    reference: Reference
    published: Published = Published()
    # of (space, genes of one architecture): its layers as OFA's ``module_str`` prints them; None: ask OFA
    layer_names: Callable[[Space, Sequence[int]], list[str]] | None = None
    # a layer's entry in a table of OFA's published form, "" for what another entry includes; None: OFA has no
    # such form for this space
    table_entry: Callable[[Layer], str] | None = None
    demo: Demo | None = None
    # the top-1 of random architectures by the predictor that comes with the package
    embedded_range: tuple[float, float] | None = None
    notebook: bool = False  # whether ``protocol: notebook`` searches this space, under every name


@dataclass(frozen=True, eq=False)
class Space:
    """A design space, compared and hashed as an object.

    ``network`` is OFA's own name of the supernet; ``widths`` its stages' output channels. A search needs no
    more than this; ``provides`` is what costs, predictors, networks and ``verify`` need."""

    name: str
    network: str
    genes: tuple[Gene, ...]
    blocks: tuple[Block, ...]
    widths: tuple[tuple[int, ...], ...]  # per stage, ascending; one entry where the width is not searched
    # the kinds that top-down pruning walks, each a tuple of gene kinds
    prune_kinds: tuple[tuple[str, ...], ...]
    mutation_groups: tuple[MutationGroup, ...]
    fixed: tuple[tuple[str, tuple[int, ...]], ...] = ()  # constants that OFA's lists need at their end
    provides: Traits | None = None

    @property
    def traits(self) -> Traits:
        """What the space provides. Raises UserError for one that provides nothing but genes."""
        if self.provides is None:
            raise UserError(f"{self.name}: expected a space with traits, found one that has genes only")
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
        """Feature-map sizes (in, out) of every block, from the size in front of the first."""
        sizes = []
        for block in self.blocks:
            sizes.append((size, strided(size, block.stride)))
            size = sizes[-1][1]
        return sizes

    def distinct_layers(self) -> tuple[Layer, ...]:
        """Every layer that some subnet of the space has, each once, in a fixed order."""
        seen: set[Layer] = set()

        def see(layer: Layer, resolution: int) -> float:
            seen.add(layer)
            return 0.0

        self.traits.layer_terms(self, see)
        return tuple(sorted(seen))

    def indices(self, *kinds: str) -> tuple[int, ...]:
        """The indices of all genes of these kinds, in order."""
        return tuple(g for g, gene in enumerate(self.genes) if gene.kind in kinds)

    def block_genes(self) -> list[tuple[tuple[int, ...], int]]:
        """For each block the genes that shape it, and the depth gene that switches it off (-1: it is always
        there).
        """
        own = [tuple(g for g in (block.kernel, block.expand) if g >= 0) for block in self.blocks]
        return [(genes, self.genes[genes[0]].depth_gene) for genes in own]

    def genes_outside_blocks(self) -> list[int]:
        """All other genes: depths, widths, resolution."""
        inside = {g for genes, _ in self.block_genes() for g in genes}
        return [g for g in range(self.G) if g not in inside]

    def active(self, genes: torch.Tensor) -> torch.Tensor:
        """Which genes take part: genes (N, G) -> bool (N, G)."""
        import torch

        self.check(genes)
        controller = torch.tensor([max(gene.depth_gene, 0) for gene in self.genes], device=genes.device)
        threshold = torch.tensor([gene.minimum_depth for gene in self.genes], device=genes.device)
        return genes.index_select(1, controller) >= threshold

    def canonical(self, genes: torch.Tensor) -> torch.Tensor:
        """The canonical form, inactive genes set to 0: genes (N, G) -> genes (N, G)."""
        return genes * self.active(genes)

    def check(self, genes: torch.Tensor) -> None:
        """Raise ValueError unless genes is an int8 tensor of shape (N, G)."""
        import torch

        if genes.dtype != torch.int8 or genes.ndim != 2 or genes.shape[1] != self.G:
            raise ValueError(f"genes: expected (N, {self.G}) int8, got {tuple(genes.shape)} {genes.dtype}")

    def random(self, n: int, seed: int) -> torch.Tensor:
        """n uniformly drawn architectures, genes (n, G), for tests and for fitting (searches have their own
        generator).
        """
        import torch

        draws = np.random.default_rng(seed).integers(0, self.sizes, size=(n, self.G))
        return torch.from_numpy(draws.astype(np.int8))

    def to_config(self, genes: Sequence[int] | Genes | torch.Tensor) -> Config:
        """One architecture (G,) in OFA's form: ``{"ks": [...], "e": [...], "d": [...], "image_size": r}`` (or
        d, e, w).
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
        """The architectures (N, G) in OFA's form as JSON, as ``json.dumps`` writes what :meth:`to_config`
        gives.
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
        """The genes (G,) of an OFA configuration; raises UserError that names the entry which does not belong
        to the space.
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
        """The configuration that a JSON text holds, in the form of :meth:`to_config`. where: begins the
        message of the UserError.
        """
        if not isinstance(text, str | bytes):
            raise UserError(f"{where}: expected JSON, found {brief(text)}")
        try:
            return self.to_config(self.from_config(parse_json(text, "architecture")))
        except UserError as error:
            raise UserError(f"{where}{str(error).removeprefix('architecture')}") from error


def _same_number(found: Any, choice: float) -> bool:
    """Whether a value from outside is this number; True and False, which Python takes for 1 and 0, are
    none.
    """
    return isinstance(found, int | float) and not isinstance(found, bool) and found == choice
