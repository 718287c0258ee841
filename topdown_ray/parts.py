"""The parts of a result folder's tables: named by content, verified, merged while the sweep goes on.

A shard is two files of one name, ``searches/KEY.SUMS.parquet`` and ``trace/KEY.SUMS.parquet``. SUMS are the CRC-32 of the one and
of the other, so a file that lost a byte is known by its name; KEY is the shard, or stands for the shards that were merged. Older
folders have ``KEY.parquet``; those parts are only known to be damaged when they cannot be read.

The trace is written first: a shard is finished when its file in ``searches/`` exists. Small parts are merged into larger ones, for
10^5 files are slow to list, to resume from and to read. The merged part is written before those in it are deleted, searches before
trace; whatever moment the driver dies at, the rows are there once or twice, and twice is harmless.
"""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.spec import digest
from topdown_ray.storage import Entry, Place, reason

TABLES = ("searches", "trace")
MERGE_AT = 256  # small parts
SMALL = 2 << 20  # bytes of both files; a part above is never merged again
LARGEST_MERGE = 16 << 20  # bytes of all files that go into one merged part: ten times as much in memory
ORPHAN_S = 3600.0  # on a remote place a trace without searches may be another driver's, just being written
MERGED = b"topdown_ray_merged"  # in the metadata of a merged part: the names of the parts in it

_Name = TypeVar("_Name")
_Value = TypeVar("_Value")


class DamagedError(Exception):
    """A file that is not what was written; the text says how that is known."""


class Resumed(NamedTuple):
    """What a folder holds."""

    search_ids: set[str]
    damaged: list[str]  # parts that are gone now, and why


def sums_of(name: str) -> tuple[int, int] | None:
    """The checksums of searches and trace in a part's name; none in those of older folders."""
    found = re.fullmatch(r"[^.]+\.([0-9a-f]{8})([0-9a-f]{8})\.parquet", name)
    return (int(found[1], 16), int(found[2], 16)) if found else None


def read_part(
    place: Place, table: str, name: str, schema: pa.Schema | None = None, columns: list[str] | None = None
) -> pa.Table:
    """A part's file, verified by its checksum. Raises DamagedError, FileNotFoundError, OSError."""
    data = place.read(f"{table}/{name}")
    sums = sums_of(name)
    if sums is not None and zlib.crc32(data) != sums[TABLES.index(table)]:
        raise DamagedError(f"checksum {zlib.crc32(data):08x}, expected {sums[TABLES.index(table)]:08x} ({len(data)} bytes)")
    try:
        return pq.read_table(pa.BufferReader(data), schema=schema, columns=columns)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DamagedError(reason(error)) from error


def part_names(place: Place, table: str) -> dict[str, Entry]:
    """The parts of a table: size in bytes and time of writing, by name in a fixed order."""
    found = place.files(table)
    return {name: found[name] for name in sorted(found) if name.endswith(".parquet") and not name.startswith((".", "_"))}


