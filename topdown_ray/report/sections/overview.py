"""Make the section "Overview": all fronts, accuracy against work, and a table of the strategies."""

from __future__ import annotations

import pandas as pd

from topdown_ray.figures import Picture, file_name
from topdown_ray.report import panels, whole_sets
from topdown_ray.report.comparisons import known_for
from topdown_ray.report.context import OF_SET, Context
from topdown_ray.report.durations import unit_of
from topdown_ray.report.page import (
    BANDS,
    COUNT,
    DASH,
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

_CLOCK = Column(
    "time of",
    lambda row: f"time: {row['clock']}" if row["clock"] else "times cannot be compared",
    False,
)
_WORDS = (
    "Accuracies are the predictor's top-1; they are not measured. Numbers in brackets are 95 % intervals. "
    "Points are percentage points of top-1 accuracy. A target set contains the targets of one search; the "
    "widest set has the most targets.",
    "Predictor rows are the architectures that the predictor scored for a search. Gradients are included as "
    "the number of rows that take the same time. Strategies that search for one target after another have an "
    "answer for every target only near their end. Their curves begin there.",
)
_NOTE = (
    "Accuracies are means over the targets of the set. Only searches that met all of them are included. "
    "Differences are paired by seed. The best strategy is chosen and compared on the same data. If two "
    "strategies are close, run more seeds to decide between them."
)


def overview(context: Context) -> Section:
    """Show which strategy is best, by how much, and at what share of the work."""
    curves = whole_sets.anytime(context.data, context.quality)
    pictures = [picture for setting in context.settings for picture in _pictures(context, curves, setting)]
    columns = [text("strategy"), number("mean", "mean top-1 (%)", **PERCENT)]
    columns += [interval("low", "high", **PERCENT), number("difference", "from the best (points)", **POINTS)]
    columns += [interval("difference_low", "difference_high", **POINTS)]
    columns.append(Column("searches", _searches))
    scale, unit = unit_of(float(context.overview["seconds"].max()))
    columns += [number("seconds", f"time of a search ({unit})", scale=1 / scale, missing=DASH)]
    columns += [number("predictor_rows", "predictor rows", **COUNT)]
    tables = [
        Table("overview", "Strategies, best first", context.overview, columns, _NOTE, (*OF_SET, _CLOCK)),
        Table("whole_sets", "Data of accuracy against work", curves, (), in_page=False),
    ]
    tables = [table for table in tables if len(table.frame)]  # none where no search met all targets
    return Section("overview", "Overview", _WORDS, pictures, tables)


def _searches(row: TableRow) -> str:
    whole = row["n"] == row["searches"]
    return str(row["n"]) if whole else f"{row['n']} of {row['searches']} met all targets"


def _pictures(context: Context, curves: pd.DataFrame, setting: str) -> list[Picture]:
    rows = context.accuracy[context.accuracy["setting"] == setting]
    known = context.reference
    if known is not None:
        known = known_for(known, context.data.searches[context.data.searches["setting"] == setting].iloc[0])
    bands = BANDS if rows["low"].notna().any() else "."
    line = " The line without markers is the reference front." if known is not None and len(known) else ""
    k = int(rows["k"].max())
    answers = f"the answers for {'the target' if k == 1 else f'each of {k} targets'}"
    front = f"{setting}: mean cost and inter-quartile mean accuracy of {answers}{bands}{line}"
    pictures = []
    if rows.loc[rows["n"] > 0, "target"].nunique() > 1:  # a single point is no front
        name = file_name("fronts", setting)
        pictures.append(
            context.draw(name, front, panels.front, context.accuracy, setting=setting, reference=known)
        )
    own = curves[curves["setting"] == setting]
    best = context.overview.loc[context.overview["setting"] == setting, "strategy"].head(1).tolist()
    for work in own["work"].unique():
        if not set(best) <= set(own.loc[own["work"] == work, "strategy"]):
            continue  # the best strategy's time cannot be compared with the others'
        name, caption = file_name("quality", setting, work), panels.quality_caption(curves, setting, work)
        pictures.append(context.draw(name, caption, panels.quality, curves, setting=setting, work=work))
    return pictures
