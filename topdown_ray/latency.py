"""Measured latency tables: the milliseconds of every layer of a space on one machine, in a Parquet file that says what it is.

A table names its machine and conditions, the interval and the number of runs of every layer, and what a comparison with whole
subnets found (see ``subnets``), with a fitted correction that is used only when asked for: ``NAME+corrected``. Tables that come with
the package are known by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from topdown_ray.errors import UserError
from topdown_ray.files import written
from topdown_ray.layers import FRAMES, Layer, distinct_layers, layer_terms, published_entry, resolutions_of
from topdown_ray.spaces import SPACES, Space

SCHEMA_VERSION = 1
CORRECTED = "+corrected"
SUFFIX = ".parquet"
_SHIPPED_PREFIX = "latency_"
_METADATA = b"topdown_ray_latency"

Array = npt.NDArray[Any]

_ARROW_TYPES = {str: pa.string(), int: pa.int32(), bool: pa.bool_()}
_SCHEMA = pa.schema(
    [
        *(pa.field(name, _ARROW_TYPES[kind]) for name, kind in get_type_hints(Layer).items()),
        pa.field("median_ms", pa.float64()),
        pa.field("low_ms", pa.float64()),
        pa.field("high_ms", pa.float64()),
        pa.field("count", pa.int32()),
        pa.field("outliers", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Conditions:
    """How layers ran. ``batch`` images at once: every time is that of the whole batch."""

    device: str = "cpu"  # cpu, cuda or cuda:N
    threads: int = 1  # of torch, on the CPU
    batch: int = 1
    dtype: str = "float32"  # float32, bfloat16, float16
    mode: str = "eager"  # eager, compile; cuda also graph
    channels_last: bool = False


class Correction(NamedTuple):
    """A whole subnet's time as a line over the table's sum: ``offset_ms + slope x sum``."""

    offset_ms: float
    slope: float


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """The milliseconds of every layer of a space: ``values[layer]`` with 95 % interval, runs and outliers, and where they come from."""

    space: str
    conditions: Conditions
    layers: tuple[Layer, ...]
    median_ms: Array  # (L,)
    low_ms: Array
    high_ms: Array
    count: Array
    outliers: Array
    facts: Mapping[str, Any] = field(default_factory=dict)  # machine, versions, date, effort, noise
    check: Mapping[str, Any] = field(default_factory=dict)  # the comparison with whole subnets

    @property
    def values(self) -> dict[Layer, float]:
        """The median of every layer, in ms."""
        return dict(zip(self.layers, self.median_ms.tolist(), strict=True))

    @property
    def correction(self) -> Correction:
        """The fitted correction. Raises UserError where the table was never compared with whole subnets."""
        if "slope" not in self.check:
            raise UserError(
                f"{CORRECTED}: expected a table that was checked (topdown-ray measure --check TABLE), found no check"
            )
        return Correction(self.check["offset_ms"], self.check["slope"])

    def describe(self) -> str:
        """The machine and conditions in words."""
        conditions, versions = self.conditions, self.facts.get("versions", {})
        threads = f"{conditions.threads} thread{'s' * (conditions.threads > 1)}, " if conditions.device == "cpu" else ""
        layout = ", channels last" if conditions.channels_last else ""
        words = f"{self.facts.get('device', conditions.device)}, {threads}batch {conditions.batch}, {conditions.dtype}, "
        return f"{words}{conditions.mode}{layout}, torch {versions.get('torch', '?')}"

    def sha256(self, corrected: bool = False) -> str:
        """The hash of what decides a cost: space, layers, medians, and the correction if it is used."""
        lines = [",".join(map(str, (*layer, repr(value)))) for layer, value in sorted(self.values.items())]
        lines += [repr(tuple(self.correction))] if corrected else []
        return hashlib.sha256("\n".join([self.space, *lines]).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all. Raises UserError."""
        columns: dict[str, Any] = {name: [layer[i] for layer in self.layers] for i, name in enumerate(Layer._fields)}
        columns |= {name: getattr(self, name) for name in ("median_ms", "low_ms", "high_ms", "count", "outliers")}
        description = {
            "schema": SCHEMA_VERSION,
            "space": self.space,
            "unit": "ms",
            "conditions": dataclasses.asdict(self.conditions),
            "facts": dict(self.facts),
            "check": dict(self.check),
        }
        metadata = {_METADATA: json.dumps(description, sort_keys=True).encode()}
        table = pa.table(columns, schema=_SCHEMA.with_metadata(metadata))
        with written(path) as temporary:
            pq.write_table(table, temporary, compression="zstd", compression_level=19)


