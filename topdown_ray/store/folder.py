"""Write the result folder of a sweep: its manifest ``run.json`` and its tables in atomic Parquet parts.

``run.json`` says what the sweep is and when it ran. ``searches/``, ``trace/`` and ``front/`` contain the
tables in parts (see :mod:`parts`), and ``failures/`` the shards that failed permanently. Only the driver
writes."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from topdown_ray.errors import StoreError, UserError
from topdown_ray.store.failures import FOLDER, FailedShard, Failures
from topdown_ray.store.identities import Identities
from topdown_ray.store.layout import SWEEP, TABLES
from topdown_ray.store.manifest import changed_since, check_resumable, read_manifest
from topdown_ray.store.part_files import DamagedError, part_names, read_part
from topdown_ray.store.parts import Parts
from topdown_ray.store.place import Place
from topdown_ray.store.schema import SCHEMA_VERSION


class ResultFolder:
    """The folder of one sweep, local or remote, as its driver writes it."""

    def __init__(self, path: str | Path):
        self.path = path
        self.place = Place(path)
        # parts that :meth:`open` found damaged and moved to damaged/; their searches run again
        self.damaged: list[str] = []
        # whether :meth:`open` found parts of this sweep without run.json, and wrote it again
        self.rebuilt = False
        self._parts = Parts(self.place)
        self._failures = Failures(self.place)
        self._finished = Identities()
        self._session: dict[str, Any] = {}
        self._manifest: dict[str, Any] = {}  # as it was last written

    def check(self, manifest: Mapping[str, Any], resume: bool) -> None:
        """Raise UserError unless the sweep of this manifest may run here; writes nothing."""
        try:
            self._check(manifest, resume)
        except OSError as error:
            raise UserError(
                f"{self.place.name}: expected a folder to write to, found {self.place.reason(error)}"
            ) from error

    def _check(self, manifest: Mapping[str, Any], resume: bool) -> None:
        self.place.check()
        run_id = str(manifest["run_id"])
        begun = self.place.exists("run.json")
        if begun:
            before, where = read_manifest(self.path), self.place.of("run.json")
            check_resumable(before, where, manifest.get("algorithm", 0))
            if before["run_id"] != run_id:
                found = before["run_id"]
                raise UserError(
                    f"{self.place.name}: expected an empty folder or sweep {run_id}, found sweep {found}"
                    + changed_since(before, manifest)
                )
        elif not self.place.empty(SWEEP.tables):
            if self._run_ids() != {run_id}:
                raise UserError(
                    f"{self.place.name}: expected an empty folder or a sweep's results, found other files"
                )
            begun = self.rebuilt = True
        if begun and not resume:
            raise UserError(
                f"{self.place.name}: expected an empty folder (--no-resume), found results of this sweep"
            )
        if begun and self.place.surely_held():
            raise UserError(
                f"{self.place.name}: expected a folder that no other sweep writes to, found {self._holder()}"
            )

    def _run_ids(self) -> set[Any]:
        """The sweeps to which the parts in this folder belong."""
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

        Object stores other than S3 have no lock. A second driver is harmless there, because it computes and
        writes the same rows. All parts are verified, and damaged ones are moved to ``damaged/`` (see
        ``damaged``). A lost run.json is written again. Raises UserError before anything is written."""
        self.check(manifest, resume)
        self.place.prepare(SWEEP.tables)
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
            self.place.clear_away((".", *SWEEP.tables, FOLDER))
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
                f"{self.place.name}: expected enough memory to verify the parts, found too little"
            ) from error
        except BaseException:
            self.place.abandon()
            raise

    def amend(self, facts: Mapping[str, Any]) -> None:
        """Change facts of run.json, between :meth:`open` and :meth:`end`. Raises StoreError."""
        self._write_manifest({**self._manifest, **facts})

    def finished(self) -> Identities:
        """Return the identities of all searches that had rows when the folder was opened."""
        return self._finished

    def write(self, shard_id: str, searches: pa.Table, *others: pa.Table) -> None:
        """Add a finished shard: its searches, its trace, and its front if it has one. Several threads may do
        this at once. When this returns, the rows are stored permanently. Raises StoreError.
        """
        self._parts.write(shard_id, searches, *others)
        self._failures.clear(searches["search_id"])

    def stop_merging(self) -> None:
        """Merge no more parts, because the driver is about to end."""
        self._parts.stop_merging()

    def record_failure(self, shard: FailedShard, error: str) -> str:
        """Write ``failures/SHARD_ID.json`` for a shard that failed permanently: its searches, its traceback,
        and the command to run it again.

        Returns that command. The record is deleted as soon as all its searches have rows. Raises StoreError.
        """
        return self._failures.record(shard, error)

    def end(
        self, complete: bool, seconds: Mapping[str, float], facts: Mapping[str, Any], count: bool = False
    ) -> None:
        """Close the folder after :meth:`open`: write to run.json how the sweep ended, and release the lock.

        seconds: those of this session (``wall_s``, ``busy_s``); run.json has each session's and their sums.
        count: check that every search that had rows at :meth:`open` or was written since has rows now. Raises
        StoreError, also if some of them are gone."""
        try:
            gone = self._gone() if count else 0
            manifest = read_manifest(self.path) if self.place.exists("run.json") else self._manifest
            others = [session for session in manifest.get("sessions", []) if session != self._session]
            sessions = [*others, {**self._session, "ended_at": _now(), **seconds}]
            sums = {name: manifest.get(name, 0.0) + value for name, value in seconds.items()}
            status = "complete" if complete and not gone else "incomplete"
            self._write_manifest({**manifest, **facts, **sums, "status": status, "sessions": sessions})
            if gone:
                raise StoreError(
                    f"{self.place.name}: expected the rows of {self._parts.promised} searches, found that "
                    f"those of {gone} are gone, because files of this folder were deleted or changed while "
                    "the sweep ran"
                )
        finally:
            self.place.release()

    def _gone(self) -> int:
        try:
            return len(self._parts.missing())
        except (OSError, UserError) as error:
            raise StoreError(
                f"{self.place.name}: expected parts that can be counted, found: {self.place.reason(error)}"
            ) from error

    def abandon(self, pid: int) -> None:
        """Write to run.json that the sweep does not run, because its driver, the process ``pid``, died before
        :meth:`end`. Raises StoreError.

        This does nothing if another driver has taken over the folder.
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
            return "a sweep that has just started"
        return "process {pid} on {host}, since {started_at}".format(**sessions[-1])


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
