"""The parts of a result folder's tables: named by content, verified, merged while the sweep goes on.

A shard is two files of one name, ``searches/KEY.SUMS.parquet`` and ``trace/KEY.SUMS.parquet``. SUMS are the
CRC-32 of the one and of the other, so a file that lost a byte is known by its name; KEY is the shard, or
stands for the shards that were merged. Older folders have ``KEY.parquet``; those parts are damaged where
pyarrow says that they are no valid Parquet. Nothing else is damage: memory that runs out, a disk that does
not answer or a thread that does not start end with an error, and no file is touched. A damaged part is moved
to ``damaged/``, never deleted.

The trace is written first: a shard is finished when its file in ``searches/`` exists. Small parts are merged
into larger ones, for 10^5 files are slow to list, to resume from and to read. The merged part is written
before those in it are deleted, searches before trace; whatever moment the driver dies at, the rows are there
once or twice, and twice is harmless. On resuming, a part that a merged part names is deleted only if the
merged part holds every row of it."""

from __future__ import annotations

import errno
import json
import re
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import digest, parse_json
from topdown_ray.store.place import Entry, Place, reason

TABLES = ("searches", "trace")
DAMAGED = "damaged"  # the folder that damaged parts are moved to
MERGE_AT = 256  # small parts
SMALL = 2 << 20  # bytes of both files; a part above is never merged again
LARGEST_MERGE = 16 << 20  # bytes of all files that go into one merged part: ten times as much in memory
ORPHAN_S = 3600.0  # on a remote place a trace without searches may be another driver's, just being written
MERGED = b"topdown_ray_merged"  # in the metadata of a merged part: the names of the parts in it

_ROWS = {
    "searches": ["search_id", "target_index"],
    "trace": ["search_id", "target_index", "generation"],
}  # name a row
_NOT_OF_THE_FILE = re.compile(
    r"alloc|memory|thread|resource", re.IGNORECASE
)  # in pyarrow's errors: what failed is the machine

_Name = TypeVar("_Name")
_Value = TypeVar("_Value")


class DamagedError(Exception):
    """A file that is not what was written; the text says how that is known."""


class Resumed(NamedTuple):
    """What a folder holds."""

    search_ids: set[str]
    damaged: list[str]  # parts that were moved to damaged/, and why


def sums_of(name: str) -> tuple[int, int] | None:
    """The checksums of searches and trace in a part's name; none in those of older folders."""
    found = re.fullmatch(r"[^.]+\.([0-9a-f]{8})([0-9a-f]{8})\.parquet", name)
    return (int(found[1], 16), int(found[2], 16)) if found else None


def read_part(
    place: Place, table: str, name: str, schema: pa.Schema | None = None, columns: list[str] | None = None
) -> pa.Table:
    """A part's file, verified by its checksum.

    Raises DamagedError, FileNotFoundError, OSError; UserError where the file is as it was written, and still
    cannot be read."""
    where = place.of(f"{table}/{name}")
    try:
        data = place.read(f"{table}/{name}")
        sums = sums_of(name)
        if sums is not None and zlib.crc32(data) != sums[TABLES.index(table)]:
            raise DamagedError(
                f"checksum {zlib.crc32(data):08x}, expected {sums[TABLES.index(table)]:08x} ({len(data)} "
                "bytes)"
            )
        return _parse(data, sums is not None, schema, columns)
    except MemoryError as error:  # also pyarrow's
        raise UserError(
            f"{where}: expected memory to read it, found too little ({reason(error) or 'MemoryError'})"
        ) from error
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        if getattr(error, "errno", None) or isinstance(
            error, FileNotFoundError
        ):  # the disk's or the bucket's, not the content's
            raise
        raise UserError(f"{where}: expected the rows of a part, found {place.reason(error)}") from error