def read(path: Path) -> LatencyTable:
    """Read a measured table. Raises UserError: not readable, not such a table, a number that is no latency, layers missing."""
    try:
        table = pq.read_table(path)
        description = json.loads((table.schema.metadata or {})[_METADATA])
    except OSError as error:
        raise UserError(f"{path}: expected a latency table, found no readable file ({error.strerror or error})") from error
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(f"{path}: expected a latency table of `topdown-ray measure`, found another file") from error
    if description.get("schema") != SCHEMA_VERSION or description.get("space") not in SPACES:
        raise UserError(
            f"{path}: expected schema {SCHEMA_VERSION} and a space of {', '.join(SPACES)}, "
            f"found {description.get('schema')!r} and {description.get('space')!r}"
        )
    if not set(_SCHEMA.names) <= set(table.schema.names):
        raise UserError(f"{path}: expected the columns {', '.join(_SCHEMA.names)}, found {', '.join(table.schema.names)}")
    columns = table.select(_SCHEMA.names).cast(_SCHEMA).to_pydict()
    layers = tuple(Layer(*row) for row in zip(*(columns[name] for name in Layer._fields), strict=True))
    for layer, value in zip(layers, columns["median_ms"], strict=True):
        if value is None or not 0 <= value < 1e9:
            raise UserError(f"{path}: median_ms of {layer}: expected a number of ms >= 0, found {value!r}")
    missing = set(distinct_layers(SPACES[description["space"]])) - set(layers)
    if missing or len(set(layers)) < len(layers):
        found = f"none of {min(missing)}" if missing else "one twice"
        raise UserError(f"{path}: expected every layer of {description['space']} once, found {found}")
    return LatencyTable(
        space=description["space"],
        conditions=Conditions(**description["conditions"]),
        layers=layers,
        facts=description["facts"],
        check=description["check"],
        **{name: np.asarray(columns[name]) for name in _SCHEMA.names[len(Layer._fields) :]},
    )


# --- by name ----------------------------------------------------------------------------------------------------------------


def shipped() -> dict[str, dict[str, Path]]:
    """The tables that come with the package: name -> space -> file."""
    found: dict[str, dict[str, Path]] = {}
    folder = Path(str(resources.files("topdown_ray").joinpath("data")))
    for path in sorted(folder.glob(f"{_SHIPPED_PREFIX}*{SUFFIX}")):
        name, _, space = path.stem.removeprefix(_SHIPPED_PREFIX).partition(".")
        found.setdefault(name, {})[space] = path
    return found


class Source(NamedTuple):
    """Where a measured table of a sweep lies: its name in the rows, its file, and whether its correction is used."""

    name: str
    path: Path
    corrected: bool


def source_of(cost: str, space: Space) -> Source | None:
    """The measured table that ``cost`` names: a shipped one, or a Parquet file, with ``+corrected`` or without; else None.

    Raises UserError for a shipped table that does not cover the space."""
    plain = cost.removesuffix(CORRECTED)
    corrected = plain != cost
    tables = shipped()
    if plain in tables:
        if space.name not in tables[plain]:
            raise UserError(f"cost: {plain} covers {', '.join(tables[plain])}, found the space {space.name!r}")
        return Source(cost, tables[plain][space.name], corrected)
    if plain.endswith(SUFFIX):
        return Source(f"table:{Path(plain).stem}{CORRECTED * corrected}", Path(plain), corrected)
    if corrected:
        known = ", ".join(tables)
        raise UserError(f"cost: expected a measured table ({known} or a file {SUFFIX}) in front of {CORRECTED}, found {cost!r}")
    return None


def full_name(cost: str) -> str:
    """A ``cost`` of a sweep file with the whole path where it is one."""
    plain = cost.removesuffix(CORRECTED)
    if plain in ("note10", "macs", *shipped()) or not Path(plain).exists():
        return cost
    return f"{Path(plain).resolve()}{cost[len(plain) :]}"


# --- tables of OFA's published form -----------------------------------------------------------------------------------------


def export_published(table: LatencyTable, folder: Path) -> list[Path]:
    """Write a table as OFA publishes them, ``R_lookup_table.yaml`` for each resolution R; the medians are called mean there.

    Raises UserError for ResNet50D, for which OFA has no such form.
    """
    space = SPACES[table.space]
    if space.name not in FRAMES:
        raise UserError(f"{space.name}: expected a space of which OFA publishes tables ({', '.join(FRAMES)}), found another")
    place = {layer: i for i, layer in enumerate(table.layers)}
    entries: dict[int, dict[str, dict[str, float]]] = {r: {} for r in resolutions_of(space)}
    parts: dict[tuple[int, str], set[int]] = {}  # ProxylessNAS: one entry for the pooling and the classifier

    def see(layer: Layer, resolution: int) -> float:
        key = published_entry(space, layer)
        if not key:  # goes with the pooling of this resolution
            key = next(name for at, name in parts if at == resolution and name.startswith("Logits"))
        parts.setdefault((resolution, key), set()).add(place[layer])
        return 0.0

    layer_terms(space, see)
    for (resolution, key), rows in parts.items():
        at = sorted(rows)
        deviation = (table.high_ms[at] - table.low_ms[at]) / (2 * 1.96) * np.sqrt(table.count[at])  # as its reader would
        entries[resolution][key] = {
            "count": int(table.count[at].min()),
            "mean": float(table.median_ms[at].sum()),
            "std": float(np.sqrt((deviation**2).sum())),
        }
    paths = []
    for resolution, of_resolution in entries.items():
        paths.append(folder / f"{resolution}_lookup_table.yaml")
        with written(paths[-1]) as temporary:
            temporary.write_text(yaml.safe_dump(of_resolution))
    return paths
