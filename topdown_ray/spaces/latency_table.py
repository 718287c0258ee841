"""Read and write measured latency tables: the milliseconds of every layer of a space on one machine.

A table is a Parquet file. It also records the machine and conditions, the interval and the number of runs of
every layer, and the result of a comparison with whole subnets (see ``whole_subnets``) with a fitted
correction. The correction is used only on request, as ``NAME+corrected``. Tables that come with the package
have names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
from pydantic import BaseModel, ConfigDict

from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import (
    LARGEST_DOCUMENT,
    brief_path,
    check_regular,
    data,
    parse_json,
    validated,
    written,
)
from topdown_ray.spaces.layers import Layer
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space

SCHEMA_VERSION = 1
CORRECTED = "+corrected"
SUFFIX = ".parquet"
_SHIPPED_PREFIX = "latency_"
_METADATA = b"topdown_ray_latency"
_MOST_ROWS = 100_000  # rows of a table; the largest space has 1,247 layers
_MOST_MS = 1e9
# the exceptions of pyarrow for broken files
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    MemoryError,
    pa.ArrowException,
)

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

_NUMBERS = _SCHEMA.names[len(Layer._fields) :]


@dataclass(frozen=True)
class Conditions:
    """The conditions of a measurement. ``batch`` images run at once, and every time is that of the batch."""

    device: str = "cpu"  # cpu, cuda or cuda:N
    threads: int = 1  # of torch, on the CPU
    batch: int = 1
    dtype: str = "float32"  # float32, bfloat16, float16
    mode: str = "eager"  # eager, compile; cuda also graph
    channels_last: bool = False


class Correction(NamedTuple):
    """The time of a whole subnet as a linear function of the table's sum: ``offset_ms + slope x sum``."""

    offset_ms: float
    slope: float


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """The milliseconds of every layer of a space, ``values[layer]``, with 95 % intervals, numbers of runs and
    outliers, and their origin.
    """

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
        """The fitted correction. Raises UserError if the table was never compared with whole subnets, or the
        line cannot be a cost.
        """
        if "slope" not in self.check:
            raise UserError(
                f"{CORRECTED}: expected a table that was compared with whole subnets (topdown-ray measure "
                "--check TABLE), found no comparison"
            )
        offset, slope = self.check["offset_ms"], self.check["slope"]
        if not math.isfinite(offset):
            raise UserError(f"{CORRECTED}: check.offset_ms: expected a finite number of ms, found {offset}")
        if not 0 < slope < math.inf:
            raise UserError(f"{CORRECTED}: check.slope: expected a number > 0, found {slope}")
        return Correction(offset, slope)

    def describe(self) -> str:
        """Return the machine and conditions in words."""
        conditions, versions = self.conditions, self.facts.get("versions", {})
        threads = (
            f"{conditions.threads} thread{'s' * (conditions.threads > 1)}, "
            if conditions.device == "cpu"
            else ""
        )
        layout = ", channels last" if conditions.channels_last else ""
        words = (
            f"{self.facts.get('device', conditions.device)}, {threads}batch {conditions.batch}, "
            f"{conditions.dtype}, "
        )
        return f"{words}{conditions.mode}{layout}, torch {versions.get('torch', '?')}"

    def sha256(self, corrected: bool = False) -> str:
        """Return the hash of everything that decides a cost: space, layers, medians, and the correction if it
        is used.
        """
        lines = [",".join(map(str, (*layer, repr(value)))) for layer, value in sorted(self.values.items())]
        lines += [repr(tuple(self.correction))] if corrected else []
        return hashlib.sha256("\n".join([self.space, *lines]).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the file, completely or not at all. Raises UserError."""
        columns: dict[str, Any] = {
            name: [layer[i] for layer in self.layers] for i, name in enumerate(Layer._fields)
        }
        columns |= {
            name: getattr(self, name) for name in ("median_ms", "low_ms", "high_ms", "count", "outliers")
        }
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


class _Conditions(BaseModel):
    """The fields of :class:`Conditions`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    device: str
    threads: int
    batch: int
    dtype: str
    mode: str
    channels_last: bool


class _Noise(BaseModel):
    """The noise of a measurement, as ``measure`` prints it."""

    model_config = ConfigDict(strict=True)

    rounds: int
    half_width_median: float
    half_width_largest: float
    not_tight: int
    precision: float
    outlier_share: float
    slowest_round: float
    slowdown: float
    throttled: bool
    contention: float | None = None


class _Facts(BaseModel):
    """The facts of a table about its machine. Further facts are kept as they are."""

    model_config = ConfigDict(strict=True)

    device: str = ""
    clock: str = ""
    hardware: dict[str, Any] = {}
    versions: dict[str, str] = {}
    created_at: str = ""
    seconds: float | None = None
    noise: _Noise | None = None

    @pydantic.model_validator(mode="after")
    def _timed(self) -> _Facts:
        if self.noise is not None and self.seconds is None:
            raise ValueError("seconds: expected a number, because noise is given, found none")
        return self


class _Check(BaseModel):
    """The comparison with whole subnets: nothing, only the fitted line, or all figures."""

    model_config = ConfigDict(strict=True)

    offset_ms: float | None = None
    slope: float | None = None
    subnets: int | None = None
    fastest_ms: float | None = None
    slowest_ms: float | None = None
    half_width_median: float | None = None
    bias: float | None = None
    mae: float | None = None
    rmse: float | None = None
    tau: float | None = None
    corrected_bias: float | None = None
    corrected_mae: float | None = None
    corrected_rmse: float | None = None

    @pydantic.model_validator(mode="after")
    def _whole(self) -> _Check:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        wanted = {"offset_ms", "slope"} if given <= {"offset_ms", "slope"} else set(type(self).model_fields)
        if given and given != wanted:
            raise ValueError(
                f"expected {', '.join(sorted(wanted - given))} in addition to {min(given)}, found none"
            )
        return self


class _About(BaseModel):
    """The description in a table's metadata."""

    model_config = ConfigDict(strict=True)

    unit: Literal["ms"] = "ms"
    conditions: _Conditions
    facts: _Facts
    check: _Check


def read(path: Path) -> LatencyTable:
    """Read a measured table. Raises UserError if it cannot be read, is not such a table, has a number that is
    no latency, or does not have all layers.
    """
    what, where = "a latency table of `topdown-ray measure`", brief_path(path)
    check_regular(path, "a latency table", LARGEST_DOCUMENT)
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > _MOST_ROWS:
                raise UserError(
                    f"{where}: expected a latency table of at most {_MOST_ROWS:,} layers, found "
                    f"{file.metadata.num_rows:,}"
                )
            table = file.read()
        metadata = (table.schema.metadata or {})[_METADATA]
    except _UNREADABLE as error:
        raise UserError(f"{where}: expected {what}, found another file") from error
    description = parse_json(metadata, f"{where}: metadata")
    if not isinstance(description, dict):
        raise UserError(f"{where}: metadata: expected a mapping, found {brief(description)}")
    version, space = description.get("schema"), description.get("space")
    if version is True or version != SCHEMA_VERSION or space not in list(SPACES):
        expected = f"schema {SCHEMA_VERSION} and a space of {', '.join(SPACES)}"
        raise UserError(f"{where}: expected {expected}, found {brief(version)} and {brief(space)}")
    about = validated(_About, description, f"{where}: metadata")
    columns = _columns(table, where)
    layers = tuple(Layer(*row) for row in zip(*(columns[name] for name in Layer._fields), strict=True))
    for name in _NUMBERS:
        lowest, kind = (0, "a number of ms > 0") if name.endswith("_ms") else (-1, "a whole number >= 0")
        for layer, value in zip(layers, columns[name], strict=True):
            if not lowest < value < _MOST_MS:
                raise UserError(
                    f"{where}: {name} of {one_line(layer, 400)}: expected {kind}, found {brief(value)}"
                )
    missing = set(SPACES[space].distinct_layers()) - set(layers)
    if missing or len(set(layers)) < len(layers):
        found = f"no row for {min(missing)}" if missing else "one layer twice"
        raise UserError(f"{where}: expected every layer of {space} once, found {found}")
    return LatencyTable(
        space=space,
        conditions=Conditions(**about.conditions.model_dump()),
        layers=layers,
        facts=description["facts"],
        check=description["check"],  # unchanged, because the hash of a corrected table covers these figures
        **{name: np.asarray(columns[name]) for name in _NUMBERS},
    )


def _columns(table: pa.Table, where: str) -> dict[str, list[Any]]:
    """The columns of a table as lists without missing values. Raises UserError."""
    found = table.schema.names
    if not set(_SCHEMA.names) <= set(found) or any(found.count(name) > 1 for name in _SCHEMA.names):
        raise UserError(
            f"{where}: expected the columns {', '.join(_SCHEMA.names)} once each, found {brief(found, 300)}"
        )
    try:
        table = table.select(_SCHEMA.names).cast(_SCHEMA)
        columns: dict[str, list[Any]] = table.to_pydict()
    except _UNREADABLE as error:
        raise UserError(f"{where}: expected columns of a latency table, found {one_line(error)}") from error
    for name in _SCHEMA.names:
        if table[name].null_count:
            raise UserError(
                f"{where}: {name}: expected a value for every layer, found {table[name].null_count} "
                "without one"
            )
    return columns


# --- by name ------------------------------------------------------------------------------------------------


def shipped() -> dict[str, dict[str, Path]]:
    """Return the tables that come with the package: name -> space -> file."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(data().glob(f"{_SHIPPED_PREFIX}*{SUFFIX}")):
        name, _, space = path.stem.removeprefix(_SHIPPED_PREFIX).partition(".")
        found.setdefault(name, {})[space] = path
    return found


class Source(NamedTuple):
    """A measured table of a sweep: its name in the rows, its file, and whether its correction is used."""

    name: str
    path: Path
    corrected: bool


def source_of(cost: str, space: Space) -> Source | None:
    """Return the measured table that ``cost`` names, or None: a shipped table or a Parquet file, with or
    without ``+corrected``, or a CSV file.

    Raises UserError for a shipped table that does not cover the space."""
    plain = cost.removesuffix(CORRECTED)
    corrected = plain != cost
    tables = shipped()
    if plain in tables:
        if space.name not in tables[plain]:
            raise UserError(
                f"cost: expected a table that covers {space.name}, found {plain}, which covers "
                f"{', '.join(tables[plain])}"
            )
        return Source(cost, tables[plain][space.name], corrected)
    if plain.endswith(SUFFIX) or (plain.endswith(".csv") and not corrected):
        return Source(f"table:{Path(plain).stem}{CORRECTED * corrected}", Path(plain), corrected)
    if corrected:
        known = ", ".join(tables)
        raise UserError(
            f"cost: expected a measured table ({known} or a {SUFFIX} file) before {CORRECTED}, found {cost!r}"
        )
    return None
