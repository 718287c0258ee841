"""Make the section "Accuracy per target"."""

from __future__ import annotations

import math

import pandas as pd

from topdown_ray.figures import Picture, file_name
from topdown_ray.report import notebook, plots
from topdown_ray.report.context import OF_SET, OF_SETTING, Context
from topdown_ray.report.page import (
    BANDS,
    PERCENT,
    POINTS,
    Column,
    Section,
    Table,
    TableRow,
    interval,
    number,
    text,
)
from topdown_ray.strategy_styles import strategy_rank

_WORDS = (
    "Accuracy is the top-1 accuracy that the predictor gives an architecture; it is not measured. IQM is the "
    "inter-quartile mean: the mean without the lowest and the highest quarter of the seeds. Its interval is "
    "a percentile bootstrap. Searches are resampled within each space, strategy, target set and target, and "
    "the percentiles are widened for small samples, so that the interval has the coverage of Student's t. "
    "Target sets are not pooled, because the same seed can give the same answer in two of them."
)


def accuracy(context: Context) -> Section:
    """Show the predicted top-1 for each target, and with ``--published`` the notebook's figures as well."""
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
        f"{BANDS if context.accuracy['low'].notna().any() else '.'}"
    )
    caption += " Hollow markers are single runs, published with the original notebook."
    name = file_name("accuracy", setting)
    return context.draw(name, caption, plots.accuracy, context.accuracy, setting=setting, published=beside)


_KEYS = ["setting", "k", "targets", "target", "cost_unit"]


def _table(context: Context) -> Table:
    """One row for each target and one column for each strategy; the file has all statistics."""
    frame = context.accuracy
    names = sorted(frame["strategy"].unique(), key=strategy_rank)
    texts = frame.assign(text=[_cell(row) for row in frame.to_dict("records")])
    view = texts.groupby([*_KEYS, "strategy"], sort=False, observed=True)["text"].first().unstack("strategy")
    order = frame[_KEYS].drop_duplicates()
    shown = order.merge(view.fillna("").reset_index(), on=_KEYS, how="left")
    columns = [number("target", digits="g"), text("cost_unit", "unit"), *(_strategy(name) for name in names)]
    note = (
        "Each cell has the inter-quartile mean of the top-1 in %, its 95 % interval, and the number of "
        "searches, with one search for each seed. The CSV file also has means, medians and standard "
        "deviations."
    )
    title = "Predicted top-1 for each target"
    return Table("accuracy", title, frame, columns, note, OF_SET, view=shown)


def _strategy(name: str) -> Column:
    return Column(name, lambda row: str(row[name]))


def _cell(row: TableRow) -> str:
    lost = f", {row['infeasible']} without a feasible answer" if row["infeasible"] else ""
    if not row["n"]:
        return f"({lost.removeprefix(', ')})"
    low, high = 100 * row["low"], 100 * row["high"]
    bounds = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{100 * row['iqm']:.2f}{bounds} ({row['n']}{lost})"


def _beside(frame: pd.DataFrame) -> Table:
    """The published accuracies and those of this sweep."""
    columns = [text("strategy"), number("target", "target (ms)", "g")]
    columns += [number("published", "published (%)", **PERCENT), number("mean", "mean here (%)", **PERCENT)]
    columns += [number("sd", "sd (points)", **PERCENT)]
    columns += [interval("low", "high", "95 % interval of the IQM here", **PERCENT)]
    columns += [number("difference", "here - published (points)", **POINTS), number("n")]
    note = (
        "The published values are single runs. The architectures that the notebook prints with them for "
        "`top_down` were pruned further after they had been scored."
    )
    title = "Accuracies of the original notebook and of this report"
    return Table("accuracy_published", title, frame, columns, note, OF_SETTING)
