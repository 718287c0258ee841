"""Accuracy per target."""

from __future__ import annotations

import math

import pandas as pd

from topdown_ray.figures import Picture, file_name
from topdown_ray.report import notebook, plots
from topdown_ray.report.context import OF_SET, OF_SETTING, Context
from topdown_ray.report.page import PERCENT, POINTS, Column, Section, Table, TableRow, interval, number, text
from topdown_ray.strategy_styles import strategy_rank

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
    pictures, shown = [], [_table(context)]
    if context.options.published:
        published = notebook.for_settings(context.data.searches, "accuracy")
        pictures = [_picture(context, setting, published) for setting in published["setting"].unique()]
        beside = notebook.accuracy_beside(context.data.searches, context.accuracy)
        shown += [_beside(beside)] if len(beside) else []
    return Section("accuracy", "Accuracy per target", [_WORDS], pictures, shown)


def _picture(context: Context, setting: str, published: pd.DataFrame) -> Picture:
    beside = published[published["setting"] == setting]
    caption = (
        f"{setting}: inter-quartile mean of the predicted top-1 for each target of the widest set"
        f"{'; bands: 95 %' if context.accuracy['low'].notna().any() else ''}."
    )
    caption += " Hollow: published with the original notebook, single runs."
    name = file_name("accuracy", setting)
    return context.draw(name, caption, plots.accuracy, context.accuracy, setting=setting, published=beside)


_KEYS = ["setting", "k", "targets", "target", "cost_unit"]


def _table(context: Context) -> Table:
    """A row a target, a column a strategy; the file has all statistics."""
    frame = context.accuracy
    names = sorted(frame["strategy"].unique(), key=strategy_rank)
    texts = frame.assign(text=[_cell(row) for row in frame.to_dict("records")])
    view = texts.groupby([*_KEYS, "strategy"], sort=False, observed=True)["text"].first().unstack("strategy")
    order = frame[_KEYS].drop_duplicates()
    shown = order.merge(view.fillna("").reset_index(), on=_KEYS, how="left")
    columns = [number("target", digits="g"), text("cost_unit", "unit"), *(_strategy(name) for name in names)]
    note = (
        "Inter-quartile mean of the top-1 in %, its 95 % interval, and the number of searches, one a seed. "
        "The file also has means, medians and standard deviations."
    )
    title = "Predicted top-1 for each target"
    return Table("accuracy", title, frame, columns, note, OF_SET, view=shown)


def _strategy(name: str) -> Column:
    return Column(name, lambda row: str(row[name]))


def _cell(row: TableRow) -> str:
    lost = f", {row['infeasible']} without an answer" if row["infeasible"] else ""
    if not row["n"]:
        return f"({lost.removeprefix(', ')})"
    low, high = 100 * row["low"], 100 * row["high"]
    bounds = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{100 * row['iqm']:.2f}{bounds} ({row['n']}{lost})"


def _beside(frame: pd.DataFrame) -> Table:
    """The published accuracies and ours."""
    columns = [text("strategy"), number("target", "target (ms)", "g")]
    columns += [number("published", "published (%)", **PERCENT), number("mean", "ours, mean (%)", **PERCENT)]
    columns += [number("sd", "sd (points)", **PERCENT)]
    columns += [interval("low", "high", "95 % of our IQM", **PERCENT)]
    columns += [number("difference", "ours - published", **POINTS), number("n")]
    note = (
        "Published values are single runs; the architectures printed with them for top_down were "
        "pruned on after scoring."
    )
    return Table("accuracy_published", "Published and ours (experiment 2)", frame, columns, note, OF_SETTING)
