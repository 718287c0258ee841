"""Read the progress of a sweep from its result folder, independently of the process that runs it."""

from __future__ import annotations

import datetime
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from topdown_ray.errors import UserError
from topdown_ray.store.failures import read_failures
from topdown_ray.store.identities import Identities, Packed, distinct, packed
from topdown_ray.store.manifest import labelled, promised_sets, read_manifest
from topdown_ray.store.part_files import READ_ATTEMPTS, parallel, part_names
from topdown_ray.store.place import Place
from topdown_ray.store.schema import SEARCHES
from topdown_ray.sweeps.pending import evaluations_of
from topdown_ray.sweeps.spec import make_spec

WINDOW_S = 600.0  # the rate is measured over the last ten minutes
SILENT_S = 600.0  # a sweep without a lock that has written nothing for this long may be dead
_WORDS = ("search_id", "space", "strategy", "label")
_COLUMNS = [*_WORDS, "evaluations", "started_at", "search_wall_s", "batch_size"]
_STARTED = _COLUMNS.index("started_at")
_SCHEMA = pa.schema(
    [
        (name, pa.dictionary(pa.int32(), pa.string()) if name in _WORDS else SEARCHES.field(name).type)
        for name in _COLUMNS
    ]
)


@dataclass(frozen=True)
class GroupStatus:
    """The progress of the searches of one space and one entry of ``strategies``."""

    space: str
    strategy: str
    label: str
    done: int
    total: int


@dataclass(frozen=True)
class Status:
    """The progress of a sweep.

    state: ``running``; ``complete``; ``incomplete`` (it ended, and searches are missing); ``killed`` (it does
    not run and did not end by itself); ``silent`` (without a lock, on object stores other than S3 and on
    HDFS: nothing was written for ten minutes). rate: searches per second in the last ten minutes of the
    current or last session. left_s: remaining seconds, estimated from predictor evaluations; None if the
    sweep does not run.
    """

    out: str
    name: str
    run_id: str
    state: str
    done: int
    total: int
    failed: int  # searches of shards in failures/
    rate: float | None
    left_s: float | None
    last_write: str | None
    last_write_s: float | None  # seconds ago
    session: dict[str, Any]  # the current or last one, as in run.json
    sessions: int
    groups: tuple[GroupStatus, ...]
    failures: tuple[dict[str, str], ...]  # shard_id, error, command
    unreadable: tuple[str, ...]  # files, which are computed again when the sweep is continued


class _Searches(NamedTuple):
    """The searches that have rows, with one array for each fact."""

    ids: Packed
    groups: NDArray[np.int32]  # numbers, see :attr:`Reader._groups`
    evaluations: NDArray[np.float64]
    finished_at: NDArray[np.float64]  # seconds since the epoch

    @classmethod
    def of(cls, each: Sequence[_Searches]) -> _Searches:
        """Join these, with each search once."""
        none = cls(packed([]), np.empty(0, np.int32), np.empty(0), np.empty(0))
        columns: Any = [np.concatenate(parts) for parts in zip(none, *each, strict=True)]
        found = cls(*columns)
        if distinct(found.ids):  # nearly always the case
            return found
        _, first = np.unique(found.ids, return_index=True)
        return cls(found.ids[first], found.groups[first], found.evaluations[first], found.finished_at[first])


