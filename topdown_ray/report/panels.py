"""Draw the two pictures of the overview: the fronts of all strategies, and accuracy against work.

Each function takes a table and matplotlib axes, and returns the axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from topdown_ray.report.axes import (
    BAND,
    axes_or_new,
    cost_label,
    finish,
    line_width,
    of_widest,
    pick,
    reaches,
    strategies_of,
    target_ticks,
)
from topdown_ray.report.durations import unit_of
from topdown_ray.strategy_styles import style_of

_FEW_DECADES = 300.0  # up to this ratio of its ends, an axis has room for ticks at 2 and 5


def front(
    table: pd.DataFrame,
    ax: Axes | None = None,
    setting: str | None = None,
    reference: pd.DataFrame | None = None,
) -> Axes:
    """Draw accuracy against cost: for each target of the widest set, the answers' mean cost and
    inter-quartile mean accuracy, with its interval as a band. table: ``summary().accuracy``. reference: a
    front, see :func:`comparisons.read_reference`.
    """
    ax = axes_or_new(ax)
    table = of_widest(table, setting, None)
    table = table[table["n"] > 0]
    names = strategies_of(table)
    for name in names:
        rows, style = table[table["strategy"] == name].sort_values("cost"), style_of(name, names)
        line: dict[str, Any] = {"color": style.colour, "linewidth": line_width(names, name), "markersize": 4}
        ax.plot(rows["cost"], 100 * rows["iqm"], style.marker + style.dash, label=style.label, **line)
        edges = (100 * rows["low"], 100 * rows["high"])
        ax.fill_between(rows["cost"], *edges, color=style.colour, alpha=BAND, linewidth=0)
    if reference is not None and len(reference):
        known = reference.sort_values("cost")
        known = known[known["cost"].between(table["cost"].min() * 0.9, table["target"].max())]
        ink = ax.xaxis.label.get_color()
        ax.step(
            known["cost"], 100 * known["accuracy"], where="post", color=ink, lw=1, label="reference front"
        )
    target_ticks(ax, table["target"])
    return finish(ax, f"{table['setting'].iloc[0]}: fronts", cost_label(table, "cost"), "predicted top-1 (%)")


def quality(
    table: pd.DataFrame, ax: Axes | None = None, setting: str | None = None, work: str | None = None
) -> Axes:
    """Draw accuracy against the work of a whole search: the mean over the widest set's targets, from the
    point at which half of the searches have an answer for every target. A marker is the mean finished search.
    table: ``whole_sets.anytime``.
    """
    ax = axes_or_new(ax)
    table = pick(table, setting=setting, work=work)
    names = strategies_of(table)
    axis = str(table["work"].iloc[0])
    scale, unit = unit_of(table["x"].max()) if axis == "seconds" else (1.0, "")
    for name in names:
        rows, style = table[table["strategy"] == name], style_of(name, names)
        curve, end = rows[~rows["end"]].sort_values("x"), rows[rows["end"]]
        line: dict[str, Any] = {"color": style.colour, "linewidth": line_width(names, name)}
        ax.step(curve["x"] / scale, 100 * curve["mean"], style.dash, where="post", **line)
        edges = (100 * curve["low"], 100 * curve["high"])
        shade: dict[str, Any] = {"color": style.colour, "alpha": BAND, "linewidth": 0}
        ax.fill_between(curve["x"] / scale, *edges, step="post", **shade)
        reach = np.nan_to_num(100 * reaches(end["mean"], end["low"], end["high"]))
        bars: dict[str, Any] = {
            "color": style.colour,
            "markersize": 5,
            "elinewidth": 1.2,
            "label": style.label,
        }
        ax.errorbar(end["x"] / scale, 100 * end["mean"], yerr=reach, fmt=style.marker, **bars)
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    low, high = ax.get_xlim()
    if high < _FEW_DECADES * low:
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:,g}")
    k = int(table["k"].iloc[0])
    mean = "predicted top-1 (%)" if k == 1 else f"mean top-1 of {k} targets (%)"
    label = f"time of a search ({unit})" if axis == "seconds" else f"{axis} of a search"
    title = f"{table['setting'].iloc[0]}: accuracy against {'time' if axis == 'seconds' else axis}"
    return finish(ax, title, label, mean)


def quality_caption(curves: pd.DataFrame, setting: str, work: str) -> str:
    """Return the caption of the picture that :func:`quality` draws of these curves."""
    own = curves[curves["setting"] == setting]
    part = own[own["work"] == work]
    told = f"time ({part['clock'].iloc[0]})" if work == "seconds" else work
    sentences = [f"{setting}: accuracy against {told}.", "Markers show finished searches."]
    if not part["end"].all():
        sentences.append("A curve begins when at least half of the searches have an answer for every target.")
    if part["low"].notna().any():
        sentences.append("Bands and bars show 95 % intervals.")
    if absent := [name for name in own["strategy"].unique() if name not in set(part["strategy"])]:
        sentences.append(f"Strategies that were timed differently are left out: {', '.join(absent)}.")
    return " ".join(sentences)
