"""Make the section "Anytime curves": accuracy against evaluations, and the effort to reach an accuracy."""

from __future__ import annotations

from typing import Any

import pandas as pd

from topdown_ray.figures import Picture, file_name
from topdown_ray.report import comparisons, plots
from topdown_ray.report.context import OF_SET, Context
from topdown_ray.report.durations import unit_of
from topdown_ray.report.page import BANDS, PERCENT, Section, Table, number, text

PANELS = 3  # targets that are drawn for each setting: the loosest, one in the middle, the tightest

_WORDS = (
    "An anytime curve shows the best accuracy so far against the evaluations spent on a target. This section "
    "covers the widest target set of each setting. Evaluations are counted from the start of the target: if "
    "a strategy starts from its answer for another target, the evaluations spent on that one are not "
    "included.",
    "One evaluation is one child. The evaluations of `joint` do not include its gradients. The first table "
    "of the section “Running time” shows everything that a search spends, including gradients, in predictor "
    "rows and in CPU seconds.",
)


def anytime(context: Context) -> Section | None:
    """Show the best accuracy so far against evaluations, and the effort to reach an accuracy. Returns None if
    no folder has curves.
    """
    curves = comparisons.curves(context.data, PANELS)
    pictures = [picture for setting in context.settings for picture in _pictures(context, curves, setting)]
    data = Table("anytime", "Data of the curves", curves, (), in_page=False)
    tables = [data, _reach(context)] if len(curves) else []
    return Section("anytime", "Anytime curves", _WORDS, pictures, tables) if tables else None


def _pictures(context: Context, curves: pd.DataFrame, setting: str) -> list[Picture]:
    pictures = []
    own = curves[curves["setting"] == setting]
    bands = BANDS if own["low"].notna().any() else "."
    for target in sorted(own["target"].unique(), reverse=True):
        caption = f"{setting}, target {target:g}: inter-quartile mean of the best accuracy so far{bands}"
        name = file_name("anytime", setting, f"{target:g}")
        pictures.append(context.draw(name, caption, plots.anytime, curves, setting=setting, target=target))
    return pictures


def _reach(context: Context) -> Table:
    frame = comparisons.reach(context.data, context.options.levels)
    columns = [number("target", digits="g"), text("cost_unit", "unit")]
    columns += [number("level", "top-1 to reach (%)", **PERCENT), text("strategy")]
    columns += [number("reached"), number("n", "of")]
    seconds, unit = unit_of(float(frame["seconds"].max()))
    scale: dict[str, Any] = {"scale": 1 / seconds}
    columns += [number("evaluations", "evaluations, median", ",.0f")]
    columns += [number("seconds", f"time, median ({unit})", **scale)]
    columns += [number("predictor_rows", "predictor rows, median", ",.0f")]
    columns += [number("cpu_s", f"CPU time, median ({unit})", **scale), text("clock", "timing")]
    note = (
        "There is no median if half or more of the searches never reached the level. Time, predictor rows "
        "and CPU time are computed from the evaluations at the search's mean rate within the target."
    )
    if not context.options.levels:
        *others, last = (f"{100 * gap:g}" for gap in comparisons.GAPS)
        levels = f"{', '.join(others)} and {last} percentage points below the best accuracy of any search"
        note = f"The levels are {levels}. {note}"
    return Table("reach", "Evaluations and time to reach an accuracy", frame, columns, note, OF_SET)
