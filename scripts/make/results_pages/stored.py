"""Stored tables: the numbers behind the results pages, one JSON file for each in docs/results/data.

A file names the command that made the numbers, the machine where they depend on a clock, and the sweeps that
they come from. It has no dates, so that the same numbers give the same file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "docs" / "results" / "data"
DIGITS = 7  # significant ones of a stored number

Row = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """A stored table."""

    command: str
    rows: list[Row]
    machine: str = ""  # empty where the numbers do not depend on it
    runs: list[str] = field(default_factory=list)  # the run_id of each sweep

    def frame(self) -> pd.DataFrame:
        """The rows as a pandas frame; missing numbers are NaN."""
        return pd.DataFrame(self.rows)

    def row(self, **keys: Any) -> Row:
        """The one row that has these values."""
        found = self.where(**keys)
        if len(found) != 1:
            raise KeyError(f"expected one row with {keys}, found {len(found)}")
        return found[0]

    def where(self, **keys: Any) -> list[Row]:
        """All rows that have these values."""
        return [row for row in self.rows if all(row[name] == value for name, value in keys.items())]


def plain(value: Any) -> Any:
    """A value as JSON holds it: numbers of ``DIGITS`` significant digits, null for NaN."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.{DIGITS}g}")
    return value


def rows_of(frame: pd.DataFrame, columns: Sequence[str]) -> list[Row]:
    """The rows of a frame, with these columns."""
    return frame[list(columns)].to_dict("records")


def text_of(table: Stored) -> str:
    """The content of a file: one line for each row, so that a change is easy to read."""
    head = {"command": table.command, "machine": table.machine, "runs": table.runs}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}," for name, value in head.items() if value]
    rows = [json.dumps({name: plain(value) for name, value in row.items()}) for row in table.rows]
    return "\n".join(["{", *lines, ' "rows": [', ",\n".join(f"  {row}" for row in rows), " ]", "}\n"])


def write(name: str, table: Stored) -> None:
    """Store a table."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(text_of(table))


class Tables(Mapping[str, Stored]):
    """All stored tables by name, read when they are first asked for."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._read: dict[str, Stored] = {}

    def __getitem__(self, name: str) -> Stored:
        if name not in self._read:
            path = self._folder / f"{name}.json"
            if not path.is_file():
                raise KeyError(name)
            self._read[name] = Stored(**json.loads(path.read_text()))
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.stem for path in self._folder.glob("*.json")))

    def __len__(self) -> int:
        return len(list(iter(self)))
