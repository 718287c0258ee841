"""Write docs/reference/tables.md, the reference of the result tables, from the descriptions of their columns.

python scripts/make/tables_reference.py [--out FILE]
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from topdown_ray.store.columns import TableColumn
from topdown_ray.store.evaluations import EVALUATION_COLUMNS
from topdown_ray.store.schema import FRONT_COLUMNS, INCIDENTAL, SCHEMA_VERSION, SEARCH_COLUMNS, TRACE_COLUMNS

TEMPLATE = Path(__file__).with_suffix(".md")
TABLES = {
    "searches": SEARCH_COLUMNS,
    "trace": TRACE_COLUMNS,
    "front": FRONT_COLUMNS,
    "evaluations": EVALUATION_COLUMNS,
}


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    return "timestamp" if pa.types.is_timestamp(kind) else str(kind)


def _row(column: TableColumn) -> str:
    meaning = f"{column.meaning} Null if {column.null}." if column.null else column.meaning
    if column.since > 1:
        meaning += f" Added in schema {column.since}."
    return f"| `{column.name}` | {_type(column.type)} | {column.unit} | {meaning} |"


def table(columns: Sequence[TableColumn]) -> Iterator[str]:
    yield '<div class="reference columns" markdown>\n'  # see docs/stylesheets/site.css
    yield "| column | type | unit | meaning |"
    yield "|---|---|---|---|"
    yield from map(_row, columns)
    yield "\n</div>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    out = Path(__file__).parents[2] / "docs" / "reference" / "tables.md"
    parser.add_argument("--out", type=Path, default=out)
    text = TEMPLATE.read_text()
    for name, columns in TABLES.items():
        text = text.replace(f"<!-- columns of {name} -->", "\n".join(table(columns)))
    text = text.replace("INCIDENTAL", ", ".join(f"`{name}`" for name in INCIDENTAL))
    text = text.replace("SCHEMA_VERSION", str(SCHEMA_VERSION))
    parser.parse_args().out.write_text(f"<!-- made by scripts/make/tables_reference.py -->\n\n{text}")


if __name__ == "__main__":
    main()
