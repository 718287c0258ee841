"""Write the parts of tables, and merge small parts while the driver's work continues.

The first table of a layout is written last, so that a part is finished when its file there exists. Small
parts are merged into larger ones, because 10^5 files are slow to list, to resume from and to read. A row is
written when its shard is finished, and again in a merged part. Small merged parts are merged again only if
there are very many. The merged part is written first. Then the parts in it are deleted, beginning with their
files of the first table. If the driver dies in between, some rows are in two parts, and loading counts
them once. On resuming, a part that a merged part names is deleted only if the merged part has all its rows. A
damaged part is moved to ``damaged/`` and never deleted."""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.errors import UserError
from topdown_ray.files import digest
from topdown_ray.store.identities import Identities, packed
from topdown_ray.store.layout import SWEEP, Layout, named
from topdown_ray.store.part_files import DamagedError, ShortOfMemoryError, parallel, part_names, read_part
from topdown_ray.store.place import Place
from topdown_ray.store.resuming import MERGED, Known, look, names_of_whole, verify

MERGE_AT = 64  # number of small parts that starts a merge
MERGE_AGAIN_AT = 512  # the same for small parts that are themselves merged parts
SMALL = 2 << 20  # bytes of all files of a part; a larger part is never merged again
LARGEST_MERGE = 16 << 20  # bytes of all files that are merged into one part
AT_A_TIME = 4 << 20  # bytes of files that are merged at a time; their rows take ten times as much memory
HELD = 96 << 20  # bytes of rows that are kept in memory from writing to merging


def _form(schema: pa.Schema) -> dict[str, Any]:
    """Options for writing files. Columns with repeated values are dictionary-encoded; for numbers that hardly
    repeat, this would cost time and space.
    """
    repeated = [field.name for field in schema if not pa.types.is_floating(field.type)]
    return {"compression": "zstd", "use_dictionary": repeated, "write_page_checksum": True}


class Resumed(NamedTuple):
    """The state of a folder when its driver starts."""

    finished: Identities  # identities that have rows
    damaged: list[str]  # parts that were moved to damaged/, and why


