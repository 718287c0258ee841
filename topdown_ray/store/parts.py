"""The parts of tables: named by content, verified, merged while the work that fills them goes on.

A :class:`Layout` names the tables. A part is one file of one name in the folder of each table,
``searches/KEY.SUMS.parquet`` and ``trace/KEY.SUMS.parquet`` for a shard of a sweep, and
``front/KEY.SUMS.parquet`` where its searches keep fronts. SUMS are the CRC-32 checksums of the
part's files, in the order of the layout's tables: a damaged file does not match its checksum, and the number
of checksums says how many files the part has. KEY names the rows, or stands for the parts that were merged.
Older folders have ``KEY.parquet``; those parts are
damaged where pyarrow says that they are no valid Parquet. Nothing else is damage: memory that runs out, a
disk that does not answer or a thread that does not start end with an error, and no file is touched. A damaged
part is moved to ``damaged/``, never deleted.

The first table of a layout is written last: a part is finished when its file there exists. Small parts are
merged into larger ones, for 10^5 files are slow to list, to resume from and to read. The merged part is
written first. Then the parts in it are deleted, their files of the first table before the others. Whenever
the driver dies, the rows are there once or twice, and twice is harmless. On resuming, a part that a merged
part names is deleted only if the merged part holds every row of it."""

from __future__ import annotations

import errno
import itertools
import json
import re
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import digest, parse_json
from topdown_ray.store.place import Place, PlacedFile, reason

READ_ATTEMPTS = 5  # of a reader, while a driver merges parts
MERGE_AT = 256  # small parts
SMALL = 2 << 20  # bytes of both files; a part above is never merged again
LARGEST_MERGE = 16 << 20  # bytes of all files that go into one merged part: ten times as much in memory
ORPHAN_S = 3600.0  # on a remote place a trace without searches may be another driver's, just being written
MERGED = b"topdown_ray_merged"  # in the metadata of a merged part: the names of the parts in it

# in pyarrow's errors: what failed is the machine
_NOT_OF_THE_FILE = re.compile(r"alloc|memory|thread|resource", re.IGNORECASE)

_Name = TypeVar("_Name")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Layout:
    """Tables whose parts belong together. Every table has the identity's column."""

    identity: str  # the column that says what a row is about
    keys: Mapping[str, Sequence[str]]  # of each table, the finishing one first: the columns that name a row
    damaged: str = "damaged"  # the folder that damaged parts are moved to
    least: int = 1  # how many of the tables, from the first on, have a file of every part

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables, which are those of their folders."""
        return tuple(self.keys)

    @property
    def first(self) -> str:
        """The table that is written last: a part whose file is there is finished."""
        return self.tables[0]

    def sums_of(self, name: str) -> tuple[int, ...] | None:
        """The checksums in a part's name, one for each of its files; none in those of older folders."""
        found = re.fullmatch(r"[^.]+\.((?:[0-9a-f]{8})+)\.parquet", name)
        if not found or not self.least <= len(found[1]) // 8 <= len(self.tables):
            return None
        return tuple(int(found[1][i : i + 8], 16) for i in range(0, len(found[1]), 8))

    def tables_of(self, name: str) -> tuple[str, ...]:
        """The tables that a part has a file of."""
        sums = self.sums_of(name)
        return self.tables[: self.least if sums is None else len(sums)]


TABLES = ("searches", "trace")  # that every part of a sweep has a file of
SWEEP = Layout(
    "search_id",
    {
        "searches": ("search_id", "target_index"),
        "trace": ("search_id", "target_index", "generation"),
        "front": ("search_id", "place"),
    },
    least=len(TABLES),
)


class DamagedError(Exception):
    """A file that is not what was written; the text says how that is known."""


class ShortOfMemoryError(UserError):
    """There was too little memory to read a part, which says nothing of the part."""


class Resumed(NamedTuple):
    """What a folder holds."""

    finished: set[str]  # the identities that have rows
    damaged: list[str]  # parts that were moved to damaged/, and why


def read_part(
    place: Place,
    table: str,
    name: str,
    schema: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
    layout: Layout = SWEEP,
) -> pa.Table:
    """A part's file, verified by its checksum.

    Raises DamagedError, FileNotFoundError, OSError; UserError where the file is as it was written, and still
    cannot be read."""
    where = place.of(f"{table}/{name}")
    try:
        data = place.read(f"{table}/{name}")
        sums = layout.sums_of(name)
        if sums is not None and zlib.crc32(data) != (expected := sums[layout.tables.index(table)]):
            raise DamagedError(
                f"checksum {zlib.crc32(data):08x}, expected {expected:08x} ({len(data)} bytes)"
            )
        return _parse(data, sums is not None, schema, None if columns is None else list(columns))
    except MemoryError as error:  # also pyarrow's
        raise ShortOfMemoryError(
            f"{where}: expected memory to read it, found too little ({reason(error) or 'MemoryError'})"
        ) from error
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        # the disk's or the bucket's, not the content's
        if getattr(error, "errno", None) or isinstance(error, FileNotFoundError):
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


