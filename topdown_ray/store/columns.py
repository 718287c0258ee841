"""Define the columns of result tables: their names, types, units and meanings.

``docs/reference/tables.md`` is generated from these descriptions. They are not written into the files of a
table, so a better wording changes no file and no identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa


class TableColumn(NamedTuple):
    """A column of a result table, with what a reader of the table needs to know about it."""

    name: str
    type: pa.DataType
    meaning: str  # in Markdown
    unit: str = ""  # "": text, a hash or a number without a unit
    null: str = ""  # when a value is null; "": never
    since: int = 1  # the schema version that added the column


def schema_of(columns: Sequence[TableColumn], metadata: dict[str | bytes, str | bytes]) -> pa.Schema:
    """Return the Arrow schema of these columns. It holds names and types only."""
    return pa.schema([(column.name, column.type) for column in columns], metadata=metadata)
