"""Result folders: versioned Parquet tables in atomic parts, a manifest, and loading them as pandas frames.

``run.json`` says what the sweep is and when it ran; ``searches/`` and ``trace/`` hold the tables in parts
(see :mod:`parts`), ``failures/`` the shards that finally failed. Only the driver writes."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from topdown_ray.errors import StoreError, UserError
from topdown_ray.store.failures import FOLDER, FailedShard, Failures, read_failures
from topdown_ray.store.manifest import check_resumable, manifest_of
from topdown_ray.store.parts import TABLES, DamagedError, Parts, part_names, read_part
from topdown_ray.store.place import Place
from topdown_ray.store.reading import SEARCH_KEYS, TRACE_KEYS, read_tables

SCHEMA_VERSION = 4  # 2: unique_evaluations; 3: gradients; 4: gradient_rows, cpu_s, search_cpu_s

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
        ("gradient_rows", pa.float64()),
        ("wall_s", pa.float64()),
        ("search_wall_s", pa.float64()),
        ("cpu_s", pa.float64()),
        ("search_cpu_s", pa.float64()),
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

# : Columns that tell how a row was computed, not what came out: they may differ between two runs of the same
# sweep.
INCIDENTAL = (
    "shard_id",
    "gradient_rows",
    "wall_s",
    "search_wall_s",
    "cpu_s",
    "search_cpu_s",
    "batch_size",
    "device",
    "threads",
    "host",
    "started_at",
)


def to_tables(
    run_id: str, rows: Sequence[Mapping[str, Any]], trace: Sequence[Mapping[str, Any]]
) -> tuple[pa.Table, pa.Table]:
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
        self.damaged: list[
            str
        ] = []  # parts that :meth:`open` found damaged and moved to damaged/: their searches run again
        self.rebuilt = (
            False  # whether :meth:`open` found parts of this sweep without run.json, and wrote it anew
        )
        self._parts = Parts(self.place)
        self._failures = Failures(self.place)
        self._finished: set[str] = set()
        self._session: dict[str, Any] = {}
        self._manifest: dict[str, Any] = {}  # as it was last written

    def check(self, manifest: Mapping[str, Any], resume: bool) -> None:
        """Raise UserError unless the sweep of this manifest may run here; writes nothing."""
        try:
            self._check(str(manifest["run_id"]), manifest.get("algorithm"), resume)
        except OSError as error:
            raise UserError(
                f"{self.place.name}: expected a folder to write to, found {self.place.reason(error)}"
            ) from error

    def _check(self, run_id: str, algorithm: Any, resume: bool) -> None:
        self.place.check()
        begun = self.place.exists("run.json")
        if begun:
            manifest, where = read_manifest(self.path), self.place.of("run.json")
            check_resumable(manifest, where, algorithm)
            if manifest["run_id"] != run_id:
                found = manifest["run_id"]
                raise UserError(
                    f"{self.place.name}: expected an empty folder or sweep {run_id}, found sweep {found}"
                )
        elif not self.place.empty(TABLES):
            if self._run_ids() != {run_id}:
                raise UserError(
                    f"{self.place.name}: expected an empty folder or a sweep's results, found other files"
                )
            begun = self.rebuilt = True
        if begun and not resume:
            raise UserError(
                f"{self.place.name}: expected an empty folder (--no-resume), found this sweep begun"
            )
        if begun and self.place.held():
            raise UserError(
                f"{self.place.name}: expected a folder that no other sweep writes to, found {self._holder()}"
            )

    def _run_ids(self) -> set[Any]:
        """The sweeps that the parts in here are of."""
        found: set[Any] = set()
        for table in TABLES:
            for name in part_names(self.place, table):
                with contextlib.suppress(DamagedError):  # :meth:`open` will move it
                    found.update(
                        read_part(self.place, table, name, columns=["run_id"])["run_id"].unique().to_pylist()
                    )
        return found

    def open(self, manifest: Mapping[str, Any], resume: bool) -> None:
        """Create the folder, or continue the same sweep in it, as its only driver until :meth:`end`.

        On an object store there is no lock: a second driver is harmless there, it computes and writes the
        same rows. Verifies all parts and moves those that are damaged to ``damaged/`` (see ``damaged``);
        where run.json was lost it is written anew. Raises UserError before anything is written."""
        self.check(manifest, resume)
        self.place.prepare(TABLES)
        try:
            if not self.place.hold():
                raise UserError(
                    f"{self.place.name}: expected a folder that no other sweep writes to, found "
                    f"{self._holder()}"
                )
            begun = {
                "started_at": _now(),
                "ended_at": None,
                "wall_s": None,
                "host": socket.gethostname(),
                "pid": os.getpid(),
            }
            self._session = {
                **begun,
                **{name: manifest[name] for name in ("versions", "machine") if name in manifest},
            }
            self.place.clear_away((*TABLES, FOLDER))
            before = read_manifest(self.path) if self.place.exists("run.json") else dict(manifest)
            self._finished, self.damaged = self._parts.resume()
            self._failures.read(self._finished)
            before["schema"] = manifest.get("schema", SCHEMA_VERSION)
            self._write_manifest(
                {**before, "status": "running", "sessions": [*before.get("sessions", []), self._session]}
            )
        except OSError as error:
            self.place.abandon()
            raise UserError(
                f"{self.place.name}: expected parts that can be read, found {self.place.reason(error)}"
            ) from error
        except MemoryError as error:
            self.place.abandon()
            raise UserError(
                f"{self.place.name}: expected memory to verify the parts, found too little"
            ) from error
        except BaseException:
            self.place.abandon()
            raise

    def finished(self) -> set[str]:
        """The identities of all searches that had rows when the folder was opened."""
        return self._finished

    def write(self, shard_id: str, searches: pa.Table, trace: pa.Table) -> None:
        """Add a finished shard; several threads may. When this returns, it is there for good. Raises
        StoreError.
        """
        self._parts.write(shard_id, searches, trace)
        self._failures.clear(searches["search_id"].to_pylist())

    def hurry(self) -> None:
        """The driver is to end soon: leave parts unmerged."""
        self._parts.hurry = True

    def record_failure(self, shard: FailedShard, error: str) -> str:
        """Write ``failures/SHARD_ID.json`` for a shard that is given up: its searches, its traceback, the
        command to rerun it.

        Returns that command. The record goes away as soon as all its searches have rows. Raises StoreError.
        """
        return self._failures.record(shard, error)

    def end(
        self, complete: bool, seconds: Mapping[str, float], facts: Mapping[str, Any], promised: int = 0
    ) -> None:
        """The end of what :meth:`open` began: run.json tells how it ended, and another driver may open the
        folder.

        seconds: of this session (``wall_s``, ``busy_s``); run.json holds each session's and their sums.
        promised: the searches whose rows must be in the folder now; they are counted there. Raises
        StoreError, also where some of them are gone."""
        try:
            gone = self._gone(promised) if promised else 0
            manifest = read_manifest(self.path) if self.place.exists("run.json") else self._manifest
            others = [session for session in manifest.get("sessions", []) if session != self._session]
            sessions = [*others, {**self._session, "ended_at": _now(), **seconds}]
            sums = {name: manifest.get(name, 0.0) + value for name, value in seconds.items()}
            status = "complete" if complete and not gone else "incomplete"
            self._write_manifest({**manifest, **facts, **sums, "status": status, "sessions": sessions})
            if gone:
                raise StoreError(
                    f"{self.place.name}: expected the rows of {promised} searches, found that those of "
                    f"{gone} are gone: "
                    "files of this folder were deleted or changed while the sweep ran"
                )
        finally:
            self.place.release()

    def _gone(self, promised: int) -> int:
        try:
            return self._parts.lacking(promised)
        except (OSError, UserError) as error:
            raise StoreError(
                f"{self.place.name}: expected parts that can be counted, found: {self.place.reason(error)}"
            ) from error

    def abandon(self, pid: int) -> None:
        """Say in run.json that the sweep no longer runs: its driver, the process ``pid``, died before
        :meth:`end`. Raises StoreError.

        Without effect if another driver has taken the folder over.
        """
        if not self.place.hold():
            return
        try:
            manifest = read_manifest(self.path)
            *others, last = manifest.get("sessions") or [{}]
            if (
                manifest.get("status") == "running"
                and last.get("pid") == pid
                and last.get("host") == socket.gethostname()
            ):
                self._write_manifest(
                    {**manifest, "status": "incomplete", "sessions": [*others, {**last, "ended_at": _now()}]}
                )
        finally:
            self.place.release()

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        self._manifest = dict(manifest)
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


def failed_searches(folder: str | Path) -> dict[str, list[str]]:
    """The searches of every shard that ``failures/`` records. Raises UserError."""
    return {shard_id: record["search_ids"] for shard_id, record in read_failures(Place(folder)).items()}


@dataclass(frozen=True)
class Results:
    """A sweep's results: the manifest, and one pandas frame a table."""

    manifest: dict[str, Any]
    searches: pd.DataFrame
    trace: pd.DataFrame


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
