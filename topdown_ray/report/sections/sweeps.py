"""Several sweeps of the same strategies: each folder against the first one."""

from __future__ import annotations

import contextlib
from pathlib import Path

from topdown_ray.errors import UserError
from topdown_ray.figures import file_name
from topdown_ray.report.compare import compare
from topdown_ray.report.context import OF_SET, Context
from topdown_ray.report.page import PERCENT, POINTS, Section, Table, interval, number, text
from topdown_ray.report.series import letter_of

_WORDS = (
    "Each strategy of the first folder beside the one of the same label in another folder: means over the "
    "targets of the set, paired by seed where the folders share seeds. Times and predictor rows are those of "
    "the other folder divided by those of the first. `topdown-ray compare` prints the same numbers."
)


def sweeps(context: Context) -> Section | None:
    """What changed from the first folder to each other one that has series of the same labels; None where
    there is none.
    """
    letters = {mark.letter for mark in context.data.marks}
    tables = []
    for i, source in enumerate(context.sources[1:], 1):
        if letter_of(i) not in letters:
            continue
        with contextlib.suppress(UserError):  # nothing that compares with the first folder
            tables.append(_table(context, i, Path(source.name).name))
    return Section("sweeps", "Sweeps compared", [_WORDS], tables=tables) if tables else None


def _table(context: Context, i: int, name: str) -> Table:
    first, other = context.sources[0], context.sources[i]
    frame = compare(first.results, other.results, [first.name, other.name]).rows
    rows = frame.assign(rows_ratio=frame["predictor_rows_after"] / frame["predictor_rows_before"])
    letter = letter_of(i)
    columns = [
        text("strategy"),
        number("before", "A (%)", **PERCENT),
        number("after", f"{letter} (%)", **PERCENT),
    ]
    columns += [number("difference", f"{letter} - A (points)", **POINTS), interval("low", "high", **POINTS)]
    columns += [number("n", "pairs"), number("ties"), number("p", digits=".4f")]
    columns += [number("time_ratio", "time ratio", ".3g"), number("rows_ratio", "rows ratio", ".3g")]
    title = f"{letter} ({name}) against A ({Path(first.name).name})"
    view = rows[rows["target"].isna()]
    return Table(file_name("compare", letter), title, frame, columns, "", OF_SET, view=view)
