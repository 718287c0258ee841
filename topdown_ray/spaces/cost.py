"""Costs of architectures: genes (N, G) -> cost float64 (N,), in ms (latency tables) or 1e6 MACs.

A cost is a sum over terms in whole ticks (2^-30 ms, or single MACs) held in float64: every partial sum is
exact, so a cost does not depend on the order of summation, the batch or the device. Sources: the arithmetic
of ``ofa.tutorial.LatencyTable`` for Note10, and ``ofa.nas.efficiency_predictor``'s FLOPs models for MACs
(MobileNetV3's count the squeeze-and-excite layers)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.files import brief_path, read_yaml, validated
from topdown_ray.spaces import latency_table
from topdown_ray.spaces.layers import (
    FRAMES,
    N_CLASSES,
    Layer,
    MobileBlock,
    MobileFrame,
    layer_terms,
    mobile_terms,
    published_entry,
    resnet_block_terms,
    resolutions_of,
    strided,
)
from topdown_ray.spaces.space import MOBILENET_V3, RESNET50D, SPACES, Genes, Space, make_divisible
from topdown_ray.spaces.terms import FlatSum, Term, TermIndex, concatenate, flatten, minimise, tabulate

MS_TICK = 2.0**-30
MACS_TICK = 1e-6
_MOST_TICKS = 2.0**53  # up to which float64 holds every whole number


class _Entry(BaseModel):
    """A layer of a table of OFA's published form; it may say more (count, std)."""

    model_config = ConfigDict(strict=True)

    mean: Annotated[float, Field(gt=0, allow_inf_nan=False)]  # ms


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
        """Costs: genes int8 (N, G) -> float64 (N,) in ``unit``."""
        places = self._index(genes)  # (N, T)
        return self._table.index_select(0, places.view(-1)).view(places.shape).sum(1).mul_(self.tick)

    @functools.cached_property
    def flat(self) -> FlatSum:
        """The same sum for compiled code."""
        return FlatSum(flatten(self.terms), concatenate(self.terms), self.tick)

    def cheapest(self) -> tuple[float, Genes]:
        """The lowest cost of any architecture of the space, and its genes (G,); exact."""
        ticks, genes = minimise(self.terms, self.sizes)
        return ticks * self.tick, genes

    def range(self) -> tuple[float, float]:
        """The lowest and the highest cost of any architecture of the space; exact."""
        highest, _ = minimise([Term(term.genes, -term.values) for term in self.terms], self.sizes)
        return self.cheapest()[0], -highest * self.tick


# --- published tables ---------------------------------------------------------------------------------------


def note10() -> CostModel:
    """The published Samsung Note10 latency tables (MobileNetV3, width 1.2), in ms; found, fetched and
    verified.
    """
    paths = {r: assets.find(f"note10/{r}_lookup_table.yaml") for r in assets.NOTE10_RESOLUTIONS}
    return _published("note10", MOBILENET_V3, paths)


def published_tables(space: Space, folder: Path) -> CostModel:
    """Latency tables of OFA's published form (``R_lookup_table.yaml`` for each resolution R), in ms.

    Raises UserError that names the file and the entry which is missing or not a finite number above 0.
    """
    paths = {r: folder / f"{r}_lookup_table.yaml" for r in resolutions_of(space)}
    return _published(f"table:{folder.resolve().name}", space, paths)


def _published(name: str, space: Space, paths: Mapping[int, Path]) -> CostModel:
    tables = {
        resolution: read_yaml(path, "a latency table", "layer names to latencies")
        for resolution, path in paths.items()
    }
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths.values())).hexdigest()

    def of_layer(layer: Layer, resolution: int) -> float:
        key, path = published_entry(space, layer), paths[resolution]
        if not key:
            return 0.0
        if key not in tables[resolution]:
            raise UserError(f"{path}: expected an entry {key!r}, found none")
        return validated(_Entry, tables[resolution][key], f"{path}: {key}").mean

    terms = layer_terms(space, of_layer)
    return CostModel(
        name,
        "ms",
        digest,
        space.name,
        MS_TICK,
        _ms_ticks(terms, space, str(paths[min(paths)].parent)),
        space.sizes,
    )


def _ms_ticks(terms: Sequence[Term], space: Space, where: str) -> tuple[Term, ...]:
    """The same terms in whole ticks. Raises UserError where sums are no longer exact or an architecture would
    cost nothing.
    """
    with np.errstate(over="ignore"):
        ticks = tuple(Term(term.genes, np.rint(term.values / MS_TICK)) for term in terms)
        largest = sum(float(np.abs(term.values).max()) for term in ticks)
    if not largest <= _MOST_TICKS:
        most = _MOST_TICKS * MS_TICK
        raise UserError(
            f"{where}: expected layers whose sum is at most {most:,.0f} ms, found up to "
            f"{largest * MS_TICK:.3g} ms"
        )
    lowest, _ = minimise(ticks, space.sizes)
    if not lowest > 0:
        raise UserError(
            f"{where}: expected a cost above 0 ms for every architecture, found {lowest * MS_TICK:.3g} ms "
            "for the cheapest"
        )
    return ticks


