"""Design spaces as data: genes, their choices, which genes are active, and the codec to OFA's configurations.

An architecture is a row of small integers, ``genes: int8 (N, G)``; each is the *index* of a choice (kernel
3/5/7, expand 3/4/6, depth 2/3/4, resolution ...). OFA's dictionaries appear only at the border:
:meth:`Space.to_config` and :meth:`Space.from_config`. A gene of a block that its stage's depth switches off
is *inactive*: it changes neither cost nor accuracy, and the canonical form sets it to 0.

Sources: ``ofa.imagenet_classification.elastic_nn.networks`` (choices, widths, strides) and
``ofa.tutorial.evolution_finder``, ``ofa.nas.accuracy_predictor.arch_encoder`` (what mutates together, and how
often). Adding a space means adding a value to :data:`SPACES`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from topdown_ray.errors import UserError, brief
from topdown_ray.files import parse_json

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


@dataclass(frozen=True, eq=False)
class Space:
    """A design space, compared and hashed as an object.

    ``network`` is OFA's own name of the supernet; ``widths`` its stages' output channels."""

    name: str
    network: str
    genes: tuple[Gene, ...]
    blocks: tuple[Block, ...]
    widths: tuple[tuple[int, ...], ...]  # per stage, ascending; one entry where the width is not searched
    prune_kinds: tuple[
        tuple[str, ...], ...
    ]  # the kinds that top-down pruning walks, each a tuple of gene kinds
    mutation_groups: tuple[MutationGroup, ...]
    fixed: tuple[tuple[str, tuple[int, ...]], ...] = ()  # constants that OFA's lists need at their end

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
        self.check(genes)
        controller = torch.tensor([max(gene.depth_gene, 0) for gene in self.genes], device=genes.device)
        threshold = torch.tensor([gene.minimum_depth for gene in self.genes], device=genes.device)
        return genes.index_select(1, controller) >= threshold

    def canonical(self, genes: torch.Tensor) -> torch.Tensor:
        """The canonical form, inactive genes set to 0: genes (N, G) -> genes (N, G)."""
        return genes * self.active(genes)

    def check(self, genes: torch.Tensor) -> None:
        """Raise ValueError unless genes is an int8 tensor of shape (N, G)."""
        if genes.dtype != torch.int8 or genes.ndim != 2 or genes.shape[1] != self.G:
            raise ValueError(f"genes: expected (N, {self.G}) int8, got {tuple(genes.shape)} {genes.dtype}")

    def random(self, n: int, seed: int) -> torch.Tensor:
        """n uniformly drawn architectures, genes (n, G), for tests and for fitting (searches have their own
        generator).
        """
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


def make_divisible(channels: float, divisor: int = 8) -> int:
    """OFA's channel rounding (``ofa.utils.make_divisible``): to a multiple of 8 that is not below nine
    tenths.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _mobile(
    name: str,
    network: str,
    widths: Sequence[int],
    strides: Sequence[int],
    resolutions: Sequence[int],
    single_block_stages: int,
) -> Space:
    """The MobileNet family: stages of 2 to 4 inverted-bottleneck blocks, then stages of exactly one block."""
    kernels, expands, depths = (3, 5, 7), (3, 4, 6), (2, 3, 4)
    stages = len(widths) - single_block_stages
    places = [(stage, position) for stage in range(stages) for position in range(max(depths))]
    places += [(stage, 0) for stage in range(stages, len(widths))]
    n = len(places)

    def of_block(kind: str, key: str, choices: tuple[float, ...]) -> list[Gene]:
        return [
            Gene(
                kind,
                key,
                i,
                choices,
                stage,
                2 * n + stage if position >= min(depths) else -1,
                max(0, position - 1),
            )
            for i, (stage, position) in enumerate(places)
        ]

    genes = [
        *of_block("kernel", "ks", kernels),
        *of_block("expand", "e", expands),
        *(Gene("depth", "d", stage, depths, stage) for stage in range(stages)),
        Gene("resolution", "image_size", 0, tuple(resolutions)),
    ]
    blocks = [
        Block(
            stage,
            position,
            strides[stage] if position == 0 else 1,
            2 * n + stage if stage < stages else -1,
            n + i,
            i,
        )
        for i, (stage, position) in enumerate(places)
    ]
    groups = [MutationGroup((len(genes) - 1,))]
    groups += [MutationGroup((i, n + i)) for i in range(n)]
    groups += [MutationGroup((2 * n + stage,)) for stage in range(stages)]
    return Space(
        name=name,
        network=network,
        genes=tuple(genes),
        blocks=tuple(blocks),
        widths=tuple((width,) for width in widths),
        prune_kinds=(("kernel",), ("depth",), ("expand",)),
        mutation_groups=tuple(groups),
        fixed=(("d", (1,) * single_block_stages),) if single_block_stages else (),
    )