def parallel(place: Place, function: Callable[[_Name], _Value], names: Sequence[_Name]) -> Iterator[_Value]:
    """``function`` of each name, in order, by a few threads: reading waits for the disk, and on an object store mostly waits."""
    with ThreadPoolExecutor(4 if place.local is not None else 32) as pool:
        waiting: deque[Future[_Value]] = deque()
        for name in names:  # bounded, so that what is read does not pile up
            waiting.append(pool.submit(function, name))
            if len(waiting) >= 128:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Parts:
    """The parts of one folder, as its driver writes them."""

    def __init__(self, place: Place):
        self.place = place
        self._small: dict[str, int] = {}  # name -> bytes of both files
        self._lock = threading.Lock()  # over what is small
        self._merging = False
        self.hurry = False  # begin no more merges: the driver is told to end, and a backlog of them may take minutes

    def resume(self) -> Resumed:
        """Verify every part, delete those that are damaged or half there, and tell which searches have rows.

        Raises OSError where a file cannot be read (which does not say that it is damaged), StoreError.
        """
        found = {table: part_names(self.place, table) for table in TABLES}
        whole = [name for name in found["searches"] if name in found["trace"]]
        damaged = [
            f"{self.place.of(f'searches/{name}')}: expected a trace beside it, found none"
            for name in found["searches"]
            if name not in found["trace"]
        ]
        lost = set(found["searches"]) - set(found["trace"])
        search_ids: set[str] = set()
        merged: set[str] = set()
        for name, (ids, inside, problem) in zip(whole, parallel(self.place, self._verify, whole), strict=True):
            if problem:
                damaged.append(problem)
                lost.add(name)
            else:
                search_ids.update(ids)
                merged.update(inside)
        young = time.time() - ORPHAN_S if self.place.local is None else float("inf")
        orphans = {name for name, (_, written_at) in found["trace"].items() if written_at < young} - set(found["searches"])
        merged.intersection_update(set(whole) - lost)  # a driver died before it had deleted them
        self._delete(sorted(lost | merged | orphans))
        sizes = {name: found["searches"][name][0] + found["trace"][name][0] for name in whole if name not in lost | merged}
        self._small = {name: size for name, size in sizes.items() if size < SMALL}
        self._merge()
        return Resumed(search_ids, damaged)

    def write(self, key: str, searches: pa.Table, trace: pa.Table) -> None:
        """Add a part; several threads may. Raises StoreError."""
        name, size = self._store(key, searches, trace)
        with self._lock:
            self._note(name, size)
            due = len(self._small) >= MERGE_AT and not self._merging
            self._merging = self._merging or due
        if due:  # by this thread; the others go on writing
            try:
                self._merge()
            finally:
                self._merging = False

    def _note(self, name: str, size: int) -> None:
        if size < SMALL:
            self._small[name] = size

    def _store(self, key: str, searches: pa.Table, trace: pa.Table) -> tuple[str, int]:
        """Write both files. Returns their name and the bytes of both."""
        buffers = {}
        for table, rows in zip(TABLES, (searches, trace), strict=True):
            sink = pa.BufferOutputStream()
            pq.write_table(rows, sink, compression="zstd")
            buffers[table] = sink.getvalue()
        name = f"{key}.{''.join(f'{zlib.crc32(buffers[table]):08x}' for table in TABLES)}.parquet"
        for table in reversed(TABLES):
            self.place.write(f"{table}/{name}", buffers[table])
        return name, sum(buffer.size for buffer in buffers.values())

    def _verify(self, name: str) -> tuple[list[str], list[str], str | None]:
        """Of a part: its searches, the parts merged in it, and what is wrong with it."""
        columns = None if sums_of(name) is None else ["search_id"]  # without a checksum, reading all is the only proof
        found = []
        for table in TABLES:
            try:
                found.append(read_part(self.place, table, name, columns=columns))
            except FileNotFoundError:  # merged by another driver since (object stores only)
                return [], [], None
            except DamagedError as error:
                return [], [], f"{self.place.of(f'{table}/{name}')}: expected a part as it was written, found {error}"
        inside = json.loads((found[0].schema.metadata or {}).get(MERGED, b"[]"))
        return found[0]["search_id"].unique().to_pylist(), inside, None

    def _merge(self) -> None:
        while not self.hurry:
            chosen: dict[str, int] = {}
            with self._lock:
                if len(self._small) < MERGE_AT:
                    return
                for name, size in self._small.items():  # the oldest first
                    if len(chosen) < 2 or sum(chosen.values()) + size <= LARGEST_MERGE:
                        chosen[name] = size
                for name in chosen:
                    del self._small[name]
            self._merge_these(list(chosen))

    def _merge_these(self, names: list[str]) -> None:
        pairs = zip(names, parallel(self.place, self._pair, names), strict=True)
        read = {name: pair for name, pair in pairs if pair is not None}
        if not read:
            return
        searches, trace = (
            pa.concat_tables(tables, promote_options="permissive") for tables in zip(*read.values(), strict=True)
        )
        searches = searches.replace_schema_metadata({**(searches.schema.metadata or {}), MERGED: json.dumps(list(read))})
        name, size = self._store(digest(list(read)), searches, trace)
        try:
            for table in TABLES:
                self.place.settle(table)
        except OSError:  # not certain to last: the small parts stay too, loading counts their rows once
            return
        self._delete(list(read))
        with self._lock:
            self._note(name, size)

    def _pair(self, name: str) -> tuple[pa.Table, pa.Table] | None:
        try:
            return read_part(self.place, "searches", name), read_part(self.place, "trace", name)
        except (DamagedError, OSError):  # resuming will tell; or another driver has merged it (object stores only)
            return None

    def _delete(self, names: Sequence[str]) -> None:
        for table in TABLES:  # searches first: a trace alone is no shard
            deque(parallel(self.place, self.place.delete, [f"{table}/{name}" for name in names]), maxlen=0)