class Reader:
    """Reads the status of one folder repeatedly. Parts never change, so each one is read only once."""

    def __init__(self, where: str | Path):
        self.place = Place(where)
        self._known: dict[str, _Searches | str] = {}  # by part: its searches, or why it cannot be read
        self._lock = threading.Lock()
        self._groups: dict[tuple[str, str], int] = {}  # numbers of spaces with labels
        self._evaluations: dict[str, int] = {}  # by sweep: the evaluations of all its searches

    def read(self) -> Status:
        """Return the current status. Raises UserError if there is no sweep."""
        manifest = read_manifest(self.place.where)
        written_at = self._look()
        found = _Searches.of([part for part in self._known.values() if not isinstance(part, str)])
        records = read_failures(self.place)
        finished = Identities.union([found.ids]) if records else Identities()
        session = manifest.get("sessions", [{"started_at": manifest.get("created_at")}])[-1]
        now = time.time()
        age = max(now - written_at, 0.0) if written_at is not None else None
        state = self._state(manifest, session, now, age)
        rate, left_s = _pace(self._total(manifest), session, found, now if state == "running" else None)
        counts = np.bincount(found.groups, minlength=len(self._groups))
        done = {group: int(counts[number]) for group, number in self._groups.items()}
        groups = tuple(_groups(manifest, done))
        return Status(
            out=self.place.name,
            name=str(manifest["spec"].get("name", "")),
            run_id=manifest["run_id"],
            state=state,
            done=len(found.ids),
            total=sum(part.total for part in groups),
            failed=sum(
                int((~finished.has(sorted(set(record["search_ids"])))).sum()) for record in records.values()
            ),
            rate=rate,
            left_s=left_s if state == "running" else None,
            last_write=None if written_at is None else _iso(written_at),
            last_write_s=age,
            session={name: value for name, value in session.items() if name not in ("versions", "machine")},
            sessions=len(manifest.get("sessions", [session])),
            groups=groups,
            failures=tuple(
                {
                    "shard_id": shard_id,
                    "error": str(record.get("error", "")),
                    "command": str(record.get("command", "")),
                }
                for shard_id, record in records.items()
            ),
            unreadable=tuple(part for part in self._known.values() if isinstance(part, str)),
        )

    def _total(self, manifest: Mapping[str, Any]) -> int:
        """Return the predictor evaluations of the whole sweep."""
        run_id = manifest["run_id"]
        if run_id not in self._evaluations:
            spec = make_spec(manifest["spec"], f"{self.place.of('run.json')}: spec")
            self._evaluations[run_id] = len(spec.seeds) * sum(map(evaluations_of, spec.groups()))
        return self._evaluations[run_id]

    def _look(self) -> float | None:
        """Read the new parts. Return when the last one was written."""
        for _ in range(READ_ATTEMPTS):
            try:
                names = part_names(self.place, "searches")
            except OSError as error:
                raise UserError(
                    f"{self.place.name}: expected parts that can be listed, found {self.place.reason(error)}"
                ) from error
            new = [name for name in names if name not in self._known]
            try:
                self._known.update(zip(new, parallel(self.place, self._read, new), strict=True))
            except FileNotFoundError:  # the parts were merged in the meantime
                continue
            self._known = {name: self._known[name] for name in names}
            return max((entry.written_at for entry in names.values()), default=None)
        raise UserError(
            f"{self.place.name}: expected parts that do not change while they are read, found that they were "
            f"merged {READ_ATTEMPTS} times"
        )

    def _read(self, name: str) -> _Searches | str:
        where = self.place.of(f"searches/{name}")
        try:
            with self.place.open(f"searches/{name}") as file:
                # pq.read_table would import pandas
                parquet = pq.ParquetFile(file, read_dictionary=list(_WORDS))
                there = parquet.read(columns=_COLUMNS, use_threads=False)
                missing = [field for field in _SCHEMA if field.name not in there.column_names]
                for field in missing:
                    there = there.append_column(field, pa.nulls(len(there), field.type))
                table = there.select(_COLUMNS).cast(_SCHEMA)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            return f"{where}: {self.place.reason(error)}"
        if all(value is None for value in pc.unique(table["label"]).to_pylist()):  # an older schema has none
            table = table.set_column(_COLUMNS.index("label"), "label", table["strategy"])
        if any(column.null_count for column in table.columns):
            return f"{where}: expected values in {', '.join(_COLUMNS)}, found nulls"
        words = {each: table[each].unify_dictionaries().combine_chunks() for each in _WORDS}
        table = table.set_column(_STARTED, "started_at", table["started_at"].cast(pa.int64()))
        numbers = {each: _numpy(table[each].combine_chunks()) for each in _COLUMNS[len(_WORDS) :]}
        searches, n = _numpy(words["search_id"].indices), len(words["search_id"].dictionary)
        row_of = np.empty(n, np.int64)  # some row of each search
        row_of[searches] = np.arange(len(searches))
        ended = numbers["started_at"] / 1e6
        ended += numbers["search_wall_s"] * numbers["batch_size"]
        finished_at = np.full(n, -np.inf)
        np.maximum.at(finished_at, searches, ended)
        spaces, labels = (words[each].dictionary.to_pylist() for each in ("space", "label"))
        pairs = _numpy(words["space"].indices)[row_of] * len(labels)
        pairs += _numpy(words["label"].indices)[row_of]
        with self._lock:
            known = [
                self._groups.setdefault(pair, len(self._groups)) for pair in itertools.product(spaces, labels)
            ]
        return _Searches(
            packed(words["search_id"].dictionary),
            np.array(known, np.int32)[pairs],
            np.bincount(searches, numbers["evaluations"], n).astype(np.float64),
            finished_at,
        )

    def _state(
        self, manifest: Mapping[str, Any], session: Mapping[str, Any], now: float, age: float | None
    ) -> str:
        held = self.place.held()
        if held:
            return "running"
        status = str(manifest.get("status", "incomplete"))
        if status != "running":
            return status
        if held is False:
            return "killed"
        quiet = min(now - _seconds(session.get("started_at"), now), now if age is None else age)
        return "running" if quiet < SILENT_S else "silent"


def _numpy(array: pa.Array) -> NDArray[Any]:
    """Convert numbers without nulls through DLPack, because pyarrow's own conversions import pandas."""
    return np.asarray(np.from_dlpack(array))


def updates(where: str | Path, every_s: float | None = None) -> Iterator[Status]:
    """Yield the current status of a sweep. With ``every_s``, yield it again after that many seconds until the
    sweep has ended. Raises UserError if there is no sweep.
    """
    reader = Reader(where)
    while True:
        yield (now := reader.read())
        if every_s is None or now.state != "running":
            return
        time.sleep(every_s)


def _groups(manifest: Mapping[str, Any], done: Mapping[tuple[str, str], int]) -> list[GroupStatus]:
    """done: searches, by space and label."""
    spec = manifest["spec"]
    return [
        GroupStatus(
            space,
            entry.strategy,
            entry.label,
            done.get((space, entry.label), 0),
            len(spec["seeds"]) * len(promised_sets(manifest, space)),
        )
        for space in spec["spaces"]
        for entry in map(labelled, spec["strategies"])
    ]


def _pace(
    total: int, session: Mapping[str, Any], found: _Searches, now: float | None
) -> tuple[float | None, float | None]:
    """Return the searches per second, and the seconds that ``total`` evaluations still need at this pace.
    now: None if the sweep does not run.
    """
    began = _seconds(session.get("started_at"), 0.0)
    of_session = found.finished_at >= began
    if not of_session.any():
        return None, None
    end = float(found.finished_at.max()) if now is None else now
    first = max(began, end - WINDOW_S)
    recent = of_session & (found.finished_at >= first)
    seconds = max(end - first, 1e-3)
    speed = float(found.evaluations[recent].sum()) / seconds
    left = max(total - float(found.evaluations.sum()), 0.0)
    return int(recent.sum()) / seconds, left / speed if speed else None


def _seconds(moment: Any, default: float) -> float:
    try:
        return datetime.datetime.fromisoformat(moment).timestamp()
    except (TypeError, ValueError):
        return default


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
