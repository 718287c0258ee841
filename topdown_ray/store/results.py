"""What a result folder holds, read: its manifest and its two tables as pandas frames."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from topdown_ray.errors import UserError
from topdown_ray.store.manifest import manifest_of
from topdown_ray.store.parts import part_names
from topdown_ray.store.place import Place
from topdown_ray.store.reading import SEARCH_KEYS, TRACE_KEYS, read_tables
from topdown_ray.store.schema import SCHEMA_VERSION, SEARCHES, TRACE


@dataclass(frozen=True)
class Results:
    """A sweep's results: the manifest, and one pandas frame a table."""

    manifest: dict[str, Any]
    searches: pd.DataFrame
    trace: pd.DataFrame


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The content of run.json. Raises UserError."""
    place = Place(folder)
    try:
        document = place.document("run.json")
    except OSError as error:
        raise UserError(
            f"{place.name}: expected a sweep's result folder, found no readable run.json "
            f"({place.reason(error)}){_advice(place)}"
        ) from error
    return manifest_of(document, place.of("run.json"), SCHEMA_VERSION)


def _advice(place: Place) -> str:
    """How to go on without run.json, where the parts of a sweep are there."""
    with contextlib.suppress(OSError, UserError):
        if part_names(place, "searches"):
            return (
                f"; its parts are there: the sweep's command again, with --out {place.name}, writes it anew"
            )
    return ""


def load(folder: str | Path) -> Results:
    """Load a result folder, local or by URI. Rows come in a fixed order: space, strategy, targets, seed,
    target.

    Every part is verified. Raises UserError, which names the file, where one is damaged or holds other than
    the table's rows."""
    return load_columns(folder, SEARCHES.names, TRACE.names)


def load_columns(folder: str | Path, searches: Collection[str], trace: Collection[str]) -> Results:
    """As :func:`load`, with these columns only (and those that tell rows apart): the rest takes no memory."""
    place = Place(folder)
    manifest = read_manifest(folder)
    version = manifest.get("schema")
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise UserError(
            f"{place.of('run.json')}: schema: expected a version from 1 to {SCHEMA_VERSION}, found "
            f"{version!r}"
        )
    wanted = (
        pa.schema([field for field in schema if field.name in {*columns, *keys}])
        for schema, columns, keys in ((SEARCHES, searches, SEARCH_KEYS), (TRACE, trace, TRACE_KEYS))
    )
    return Results(manifest, *read_tables(place, *wanted))
