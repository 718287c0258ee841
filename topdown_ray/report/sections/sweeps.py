"""Make the section "Sweeps compared": each folder against the folders before it."""

from __future__ import annotations

import contextlib
import itertools

from topdown_ray.errors import UserError
from topdown_ray.figures import file_name
from topdown_ray.report.compare import compare
from topdown_ray.report.context import OF_SET, Context
from topdown_ray.report.page import DASH, PERCENT, POINTS, Section, Table, interval, number, text
from topdown_ray.report.series import letter_of

_ALL_PAIRS = 4  # of more folders than these, each is compared with the first one only
_WORDS = (
    "Each row compares one strategy label in two folders by its mean accuracy over the targets of the set. "
    "If the folders share seeds, the means are paired by seed. Ratios divide the later folder by the earlier "
    "one. `topdown-ray compare` prints the same numbers."
)


def sweeps(context: Context) -> Section | None:
    """Show what changed between folders with series of the same labels. Returns None if there are none."""
    lettered = {mark.letter for mark in context.data.marks}
    places = [i for i in range(len(context.sources)) if letter_of(i) in lettered]
    tables = []
    for first, other in itertools.combinations(places, 2):
        if len(places) > _ALL_PAIRS and first != places[0]:
            break
        with contextlib.suppress(UserError):  # nothing in these two can be compared
            tables.append(_table(context, first, other))
    return Section("sweeps", "Sweeps compared", [_WORDS], tables=tables) if tables else None


def _table(context: Context, first: int, other: int) -> Table:
    names = [context.sources[i].name for i in (first, other)]
    frame = compare(context.sources[first].results, context.sources[other].results, names).rows
    rows = frame.assign(rows_ratio=frame["predictor_rows_after"] / frame["predictor_rows_before"])
    before, after = letter_of(first), letter_of(other)
    columns = [text("strategy"), number("before", f"{before} (%)", **PERCENT)]
    columns += [number("after", f"{after} (%)", **PERCENT)]
    columns += [number("difference", f"{after} - {before} (points)", **POINTS)]
    columns += [interval("low", "high", **POINTS), number("n", "pairs"), number("ties")]
    columns += [number("p", digits=".4f"), number("time_ratio", "time ratio", ".3g", missing=DASH)]
    columns += [number("rows_ratio", "predictor rows ratio", ".3g", missing=DASH)]
    title = f"{after} ({context.names[other]}) against {before} ({context.names[first]})"
    name = file_name("compare", after, before)
    return Table(name, title, frame, columns, "", OF_SET, view=rows[rows["target"].isna()])