def _parse(data: bytes, summed: bool, schema: pa.Schema | None, columns: list[str] | None) -> pa.Table:
    """Raises DamagedError where bytes without a checksum are no Parquet; else whatever pyarrow raises."""
    if not summed:
        try:
            pq.read_table(pa.BufferReader(data), use_threads=False)  # every page: the only proof
        except (pa.ArrowInvalid, OSError) as error:
            if (
                isinstance(error, MemoryError)
                or getattr(error, "errno", None)
                or _NOT_OF_THE_FILE.search(str(error))
            ):
                raise
            raise DamagedError(reason(error)) from error
    return pq.read_table(pa.BufferReader(data), schema=schema, columns=columns, use_threads=False)


def part_names(place: Place, table: str) -> dict[str, Entry]:
    """The parts of a table: size in bytes and time of writing, by name in a fixed order."""
    found = place.files(table)
    return {
        name: found[name]
        for name in sorted(found)
        if name.endswith(".parquet") and not name.startswith((".", "_"))
    }


def parallel(place: Place, function: Callable[[_Name], _Value], names: Sequence[_Name]) -> Iterator[_Value]:
    """``function`` of each name, in order, by a few threads: reading waits for the disk, and on an object
    store mostly waits.
    """
    with ThreadPoolExecutor(4 if place.local is not None else 32) as pool:
        waiting: deque[Future[_Value]] = deque()
        for name in names:  # bounded, so that what is read does not pile up
            try:
                waiting.append(pool.submit(function, name))
            except RuntimeError as error:  # the system starts no more threads
                raise OSError(errno.EAGAIN, str(error)) from error
            if len(waiting) >= 128:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Parts:
    """The parts of one folder, as its driver writes them."""

    def __init__(self, place: Place):
        self.place = place
        self._small: dict[str, int] = {}  # name -> bytes of both files
        self._written: dict[str, int] = {}  # the same of all parts that should be here
        self._lock = threading.Lock()  # over both
        self._merging = False
        self.hurry = (
            False  # begin no more merges: the driver is told to end, and a backlog of them may take minutes
        )

    def resume(self) -> Resumed:
        """Verify every part, move those that are damaged or half there to ``damaged/``, and tell which
        searches have rows.

        Raises OSError, UserError where a file cannot be read (which does not say that it is damaged), before
        anything is changed; StoreError."""
        found = {table: part_names(self.place, table) for table in TABLES}
        whole = [name for name in found["searches"] if name in found["trace"]]
        half = [name for name in found["searches"] if name not in found["trace"]]
        problems = {
            name: f"{self.place.of(f'searches/{name}')}: expected a trace beside it, found none"
            for name in half
        }
        search_ids: set[str] = set()
        claims: dict[str, list[str]] = {}  # of a merged part: the parts that it names
        for name, (ids, inside, problem) in zip(
            whole, parallel(self.place, self._verify, whole), strict=True
        ):
            if problem:
                problems[name] = problem
            else:
                search_ids.update(ids)
                claims[name] = inside
        young = time.time() - ORPHAN_S if self.place.local is None else float("inf")
        orphans = {name for name, (_, written_at) in found["trace"].items() if written_at < young} - set(
            found["searches"]
        )
        merged = self._merged(
            {name: inside for name, inside in claims.items() if inside}, set(claims) | orphans, found
        )
        for name in sorted(set(problems) | orphans - merged):
            for table in TABLES:
                if name in found[table]:
                    self.place.set_aside(f"{table}/{name}", DAMAGED)
        self._delete(sorted(merged))
        self._written = {
            name: sum(found[table][name].size for table in TABLES) for name in claims if name not in merged
        }
        self._small = {name: size for name, size in self._written.items() if size < SMALL}
        self._merge()
        moved = f"; moved to {self.place.of(DAMAGED)}"
        return Resumed(search_ids, [problem + moved for _, problem in sorted(problems.items())])

    def _merged(
        self, claims: Mapping[str, Sequence[str]], there: Set[str], found: Mapping[str, Mapping[str, Entry]]
    ) -> set[str]:
        """The parts that a driver had merged and not yet deleted when it died: those whose rows are all in a
        merged part.
        """
        merged: set[str] = set()
        for holder in sorted(
            claims, key=lambda name: found["searches"][name].size
        ):  # what is merged twice, from within
            inside = claims[holder]
            names = [
                name
                for name in dict.fromkeys(inside)
                if name in there and name != holder and name not in merged
            ]
            if holder in merged or not names:
                continue
            rows = {table: read_part(self.place, table, holder, columns=_ROWS[table]) for table in TABLES}
            for name in names:
                if all(self._within(table, name, rows[table]) for table in TABLES if name in found[table]):
                    merged.add(name)
        return merged

    def _within(self, table: str, name: str, rows: pa.Table) -> bool:
        try:
            mine = read_part(self.place, table, name, columns=_ROWS[table])
        except DamagedError:  # an orphaned trace
            return False
        return bool(mine.join(rows, _ROWS[table], join_type="left anti", use_threads=False).num_rows == 0)

    def lacking(self, promised: int) -> int:
        """How many of the promised searches have no rows in the folder now.

        A listing of each table tells whether every part that was written is still there, of its size; only
        where one is not are the searches of the others counted, for another driver may have merged it. Raises
        OSError, UserError."""
        found = {table: part_names(self.place, table) for table in TABLES}
        whole = {name for name in found["searches"] if name in found["trace"]}
        with self._lock:
            written = dict(self._written)
        if all(
            name in whole and size == sum(found[table][name].size for table in TABLES)
            for name, size in written.items()
        ):
            return 0
        search_ids: set[str] = set()
        for ids, _, _ in parallel(self.place, self._verify, sorted(whole)):
            search_ids.update(ids)
        return max(promised - len(search_ids), 0)

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
            except MemoryError:  # merging can wait
                self.hurry = True
            finally:
                self._merging = False

    def _note(self, name: str, size: int) -> None:
        self._written[name] = size
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
        found = []
        for table in TABLES:
            try:
                found.append(read_part(self.place, table, name, columns=["search_id"]))
            except FileNotFoundError:  # merged by another driver since (object stores only)
                return [], [], None
            except DamagedError as error:
                return (
                    [],
                    [],
                    f"{self.place.of(f'{table}/{name}')}: expected a part as it was written, found {error}",
                )
        where = self.place.of(f"searches/{name}")
        inside = parse_json(
            (found[0].schema.metadata or {}).get(MERGED, b"[]"), f"{where}: {MERGED.decode()}"
        )
        if not isinstance(inside, list) or not all(isinstance(each, str) for each in inside):
            raise UserError(f"{where}: {MERGED.decode()}: expected a list of names, found {brief(inside)}")
        column = found[0]["search_id"]
        if not pa.types.is_string(column.type) or column.null_count:
            raise UserError(f"{where}: search_id: expected strings, found {one_line(column.type)} or nulls")
        ids = column.unique().to_pylist()
        return ids, inside, None

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
            pa.concat_tables(tables, promote_options="permissive")
            for tables in zip(*read.values(), strict=True)
        )
        searches = searches.replace_schema_metadata(
            {**(searches.schema.metadata or {}), MERGED: json.dumps(list(read))}
        )
        name, size = self._store(digest(list(read)), searches, trace)
        try:
            for table in TABLES:
                self.place.settle(table)
        except OSError:  # not certain to last: the small parts stay too, loading counts their rows once
            return
        with self._lock:
            self._note(name, size)
            for each in read:
                del self._written[each]
        self._delete(list(read))

    def _pair(self, name: str) -> tuple[pa.Table, pa.Table] | None:
        try:
            return read_part(self.place, "searches", name), read_part(self.place, "trace", name)
        except (
            DamagedError,
            OSError,
            UserError,
        ):  # resuming will tell; or another driver has merged it (object stores only)
            return None

    def _delete(self, names: Sequence[str]) -> None:
        for table in TABLES:  # searches first: a trace alone is no shard
            deque(parallel(self.place, self.place.delete, [f"{table}/{name}" for name in names]), maxlen=0)
