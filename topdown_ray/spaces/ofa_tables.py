"""Read and write latency tables of the form that OFA's authors publish.

There is one file ``R_lookup_table.yaml`` for each resolution R, which maps layer names to
``{count, mean, std}`` in ms. Source: ``ofa.nas.efficiency_predictor.latency_lookup_table``, which has such a
form only for MobileNetV3 and ProxylessNAS. The names of entries are in the file of each space."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.files import read_yaml, validated, written
from topdown_ray.spaces.latency_table import LatencyTable
from topdown_ray.spaces.layers import Layer, OfLayer
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space


class _Entry(BaseModel):
    """A layer of a table, which may have further fields (count, std)."""

    model_config = ConfigDict(strict=True)

    mean: Annotated[float, Field(gt=0, allow_inf_nan=False)]  # ms


def spaces_with_tables() -> list[str]:
    """Return the spaces for which OFA has tables of this form."""
    return [name for name, space in SPACES.items() if space.traits.table_entry is not None]


def published_names() -> dict[str, Space]:
    """Return the published tables by name, each with its space."""
    return {table: space for space in SPACES.values() for table in space.traits.published.tables}


def find_published(name: str, space: Space) -> dict[int, Path]:
    """Return the verified files of a published table, one for each resolution, and download them if
    necessary.
    """
    files = space.traits.published.tables[name]
    return {resolution: assets.find(path) for resolution, path in files.items()}


def files_in(folder: Path, space: Space) -> dict[int, Path]:
    """Return the files of a folder of tables, one for each resolution of the space."""
    return {r: folder / f"{r}_lookup_table.yaml" for r in space.resolutions}


def reader(space: Space, paths: Mapping[int, Path]) -> OfLayer:
    """Return a function for the ms of a layer in these tables, which is 0 if another entry includes the
    layer.

    Raises UserError that names the file and the entry, if an entry is missing or not a finite number above
    0."""
    tables = {
        resolution: read_yaml(path, "a latency table", "layer names to latencies")
        for resolution, path in paths.items()
    }
    entry_of = _entry_of(space)

    def of_layer(layer: Layer, resolution: int) -> float:
        key, path = entry_of(layer), paths[resolution]
        if not key:
            return 0.0
        if key not in tables[resolution]:
            raise UserError(f"{path}: expected an entry {key!r}, found none")
        return validated(_Entry, tables[resolution][key], f"{path}: {key}").mean

    return of_layer


def _entry_of(space: Space) -> Callable[[Layer], str]:
    entry_of = space.traits.table_entry
    if entry_of is None:
        known = ", ".join(spaces_with_tables())
        raise UserError(
            f"space: expected a space for which OFA publishes tables ({known}), found {space.name}"
        )
    return entry_of


def export(table: LatencyTable, folder: Path) -> list[Path]:
    """Write a table in this form into a folder. The medians are written under the name ``mean``.

    All files are written, or none. Raises UserError if they cannot be written, and for a space for which OFA
    has no such form."""
    texts = {
        folder / f"{resolution}_lookup_table.yaml": yaml.safe_dump(entries)
        for resolution, entries in _entries(table).items()
    }
    with contextlib.ExitStack() as all_of_them:  # no file is replaced before the last one is written
        for path, text in texts.items():
            all_of_them.enter_context(written(path)).write_text(text)
    return list(texts)


def _entries(table: LatencyTable) -> dict[int, dict[str, dict[str, Any]]]:
    """The entries of the file of each resolution."""
    space = SPACES[table.space]
    entries: dict[int, dict[str, dict[str, Any]]] = {r: {} for r in space.resolutions}
    for (resolution, key), rows in _rows_of_entries(table, space).items():
        at = sorted(rows)
        # the same as a reader of the file does
        deviation = (table.high_ms[at] - table.low_ms[at]) / (2 * 1.96) * np.sqrt(table.count[at])
        entries[resolution][key] = {
            "count": int(table.count[at].min()),
            "mean": float(table.median_ms[at].sum()),
            "std": float(np.sqrt((deviation**2).sum())),
        }
    return entries


def _rows_of_entries(table: LatencyTable, space: Space) -> dict[tuple[int, str], set[int]]:
    """The layers of every entry, by resolution and name; several if an entry includes another layer."""
    entry_of = _entry_of(space)
    place = {layer: i for i, layer in enumerate(table.layers)}
    rows: dict[tuple[int, str], set[int]] = {}

    def see(layer: Layer, resolution: int) -> float:
        key = entry_of(layer)
        if not key:  # the entry of the pooling of this resolution includes the classifier
            key = next(name for at, name in rows if at == resolution and name.startswith("Logits"))
        rows.setdefault((resolution, key), set()).add(place[layer])
        return 0.0

    space.traits.layer_terms(space, see)
    return rows
