"""Compute the costs of architectures in ms (latency tables), 1e6 MACs or 1e6 parameters.

A cost model maps genes (N, G) to costs float64 (N,). A cost is a sum over terms in whole ticks (2^-30 ms,
single MACs or parameters) in float64. Because every partial sum is exact, a cost does not depend on the order
of summation, the batch or the device. Sources: the arithmetic of ``ofa.tutorial.LatencyTable`` for Note10,
and the FLOPs models of ``ofa.nas.efficiency_predictor`` for MACs (MobileNetV3's includes squeeze-and-excite
layers)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from topdown_ray.errors import UserError, rounded_up
from topdown_ray.files import brief_path
from topdown_ray.plugins import entry_points, find
from topdown_ray.spaces import csv_table, latency_table, layers, ofa_tables
from topdown_ray.spaces.layers import N_CLASSES
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Genes, Space
from topdown_ray.spaces.terms import FlatSum, Term, TermIndex, concatenate, minimise

if TYPE_CHECKING:
    import torch

    from topdown_ray.spaces.plugged_in import PluginCost

MS_TICK = 2.0**-30
ONE_TICK = 1e-6
_MOST_TICKS = 2.0**53  # float64 represents every whole number up to this one


@dataclass(frozen=True, eq=False)
class _OverTerms:
    """A cost of one space that combines values from small tables."""

    name: str
    unit: str  # "ms", "1e6 MACs", "1e6 parameters", "MB"
    sha256: str
    space: str
    tick: float
    terms: tuple[Term, ...]  # in whole ticks
    sizes: tuple[int, ...]  # choices of each gene
    device: str = "cpu"

    @functools.cached_property
    def _tensors(self) -> tuple[TermIndex, torch.Tensor]:
        """The places of the terms and the concatenated table, on the device. They are made at the first
        lookup, because names, hashes and ranges do not need torch.
        """
        import torch

        device = torch.device(self.device)
        with torch.inference_mode(False):  # tensors of inference mode could not be used outside of it
            index = TermIndex(self.terms, len(self.sizes)).to(device)
            return index, torch.from_numpy(concatenate(self.terms)).to(device)

    def looked_up(self, genes: torch.Tensor) -> torch.Tensor:
        """Return the values of the terms: genes int8 (N, G) -> float64 (N, T), in ticks."""
        index, table = self._tensors
        places = index(genes)
        return table.index_select(0, places.view(-1)).view(places.shape)


@dataclass(frozen=True, eq=False)
class CostModel(_OverTerms):
    """A sum over the terms of one space. Calling it: genes int8 (N, G) -> cost float64 (N,) in ``unit``."""

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Costs: genes int8 (N, G) -> float64 (N,) in ``unit``."""
        return self.in_ticks(genes).mul_(self.tick)

    def in_ticks(self, genes: torch.Tensor) -> torch.Tensor:
        """Return exact costs as whole numbers: genes int8 (N, G) -> float64 (N,) in ticks or single MACs."""
        return self.looked_up(genes).sum(1)

    @functools.cached_property
    def flat(self) -> FlatSum:
        """Return the same sum for compiled code."""
        return FlatSum.of([(self.terms, self.tick, np.inf)])

    def cheapest(self) -> tuple[float, Genes]:
        """Return the exact lowest cost of all architectures of the space, and its genes (G,)."""
        ticks, genes = self._lowest
        return ticks * self.tick, genes.copy()

    @functools.cached_property
    def _lowest(self) -> tuple[float, Genes]:
        return minimise(self.terms, self.sizes)

    def range(self) -> tuple[float, float]:
        """Return the exact lowest and highest cost of all architectures of the space."""
        highest, _ = minimise([Term(term.genes, -term.values) for term in self.terms], self.sizes)
        return self.cheapest()[0], -highest * self.tick


def with_unit(number: str, unit: str) -> str:
    """Return a number with the unit of a cost, for example ``35 ms`` or ``400 x 1e6 MACs``."""
    return f"{number} x {unit}" if unit.startswith("1e6") else f"{number} {unit}"


def at_least(lowest: float, unit: str) -> str:
    """Return a lowest cost with its unit, as it can be used as a target or limit."""
    return with_unit(rounded_up(lowest), unit)


# typical targets, as shares of the way from a space's cheapest to its most expensive architecture
_SHARES = (0.5, 0.4, 0.3, 0.2, 0.1)


def typical_targets(low: float, high: float) -> list[float]:
    """Return five round targets within the range of a cost, loosest first."""
    return [float(f"{low + share * (high - low):.2g}") for share in _SHARES]


# --- published tables ---------------------------------------------------------------------------------------


def published(name: str, space: Space) -> CostModel:
    """Load a latency table that is published for a space (``note10``), in ms. It is downloaded if necessary,
    and verified.
    """
    return _of_ofas_form(name, space, ofa_tables.find_published(name, space))


