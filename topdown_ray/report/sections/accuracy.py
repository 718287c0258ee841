"""Accuracy per target."""

from __future__ import annotations

import pandas as pd

from topdown_ray.figures import Picture, file_name
from topdown_ray.report import notebook, plots
from topdown_ray.report.context import Context
from topdown_ray.report.page import PERCENT, POINTS, Section, Table, interval, number, text

_WORDS = (
    "Accuracy is the predictor's top-1 of the architecture found, not a measured one. IQM: the "
    "inter-quartile mean, without "
    "the lowest and highest quarter of the seeds. Its interval is a percentile bootstrap, "
    "stratified: searches are resampled "
    "within each space, strategy, target set and target; its levels are widened for small samples, "
    "so that it covers as "
    "Student's t does. Target sets are not pooled: the same seed can give the same answer in two of "
    "them."
)


def accuracy(context: Context) -> Section:
    """The predicted top-1 for each target, and the published figures beside it where they are asked for."""
    published = (
        notebook.for_settings(context.data.searches, "accuracy") if context.options.published else None
    )
    pictures = [_picture(context, setting, published) for setting in context.settings]
    shown = [_table(context)]
    if published is not None:
        shown.append(_beside(context))
    return Section("accuracy", "Accuracy per target", [_WORDS], pictures, shown)


def _picture(context: Context, setting: str, published: pd.DataFrame | None) -> Picture:
    beside = None if published is None else published[published["setting"] == setting]
    caption = (
        f"{setting}: inter-quartile mean of the predicted top-1 for each target of the widest set; "
        "bands: 95 %."
    )
    if beside is not None and len(beside):
        caption += " Hollow: published with the original notebook, single runs."
    name = file_name("accuracy", setting)
    return context.draw(name, caption, plots.accuracy, context.accuracy, setting=setting, published=beside)


def _table(context: Context) -> Table:
    columns = [
        *context.set_columns,
        number("target", digits="g"),
        text("cost_unit", "unit"),
        text("strategy"),
    ]
    columns += [number("mean", "mean (%)", **PERCENT), number("sd", "sd (points)", **PERCENT)]
    columns += [number("median", "median (%)", **PERCENT), number("iqm", "IQM (%)", **PERCENT)]
    columns += [interval("low", "high", "95 % of IQM", **PERCENT), number("n"), number("infeasible")]
    title = "Predicted top-1 for each target"
    return Table("accuracy", title, context.accuracy, columns, "n: searches, one a seed.")


def _beside(context: Context) -> Table:
    """The published accuracies and ours."""
    columns = [*context.setting_columns, text("strategy"), number("target", "target (ms)", "g")]
    columns += [number("published", "published (%)", **PERCENT), number("mean", "ours, mean (%)", **PERCENT)]
    columns += [number("sd", "sd (points)", **PERCENT)]
    columns += [interval("low", "high", "95 % of our IQM", **PERCENT)]
    columns += [number("difference", "ours - published", **POINTS), number("n")]
    note = (
        "Published values are single runs; the architectures printed with them for top_down were "
        "pruned on after scoring."
    )
    frame = notebook.accuracy_beside(context.data.searches, context.accuracy)
    return Table("accuracy_published", "Published and ours (experiment 2)", frame, columns, note)
