"""The report's pictures, each drawn from a table into matplotlib axes, which it takes and returns.

>>> results = topdown_ray.load("results/paper")  # doctest: +SKIP
>>> axes = plots.accuracy(topdown_ray.summary(results).accuracy)  # doctest: +SKIP

A strategy keeps its colour, marker and dash everywhere (:mod:`topdown_ray.strategy_styles`)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from topdown_ray.errors import UserError
from topdown_ray.report.durations import unit_of
from topdown_ray.report.tables import widest
from topdown_ray.strategy_styles import series_style, strategy_rank, style_of

BAND = 0.2
MOST_POINTS = 300  # of a strategy in a scatter
_MOST_LABELS = 12  # of the places of an axis
_LEGEND_WIDTH = 60  # characters of a row
_LONGEST_LABEL = 44  # characters in a legend
_TITLE_WIDTH = 46  # characters of a line
_APART = 0.075  # of an axis: the least distance of two labelled targets


def strategies_of(table: pd.DataFrame) -> list[str]:
    """The strategies of a table, in the order of legends."""
    return sorted(table["strategy"].unique(), key=strategy_rank)


def line_width(names: Sequence[str], name: str) -> float:
    """Lines lie one upon the other, the later ones thinner: strategies with the same answers can all be
    seen.
    """
    return 1.3 + 0.6 * (len(names) - 1 - names.index(name))


def axes_or_new(ax: Axes | None) -> Axes:
    """These axes, or those of a new figure of pyplot."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.figure(layout="constrained").add_subplot()


def pick(table: pd.DataFrame, **wanted: str | float | None) -> pd.DataFrame:
    """The rows with these values; None takes the table's first. Raises UserError where nothing is left."""
    for column, value in wanted.items():
        if table.empty:
            break
        chosen = table[column].iloc[0] if value is None else value
        kept = table[table[column] == chosen]
        if kept.empty:
            raise UserError(
                f"{column}: expected one of {', '.join(map(str, table[column].unique()))}, found {chosen}"
            )
        table = kept
    if table.empty:
        raise UserError("table: expected at least one row to draw, found none")
    return table


def of_widest(table: pd.DataFrame, setting: str | None, targets: str | None) -> pd.DataFrame:
    """The rows of a setting (by default the first) and of a target set (by default the widest)."""
    table = pick(table, setting=setting)
    return pick(table, targets=widest(table)[table["setting"].iloc[0]] if targets is None else targets)