def published_tables(space: Space, folder: Path) -> CostModel:
    """Load latency tables of OFA's published form (``R_lookup_table.yaml`` for each resolution R), in ms.

    Raises UserError that names the file and the entry, if an entry is missing or not a finite number above 0.
    """
    return _of_ofas_form(f"table:{folder.resolve().name}", space, ofa_tables.files_in(folder, space))


def _of_ofas_form(name: str, space: Space, paths: Mapping[int, Path]) -> CostModel:
    of_layer = ofa_tables.reader(space, paths)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths.values())).hexdigest()
    terms = space.traits.layer_terms(space, of_layer)
    ticks = _ms_ticks(terms, space, str(paths[min(paths)].parent))
    return CostModel(name, "ms", digest, space.name, MS_TICK, ticks, space.sizes)


def _ms_ticks(terms: Sequence[Term], space: Space, where: str) -> tuple[Term, ...]:
    """The same terms in whole ticks. Raises UserError if sums would not be exact or an architecture would
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


def macs(space: Space, width: float = 1.0, n_classes: int = N_CLASSES) -> CostModel:
    """Return the cost in 1e6 multiply-accumulates, counted by OFA's own rule
    (``ofa.nas.efficiency_predictor.*FLOPsModel``).

    width: width of the supernet relative to the published one; n_classes: classes of its classifier."""
    terms = space.traits.mac_terms(space, width, n_classes)
    digest = hashlib.sha256(b"".join(term.values.tobytes() for term in terms)).hexdigest()
    return CostModel("macs", "1e6 MACs", digest, space.name, ONE_TICK, tuple(terms), space.sizes)


def parameters(space: Space, width: float = 1.0, n_classes: int = N_CLASSES) -> CostModel:
    """Return the cost in 1e6 trainable parameters of OFA's materialised subnets; width and n_classes as in
    :func:`macs`.
    """
    terms = space.traits.layer_terms(space, lambda layer, _: layers.parameters(layer), width, n_classes)
    digest = hashlib.sha256(b"".join(term.values.tobytes() for term in terms)).hexdigest()
    return CostModel("params", "1e6 parameters", digest, space.name, ONE_TICK, tuple(terms), space.sizes)


@dataclass(frozen=True, eq=False)
class PeakCost(_OverTerms):
    """The largest of an architecture's terms, for example the memory of layers that run one after another.
    Calling it: genes int8 (N, G) -> float64 (N,) in ``unit``.
    """

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Costs: genes int8 (N, G) -> float64 (N,)."""
        return self.looked_up(genes).amax(1).mul_(self.tick)

    def _of(self, row: Sequence[int]) -> float:
        """Return the cost of one architecture (G,), without importing torch."""
        return max(float(term.values[tuple(row[g] for g in term.genes)]) for term in self.terms) * self.tick

    def cheapest(self) -> tuple[float, Genes]:
        """Return the lowest cost and its genes (G,), which are the smallest choices, because every term grows
        with each choice.
        """
        genes = np.zeros(len(self.sizes), dtype=np.int8)
        return self._of(genes.tolist()), genes

    def range(self) -> tuple[float, float]:
        """Return the lowest and the highest cost of all architectures of the space."""
        return self.cheapest()[0], self._of([size - 1 for size in self.sizes])


def peak_activation(space: Space) -> PeakCost:
    """Return the cost in 1e6 bytes of the largest sum of live float32 activations while a subnet runs on one
    image, see :func:`topdown_ray.spaces.layers.live_values`.
    """
    terms = space.traits.layer_terms(space, lambda layer, _: 4 * layers.live_values(layer), joined=max)
    digest = hashlib.sha256(b"peak" + b"".join(term.values.tobytes() for term in terms)).hexdigest()
    facts = ("peak_activation", "MB", digest, space.name, ONE_TICK)
    return PeakCost(*facts, tuple(terms), space.sizes)


#: The costs that depend only on the architecture. They are sums over terms.
COUNTED: Mapping[str, Callable[[Space], CostModel]] = {"macs": macs, "params": parameters}
#: The name of :func:`peak_activation`, which also depends only on the architecture.
PEAK = "peak_activation"