# --- MACs ---------------------------------------------------------------------------------------------------


def macs(space: Space) -> CostModel:
    """Multiply-accumulates in 1e6, counted by OFA's own rule
    (``ofa.nas.efficiency_predictor.*FLOPsModel``).
    """
    terms = _resnet_macs(space) if space.name == RESNET50D.name else _mobile_macs(space, FRAMES[space.name])
    digest = hashlib.sha256(b"".join(term.values.tobytes() for term in terms)).hexdigest()
    return CostModel("macs", "1e6 MACs", digest, space.name, MACS_TICK, tuple(terms), space.sizes)


def _mobile_macs(space: Space, frame: MobileFrame) -> list[Term]:
    def around(resolution: int, last: int) -> float:
        half = strided(resolution, 2)
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

    return mobile_terms(space, frame.first_block, around, of_block)


def _resnet_macs(space: Space) -> list[Term]:
    """Not additive per gene: a stage's first block depends on the previous stage's width, the stem couples
    both its widths.
    """
    resolutions = resolutions_of(space)
    stem_depth, width_genes = space.indices("stem_depth")[0], space.indices("width")

    def stem(r: int, d: int, w0: int, w1: int) -> float:
        half, middle, out = strided(resolutions[r], 2), space.widths[0][w0], space.widths[1][w1]
        return half**2 * 9 * middle * (3 + (middle if d else 0) + out)

    terms = [
        tabulate(space, (space.resolution, stem_depth, *width_genes[:2]), stem),
        tabulate(space, (width_genes[-1],), lambda w: float(space.widths[-1][w] * N_CLASSES)),
    ]
    return terms + resnet_block_terms(space, _bottleneck_macs)


def _bottleneck_macs(x: Layer, resolution: int) -> float:
    total = x.size_in**2 * x.width_in * x.width_mid + x.size_out**2 * x.width_mid * (
        9 * x.width_mid + x.width_out
    )
    return float(
        total if x.shortcut else total + x.size_out**2 * x.width_in * x.width_out
    )  # with the down-sampling shortcut


# --- measured tables ----------------------------------------------------------------------------------------


def measured(source: latency_table.Source, space: Space) -> CostModel:
    """A table of ``topdown-ray measure`` as a cost, in ms (of a whole batch of images). Raises UserError."""
    table = latency_table.read(source.path)
    if table.space != space.name:
        raise UserError(f"cost: {source.path} is a table of {table.space}, found the space {space.name!r}")
    values, where = table.values, brief_path(source.path)
    terms = layer_terms(space, lambda layer, resolution: values[layer])
    if source.corrected:
        try:
            offset, slope = table.correction
        except UserError as error:
            raise UserError(f"{where}{error}") from error
        where += latency_table.CORRECTED
        with np.errstate(over="ignore"):  # refused below
            scaled = [Term(term.genes, term.values * slope) for term in terms]
        terms = [
            Term(scaled[0].genes, scaled[0].values + offset),
            *scaled[1:],
        ]  # every architecture has one entry of a term
    return CostModel(
        source.name,
        "ms",
        table.sha256(source.corrected),
        space.name,
        MS_TICK,
        _ms_ticks(terms, space, where),
        space.sizes,
    )


@dataclass(frozen=True)
class ShippedTable:
    """A latency table that comes with the package: the range of its space in ``unit``, and where it was
    measured.
    """

    name: str
    space: str
    unit: str
    low: float
    high: float
    source: str
    path: Path


def shipped_tables() -> list[ShippedTable]:
    """Every latency table that comes with the package, a row a space."""
    rows = []
    for name, of_space in latency_table.shipped().items():
        for space, path in of_space.items():
            table = latency_table.read(path)
            cost = measured(latency_table.Source(name, path, False), SPACES[space])
            rows.append(ShippedTable(name, space, cost.unit, *cost.range(), table.describe(), path))
    return rows


def load_cost(cost: str, space: Space) -> CostModel:
    """The cost model of a space by name: ``note10``, ``macs``, a measured table's name or path, a folder.
    Raises UserError.
    """
    if cost == "macs":
        return macs(space)
    if cost == "note10":
        if space.name != MOBILENET_V3.name:
            raise UserError(
                f"cost: note10 is a table of {MOBILENET_V3.name} only, found the space {space.name!r}; "
                f"use {' or '.join(['macs', *latency_table.shipped()])} there"
            )
        return note10()
    source = latency_table.source_of(cost, space)
    if source is not None:
        return measured(source, space)
    path = Path(cost)
    if path.is_dir() and space.name in FRAMES:
        return published_tables(space, path)
    names = ", ".join(["note10", "macs", *latency_table.shipped()])
    folders = f" or a folder of published tables ({', '.join(FRAMES)})"
    raise UserError(
        f"cost: expected {names}, a measured table (.parquet){folders}, found {cost!r} for {space.name}"
    )
