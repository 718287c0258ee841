"""Write and read ``failures/``, which has a record for each shard that failed permanently.

A record has the traceback and the command that runs exactly this shard again. It is deleted as soon as all
its searches have rows.
"""

from __future__ import annotations

import datetime
import json
import shlex
import threading
from collections.abc import Collection, Sequence, Set
from pathlib import Path
from typing import Annotated, Any, Protocol

import pyarrow as pa
import pydantic

from topdown_ray.errors import UserError
from topdown_ray.files import validated
from topdown_ray.store.place import Place

FOLDER = "failures"


class _Group(Protocol):
    @property
    def space(self) -> str: ...
    @property
    def strategy(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def targets(self) -> Sequence[float]: ...


class FailedShard(Protocol):
    """The facts about a shard that a record has."""

    @property
    def shard_id(self) -> str:
        """The shard's name."""

    @property
    def group(self) -> _Group:
        """The facts that its searches share."""

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds of its searches."""

    @property
    def search_ids(self) -> Sequence[str]:
        """The identities of its searches."""


class Record(pydantic.BaseModel):
    """A failure record, as far as commands read it."""

    model_config = pydantic.ConfigDict(strict=True, extra="allow", frozen=True)

    search_ids: Annotated[list[str], pydantic.Field(min_length=1)]
    error: str = ""
    command: str = ""
    traceback: list[str] = []


class Failures:
    """The failure records of a result folder, as its driver writes them."""

    def __init__(self, place: Place):
        self.place = place
        self._open: dict[str, set[str]] = {}  # shard id -> its searches without rows
        self._lock = threading.Lock()  # shards are written by several threads

    def read(self, finished: Set[str]) -> None:
        """Read the records of earlier runs, and delete those whose searches have rows."""
        self._open = {
            shard_id: set(record["search_ids"]) for shard_id, record in read_failures(self.place).items()
        }
        for shard_id in list(self._open):
            self._cross_off(shard_id, {each for each in self._open[shard_id] if each in finished})

    def record(self, shard: FailedShard, error: str) -> str:
        """Write a shard's record. Returns the command that runs exactly this shard again. Raises
        StoreError.
        """
        command = rerun_command(self.place, shard.shard_id)
        record = {
            "shard_id": shard.shard_id,
            "space": shard.group.space,
            "strategy": shard.group.strategy,
            "label": shard.group.label,
            "targets": list(shard.group.targets),
            "seeds": list(shard.seeds),
            "search_ids": list(shard.search_ids),
            "failed_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command,
            "error": error.strip().splitlines()[-1] if error.strip() else "",
            "traceback": error.splitlines(),
        }
        self.place.write(f"{FOLDER}/{shard.shard_id}.json", (json.dumps(record, indent=2) + "\n").encode())
        with self._lock:
            self._open[shard.shard_id] = set(shard.search_ids)
        return command

    def clear(self, search_ids: pa.ChunkedArray) -> None:
        """Record that these searches have rows, and delete each record whose searches all have rows."""
        if self._open:
            found = set(search_ids.to_pylist())
            with self._lock:
                for shard_id in list(self._open):
                    self._cross_off(shard_id, found)

    def _cross_off(self, shard_id: str, search_ids: Collection[str]) -> None:
        self._open[shard_id].difference_update(search_ids)
        if not self._open[shard_id]:
            del self._open[shard_id]
            self.place.delete(f"{FOLDER}/{shard_id}.json")


def rerun_command(place: Place, shard_id: str) -> str:
    """Return the command that runs exactly this shard again into the same folder. It contains no credentials,
    see docs/guides/storage.md.
    """
    out = place.name if place.local is None else str(place.local.absolute())
    return shlex.join(["topdown-ray", "sweep", out, "--out", out, "--only", shard_id])


def read_failures(place: Place) -> dict[str, dict[str, Any]]:
    """Return all records by shard id. Raises UserError for a file that is not a record."""
    records = {}
    try:
        names = sorted(place.files(FOLDER))
    except OSError as error:
        raise UserError(
            f"{place.of(FOLDER)}: expected a folder that can be read, found {place.reason(error)}"
        ) from error
    for name in names:
        if not name.endswith(".json") or name.startswith("."):
            continue
        where = f"{FOLDER}/{name}"
        try:
            record = place.document(where)
        except FileNotFoundError:  # deleted in the meantime
            continue
        except OSError as error:
            raise UserError(
                f"{place.of(where)}: expected a file that can be read, found {place.reason(error)}"
            ) from error
        validated(Record, record, place.of(where))
        records[name.removesuffix(".json")] = record
    return records


def failed_searches(folder: str | Path) -> dict[str, list[str]]:
    """Return the searches of every shard in ``failures/``. Raises UserError."""
    return {shard_id: record["search_ids"] for shard_id, record in read_failures(Place(folder)).items()}
