"""Lay out a report: tables with formatted cells, sections, and one HTML page of them."""

from __future__ import annotations

import base64
import csv
import functools
import gzip
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from topdown_ray.figures import Picture
from topdown_ray.files import data

MOST_ROWS = 400  # rows of a table in the page; the files have all
_MOST_DOWNLOAD = 150_000  # characters of a compressed table that is embedded in the page

DASH = "\N{EN DASH}"  # for values that a folder does not record
# ends of captions
BANDS = ". Bands show 95 % intervals."
LINES = ". Lines show 95 % intervals."
# formats of numbers
PERCENT: dict[str, Any] = {"digits": ".2f", "scale": 100.0}
POINTS: dict[str, Any] = {"digits": "+.2f", "scale": 100.0}
COUNT: dict[str, Any] = {"digits": ",.0f", "missing": DASH}

TableRow = Mapping[Any, Any]


@dataclass(frozen=True)
class Column:
    """A column of a shown table: its heading, and a function that formats the cell of a row."""

    heading: str
    cell: Callable[[TableRow], str]
    numeric: bool = True


def _number(value: float | None, digits: str, scale: float) -> str:
    if value is None or math.isnan(value):
        return ""
    value = round(scale * value, 9)  # removes rounding errors of exact fits
    shown = format(value, ",.0f" if abs(value) >= 10_000 and digits.endswith("g") else digits)
    return shown if shown.strip("+-0.") else shown.lstrip("+-")  # no sign if the number rounds to zero


def text(name: str, heading: str | None = None) -> Column:
    """Return a column of words."""
    return Column(heading or name.replace("_", " "), lambda row: str(row[name]), numeric=False)


def number(
    name: str, heading: str | None = None, digits: str = ".4g", scale: float = 1.0, missing: str = ""
) -> Column:
    """Return a column of numbers, which shows ``missing`` for NaN."""

    return Column(heading or name.replace("_", " "), lambda row: _number(row[name], digits, scale) or missing)


def interval(
    low: str, high: str, heading: str = "95 % interval", digits: str = ".4g", scale: float = 1.0
) -> Column:
    """Return a column of intervals, which is empty where there is none."""

    def cell(row: TableRow) -> str:
        if math.isnan(row[low]) or math.isnan(row[high]):
            return ""
        return f"[{_number(row[low], digits, scale)}, {_number(row[high], digits, scale)}]"

    return Column(heading, cell)


@dataclass(frozen=True)
class Table:
    """A table of the report. The CSV file has all of ``frame``; the page shows ``columns``.

    group: the first columns, which the page shows as headings between the rows, so that no row repeats them.
    in_page: whether the page shows the table or only links to its file (the data of a picture). view: a frame
    that is shown instead of ``frame``."""

    name: str
    title: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    note: str = ""
    group: Sequence[Column] = ()
    in_page: bool = True
    view: pd.DataFrame | None = None

    @functools.cached_property
    def shown_columns(self) -> Sequence[Column]:
        """The columns that have content in some row."""
        rows = self.rows.to_dict("records")
        return [column for column in self.columns if any(column.cell(row) not in ("", DASH) for row in rows)]

    @property
    def rows(self) -> pd.DataFrame:
        """The rows that are shown."""
        return self.frame if self.view is None else self.view

    @property
    def shown(self) -> list[tuple[str, list[list[tuple[str, bool]]]]]:
        """The rows of the page by group: the heading, and the cells, each with a flag for numbers."""
        numeric = [column.numeric for column in self.shown_columns]
        groups: dict[str, list[list[tuple[str, bool]]]] = {}
        for row in self.rows.head(MOST_ROWS).to_dict("records"):
            heading = " · ".join(column.cell(row) for column in self.group)
            cells = [column.cell(row) for column in self.shown_columns]
            groups.setdefault(heading, []).append(list(zip(cells, numeric, strict=True)))
        return list(groups.items())

    @functools.cached_property
    def csv(self) -> str:
        """The whole table as CSV with raw values."""
        return csv_of(self.frame)

    @functools.cached_property
    def download(self) -> str:
        """The compressed CSV file as text for the page, or "" if it is too large to be embedded."""
        file = packed(self.csv)
        return file if len(file) <= _MOST_DOWNLOAD else ""

    def markdown(self) -> str:
        """Return the shown table as Markdown."""
        columns = [*self.group, *self.shown_columns]
        lines = [
            [column.heading for column in columns],
            ["---:" if column.numeric else "---" for column in columns],
            *([column.cell(row) for column in columns] for row in self.rows.to_dict("records")),
        ]
        return "".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
        )

    def write(self, folder: Path) -> None:
        """Write the CSV file (raw values) and, if the page shows the table, the Markdown file."""
        (folder / f"{self.name}.csv").write_text(self.csv)
        if self.in_page:
            (folder / f"{self.name}.md").write_text(f"{self.title}\n\n{self.markdown()}")


def packed(content: str) -> str:
    """Compress a text and encode it in base64, to be embedded in the page, which unpacks it."""
    return base64.b64encode(gzip.compress(content.encode(), mtime=0)).decode()


def csv_of(frame: pd.DataFrame) -> str:
    """Return a frame as CSV in which a spreadsheet finds no formulas.

    A spreadsheet would calculate a text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break.
    Such a cell gets an apostrophe in front, as OWASP advises against CSV injection. Numbers are not changed.
    """
    plain = frame.map(_harmless)
    plain.columns = pd.Index([_harmless(name) for name in frame.columns])
    return plain.to_csv(index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    # some readers end a row at a bare \r, even inside quotes
    cell = cell.replace("\r", "\n")
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\n")) else cell


@dataclass(frozen=True)
class Section:
    """A section of the report: words, its own HTML, pictures, tables, and verbatim text (specifications)."""

    id: str
    title: str
    words: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    verbatim: Sequence[tuple[str, str]] = field(default_factory=tuple)
    html: str = ""  # markup that is not escaped


@dataclass(frozen=True)
class Top:
    """The part of the page above the sections: the main findings, warnings about the data, and the meaning of
    the letters in the names of series.
    """

    title: str
    findings: Sequence[str]
    warnings: Sequence[str]
    legend: Sequence[tuple[str, str]]


def _code(words: str) -> Markup:
    """Escape words for HTML, and mark the parts between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(Markup.escape(words))))


def template_of(name: str) -> jinja2.Template:
    """Load a template of the package. Its filter ``code`` shows text between backticks as code."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = _code
    return environment.from_string(data(name).read_text(encoding="utf-8"))


def page(top: Top, sections: Sequence[Section]) -> str:
    """Return the whole report as one self-contained HTML document."""
    template = template_of("report.html.j2")
    css, script = (Markup(data(name).read_text()) for name in ("report.css", "report.js"))
    return template.render(top=top, sections=sections, css=css, script=script, most_rows=MOST_ROWS)
