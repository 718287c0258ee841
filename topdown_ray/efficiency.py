"""Costs of architectures: genes (N, G) -> cost float64 (N,), in ms (latency tables) or 1e6 MACs.

A cost is a sum over terms in whole ticks (2^-30 ms, or single MACs) held in float64: every partial sum is exact, so a cost does
not depend on the order of summation, the batch or the device. Sources: the arithmetic of ``ofa.tutorial.LatencyTable`` for
Note10, and ``ofa.nas.efficiency_predictor``'s FLOPs models for MACs (MobileNetV3's count the squeeze-and-excite layers).
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from topdown_ray import assets, compiled
from topdown_ray.errors import UserError
from topdown_ray.spaces import MOBILENET_V3, PROXYLESS, RESNET50D, Block, Genes, Space, make_divisible
from topdown_ray.terms import Term, TermIndex, concatenate, flatten, minimise, tabulate

MS_TICK = 2.0**-30
MACS_TICK = 1e-6
N_CLASSES = 1000


@dataclass(frozen=True, eq=False)
class CostModel:
    """A cost table of one space. Calling it: genes int8 (N, G) -> cost float64 (N,) in ``unit``."""

    name: str
    unit: str  # "ms" or "1e6 MACs"
    sha256: str
    space: str
    tick: float
    terms: tuple[Term, ...]  # in whole ticks
    sizes: tuple[int, ...]  # choices of each gene
    device: str = "cpu"
    _index: TermIndex = field(init=False, repr=False)
    _table: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        device = torch.device(self.device)
        object.__setattr__(self, "_index", TermIndex(self.terms, len(self.sizes)).to(device))
        object.__setattr__(self, "_table", torch.from_numpy(concatenate(self.terms)).to(device))

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        places = self._index(genes)  # (N, T)
        return self._table.index_select(0, places.view(-1)).view(places.shape).sum(1).mul_(self.tick)

    @functools.cached_property
    def compiled(self) -> compiled.Cost:
        """The same sum for compiled code."""
        return compiled.Cost(flatten(self.terms), concatenate(self.terms), self.tick)

    def cheapest(self) -> tuple[float, Genes]:
        """The lowest cost of any architecture of the space, and its genes (G,); exact."""
        ticks, genes = minimise(self.terms, self.sizes)
        return ticks * self.tick, genes


# --- the MobileNet family ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MobileBlock:
    """An inverted-bottleneck block as it runs: feature-map sizes (pixels), channels, and its own choices."""

    block: Block
    resolution: int
    size_in: int
    size_out: int
    width_in: int
    width_out: int
    kernel: int
    expand: int


@dataclass(frozen=True)
class MobileFrame:
    """What surrounds the searched blocks of a MobileNet-family supernet (channels)."""

    first_conv: int
    first_block: int
    final: tuple[int, ...]  # 1x1 layers behind the last block
    pool_after: int  # how many of ``final`` run before the global pooling
    squeeze: tuple[bool, ...]  # per stage
    h_swish: tuple[bool, ...]  # per stage


_MOBILENET_V3_FRAME = MobileFrame(
    first_conv=24,
    first_block=24,
    final=(1152, 1536),
    pool_after=1,
    squeeze=(False, True, False, True, True),
    h_swish=(False, False, True, True, True),
)
_PROXYLESS_FRAME = MobileFrame(
    first_conv=40, first_block=24, final=(1664,), pool_after=1, squeeze=(False,) * 6, h_swish=(False,) * 6
)


def _strided(size: int, stride: int) -> int:
    return (size - 1) // stride + 1


def _sizes(space: Space, size: int) -> list[tuple[int, int]]:
    """Feature-map sizes (in, out) of every block, from the size in front of the first."""
    sizes = []
    for block in space.blocks:
        sizes.append((size, _strided(size, block.stride)))
        size = sizes[-1][1]
    return sizes


def _resolutions(space: Space) -> list[int]:
    return [int(r) for r in space.genes[space.resolution].choices]


def _mobile_terms(
    space: Space, first_width: int, around: Callable[[int, int], float], of_block: Callable[[MobileBlock], float]
) -> list[Term]:
    """Terms of a MobileNet-family cost: ``around(resolution, last size)`` plus ``of_block`` of every active block."""
    resolutions = _resolutions(space)
    sizes = {r: _sizes(space, _strided(r, 2)) for r in resolutions}
    terms = [tabulate(space, (space.resolution,), lambda r: around(resolutions[r], sizes[resolutions[r]][-1][1]))]
    width_in = first_width
    for b, block in enumerate(space.blocks):
        terms.append(_mobile_block_term(space, block, b, width_in, resolutions, sizes, of_block))
        width_in = space.widths[block.stage][0]
    return terms


def _mobile_block_term(
    space: Space,
    block: Block,
    b: int,
    width_in: int,
    resolutions: list[int],
    sizes: dict[int, list[tuple[int, int]]],
    of_block: Callable[[MobileBlock], float],
) -> Term:
    kernels, expands = space.genes[block.kernel].choices, space.genes[block.expand].choices
    minimum, width_out = space.genes[block.kernel].minimum_depth, space.widths[block.stage][0]

    def value(r: int, k: int, e: int, depth: int = minimum) -> float:
        if depth < minimum:
            return 0.0
        resolution, kernel, expand = resolutions[r], int(kernels[k]), int(expands[e])
        return of_block(MobileBlock(block, resolution, *sizes[resolution][b], width_in, width_out, kernel, expand))

    genes = (space.resolution, block.kernel, block.expand)
    return tabulate(space, (*genes, block.depth) if minimum else genes, value)


def note10(folder: Path | None = None) -> CostModel:
    """The published Samsung Note10 latency tables (MobileNetV3, width 1.2), in ms.

    folder: where the five ``*_lookup_table.yaml`` lie; None finds, fetches and verifies the published ones. Raises UserError
    that names the file and the entry which is missing, negative or not a number.
    """
    paths = {
        r: assets.find(f"note10/{r}_lookup_table.yaml") if folder is None else folder / f"{r}_lookup_table.yaml"
        for r in assets.NOTE10_RESOLUTIONS
    }
    tables = {resolution: _read_table(path) for resolution, path in paths.items()}
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths.values())).hexdigest()
    frame = _MOBILENET_V3_FRAME

    def entry(resolution: int, *parts: str) -> float:
        key, path = "-".join(parts), paths[resolution]
        if key not in tables[resolution]:
            raise UserError(f"{path}: expected an entry {key!r}, found none")
        value = tables[resolution][key]
        mean = value.get("mean") if isinstance(value, Mapping) else None
        if isinstance(mean, bool) or not isinstance(mean, int | float) or not math.isfinite(mean) or mean < 0:
            raise UserError(f"{path}: {key}: mean: expected a number of ms >= 0, found {mean!r}")
        return float(mean)

    def shape(size: int, channels: int) -> str:
        return f"{size}x{size}x{channels}"

    def around(resolution: int, last: int) -> float:
        half, (expand, mix), width = _strided(resolution, 2), frame.final, MOBILENET_V3.widths[-1][0]
        first = shape(half, frame.first_block)
        layers = [
            ("Conv", f"input:{shape(resolution, 3)}", f"output:{shape(half, frame.first_conv)}"),
            ("expanded_conv", f"input:{first}", f"output:{first}", "expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0"),
            ("Conv_1", f"input:{shape(last, width)}", f"output:{shape(last, expand)}"),
            ("AvgPool2D", f"input:{shape(last, expand)}", f"output:{shape(1, expand)}"),
            ("Conv_2", f"input:{shape(1, expand)}", f"output:{shape(1, mix)}"),
            ("Logits", f"input:{shape(1, mix)}", f"output:{N_CLASSES}"),
        ]
        return sum(entry(resolution, *layer) for layer in layers)

    def of_block(x: MobileBlock) -> float:
        return entry(
            x.resolution,
            "expanded_conv",
            f"input:{shape(x.size_in, x.width_in)}",
            f"output:{shape(x.size_out, x.width_out)}",
            f"expand:{x.width_in * x.expand}",
            f"kernel:{x.kernel}",
            f"stride:{x.block.stride}",
            f"idskip:{int(x.block.position > 0)}",
            f"se:{int(frame.squeeze[x.block.stage])}",
            f"hs:{int(frame.h_swish[x.block.stage])}",
        )

    terms = _mobile_terms(MOBILENET_V3, frame.first_block, around, of_block)
    ticks = [Term(term.genes, np.rint(term.values / MS_TICK)) for term in terms]
    name = "note10" if folder is None else f"table:{folder.resolve().name}"
    return CostModel(name, "ms", digest, MOBILENET_V3.name, MS_TICK, tuple(ticks), MOBILENET_V3.sizes)


def _read_table(path: Path) -> Mapping[str, Any]:
    try:
        table = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise UserError(f"{path}: expected a latency table, found no readable file ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected YAML, found {' '.join(str(error).split())}") from error
    if not isinstance(table, Mapping):
        raise UserError(f"{path}: expected a mapping of layer names to latencies, found {type(table).__name__}")
    return table


# --- MACs -----------------------------------------------------------------------------------------------------------------


def macs(space: Space) -> CostModel:
    """Multiply-accumulates in 1e6, counted by OFA's own rule (``ofa.nas.efficiency_predictor.*FLOPsModel``)."""
    if space.name == RESNET50D.name:
        terms = _resnet_macs(space)
    else:
        terms = _mobile_macs(space, {MOBILENET_V3.name: _MOBILENET_V3_FRAME, PROXYLESS.name: _PROXYLESS_FRAME}[space.name])
    digest = hashlib.sha256(b"".join(term.values.tobytes() for term in terms)).hexdigest()
    return CostModel("macs", "1e6 MACs", digest, space.name, MACS_TICK, tuple(terms), space.sizes)