class SubnetCounts:
    """Counts MACs and parameters of a space's architectures; width and n_classes as in :func:`macs`."""

    def __init__(self, space: Space, width: float = 1.0, n_classes: int = N_CLASSES) -> None:
        self._models = macs(space, width, n_classes), parameters(space, width, n_classes)

    def __call__(self, genes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return MACs and parameters in 1e6: genes int8 (N, G) -> two float64 (N,), rounded once like OFA."""
        macs_m, params_m = (model.in_ticks(genes) / 1e6 for model in self._models)
        return macs_m, params_m


def counts_of(space: Space, genes: Sequence[int]) -> tuple[float, float]:
    """Return MACs and parameters of one architecture (G,) in 1e6, as :class:`SubnetCounts` does for many, but
    without importing torch.
    """
    macs_m, params_m = (
        sum(float(term.values[tuple(genes[g] for g in term.genes)]) for term in model.terms) / 1e6
        for model in (macs(space), parameters(space))
    )
    return macs_m, params_m


# --- measured tables ----------------------------------------------------------------------------------------


def measured(source: latency_table.Source, space: Space) -> CostModel:
    """Load a table of ``topdown-ray measure`` as a cost, in ms for a whole batch of images. Raises
    UserError.
    """
    csv = source.path.suffix == csv_table.SUFFIX
    table = csv_table.read(source.path, space) if csv else latency_table.read(source.path)
    return _of_table(source, table, space)


def _of_table(source: latency_table.Source, table: latency_table.LatencyTable, space: Space) -> CostModel:
    """Make a cost from a table. Raises UserError."""
    if table.space != space.name:
        raise UserError(
            f"cost: expected a table of {space.name}, found {source.path}, a table of {table.space}"
        )
    values, where = table.values, brief_path(source.path)
    terms = space.traits.layer_terms(space, lambda layer, resolution: values[layer])
    if source.corrected:
        try:
            offset, slope = table.correction
        except UserError as error:
            raise UserError(f"{where}{error}") from error
        where += latency_table.CORRECTED
        with np.errstate(over="ignore"):  # rejected below
            scaled = [Term(term.genes, term.values * slope) for term in terms]
        # every architecture has one entry of a term
        terms = [
            Term(scaled[0].genes, scaled[0].values + offset),
            *scaled[1:],
        ]
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
    """A latency table that comes with the package, with the range of costs in ``unit`` and the machine."""

    name: str
    space: str
    unit: str
    low: float
    high: float
    source: str
    path: Path


def shipped_tables() -> list[ShippedTable]:
    """Return the latency tables that come with the package, one for each name and space."""
    rows = []
    for name, of_space in latency_table.shipped().items():
        for space, path in of_space.items():
            table = latency_table.read(path)
            cost = _of_table(latency_table.Source(name, path, False), table, SPACES[space])
            rows.append(ShippedTable(name, space, cost.unit, *cost.range(), table.describe(), path))
    return rows


#: A cost of a space: a sum over terms, a maximum over terms, or a user's own function.
AnyCost = Union[CostModel, PeakCost, "PluginCost"]


def any_cost(cost: str, space: Space) -> AnyCost:
    """Load a cost as :func:`load_cost` does, or ``peak_activation``, or a plug-in (``module:object`` or the
    name of an entry point).
    """
    if cost == PEAK:
        return peak_activation(space)
    if cost not in names() and find("costs", cost) is not None:
        from topdown_ray.spaces.plugged_in import plugin_cost

        return plugin_cost(cost, space) or load_cost(cost, space)
    return load_cost(cost, space)


def load_cost(cost: str, space: Space) -> CostModel:
    """Load the cost model of a space: ``macs``, ``params``, the name of a published or measured table, a path
    or a folder. Raises UserError.
    """
    if cost in COUNTED:
        return COUNTED[cost](space)
    owners = ofa_tables.published_names()
    if cost in owners:
        if space.name != owners[cost].name:
            others = [name for name, files in latency_table.shipped().items() if space.name in files]
            raise UserError(
                f"cost: expected a cost of {space.name}, such as {' or '.join([*COUNTED, *others])}, found "
                f"{cost}, a table of {owners[cost].name}"
            )
        return published(cost, space)
    source = latency_table.source_of(cost, space)
    if source is not None:
        return measured(source, space)
    path, with_folders = Path(cost), ofa_tables.spaces_with_tables()
    if path.is_dir() and space.name in with_folders:
        return published_tables(space, path)
    folders = f" or a folder of published tables ({', '.join(with_folders)})"
    raise UserError(
        f"cost: expected {', '.join([*names(), *entry_points('costs')])}, module:object, a measured table "
        f"(.parquet, .csv){folders}, found {cost!r} for {space.name}"
    )


def names() -> list[str]:
    """Return the names of costs: published tables, counts, and tables that come with the package."""
    return [*ofa_tables.published_names(), *COUNTED, PEAK, *latency_table.shipped()]


def full_name(cost: str) -> str:
    """Return a ``cost`` of a sweep file; if it is a path, make it absolute."""
    plain = cost.removesuffix(latency_table.CORRECTED)
    if plain in names() or not Path(plain).exists():
        return cost
    return f"{Path(plain).resolve()}{cost[len(plain) :]}"
