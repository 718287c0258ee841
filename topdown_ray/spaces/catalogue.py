"""List everything that a sweep can name, with unit, range and source: predictors, costs and supernet weights.

The range of a cost is exact: from its cheapest to its most expensive architecture. The range of a predictor
is that of 5,000 random architectures. It is a constant in the file of the space, because the predictor's hash
is fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.files import data
from topdown_ray.spaces.cost import PEAK, any_cost, published, shipped_tables
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space

SHIPPED = "this package"
NOT_HERE = "not downloaded"
# the costs that depend only on the architecture, and where their numbers come from
_COMPUTED = {"macs": "OFA's rule", "params": "OFA's subnets", PEAK: "live float32 values, one image"}


class CatalogueEntry(NamedTuple):
    """One item of the catalogue, for one space."""

    name: str  # its name in a sweep file or ``assets fetch``
    kind: str  # predictor, latency table, computed cost, supernet weights
    space: str
    unit: str  # "" if there is none
    low: float | None  # None if it is not known without the file
    high: float | None
    source: str
    size: int | None  # bytes on this machine
    where: str  # its folder in words, or why it cannot be used
    path: str | None  # the path of the file, or of the folder if there are several files


class _Extent(NamedTuple):
    unit: str
    low: float | None
    high: float | None


def entries() -> list[CatalogueEntry]:
    """Return the whole catalogue: published, shipped and computed items. This downloads nothing."""
    return [*_predictors(), *_tables(), *_counted(), *_weights()]


def _predictors() -> Iterator[CatalogueEntry]:
    for space in SPACES.values():
        file = space.traits.published.predictor
        if file is None:
            continue

        def extent(file: str = file, space: Space = space) -> _Extent:
            assets.find(file)
            return _seen(space.traits.published.predictor_range)

        yield _published("published", "predictor", "top-1", space, [file], extent)
        path = data(f"embedded_{space.name}.safetensors")
        if path.is_file():
            yield _shipped(
                "embedded",
                "predictor",
                space,
                _seen(space.traits.embedded_range),
                f"distilled from {file}",
                path,
            )


def _tables() -> Iterator[CatalogueEntry]:
    for space in SPACES.values():
        for name, files in space.traits.published.tables.items():

            def extent(name: str = name, space: Space = space) -> _Extent:
                return _Extent("ms", *published(name, space).range())

            yield _published(name, "latency table", "ms", space, list(files.values()), extent)
    for table in shipped_tables():
        shipped = _Extent(table.unit, table.low, table.high)
        yield _shipped(table.name, "latency table", SPACES[table.space], shipped, table.source, table.path)


def _counted() -> Iterator[CatalogueEntry]:
    for space in SPACES.values():
        for name, source in _COMPUTED.items():
            cost = any_cost(name, space)
            extent = _Extent(cost.unit, *cost.range())
            yield CatalogueEntry(name, "computed cost", space.name, *extent, source, None, SHIPPED, None)


def _weights() -> Iterator[CatalogueEntry]:
    spaces = {space.traits.published.weights: space for space in SPACES.values()}
    for path, asset in assets.ASSETS.items():
        if path in spaces:
            yield _published(
                asset.name, "supernet weights", "", spaces[path], [path], lambda: _Extent("", None, None)
            )


def _shipped(name: str, kind: str, space: Space, extent: _Extent, source: str, path: Path) -> CatalogueEntry:
    return CatalogueEntry(name, kind, space.name, *extent, source, path.stat().st_size, SHIPPED, str(path))


def _published(
    name: str, kind: str, unit: str, space: Space, paths: list[str], extent: Callable[[], _Extent]
) -> CatalogueEntry:
    """A published item of one file or several. It has a range if all files are here and intact."""
    here = [found for path in paths if (found := assets.local(path)) is not None]
    asset = assets.ASSETS[paths[0]]
    source = (
        f"OFA's authors: {asset.name}"
        if asset.sha256
        else "OFA's authors (no published hash; recorded at the first download)"
    )
    if len(here) < len(paths):
        where = f"{len(here)} of {len(paths)} files" if here else NOT_HERE
        return CatalogueEntry(name, kind, space.name, unit, None, None, source, None, where, None)
    size, path = sum(found.stat().st_size for found in here), here[0] if len(here) == 1 else here[0].parent
    where = next(folder.why for folder in assets.folders() if here[0].is_relative_to(folder.path))
    try:
        found_range = extent()
    except UserError as error:
        found_range, where = _Extent(unit, None, None), str(error)
    return CatalogueEntry(name, kind, space.name, *found_range, source, size, where, str(path))


def _seen(found: tuple[float, float] | None) -> _Extent:
    return _Extent("top-1", *(found or (None, None)))