def part_names(place: Place, table: str) -> dict[str, PlacedFile]:
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
    """The parts of one folder, as their driver writes them."""

    def __init__(self, place: Place, layout: Layout = SWEEP):
        self.place = place
        self.layout = layout
        self._small: dict[str, int] = {}  # name -> bytes of all its files
        self._written: dict[str, int] = {}  # the same of all parts that should be here
        self._finished: set[str] = set()  # identities that had rows when the folder was resumed
        self._added: set[str] = set()  # those written since
        self._lock = threading.Lock()  # over these four
        self._merging = False
        self._stopped = False  # see :meth:`stop_merging`
        self._postponed = 0  # parts beyond MERGE_AT to wait for, since there was too little memory

    @property
    def promised(self) -> int:
        """How many identities had rows when the folder was resumed, or were given rows since."""
        with self._lock:
            return len(self._finished) + len(self._added - self._finished)

    def stop_merging(self) -> None:
        """Begin no more merges: the driver is to end, and a backlog of them may take minutes."""
        self._stopped = True

    def resume(self) -> Resumed:
        """Verify every part, move those that are damaged or half there to ``damaged/``, and tell what has
        rows.

        Raises OSError, UserError where a file cannot be read (which does not say that it is damaged), before
        anything is changed; StoreError."""
        tables, first, tables_of = self.layout.tables, self.layout.first, self.layout.tables_of
        found = {table: part_names(self.place, table) for table in tables}
        whole = [name for name in found[first] if all(name in found[table] for table in tables_of(name))]
        problems = {
            name: f"{self.place.of(f'{first}/{name}')}: expected a {table} beside it, found none"
            for name in found[first]
            for table in tables_of(name)
            if name not in found[table]
        }
        finished: set[str] = set()
        claims: dict[str, list[str]] = {}  # of a merged part: the parts that it names
        for name, (ids, inside, problem) in zip(
            whole, parallel(self.place, self._verify, whole), strict=True
        ):
            if problem:
                problems[name] = problem
            else:
                finished.update(ids)
                claims[name] = inside
        young = time.time() - ORPHAN_S if self.place.local is None else float("inf")
        orphans = {
            name
            for table in tables[1:]
            for name, (_, written_at) in found[table].items()
            if written_at < young and name not in found[first]
        }
        merged = self._merged(
            {name: inside for name, inside in claims.items() if inside}, set(claims) | orphans, found
        )
        for name in sorted(set(problems) | orphans - merged):
            for table in tables:
                if name in found[table]:
                    self.place.set_aside(f"{table}/{name}", self.layout.damaged)
        self._delete(sorted(merged))
        self._written = {
            name: sum(found[table][name].size for table in tables_of(name))
            for name in claims
            if name not in merged
        }
        self._small = {name: size for name, size in self._written.items() if size < SMALL}
        self._finished, self._added = finished, set()
        self._merge()
        moved = f"; moved to {self.place.of(self.layout.damaged)}"
        return Resumed(finished, [problem + moved for _, problem in sorted(problems.items())])

    def _merged(
        self,
        claims: Mapping[str, Sequence[str]],
        there: Set[str],
        found: Mapping[str, Mapping[str, PlacedFile]],
    ) -> set[str]:
        """The parts that a driver had merged and not yet deleted when it died: those whose rows are all in a
        merged part.
        """
        held_by: dict[str, str] = {}  # a part that goes -> the one that has its rows, which may go itself
        for holder, inside in claims.items():
            above = [holder]
            while above[-1] in held_by:  # two parts that claim each other do not both go
                above.append(held_by[above[-1]])
            names = [
                name
                for name in dict.fromkeys(inside)
                if name in there and name not in above and name not in held_by
            ]
            if not names:
                continue
            rows = {
                table: self._read(table, holder, self.layout.keys[table])
                for table in self.layout.tables_of(holder)
            }
            for name in names:
                own = [table for table in self.layout.tables if name in found[table]]
                if all(table in rows and self._within(table, name, rows[table]) for table in own):
                    held_by[name] = holder
        return set(held_by)

    def _within(self, table: str, name: str, rows: pa.Table) -> bool:
        keys = list(self.layout.keys[table])
        try:
            mine = self._read(table, name, keys)
        except DamagedError:  # an orphan
            return False
        return bool(mine.join(rows, keys, join_type="left anti", use_threads=False).num_rows == 0)

    def _read(self, table: str, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        return read_part(self.place, table, name, columns=columns, layout=self.layout)

    def missing(self) -> set[str]:
        """The promised identities that have no rows in the folder now.

        A listing of each table tells whether every part that was written is still there, of its size; only
        where one is not are the parts read, for another driver may have merged it. Raises OSError,
        UserError."""
        found = {table: part_names(self.place, table) for table in self.layout.tables}
        tables_of = self.layout.tables_of
        whole = {
            name
            for name in found[self.layout.first]
            if all(name in found[table] for table in tables_of(name))
        }
        with self._lock:
            written, missing = dict(self._written), self._finished | self._added
        if all(
            name in whole and size == sum(found[table][name].size for table in tables_of(name))
            for name, size in written.items()
        ):
            return set()
        for ids, _, _ in parallel(self.place, self._verify, sorted(whole)):
            missing.difference_update(ids)
        return missing

    def write(self, key: str, *tables: pa.Table) -> None:
        """Add a part, a table of the layout each, from the first on; several threads may. Raises
        StoreError.
        """
        name, size = self._store(key, tables)
        identities = tables[0][self.layout.identity].unique().to_pylist()
        with self._lock:
            self._note(name, size)
            self._added.update(identities)
            due = self._due() and not self._merging
            self._merging = self._merging or due
        if due:  # by this thread; the others go on writing
            try:
                self._merge()
            finally:
                self._merging = False

    def _note(self, name: str, size: int) -> None:
        self._written[name] = size
        if size < SMALL:
            self._small[name] = size

    def _store(self, key: str, tables: Sequence[pa.Table]) -> tuple[str, int]:
        """Write the files of a part. Returns their name and the bytes of all."""
        buffers = {}
        for table, rows in zip(self.layout.tables[: len(tables)], tables, strict=True):
            sink = pa.BufferOutputStream()
            pq.write_table(rows, sink, compression="zstd")
            buffers[table] = sink.getvalue()
        name = f"{key}.{''.join(f'{zlib.crc32(buffer):08x}' for buffer in buffers.values())}.parquet"
        for table in reversed(buffers):
            self.place.write(f"{table}/{name}", buffers[table])
        return name, sum(buffer.size for buffer in buffers.values())

    def _verify(self, name: str) -> tuple[list[str], list[str], str | None]:
        """Of a part: its identities, the parts merged in it, and what is wrong with it."""
        found, identity = [], self.layout.identity
        for table in self.layout.tables_of(name):
            try:
                found.append(self._read(table, name, [identity]))
            except FileNotFoundError:  # merged by another driver since (object stores only)
                return [], [], None
            except DamagedError as error:
                path = self.place.of(f"{table}/{name}")
                return [], [], f"{path}: expected a part as it was written, found {error}"
        where = self.place.of(f"{self.layout.first}/{name}")
        inside = parse_json(
            (found[0].schema.metadata or {}).get(MERGED, b"[]"), f"{where}: {MERGED.decode()}"
        )
        if not isinstance(inside, list) or not all(isinstance(each, str) for each in inside):
            raise UserError(f"{where}: {MERGED.decode()}: expected a list of names, found {brief(inside)}")
        column = found[0][identity]
        if not pa.types.is_string(column.type) or column.null_count:
            raise UserError(f"{where}: {identity}: expected strings, found {one_line(column.type)} or nulls")
        ids = column.unique().to_pylist()
        return ids, inside, None

    def _due(self) -> bool:
        return len(self._small) >= MERGE_AT + self._postponed

    def _merge(self) -> None:
        """Merge until few small parts are left. Where memory runs out they stay, until more have come."""
        while not self._stopped:
            chosen: dict[str, int] = {}
            with self._lock:
                if not self._due():
                    return
                for name, size in self._small.items():  # the oldest first
                    if len(chosen) < 2 or sum(chosen.values()) + size <= LARGEST_MERGE:
                        chosen[name] = size
                for name in chosen:
                    del self._small[name]
            try:
                self._merge_these(list(chosen))
            except MemoryError:
                with self._lock:
                    self._small = {
                        name: chosen[name] for name in chosen if name in self._written
                    } | self._small
                    self._postponed = len(self._small)
                return
            self._postponed = 0

    def _merge_these(self, names: list[str]) -> None:
        groups = zip(names, parallel(self.place, self._whole, names), strict=True)
        read = {name: group for name, group in groups if group is not None}
        if not read:
            return
        first, *others = (
            pa.concat_tables([table for table in tables if table is not None], promote_options="permissive")
            for tables in itertools.zip_longest(*read.values())
        )
        metadata = {**(first.schema.metadata or {}), MERGED: json.dumps(list(read))}
        name, size = self._store(digest(list(read)), [first.replace_schema_metadata(metadata), *others])
        try:
            for table in self.layout.tables_of(name):
                self.place.settle(table)
        except OSError:  # not certain to last: the small parts stay too, loading counts their rows once
            return
        with self._lock:
            self._note(name, size)
            for each in read:
                del self._written[each]
        self._delete(list(read))

    def _whole(self, name: str) -> list[pa.Table] | None:
        """All tables of a part; None where resuming will tell what is wrong, or another driver has merged it
        (object stores only).
        """
        try:
            return [self._read(table, name) for table in self.layout.tables_of(name)]
        except ShortOfMemoryError as error:
            raise MemoryError(str(error)) from error
        except (DamagedError, OSError, UserError):
            return None

    def _delete(self, names: Sequence[str]) -> None:
        for table in self.layout.tables:  # the finishing one first: another alone is no part
            files = [f"{table}/{name}" for name in names if table in self.layout.tables_of(name)]
            deque(parallel(self.place, self.place.delete, files), maxlen=0)
