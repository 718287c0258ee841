"""The files of parts, read: listed, verified, several at a time.

A file is damaged where its checksum says so; one of an older folder, without a checksum, where pyarrow says
that it is no valid Parquet. Nothing else is damage: memory that runs out, a disk that does not answer or a
thread that does not start end with an error, and no file is touched."""

from __future__ import annotations

import contextlib
import errno
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from topdown_ray.errors import UserError
from topdown_ray.store.filesystems import reason
from topdown_ray.store.layout import SWEEP, Layout
from topdown_ray.store.place import Place, PlacedFile

READ_ATTEMPTS = 5  # of a reader, while a driver merges parts
# in pyarrow's errors: what failed is the machine
_NOT_OF_THE_FILE = re.compile(r"alloc|memory|thread|resource", re.IGNORECASE)

_Name = TypeVar("_Name")
_Value = TypeVar("_Value")


class DamagedError(Exception):
    """A file that is not what was written; the text says how that is known."""


class ShortOfMemoryError(UserError):
    """There was too little memory to read a part, which says nothing of the part."""


def read_part(
    place: Place,
    table: str,
    name: str,
    schema: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
    layout: Layout = SWEEP,
    where: pc.Expression | None = None,
) -> pa.Table:
    """A part's file, verified by its checksum. where: only the rows of which this is true, and of the file
    only what holds them: the checksums of its pages verify that.

    Raises DamagedError, FileNotFoundError, OSError; UserError where the file is as it was written, and still
    cannot be read."""
    path = place.of(f"{table}/{name}")
    try:
        if where is not None:
            with (
                contextlib.suppress(pa.ArrowInvalid, OSError),  # the whole file tells what is wrong
                place.open(f"{table}/{name}") as file,
            ):
                return _read(file, schema, columns, where)
        data = place.read(f"{table}/{name}")
        sums = layout.sums_of(name)
        if sums is not None and zlib.crc32(data) != (expected := sums[layout.tables.index(table)]):
            raise DamagedError(
                f"checksum {zlib.crc32(data):08x}, expected {expected:08x} ({len(data)} bytes)"
            )
        return _parse(data, sums is not None, schema, columns, where)
    except MemoryError as error:  # also pyarrow's
        raise ShortOfMemoryError(
            f"{path}: expected memory to read it, found too little ({reason(error) or 'MemoryError'})"
        ) from error
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        # the disk's or the bucket's, not the content's
        if getattr(error, "errno", None) or isinstance(error, FileNotFoundError):
            raise
        raise UserError(f"{path}: expected the rows of a part, found {place.reason(error)}") from error


def _parse(
    data: bytes,
    summed: bool,
    schema: pa.Schema | None,
    columns: Sequence[str] | None,
    where: pc.Expression | None,
) -> pa.Table:
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
    return _read(pa.BufferReader(data), schema, columns, where)


def _read(
    file: Any, schema: pa.Schema | None, columns: Sequence[str] | None, where: pc.Expression | None
) -> pa.Table:
    return pq.read_table(
        file,
        schema=schema,
        columns=None if columns is None else list(columns),
        filters=where,
        use_threads=False,
        page_checksum_verification=where is not None,
    )


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
    threads = 4 if place.local is not None else 32
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Value]] = deque()
        for name in names:  # bounded, so that what is read does not pile up
            try:
                waiting.append(pool.submit(function, name))
            except RuntimeError as error:  # the system starts no more threads
                raise OSError(errno.EAGAIN, str(error)) from error
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