class Parts:
    """The parts of one folder, as their driver writes them."""

    def __init__(self, place: Place, layout: Layout = SWEEP):
        self.place = place
        self.layout = layout
        self._written: dict[str, Known] = {}  # all parts that should be in the folder
        self._small: tuple[dict[str, int], dict[str, int]] = (
            {},
            {},
        )  # bytes of new and of merged small parts
        self._rows: dict[str, Sequence[pa.Table]] = {}  # rows of small parts, as many as HELD allows
        self._held = 0  # bytes of these rows
        self._lock = threading.Lock()  # protects the attributes above
        self._merging = threading.Lock()  # held by the thread that merges
        self._stopped = False  # see :meth:`stop_merging`
        self._postponed = 0  # further parts to wait for after a merge had too little memory

    @property
    def promised(self) -> int:
        """The number of identities that had rows when the folder was resumed, or got rows since."""
        return len(self._identities())

    def _identities(self) -> Identities:
        with self._lock:
            return Identities.union([known.ids for known in self._written.values()])

    def stop_merging(self) -> None:
        """Start no more merges, because the driver is about to end and waiting merges may take minutes."""
        self._stopped = True

    def resume(self) -> Resumed:
        """Verify every part, move damaged and incomplete ones to ``damaged/``, and return the identities that
        have rows.

        If a file cannot be read, which does not mean that it is damaged, this raises OSError or UserError
        before anything is changed. Also raises StoreError."""
        found = look(self.place, self.layout)
        for path in found.aside:
            self.place.set_aside(path, self.layout.damaged)
        self._delete(found.merged)
        self._written, self._small = {}, ({}, {})
        for name, known in found.whole.items():
            self._note(name, known)
        finished = self._identities()
        self._merge()
        moved = f"; moved to {self.place.of(self.layout.damaged)}"
        return Resumed(finished, [problem + moved for problem in found.problems])

    def missing(self) -> Identities:
        """Return the identities that had rows but have none in the folder now.

        A listing of each table shows whether every part that was written still exists with its size. The
        parts are read only if one does not, because another driver may have merged it. Raises OSError,
        UserError."""
        found = {table: part_names(self.place, table) for table in self.layout.tables}
        tables_of, whole = self.layout.tables_of, names_of_whole(found, self.layout)
        there = set(whole)
        with self._lock:
            written = dict(self._written)
        if all(
            name in there and known.size == sum(found[table][name].size for table in tables_of(name))
            for name, known in written.items()
        ):
            return Identities()
        verified = parallel(self.place, lambda name: verify(self.place, self.layout, name), whole)
        return self._identities().without([each.ids for each in verified])

    def write(self, key: str, *tables: pa.Table) -> None:
        """Add a part. tables: one for each table of the layout, in its order. Several threads may do this at
        once. Raises StoreError.
        """
        files = []
        for rows in tables:
            sink = pa.BufferOutputStream()
            pq.write_table(rows, sink, **_form(rows.schema))
            files.append(sink.getvalue())
        name = self._store(key, files)
        ids = packed(tables[0][self.layout.identity].unique())
        with self._lock:
            self._note(name, Known(sum(file.size for file in files), ids, merged=False))
            size = sum(rows.nbytes for rows in tables)
            if name in self._small[0] and self._held + size <= HELD:
                self._rows[name] = tables
                self._held += size
            due = self._due() is not None
            late = self._due(behind=2) is not None
        # one thread merges; the others continue writing, unless parts come faster than they are merged
        if due and self._merging.acquire(blocking=late):
            try:
                self._merge()
            finally:
                self._merging.release()

    def _note(self, name: str, known: Known) -> None:
        self._written[name] = known
        if known.size < SMALL:
            self._small[known.merged][name] = known.size

    def _store(self, key: str, files: Sequence[pa.Buffer]) -> str:
        """Write the files of a part. Returns the part's name."""
        name = named(key, files)
        for table, file in reversed(list(zip(self.layout.tables, files, strict=False))):
            self.place.write(f"{table}/{name}", file)
        return name

    def _due(self, behind: int = 1) -> dict[str, int] | None:
        """The small parts, if there are too many of them (or this many times too many)."""
        limits = (behind * (most + self._postponed) for most in (MERGE_AT, MERGE_AGAIN_AT))
        due = (small for small, most in zip(self._small, limits, strict=True) if len(small) >= most)
        return next(due, None)

    def _merge(self) -> None:
        """Merge until few small parts are left. If memory runs out, they stay until there are more."""
        while not self._stopped:
            chosen: dict[str, int] = {}
            with self._lock:
                small = self._due()
                if small is None:
                    return
                for name, size in small.items():  # the oldest first
                    if len(chosen) < 2 or sum(chosen.values()) + size <= LARGEST_MERGE:
                        chosen[name] = size
            try:
                left = self._merge_these(chosen)
            except MemoryError:
                with self._lock:
                    self._postponed = sum(map(len, self._small))
                return
            finally:
                pa.default_memory_pool().release_unused()
            with self._lock:
                for name in chosen.keys() - left:
                    small.pop(name, None)
            self._postponed = 0

    def _merge_these(self, chosen: Mapping[str, int]) -> set[str]:
        """Write one part with the rows of these parts, in one row group for some of them at a time. Returns
        those that are left because they have other columns.
        """
        sinks: list[pa.BufferOutputStream] = []  # one for each table of the layout
        writers: list[pq.ParquetWriter] = []
        inside: list[str] = []
        left = set(chosen)
        for names in _together(chosen):
            found = zip(names, parallel(self.place, self._whole, names), strict=True)
            read = {name: tables for name, tables in found if tables is not None}
            tables = [
                pa.concat_tables([table for table in each if table is not None], promote_options="permissive")
                for each in itertools.zip_longest(*read.values())
            ]
            if any(not one.schema.equals(rows.schema) for one, rows in zip(writers, tables, strict=False)):
                break
            left.difference_update(names)
            inside += read
            for rows in tables[len(writers) :]:
                schema = rows.schema
                if not writers:  # additional names are harmless, see :mod:`resuming`
                    schema = schema.with_metadata({**(schema.metadata or {}), MERGED: json.dumps([*chosen])})
                sinks.append(pa.BufferOutputStream())
                writers.append(pq.ParquetWriter(sinks[-1], schema, **_form(schema)))
            for one, rows in zip(writers, tables, strict=False):
                one.write_table(rows)
        for one in writers:
            one.close()
        if not inside:
            return left
        files = [sink.getvalue() for sink in sinks]
        name = self._store(digest(inside), files)
        try:
            for table in self.layout.tables_of(name):
                self.place.settle(table)
        except OSError:  # the merged part may not last, so keep the small parts; loading counts rows once
            return left
        with self._lock:
            gone = [self._written.pop(each) for each in inside]
            ids = np.concatenate([known.ids for known in gone])
            self._note(name, Known(sum(file.size for file in files), ids, merged=True))
            for each in inside:
                self._held -= sum(rows.nbytes for rows in self._rows.pop(each, ()))
        self._delete(inside)
        return left

    def _whole(self, name: str) -> Sequence[pa.Table] | None:
        """All tables of a part; None if it is damaged, which resuming will report, or if another driver has
        merged it (object stores only).
        """
        with self._lock:
            if name in self._rows:
                return self._rows[name]
        try:
            return [
                read_part(self.place, table, name, layout=self.layout)
                for table in self.layout.tables_of(name)
            ]
        except ShortOfMemoryError as error:
            raise MemoryError(str(error)) from error
        except (DamagedError, OSError, UserError):
            return None

    def _delete(self, names: Sequence[str]) -> None:
        for table in self.layout.tables:  # the first table makes a part finished, so delete its file first
            files = [f"{table}/{name}" for name in names if table in self.layout.tables_of(name)]
            deque(parallel(self.place, self.place.delete, files), maxlen=0)


def _together(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield groups of parts whose rows are in memory at the same time."""
    names: list[str] = []
    for name, size in sizes.items():
        if names and sum(sizes[each] for each in names) + size > AT_A_TIME:
            yield names
            names = []
        names.append(name)
    if names:
        yield names