def _resnet50d() -> Space:
    """ResNet50D: stem, then four stages of bottleneck blocks with searched widths (``OFAResNets``)."""
    base_depths, depths, expands, width_ratios = (2, 2, 4, 2), (0, 1, 2), (0.2, 0.25, 0.35), (0.65, 0.8, 1.0)
    resolutions = (128, 144, 160, 176, 192, 224, 240, 256)
    places = [
        (stage, position) for stage, base in enumerate(base_depths) for position in range(base + max(depths))
    ]
    genes = [Gene("stem_depth", "d", 0, (0, 2))]
    genes += [Gene("depth", "d", 1 + stage, depths, stage) for stage in range(len(base_depths))]
    for i, (stage, position) in enumerate(places):
        minimum = max(0, position - base_depths[stage] + 1)
        genes.append(Gene("expand", "e", i, expands, stage, 1 + stage if minimum else -1, minimum))
    genes += [Gene("width", "w", i, (0, 1, 2), i - 2) for i in range(len(base_depths) + 2)]
    genes.append(Gene("resolution", "image_size", 0, resolutions))
    blocks = [
        Block(stage, position, 2 if position == 0 and stage > 0 else 1, 1 + stage, 1 + len(base_depths) + i)
        for i, (stage, position) in enumerate(places)
    ]
    resolution = len(genes) - 1
    stem = tuple(make_divisible(64 * ratio) for ratio in width_ratios)
    return Space(
        name="resnet50d",
        network="ofa_resnet50",
        genes=tuple(genes),
        blocks=tuple(blocks),
        widths=(
            tuple(make_divisible(width // 2) for width in stem),
            stem,
            *(
                tuple(make_divisible(width * ratio) for ratio in width_ratios)
                for width in (256, 512, 1024, 2048)
            ),
        ),
        prune_kinds=(("width",), ("stem_depth", "depth"), ("expand",)),
        mutation_groups=(
            MutationGroup((resolution,), 0.5),
            *(MutationGroup((g,)) for g in range(resolution)),
        ),
    )


_MOBILE_RESOLUTIONS = (160, 176, 192, 208, 224)

MOBILENET_V3 = _mobile(
    "mobilenet_v3",
    "ofa_mbv3_d234_e346_k357_w1.2",
    (32, 48, 96, 136, 192),
    (2, 2, 2, 1, 2),
    _MOBILE_RESOLUTIONS,
    0,
)
PROXYLESS = _mobile(
    "proxyless",
    "ofa_proxyless_d234_e346_k357_w1.3",
    tuple(make_divisible(width * 1.3) for width in (24, 40, 80, 96, 192, 320)),
    (2, 2, 2, 1, 2, 1),
    _MOBILE_RESOLUTIONS,
    1,
)
RESNET50D = _resnet50d()

SPACES: dict[str, Space] = {space.name: space for space in (MOBILENET_V3, RESNET50D, PROXYLESS)}


def find_space(name: str) -> Space:
    """The space of this name. Raises UserError."""
    if name not in SPACES:
        raise UserError(f"--space: expected one of {', '.join(SPACES)}, found {name!r}")
    return SPACES[name]
