"""Make the section "Differences between strategies"."""

from __future__ import annotations

import numpy as np
import pandas as pd

from topdown_ray import stats
from topdown_ray.figures import Picture, file_name
from topdown_ray.report import plots
from topdown_ray.report.context import OF_SET, Context
from topdown_ray.report.page import LINES, POINTS, Section, Table, interval, number, text
from topdown_ray.report.tables import widest
from topdown_ray.strategy_styles import strategy_rank

_WORDS = (
    "The two answers of a pair have the same seed, target set and target. The mean difference has Student's "
    f"interval for fewer than {stats.STUDENT} pairs, and a bootstrap interval over pairs for more. "
    "P(improvement) is the share of pairs in which the first strategy is better, where a tie counts half; "
    "its interval is Wilson's. p is the p-value of the paired permutation test (random signs), and p (Holm) "
    "is corrected for the targets of the set. With n pairs, p cannot be below 2^(1-n). The row “all” is the "
    "mean over the set's targets in each search.",
    "Ties are frequent because strategies that begin with the same full search give the same answer for its "
    "target.",
)


def differences(context: Context) -> Section | None:
    """Show paired differences between all strategies, and pictures of those from the first one. Returns None
    if no two strategies share seeds.
    """
    if context.differences.empty:
        return None
    table = difference_table(context.differences, "differences", "Paired differences")
    return Section("differences", "Differences between strategies", _WORDS, _pictures(context), [table])


def difference_table(frame: pd.DataFrame, name: str, title: str, note: str = "") -> Table:
    """Make a table of the report from rows of ``comparisons.differences``."""
    label = np.where(frame["target"].isna(), "all", frame["target"].map("{:g}".format))
    columns = [text("strategy"), text("against")]
    columns += [text("target_label", "target"), text("cost_unit", "unit")]
    columns += [number("mean", "difference (points)", **POINTS), interval("low", "high", **POINTS)]
    columns += [text("interval", "interval by"), number("improvement", "P(improvement)", ".2f")]
    columns += [interval("improvement_low", "improvement_high", digits=".2f")]
    columns += [number("p", digits=".4f"), number("p_holm", "p (Holm)", ".4f")]
    columns += [number("n", "pairs"), number("ties")]
    return Table(name, title, frame.assign(target_label=label), columns, note, OF_SET)


def _pictures(context: Context) -> list[Picture]:
    frame, pictures = context.differences, []
    for setting in context.settings:
        own = frame[frame["setting"] == setting]
        own = own[own["targets"] == widest(own)[setting]] if len(own) else own
        strategies = set(own["strategy"]) | set(own["against"])
        if len(strategies) > 1:
            against = "independent" if "independent" in strategies else min(strategies, key=strategy_rank)
            lines = LINES if own["low"].notna().any() else "."
            caption = (
                f"{setting}: paired difference from {against}{lines} Values above zero are better than "
                f"{against}."
            )
            name = file_name("differences", setting)
            pictures.append(
                context.draw(name, caption, plots.differences, frame, setting=setting, against=against)
            )
    return pictures
