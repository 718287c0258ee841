"""Print tables, JSON and paragraphs in the form that all commands share."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from topdown_ray.spaces.cost import with_unit
from topdown_ray.store.transferred import MARK, footnote
from topdown_ray.terminal import terminal, visible

if TYPE_CHECKING:
    import pandas as pd


def print_table(table: Table) -> None:
    """Print a table at its full width, because a number that is cut off is worse than a long line."""
    console = terminal(highlight=False)
    width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    terminal(highlight=False, width=max(width, console.width)).print(table)


def print_json(facts: Any, indent: int | None = None, flush: bool = False) -> None:
    """Print facts as JSON, on one line unless ``indent`` is given."""
    print(json.dumps(facts, indent=indent), flush=flush)


def print_records(frame: pd.DataFrame) -> None:
    """Print a table as JSON: a list with an object for each row."""
    print(frame.to_json(orient="records", date_format="iso"))


def print_wrapped(text: str, indent: str = "  ") -> None:
    """Print a paragraph that is wrapped at 80 columns. All lines but the first are indented more."""
    print(textwrap.fill(text, 80, initial_indent=indent, subsequent_indent=indent + "  "))


def amount(row: Mapping[Any, Any], column: str = "target") -> str:
    """Return a target or cost with its unit: ``35 ms``, ``400 x 1e6 MACs``."""
    return with_unit(f"{row[column]:g}", row["cost_unit"])


ANSWER = ("target", "cost", "unit", "top-1 (%)", "MACs", "params")
PREDICTED = "top-1 is predicted; MACs and params are in 1e6"


def answer(row: Mapping[Any, Any]) -> list[str]:
    """Return the cells of the columns ``ANSWER`` for a row of ``searches``."""
    mark = MARK if row["predictor_space"] != row["space"] else ""
    counts = [_number(row["macs_m"], ".1f"), _number(row["params_m"], ".2f")]
    numbers = [f"{mark}{100 * row['accuracy']:.2f}", *counts]
    return [f"{row['target']:g}", f"{row['cost']:.2f}", row["cost_unit"], *numbers]


def _number(value: Any, form: str) -> str:
    """Format a number, or a dash for none, as for the MACs of a space without an OFA network."""
    import pandas as pd

    return "-" if pd.isna(value) else format(value, form)


def print_footnote(rows: pd.DataFrame) -> None:
    """Print what the mark at some accuracies of these rows of ``searches`` means."""
    if note := footnote(rows):
        print(textwrap.fill(note, 80, subsequent_indent="  "))


def table_of(words: Sequence[str], numbers: Sequence[str], title: str | None = None) -> Table:
    """Return an empty table with left-aligned columns of words and right-aligned columns of numbers."""
    table = Table(*words, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def print_damaged(damaged: Sequence[str]) -> None:
    """Print the parts of a folder that are computed again."""
    for problem in damaged:
        print(f"damaged, will be computed again: {visible(problem)}", file=sys.stderr)
