"""Result folders: versioned Parquet tables in atomic parts, a manifest, and loading them as pandas frames.

``run.json`` says what the sweep is; ``searches/`` and ``trace/`` hold one file a shard. A shard's trace is written before its
searches, both to a temporary name, flushed, then renamed: a shard is finished when its file in ``searches/`` exists.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.errors import UserError

if TYPE_CHECKING:
    from topdown_ray.tables import Summary

SCHEMA_VERSION = 3  # 2: unique_evaluations; 3: gradients

SEARCHES = pa.schema(
    [
        ("run_id", pa.string()),
        ("search_id", pa.string()),
        ("shard_id", pa.string()),
        ("space", pa.string()),
        ("strategy", pa.string()),
        ("protocol", pa.string()),
        ("cost_name", pa.string()),
        ("cost_unit", pa.string()),
        ("cost_sha256", pa.string()),
        ("predictor_name", pa.string()),
        ("predictor_space", pa.string()),
        ("predictor_sha256", pa.string()),
        ("seed", pa.int64()),
        ("k", pa.int32()),
        ("targets", pa.list_(pa.float64())),
        ("target_index", pa.int32()),
        ("target", pa.float64()),
        ("feasible", pa.bool_()),
        ("accuracy", pa.float64()),
        ("cost", pa.float64()),
        ("arch", pa.string()),
        ("genes", pa.list_(pa.int8())),
        ("macs_m", pa.float64()),
        ("params_m", pa.float64()),
        ("generations", pa.int64()),
        ("evaluations", pa.int64()),
        ("unique_evaluations", pa.int64()),
        ("gradients", pa.int64()),
        ("wall_s", pa.float64()),
        ("search_wall_s", pa.float64()),
        ("batch_size", pa.int32()),
        ("device", pa.string()),
        ("threads", pa.int32()),
        ("host", pa.string()),
        ("started_at", pa.timestamp("us", tz="UTC")),
    ],
    metadata={"topdown_ray_schema": str(SCHEMA_VERSION)},
)

TRACE = pa.schema(
    [
        ("run_id", pa.string()),
        ("search_id", pa.string()),
        ("shard_id", pa.string()),
        ("seed", pa.int64()),
        ("target_index", pa.int32()),
        ("generation", pa.int64()),
        ("evaluations", pa.int64()),
        ("best_accuracy", pa.float64()),
    ],
    metadata={"topdown_ray_schema": str(SCHEMA_VERSION)},
)

#: Columns that tell how a row was computed, not what came out: they may differ between two runs of the same sweep.
INCIDENTAL = ("shard_id", "wall_s", "search_wall_s", "batch_size", "device", "threads", "host", "started_at")


def to_tables(run_id: str, rows: Sequence[Mapping[str, Any]], trace: Sequence[Mapping[str, Any]]) -> tuple[pa.Table, pa.Table]:
    """A shard's rows as Arrow tables of the two schemas."""
    return (
        pa.Table.from_pylist([{**row, "run_id": run_id} for row in rows], schema=SEARCHES),
        pa.Table.from_pylist([{**row, "run_id": run_id} for row in trace], schema=TRACE),
    )


