"""Draw the report's pictures from tables into matplotlib axes.

>>> results = topdown_ray.load("results/paper")  # doctest: +SKIP
>>> axes = plots.accuracy(topdown_ray.summary(results).accuracy)  # doctest: +SKIP

A strategy has the same colour, marker and dash in all pictures (:mod:`topdown_ray.strategy_styles`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from topdown_ray.report.axes import (
    BAND,
    axes_or_new,
    cost_label,
    finish,
    line_width,
    name_places,
    of_widest,
    panel_title,
    pick,
    reaches,
    strategies_of,
    target_ticks,
)
from topdown_ray.report.durations import unit_of
from topdown_ray.strategy_styles import series_style, style_of

MOST_POINTS = 300  # points of a strategy in a scatter plot


def accuracy(
    table: pd.DataFrame,
    ax: Axes | None = None,
    setting: str | None = None,
    targets: str | None = None,
    published: pd.DataFrame | None = None,
) -> Axes:
    """Draw predicted top-1 against target: inter-quartile means with their intervals as bands (experiment 2).

    table: ``summary().accuracy``. published: the notebook's numbers of this setting, drawn hollow.
    """
    ax = axes_or_new(ax)
    table = of_widest(table, setting, targets)
    names = strategies_of(table)
    hollow: dict[str, Any] = {}
    for name in names:
        rows, style = table[table["strategy"] == name].sort_values("target"), style_of(name, names)
        line: dict[str, Any] = {"marker": style.marker, "markersize": 4, "linewidth": line_width(names, name)}
        ax.plot(rows["target"], 100 * rows["iqm"], style.dash, color=style.colour, label=style.label, **line)
        ax.fill_between(
            rows["target"],
            100 * rows["low"],
            100 * rows["high"],
            color=style.colour,
            alpha=BAND,
            linewidth=0,
        )
        if (
            published is not None
            and (theirs := published[published["strategy"] == name].sort_values("target")).size
        ):
            hollow = {"marker": style.marker, "markersize": 7, "markerfacecolor": "none", "linestyle": "none"}
            ax.plot(theirs["target"], 100 * theirs["value"], color=style.colour, **hollow)
    if hollow:
        ax.plot([], [], color=ax.xaxis.label.get_color(), label="published", **{**hollow, "marker": "o"})
    target_ticks(ax, table["target"])
    return finish(ax, panel_title(table), cost_label(table), "predicted top-1 (%)")


def _bars(ax: Axes, table: pd.DataFrame, at: str, value: str = "mean") -> list[float]:
    """Draw grouped bars, one group for each value of ``at``, with intervals if there are any. Returns the
    groups.
    """
    groups, names = sorted(table[at].unique()), strategies_of(table)
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        rows, style = table[table["strategy"] == name].drop_duplicates(at), style_of(name, names)
        x = np.array([groups.index(group) for group in rows[at]]) + (i - (len(names) - 1) / 2) * width
        ax.bar(
            x,
            rows[value],
            0.92 * width,
            color=style.colour,
            hatch=style.hatch,
            edgecolor="white",
            linewidth=0,
            label=style.label,
        )
        if "low" in rows and rows["low"].notna().any():
            reach = reaches(rows[value], rows["low"], rows["high"])
            ax.errorbar(
                x,
                rows[value],
                yerr=reach,
                fmt="none",
                ecolor=ax.xaxis.label.get_color(),
                elinewidth=1,
                capsize=2,
            )
    name_places(ax, groups)
    return groups


def _in_unit(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    scale, unit = unit_of(float(table["mean"].max()))
    return table.assign(
        **{name: table[name] / scale for name in ("mean", "low", "high") if name in table}
    ), unit


def time_by_k(
    table: pd.DataFrame, ax: Axes | None = None, setting: str | None = None, clock: str | None = None
) -> Axes:
    """Draw the time of a whole search against its number of targets, for one clock (experiment 1). table:
    ``summary().time``.

    If several target sets have the same number of targets, the one with most timings is drawn.
    """
    ax = axes_or_new(ax)
    table = pick(table, setting=setting, clock=clock)
    timings = (
        table.groupby(["k", "targets"])["n"]
        .sum()
        .reset_index()
        .sort_values("n", ascending=False, kind="stable")
    )
    table = table.merge(timings.drop_duplicates("k")[["k", "targets"]], on=["k", "targets"])
    scaled, unit = _in_unit(table)
    _bars(ax, scaled, "k")
    return finish(ax, str(table["clock"].iloc[0]), "number of targets k", f"time of a search ({unit})")


def single_target(
    table: pd.DataFrame,
    ax: Axes | None = None,
    setting: str | None = None,
    clock: str | None = None,
    alone: bool | None = None,
) -> Axes:
    """Draw the time spent on each target, for one clock (experiment 3). table: ``summary().single_target``.

    alone: True for searches for that target alone (k = 1), False for the targets' shares of the widest set's
    searches; by default the one of the two that shows more targets."""
    ax = axes_or_new(ax)
    table = pick(table, setting=setting, clock=clock)
    lone = table[table["k"] == 1]
    if alone is None:
        alone = lone["target"].nunique() > 1 or len(lone) == len(table)
    table = pick(lone) if alone else of_widest(table[table["k"] > 1], None, None)
    scaled, unit = _in_unit(table)
    _bars(ax, scaled, "target")
    what = "searched alone (k = 1)" if alone else f"share of a search for {table['k'].iloc[0]} targets"
    return finish(ax, f"{table['clock'].iloc[0]}:\n{what}", cost_label(table), f"time of a target ({unit})")


def differences(
    table: pd.DataFrame,
    ax: Axes | None = None,
    setting: str | None = None,
    targets: str | None = None,
    against: str = "independent",
) -> Axes:
    """Draw the mean paired difference in accuracy from one strategy for each target, with intervals. table:
    ``comparisons.differences``.
    """
    ax = axes_or_new(ax)
    table = of_widest(table, setting, targets)
    table = table[table["target"].notna() & ((table["against"] == against) | (table["strategy"] == against))]
    sign = np.where(table["against"] == against, 1.0, -1.0)
    other = table["strategy"].where(table["against"] == against, table["against"])
    low, high = (np.where(sign > 0, table[a], -table[b]) for a, b in (("low", "high"), ("high", "low")))
    table = pick(table.assign(strategy=other, mean=sign * table["mean"], low=low, high=high))
    names, places = strategies_of(table), sorted(table["target"].unique())
    ax.axhline(0, color=style_of(against, names).colour, linewidth=1.2)
    for i, name in enumerate(names):
        rows, style = table[table["strategy"] == name], style_of(name, names)
        x = np.array([places.index(target) for target in rows["target"]]) + (i - (len(names) - 1) / 2) * 0.16
        reach = np.nan_to_num(100 * reaches(rows["mean"], rows["low"], rows["high"]))
        ax.errorbar(
            x,
            100 * rows["mean"],
            yerr=reach,
            fmt=style.marker,
            color=style.colour,
            markersize=4,
            elinewidth=1.2,
            label=style.label,
        )
    name_places(ax, places)
    return finish(ax, panel_title(table), cost_label(table), f"top-1 minus {against} (points)")


def anytime(
    table: pd.DataFrame, ax: Axes | None = None, setting: str | None = None, target: float | None = None
) -> Axes:
    """Draw the best accuracy so far against the evaluations spent on a target. table:
    ``comparisons.curves``.
    """
    ax = axes_or_new(ax)
    table = pick(table, setting=setting, target=target)
    names = strategies_of(table)
    for name in names:
        rows, style = table[table["strategy"] == name], style_of(name, names)
        if len(rows) == 1:
            ax.plot(
                rows["evaluations"],
                100 * rows["iqm"],
                style.marker,
                color=style.colour,
                markersize=5,
                label=style.label,
            )
            continue
        width = line_width(names, name)
        ax.step(
            rows["evaluations"],
            100 * rows["iqm"],
            style.dash,
            where="post",
            color=style.colour,
            lw=width,
            label=style.label,
        )
        edges = (100 * rows["low"], 100 * rows["high"])
        ax.fill_between(rows["evaluations"], *edges, step="post", color=style.colour, alpha=BAND, linewidth=0)
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    first = table.iloc[0]
    title = f"{first['setting']}, {first['target']:g} {first['cost_unit']}"
    return finish(ax, title, "evaluations within the target", "best predicted top-1 (%)")


def front(
    searches: pd.DataFrame,
    ax: Axes | None = None,
    setting: str | None = None,
    reference: pd.DataFrame | None = None,
) -> Axes:
    """Draw accuracy against cost for the answers of the widest target set, at most ``MOST_POINTS`` for each
    strategy. searches: labelled rows.
    """
    ax = axes_or_new(ax)
    table = of_widest(searches[searches["feasible"]], setting, None)
    names = strategies_of(table)
    for name in names:
        rows, style = table[table["strategy"] == name], style_of(name, names)
        rows = rows.iloc[:: -(-len(rows) // MOST_POINTS)]
        ax.plot(
            rows["cost"],
            100 * rows["accuracy"],
            style.marker,
            color=style.colour,
            markersize=3,
            alpha=0.7,
            label=style.label,
        )
    if reference is not None:
        known = reference.sort_values("cost")
        colour = ax.xaxis.label.get_color()
        ax.step(
            known["cost"],
            100 * known["accuracy"],
            where="post",
            color=colour,
            linewidth=1,
            label="reference front",
        )
    return finish(ax, panel_title(table), cost_label(table, "cost"), "predicted top-1 (%)")


def devices(table: pd.DataFrame, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw accuracy against cost for the mean answers of one strategy on every device. table:
    ``devices.front_points``. If the costs have several units, they are shares of each device's loosest
    target.
    """
    ax = axes_or_new(ax)
    units = table["cost_unit"].unique()
    x, label = ("cost", f"cost ({units[0]})") if len(units) == 1 else ("share", "cost / loosest target")
    names = list(table["cost_name"].unique())
    for name in names:
        rows, style = table[table["cost_name"] == name].sort_values(x), series_style(names.index(name))
        ax.plot(
            rows[x],
            100 * rows["accuracy"],
            style.marker + style.dash,
            color=style.colour,
            linewidth=line_width(names, name),
            markersize=4,
            label=name,
        )
    return finish(ax, title, label, "predicted top-1 (%)", columns=2)


def hypervolume(
    table: pd.DataFrame, ax: Axes | None = None, setting: str | None = None, targets: str | None = None
) -> Axes:
    """Draw the mean hypervolume of a search for the widest target set, with intervals. table:
    ``comparisons.fronts``.
    """
    ax = axes_or_new(ax)
    table = of_widest(table, setting, targets)
    names = strategies_of(table)
    for i, name in enumerate(names):
        row, style = table[table["strategy"] == name].iloc[0], style_of(name, names)
        reach = np.nan_to_num(reaches(row[["hypervolume"]], row["low"], row["high"]))
        ax.errorbar(
            [row["hypervolume"]],
            [i],
            xerr=reach,
            fmt=style.marker,
            color=style.colour,
            elinewidth=1.5,
            capsize=3,
        )
    labels = [style_of(name, names).label for name in names]
    ax.set_yticks(range(len(names)), labels, parse_math=False)
    ax.set_ylim(len(names) - 0.4, -0.6)
    first = table.iloc[0]
    title = (
        f"reference point {first['reference_cost']:g} {first['cost_unit']}, "
        f"{100 * first['reference_accuracy']:g} %"
    )
    return finish(ax, title, f"hypervolume ({first['cost_unit']} x points)", "strategy")
