"""Make the section "Fronts": hypervolumes, and the distance to and regret against a reference front."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from topdown_ray.figures import Picture, file_name
from topdown_ray.report import comparisons, plots
from topdown_ray.report.axes import of_widest
from topdown_ray.report.context import OF_SET, Context
from topdown_ray.report.page import COUNT, DASH, LINES, PERCENT, Section, Table, interval, number, text

_WORDS = (
    "The answers of one search for all its targets form a front. Its hypervolume is the area between the "
    "front and the reference point in the table. The cost of the reference point is "
    f"{comparisons.BEYOND:g} times the set's loosest target. A larger hypervolume is better. Answers that "
    "cost less than their target also add area, so a front of cheaper and less accurate architectures can "
    "have the larger hypervolume.",
)
_REFERENCE = (
    "The distance to the reference front is IGD+, with both axes divided by the range of the reference "
    "front. It is 0 for a front that is at least as good everywhere.",
    "The regret of an answer is the difference between the accuracy of the reference front's most accurate "
    "architecture that meets the target and the answer's own accuracy.",
)


_DRAWN = ["setting", "strategy", "k", "targets", "feasible", "cost", "accuracy", "cost_unit"]


def fronts(context: Context) -> Section | None:
    """Show hypervolumes, and the regret against a reference front if one is given. Returns None if no search
    has two targets.
    """
    frame = comparisons.fronts(context.data, context.options.floor, context.reference)
    if frame.empty:
        return None
    pictures = [
        picture for setting in frame["setting"].unique() for picture in _pictures(context, frame, setting)
    ]
    words, shown = [*_WORDS], [_table(context, frame)]
    if context.reference is not None:
        words += _REFERENCE
        shown.append(_regret(context, comparisons.regret(context.data, context.reference)))
    return Section("fronts", "Fronts", words, pictures, shown)


def _pictures(context: Context, frame: pd.DataFrame, setting: str) -> list[Picture]:
    known = context.reference
    if known is not None and "space" in known:
        known = known[known["space"] == frame.loc[frame["setting"] == setting, "space"].iloc[0]]
    rows = context.data.distinct()
    rows = rows.loc[rows["setting"] == setting, _DRAWN]
    own = of_widest(rows[rows["feasible"]], setting, None)
    counts = own["strategy"].value_counts()
    thinned = f" (at most {plots.MOST_POINTS} for each strategy)" if counts.max() > plots.MOST_POINTS else ""
    answers = f"{setting}: the answers for the widest set{thinned}."
    name = file_name("front", setting)
    pictures = [context.draw(name, answers, plots.front, rows, setting=setting, reference=known)]
    if len(counts) > 1:
        lines = LINES if frame["low"].notna().any() else "."
        volumes = f"{setting}: mean hypervolume of a search for the widest set{lines}"
        name = file_name("hypervolume", setting)
        pictures.append(context.draw(name, volumes, plots.hypervolume, frame, setting=setting))
    return pictures


def _table(context: Context, frame: pd.DataFrame) -> Table:
    columns = [text("strategy"), number("reference_cost", "reference cost")]
    columns += [text("cost_unit", "unit"), number("reference_accuracy", "reference top-1 (%)", **PERCENT)]
    columns += [number("hypervolume", digits=".2f"), number("sd", digits=".2f")]
    columns += [interval("low", "high", digits=".2f"), text("interval", "interval by")]
    if context.reference is not None:
        columns += [number("distance"), interval("distance_low", "distance_high")]
    title = "Hypervolume of a search's front (unit of the cost x percentage points)"
    return Table("fronts", title, frame, [*columns, number("n")], group=OF_SET)


def _regret(context: Context, frame: pd.DataFrame) -> Table:
    label = np.where(frame["target"].isna(), "all", frame["target"].map("{:g}".format))
    percent: dict[str, Any] = {"digits": ".3f", "scale": 100.0}
    columns = [text("strategy")]
    columns += [text("target_label", "target"), text("cost_unit", "unit")]
    columns += [number("best", "reference top-1 (%)", **percent)]
    columns += [number("regret", "regret (points)", **percent), number("sd", "sd (points)", **percent)]
    columns += [interval("low", "high", **percent), text("interval", "interval by"), number("n")]
    columns += [number("predictor_rows", "predictor rows", **COUNT), number("cpu_s", "CPU s", missing=DASH)]
    note = (
        "Predictor rows and CPU seconds (one core) are means of a whole search, including gradients, as in "
        "the section “Running time”. A dash means that the folders do not record them, or that the searches "
        "were timed in several ways, which that section shows separately."
    )
    title = "Regret against the reference front"
    return Table("regret", title, frame.assign(target_label=label), columns, note, OF_SET)