class ResultFolder:
    """The folder of one sweep, as the driver writes it."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def manifest_path(self) -> Path:
        """Where run.json lies."""
        return self.path / "run.json"

    def check(self, run_id: str, resume: bool) -> None:
        """Raise UserError unless this sweep may run here; writes nothing."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: expected a folder, found a file")
        if self.manifest_path.exists():
            found = read_manifest(self.path).get("run_id")
            if found != run_id:
                raise UserError(f"{self.path}: expected an empty folder or sweep {run_id}, found sweep {found}")
            if not resume:
                raise UserError(f"{self.path}: expected an empty folder (--no-resume), found this sweep begun")
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise UserError(f"{self.path}: expected an empty folder or a sweep's results, found other files")
        nearest = next(folder for folder in [self.path, *self.path.absolute().parents] if folder.exists())
        if not nearest.is_dir():
            raise UserError(f"{self.path}: expected a folder to write to, found that {nearest} is a file")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise UserError(f"{self.path}: expected a folder to write to, found {nearest} not writable")

    def open(self, manifest: Mapping[str, Any], resume: bool) -> None:
        """Create the folder, or continue the same sweep in it. Raises UserError before anything is written."""
        self.check(str(manifest["run_id"]), resume)
        try:
            for part in ("searches", "trace"):
                (self.path / part).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise UserError(f"{self.path}: expected a folder to write to, found {error.strerror}") from error
        for leftover in self.path.glob("**/.*.tmp"):
            leftover.unlink()
        parts = {name: {path.name: path for path in (self.path / name).glob("*.parquet")} for name in ("searches", "trace")}
        for one, other in (("searches", "trace"), ("trace", "searches")):
            for name in parts[one].keys() - parts[other].keys():
                parts[one][name].unlink()  # half of a shard: it runs again
        if not self.manifest_path.exists():
            self.write_manifest(manifest)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write run.json, atomically."""
        _atomically(self.manifest_path, lambda file: file.write((json.dumps(manifest, indent=2) + "\n").encode()))

    def write(self, shard_id: str, searches: pa.Table, trace: pa.Table) -> None:
        """Add a finished shard."""
        for folder, table in (("trace", trace), ("searches", searches)):
            _atomically(self.path / folder / f"{shard_id}.parquet", lambda file, table=table: pq.write_table(table, file))

    def finished(self) -> set[str]:
        """The identities of all searches that have rows."""
        done: set[str] = set()
        for part in (self.path / "searches").glob("*.parquet"):
            try:
                done.update(pq.read_table(part, columns=["search_id"])["search_id"].to_pylist())
            except (OSError, pa.ArrowException, KeyError) as error:
                reason = " ".join(str(error).split())
                advice = "delete it and the sweep computes it again"
                raise UserError(f"{part}: expected a part of a sweep's table, found {reason}; {advice}") from error
        return done


def _atomically(path: Path, write: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of run.json. Raises UserError."""
    path = folder / "run.json"
    try:
        manifest = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{folder}: expected a sweep's result folder, found no readable run.json ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, found {error}") from error
    if not isinstance(manifest, dict):
        raise UserError(f"{path}: expected a mapping, found {type(manifest).__name__}")
    for key, kind in (("run_id", str), ("spec", dict), ("wall_s", (int, float))):
        if not isinstance(manifest.get(key), kind):
            raise UserError(f"{path}: {key}: expected a value as a sweep writes it, found {manifest.get(key)!r}")
    return manifest


@dataclass(frozen=True)
class Results:
    """A sweep's results: the manifest, and one pandas frame a table."""

    manifest: dict[str, Any]
    searches: pd.DataFrame
    trace: pd.DataFrame

    def summary(self) -> Summary:
        """The accuracy and timing tables of the report as frames. Raises UserError where no search has finished."""
        from topdown_ray.tables import summary

        return summary(self)


def load(folder: str | Path) -> Results:
    """Load a result folder. Rows come in a fixed order: space, strategy, targets, seed, target. Raises UserError."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    version = manifest.get("schema")
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise UserError(f"{folder}/run.json: schema: expected a version from 1 to {SCHEMA_VERSION}, found {version!r}")
    frames = {name: _read_parts(folder / name, schema) for name, schema in (("searches", SEARCHES), ("trace", TRACE))}
    searches = frames["searches"].drop_duplicates(["search_id", "target_index"])
    trace = frames["trace"].merge(searches[["search_id", "shard_id"]].drop_duplicates(), on=["search_id", "shard_id"])
    order = searches.assign(_targets=searches["targets"].map(tuple)).sort_values(
        ["space", "strategy", "k", "_targets", "seed", "target_index"], kind="stable"
    )
    return Results(
        manifest,
        order.drop(columns="_targets").reset_index(drop=True),
        trace.sort_values(["search_id", "target_index", "generation"], kind="stable").reset_index(drop=True),
    )


def _read_parts(folder: Path, schema: pa.Schema) -> pd.DataFrame:
    tables = []
    for part in sorted(folder.glob("*.parquet")):
        try:
            tables.append(pq.read_table(part, schema=schema))
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{part}: expected a part of a sweep's table, found {' '.join(str(error).split())}") from error
    frame: pd.DataFrame = pa.concat_tables([schema.empty_table(), *tables]).to_pandas()
    return frame