def finish(ax: Axes, title: str, x: str, y: str, columns: int = 3) -> Axes:
    """Title (in as many lines as it needs), labels, grid and legend, as all pictures have them."""
    shown = "\n".join(textwrap.fill(line, _TITLE_WIDTH) for line in title.splitlines())
    ax.set_title(shown, loc="left", fontsize="medium", parse_math=False)  # names may hold dollar signs
    ax.set_xlabel(x, parse_math=False)
    ax.set_ylabel(y, parse_math=False)
    ax.grid(True, axis="y", linewidth=0.6, alpha=0.2)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if labels := ax.get_legend_handles_labels()[1]:
        columns = max(1, min(columns, _LEGEND_WIDTH // (5 + min(max(map(len, labels)), _LONGEST_LABEL))))
        below = (0.5, -0.22)
        small: dict[str, Any] = {
            "frameon": False,
            "fontsize": "medium",
            "handlelength": 1.8,
            "columnspacing": 1.2,
        }
        legend = ax.legend(loc="upper center", bbox_to_anchor=below, ncols=columns, **small)
        for label in legend.get_texts():
            label.set_parse_math(False)
            if len(label.get_text()) > _LONGEST_LABEL:
                label.set_text(f"{label.get_text()[: _LONGEST_LABEL - 3]}...")
    return ax


def cost_label(table: pd.DataFrame, what: str = "target") -> str:
    """The label of an axis of costs."""
    unit = table["cost_unit"].iloc[0]
    return f"latency {what} ({unit})" if unit == "ms" else f"{what} ({unit})"


def accuracy(
    table: pd.DataFrame,
    ax: Axes | None = None,
    setting: str | None = None,
    targets: str | None = None,
    published: pd.DataFrame | None = None,
) -> Axes:
    """Predicted top-1 against target: inter-quartile means with their intervals as bands (experiment 2).

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
    return finish(ax, _title(table), cost_label(table), "predicted top-1 (%)")


def _title(table: pd.DataFrame) -> str:
    k = int(table["k"].iloc[0])
    return f"{table['setting'].iloc[0]}, {k} {'target' if k == 1 else 'targets'}"


def target_ticks(ax: Axes, targets: pd.Series) -> None:
    """Ticks at the targets within the axis: labelled where there is room, from the loosest on."""
    low, high = ax.get_xlim()
    values = sorted((float(target) for target in targets.unique() if low <= target <= high), reverse=True)
    if len(values) < 2:  # the axis' own ticks tell more
        return
    ticks: list[float] = []
    for value in values:
        if not ticks or ticks[-1] - value >= _APART * (high - low):
            ticks.append(value)
    ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
    ax.set_xticks(values, minor=True)


def _name_places(ax: Axes, values: Sequence[float]) -> None:
    """Label the places 0, 1, ... of a horizontal axis by these values: so many of them as have room."""
    step = math.ceil(len(values) / _MOST_LABELS)
    ax.set_xticks(range(0, len(values), step), [f"{value:g}" for value in values[::step]])


def _bars(ax: Axes, table: pd.DataFrame, at: str, value: str = "mean") -> list[float]:
    """Grouped bars, a group for each value of ``at``; intervals where there are any. Returns the groups."""
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
            reach = np.stack([rows[value] - rows["low"], rows["high"] - rows[value]])
            ax.errorbar(
                x,
                rows[value],
                yerr=reach,
                fmt="none",
                ecolor=ax.xaxis.label.get_color(),
                elinewidth=1,
                capsize=2,
            )
    _name_places(ax, groups)
    return groups


def _in_unit(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    scale, unit = unit_of(float(table["mean"].max()))
    return table.assign(
        **{name: table[name] / scale for name in ("mean", "low", "high") if name in table}
    ), unit


def time_by_k(
    table: pd.DataFrame, ax: Axes | None = None, setting: str | None = None, clock: str | None = None
) -> Axes:
    """Seconds of a whole search against its number of targets, of one clock (experiment 1). table:
    ``summary().time``.

    Of several target sets with as many targets, the one with most timings is drawn.
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
    """Seconds spent on each target, of one clock (experiment 3). table: ``summary().single_target``.

    alone: of searches for that target alone (k = 1), or the targets' shares of the widest set's searches; by
    default whichever of the two shows more targets."""
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
    """Mean paired difference in accuracy from one strategy, with intervals, for each target. table:
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
        reach = np.nan_to_num(100 * np.stack([rows["mean"] - rows["low"], rows["high"] - rows["mean"]]))
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
    _name_places(ax, places)
    return finish(ax, _title(table), cost_label(table), f"top-1 minus {against} (points)")


def anytime(
    table: pd.DataFrame, ax: Axes | None = None, setting: str | None = None, target: float | None = None
) -> Axes:
    """Best accuracy so far against the evaluations spent on a target. table: ``comparisons.curves``."""
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
    """The answers of the widest target set, cost against accuracy; at most ``MOST_POINTS`` a strategy.
    searches: labelled rows.
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
    return finish(ax, _title(table), cost_label(table, "cost"), "predicted top-1 (%)")


def devices(table: pd.DataFrame, ax: Axes | None = None, title: str = "") -> Axes:
    """The mean answers of one strategy on every device, cost against accuracy. table:
    ``devices.front_points``; where the costs have several units, as shares of each device's loosest target.
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
    """Mean hypervolume of a search, with intervals, of the widest target set. table:
    ``comparisons.fronts``.
    """
    ax = axes_or_new(ax)
    table = of_widest(table, setting, targets)
    names = strategies_of(table)
    for i, name in enumerate(names):
        row, style = table[table["strategy"] == name].iloc[0], style_of(name, names)
        reach = np.nan_to_num([[row["hypervolume"] - row["low"]], [row["high"] - row["hypervolume"]]])
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
