"""List, verify and read the files of parts, several at a time.

A file is damaged if it does not match its checksum. A file of an older folder has no checksum; it is damaged
if pyarrow cannot read it as Parquet. Other failures (memory runs out, a disk does not answer, a thread does
not start) are errors but no damage, and no file is changed."""

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

READ_ATTEMPTS = 5  # attempts of a reader, while a driver merges parts
# signs in pyarrow's errors that the machine failed, and not the file
_NOT_OF_THE_FILE = re.compile(r"alloc|memory|thread|resource", re.IGNORECASE)

_Name = TypeVar("_Name")
_Value = TypeVar("_Value")


class DamagedError(Exception):
    """A file differs from what was written; the message says how this is known."""


class ShortOfMemoryError(UserError):
    """There was too little memory to read a part. The part itself may be intact."""


def read_part(
    place: Place,
    table: str,
    name: str,
    schema: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
    layout: Layout = SWEEP,
    where: pc.Expression | None = None,
) -> pa.Table:
    """Read a part's file and verify it by its checksum. where: read only the rows that fulfil this condition,
    and only the parts of the file that contain them, which the checksums of its pages verify.

    Raises DamagedError, FileNotFoundError, OSError, and UserError if the file is as it was written but still
    cannot be read."""
    path = place.of(f"{table}/{name}")
    try:
        if where is not None:
            with (
                contextlib.suppress(pa.ArrowInvalid, OSError),  # reading the whole file shows what is wrong
                place.open(f"{table}/{name}") as file,
            ):
                return _read(file, schema, columns, where)
        data = place.read(f"{table}/{name}")
        sums = layout.sums_of(name)
        if sums is not None and zlib.crc32(data) != (expected := sums[layout.tables.index(table)]):
            raise DamagedError(
                f"checksum {zlib.crc32(data):08x} instead of {expected:08x} ({len(data)} bytes)"
            )
        return _parse(data, sums is not None, schema, columns, where)
    except MemoryError as error:  # Python's or pyarrow's
        raise ShortOfMemoryError(
            f"{path}: expected enough memory to read it, found too little ({reason(error) or 'MemoryError'})"
        ) from error
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        # an error of the disk or the bucket, not of the content
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
    """Raises DamagedError if bytes without a checksum are no Parquet, and otherwise pyarrow's exceptions."""
    if not summed:
        try:
            pq.read_table(pa.BufferReader(data), use_threads=False)  # only reading every page is a proof
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
    """Return the parts of a table by name in a fixed order, with size in bytes and time of writing."""
    found = place.files(table)
    return {
        name: found[name]
        for name in sorted(found)
        if name.endswith(".parquet") and not name.startswith((".", "_"))
    }


def parallel(place: Place, function: Callable[[_Name], _Value], names: Sequence[_Name]) -> Iterator[_Value]:
    """Yield ``function`` of each name, in order, computed by a few threads, because reading mostly waits for
    the disk or the object store.
    """
    threads = 4 if place.local is not None else 32
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Value]] = deque()
        for name in names:  # a limited number at a time, so that results do not fill the memory
            try:
                waiting.append(pool.submit(function, name))
            except RuntimeError as error:  # the system cannot start more threads
                raise OSError(errno.EAGAIN, str(error)) from error
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
