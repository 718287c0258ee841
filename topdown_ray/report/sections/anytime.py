"""Anytime curves, and what it takes to reach an accuracy."""

from __future__ import annotations

from typing import Any

import pandas as pd

from topdown_ray.figures import Picture, file_name
from topdown_ray.report import comparisons, plots
from topdown_ray.report.context import OF_SET, Context
from topdown_ray.report.durations import unit_of
from topdown_ray.report.page import PERCENT, Section, Table, number, text

PANELS = 3  # of a setting's targets: the loosest, one between, the tightest

_WORDS = (
    "Of each setting's widest target set. Evaluations count within the target: a strategy that "
    "starts from the answer for "
    "another target has paid for that before, which the section on running time counts.",
    "Evaluations are children; those of `joint` do not include its gradients. What a search spends in all, "
    "gradients included, stands in the first table of the section on running time, in predictor rows and in "
    "CPU seconds.",
)


def anytime(context: Context) -> Section | None:
    """The best accuracy so far against evaluations, and the table of what it took to reach an accuracy; None
    where no folder holds curves.
    """
    curves = comparisons.curves(context.data, PANELS)
    pictures = [picture for setting in context.settings for picture in _pictures(context, curves, setting)]
    data = Table("anytime", "Data of the curves", curves, (), in_page=False)
    tables = [data, _reach(context)] if len(curves) else []
    return Section("anytime", "Anytime curves", _WORDS, pictures, tables) if tables else None


def _pictures(context: Context, curves: pd.DataFrame, setting: str) -> list[Picture]:
    pictures = []
    own = curves[curves["setting"] == setting]
    bands = "; bands: 95 %" if own["low"].notna().any() else ""
    for target in sorted(own["target"].unique(), reverse=True):
        caption = f"{setting}, target {target:g}: inter-quartile mean of the best accuracy so far{bands}."
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
        "The median is left out where half or more of the searches never got there; seconds, predictor rows "
        "and CPU seconds at the target's mean rate."
    )
    if not context.options.levels:
        *others, last = (f"{100 * gap:g}" for gap in comparisons.GAPS)
        levels = f"{', '.join(others)} and {last} points below the best accuracy that any search found"
        note = f"Levels: {levels}. {note}"
    return Table("reach", "Evaluations and seconds to reach an accuracy", frame, columns, note, OF_SET)
