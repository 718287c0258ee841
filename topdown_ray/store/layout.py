"""Define which tables a folder has, and how the files of its parts are named.

A part has one file of the same name in the folder of each table: ``searches/KEY.SUMS.parquet`` and
``trace/KEY.SUMS.parquet`` for a shard of a sweep, and ``front/KEY.SUMS.parquet`` if its searches keep fronts.
SUMS are the CRC-32 checksums of the part's files, in the order of the layout's tables. A damaged file does
not match its checksum, and the number of checksums is the number of the part's files. KEY is the name of the
rows or of the merged parts. Older folders have ``KEY.parquet``."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Layout:
    """Tables whose parts belong together. Every table has the identity's column."""

    identity: str  # the column that says what a row is about
    # for each table, the columns that identify a row; the table that is written last comes first
    keys: Mapping[str, Sequence[str]]
    damaged: str = "damaged"  # the folder that damaged parts are moved to
    least: int = 1  # every part has a file in the first `least` tables

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables, which are also the names of their folders."""
        return tuple(self.keys)

    @property
    def first(self) -> str:
        """The table that is written last. A part is finished if its file in this table exists."""
        return self.tables[0]

    def sums_of(self, name: str) -> tuple[int, ...] | None:
        """Return the checksums in a part's name, one for each of its files; older folders have none."""
        found = re.fullmatch(r"[^.]+\.((?:[0-9a-f]{8})+)\.parquet", name)
        if not found or not self.least <= len(found[1]) // 8 <= len(self.tables):
            return None
        return tuple(int(found[1][i : i + 8], 16) for i in range(0, len(found[1]), 8))

    def tables_of(self, name: str) -> tuple[str, ...]:
        """Return the tables in which a part has a file."""
        sums = self.sums_of(name)
        return self.tables[: self.least if sums is None else len(sums)]


def named(key: str, files: Sequence[bytes | pa.Buffer]) -> str:
    """Return the name of a part with these files, in the order of the layout's tables."""
    return f"{key}.{''.join(f'{zlib.crc32(file):08x}' for file in files)}.parquet"


TABLES = ("searches", "trace")  # every part of a sweep has a file in these tables
SWEEP = Layout(
    "search_id",
    {
        "searches": ("search_id", "target_index"),
        "trace": ("search_id", "target_index", "generation"),
        "front": ("search_id", "place"),
    },
    least=len(TABLES),
)
