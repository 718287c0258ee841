"""Result folders: versioned Parquet tables in atomic parts, a manifest, and loading them as pandas frames.

``run.json`` says what the sweep is and when it ran; ``searches/`` and ``trace/`` hold the tables in parts (see :mod:`parts`),
``failures/`` the shards that finally failed. Only the driver writes.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from topdown_ray.errors import UserError
from topdown_ray.failures import FOLDER, Failures, read_failures
from topdown_ray.parts import TABLES, DamagedError, Parts, parallel, part_names, read_part
from topdown_ray.spec import Shard, SweepSpec, load_spec, make_spec
from topdown_ray.storage import Place, is_uri, reason

if TYPE_CHECKING:
    from topdown_ray.tables import Summary

SCHEMA_VERSION = 3  # 2: unique_evaluations; 3: gradients
READ_ATTEMPTS = 5  # while a driver merges parts

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
    """The folder of one sweep, local or remote, as its driver writes it."""

    def __init__(self, path: str | Path):
        self.path = path
        self.place = Place(path)
        self.damaged: list[str] = []  # parts that :meth:`open` found damaged and deleted: their searches run again
        self._parts = Parts(self.place)
        self._failures = Failures(self.place)
        self._finished: set[str] = set()
        self._session: dict[str, Any] = {}

    def check(self, run_id: str, resume: bool) -> None:
        """Raise UserError unless this sweep may run here; writes nothing."""
        try:
            self._check(run_id, resume)
        except OSError as error:
            raise UserError(f"{self.place.name}: expected a folder to write to, found {reason(error)}") from error

    def _check(self, run_id: str, resume: bool) -> None:
        self.place.check()
        if self.place.exists("run.json"):
            found = read_manifest(self.path).get("run_id")
            if found != run_id:
                raise UserError(f"{self.place.name}: expected an empty folder or sweep {run_id}, found sweep {found}")
            if not resume:
                raise UserError(f"{self.place.name}: expected an empty folder (--no-resume), found this sweep begun")
            if self.place.held():
                raise UserError(f"{self.place.name}: expected a folder that no other sweep writes to, found {self._holder()}")
        elif not self.place.empty(TABLES):
            raise UserError(f"{self.place.name}: expected an empty folder or a sweep's results, found other files")

    def open(self, manifest: Mapping[str, Any], resume: bool) -> None:
        """Create the folder, or continue the same sweep in it, as its only driver until :meth:`end`.

        On an object store there is no lock: a second driver is harmless there, it computes and writes the same rows. Verifies all
        parts and deletes those that are damaged (see ``damaged``). Raises UserError before anything is written.
        """
        self.check(str(manifest["run_id"]), resume)
        self.place.prepare(TABLES)
        if not self.place.hold():
            raise UserError(f"{self.place.name}: expected a folder that no other sweep writes to, found {self._holder()}")
        try:
            begun = {"started_at": _now(), "ended_at": None, "wall_s": None, "host": socket.gethostname(), "pid": os.getpid()}
            self._session = {**begun, **{name: manifest[name] for name in ("versions", "machine") if name in manifest}}
            self.place.clear_away((*TABLES, FOLDER))
            before = read_manifest(self.path) if self.place.exists("run.json") else dict(manifest)
            self._finished, self.damaged = self._parts.resume()
            self._failures.read(self._finished)
            self._write_manifest({**before, "status": "running", "sessions": [*before.get("sessions", []), self._session]})
        except OSError as error:
            self.place.release()
            raise UserError(f"{self.place.name}: expected parts that can be read, found {reason(error)}") from error
        except BaseException:
            self.place.release()
            raise

    def finished(self) -> set[str]:
        """The identities of all searches that had rows when the folder was opened."""
        return self._finished

    def write(self, shard_id: str, searches: pa.Table, trace: pa.Table) -> None:
        """Add a finished shard; several threads may. When this returns, it is there for good. Raises StoreError."""
        self._parts.write(shard_id, searches, trace)
        self._failures.clear(searches["search_id"].to_pylist())

    def hurry(self) -> None:
        """The driver is to end soon: leave parts unmerged."""
        self._parts.hurry = True

    def record_failure(self, shard: Shard, error: str) -> str:
        """Write ``failures/SHARD_ID.json`` for a shard that is given up: its searches, its traceback, the command to rerun it.

        Returns that command. The record goes away as soon as all its searches have rows. Raises StoreError.
        """
        return self._failures.record(shard, error)

    def end(self, complete: bool, seconds: Mapping[str, float], facts: Mapping[str, Any]) -> None:
        """The end of what :meth:`open` began: run.json tells how it ended, and another driver may open the folder.

        seconds: of this session (``wall_s``, ``busy_s``); run.json holds each session's and their sums. Raises StoreError.
        """
        try:
            manifest = read_manifest(self.path)
            others = [session for session in manifest.get("sessions", []) if session != self._session]
            sessions = [*others, {**self._session, "ended_at": _now(), **seconds}]
            sums = {name: manifest.get(name, 0.0) + value for name, value in seconds.items()}
            status = "complete" if complete else "incomplete"
            self._write_manifest({**manifest, **facts, **sums, "status": status, "sessions": sessions})
        finally:
            self.place.release()

    def abandon(self, pid: int) -> None:
        """Say in run.json that the sweep no longer runs: its driver, the process ``pid``, died before :meth:`end`. Raises StoreError.

        Without effect if another driver has taken the folder over.
        """
        if not self.place.hold():
            return
        try:
            manifest = read_manifest(self.path)
            *others, last = manifest.get("sessions") or [{}]
            if manifest.get("status") == "running" and last.get("pid") == pid and last.get("host") == socket.gethostname():
                self._write_manifest({**manifest, "status": "incomplete", "sessions": [*others, {**last, "ended_at": _now()}]})
        finally:
            self.place.release()

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        self.place.write("run.json", (json.dumps(manifest, indent=2) + "\n").encode())

    def _holder(self) -> str:
        sessions = read_manifest(self.path).get("sessions", []) if self.place.exists("run.json") else []
        if not sessions:
            return "one that has just begun"
        return "process {pid} on {host}, since {started_at}".format(**sessions[-1])


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The content of run.json. Raises UserError."""
    place = Place(folder)
    path = place.of("run.json")
    try:
        manifest = json.loads(place.read("run.json"))
    except OSError as error:
        raise UserError(
            f"{place.name}: expected a sweep's result folder, found no readable run.json ({reason(error)})"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, found {error}") from error
    if not isinstance(manifest, dict):
        raise UserError(f"{path}: expected a mapping, found {type(manifest).__name__}")
    for key, kind in (("run_id", str), ("spec", dict), ("wall_s", (int, float))):
        if not isinstance(manifest.get(key), kind):
            raise UserError(f"{path}: {key}: expected a value as a sweep writes it, found {manifest.get(key)!r}")
    return manifest


def read_spec(source: str | Path) -> SweepSpec:
    """The sweep of a sweep file, or of a result folder. Raises UserError."""
    if is_uri(source) or Path(source).is_dir():
        return make_spec(read_manifest(source)["spec"], f"{Place(source).of('run.json')}: spec")
    return load_spec(Path(source))


def failed_searches(folder: str | Path) -> dict[str, list[str]]:
    """The searches of every shard that ``failures/`` records. Raises UserError."""
    return {shard_id: record["search_ids"] for shard_id, record in read_failures(Place(folder)).items()}


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
    """Load a result folder, local or by URI. Rows come in a fixed order: space, strategy, targets, seed, target.

    Every part is verified. Raises UserError, which names the file, where one is damaged.
    """
    place = Place(folder)
    manifest = read_manifest(folder)
    version = manifest.get("schema")
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise UserError(f"{place.of('run.json')}: schema: expected a version from 1 to {SCHEMA_VERSION}, found {version!r}")
    frames = _read_tables(place)
    searches = frames["searches"].drop_duplicates(["search_id", "target_index"])
    trace = frames["trace"].merge(searches[["search_id", "shard_id"]].drop_duplicates(), on=["search_id", "shard_id"])
    trace = trace.drop_duplicates(["search_id", "target_index", "generation"])
    order = searches.assign(_targets=searches["targets"].map(tuple)).sort_values(
        ["space", "strategy", "k", "_targets", "seed", "target_index"], kind="stable"
    )
    return Results(
        manifest,
        order.drop(columns="_targets").reset_index(drop=True),
        trace.sort_values(["search_id", "target_index", "generation"], kind="stable").reset_index(drop=True),
    )


def _read_tables(place: Place) -> dict[str, pd.DataFrame]:
    """Both tables, as they are at one moment: while a sweep goes on, its driver merges parts and deletes those it merged."""
    for _ in range(READ_ATTEMPTS):
        try:
            searches = _read_parts(place, "searches", SEARCHES)
            return {"searches": searches, "trace": _read_parts(place, "trace", TRACE)}
        except FileNotFoundError:
            continue
    raise UserError(f"{place.name}: expected parts that stay while they are read, found them merged {READ_ATTEMPTS} times")


def _read_parts(place: Place, table: str, schema: pa.Schema) -> pd.DataFrame:
    def read(name: str) -> pa.Table:
        try:
            return read_part(place, table, name, schema)
        except DamagedError as error:
            advice = "run the sweep again into the same folder: it computes these searches afresh"
            raise UserError(
                f"{place.of(f'{table}/{name}')}: expected a part as it was written, found {error}; {advice}"
            ) from error

    try:
        tables = list(parallel(place, read, list(part_names(place, table))))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{place.of(table)}: expected parts that can be read, found {reason(error)}") from error
    frame: pd.DataFrame = pa.concat_tables([schema.empty_table(), *tables]).to_pandas()
    return frame