def _mobile_macs(space: Space, frame: MobileFrame) -> list[Term]:
    def around(resolution: int, last: int) -> float:
        half = _strided(resolution, 2)
        total = half**2 * 3 * frame.first_conv * 9
        total += half**2 * frame.first_conv * (9 + frame.first_block)
        width = space.widths[-1][0]
        for layer, channels in enumerate(frame.final):
            total += (last**2 if layer < frame.pool_after else 1) * width * channels
            width = channels
        return total + width * N_CLASSES

    def of_block(x: MobileBlock) -> float:
        middle = x.width_in * x.expand
        total = x.size_in**2 * x.width_in * middle
        total += x.size_out**2 * middle * (x.kernel**2 + x.width_out)
        if frame.squeeze[x.block.stage]:
            total += 2 * middle * make_divisible(middle // 4)
        return total

    return _mobile_terms(space, frame.first_block, around, of_block)


def _resnet_macs(space: Space) -> list[Term]:
    """Not additive per gene: a stage's first block depends on the previous stage's width, the stem couples both its widths."""
    resolutions = _resolutions(space)
    stem_depth, width_genes = space.indices("stem_depth")[0], space.indices("width")

    def stem(r: int, d: int, w0: int, w1: int) -> float:
        half, middle, out = _strided(resolutions[r], 2), space.widths[0][w0], space.widths[1][w1]
        return half**2 * 9 * middle * (3 + (middle if d else 0) + out)

    terms = [
        tabulate(space, (space.resolution, stem_depth, *width_genes[:2]), stem),
        tabulate(space, (width_genes[-1],), lambda w: float(space.widths[-1][w] * N_CLASSES)),
    ]
    sizes = {r: _sizes(space, _strided(_strided(r, 2), 2)) for r in resolutions}  # stem, then max-pooling
    for b, block in enumerate(space.blocks):
        terms.append(_resnet_block_term(space, block, [sizes[r][b] for r in resolutions]))
    return terms


def _resnet_block_term(space: Space, block: Block, sizes: list[tuple[int, int]]) -> Term:
    expands, widths = space.genes[block.expand].choices, space.widths[block.stage + 2]
    previous, width = space.indices("width")[block.stage + 1 : block.stage + 3]
    minimum = space.genes[block.expand].minimum_depth

    def inner(r: int, w: int, e: int, width_in: int) -> float:
        (size_in, size_out), width_out = sizes[r], widths[w]
        middle = make_divisible(round(width_out * expands[e]))
        return size_in**2 * width_in * middle + size_out**2 * middle * (9 * middle + width_out)

    def first(r: int, w: int, e: int, p: int) -> float:
        width_in = space.widths[block.stage + 1][p]
        return inner(r, w, e, width_in) + sizes[r][1] ** 2 * width_in * widths[w]  # with the down-sampling shortcut

    def later(r: int, w: int, e: int, depth: int = minimum) -> float:
        return inner(r, w, e, widths[w]) if depth >= minimum else 0.0

    genes = (space.resolution, width, block.expand)
    if block.position == 0:
        return tabulate(space, (*genes, previous), first)
    return tabulate(space, (*genes, block.depth) if minimum else genes, later)


def load_cost(cost: str, space: Space) -> CostModel:
    """The cost model of a space by name: ``note10``, ``macs``, or the path of a table. Raises UserError."""
    if cost == "macs":
        return macs(space)
    if cost == "note10":
        if space.name != MOBILENET_V3.name:
            raise UserError(
                f"cost: note10 is a table of {MOBILENET_V3.name} only, found the space {space.name!r}; use macs there"
            )
        return note10()
    path = Path(cost)
    if path.is_dir() and space.name == MOBILENET_V3.name:
        return note10(path)
    raise UserError(
        f"cost: expected note10, macs, or a folder of tables for {MOBILENET_V3.name}, found {cost!r} for {space.name}"
    )
