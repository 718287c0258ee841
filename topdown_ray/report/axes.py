"""Select rows for pictures, and set the titles, labels, ticks and legends of their axes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from numpy.typing import NDArray

from topdown_ray.errors import UserError
from topdown_ray.report.tables import widest
from topdown_ray.strategy_styles import strategy_rank

BAND = 0.2
_MOST_LABELS = 12  # labels of the places of an axis
_LEGEND_WIDTH = 54  # characters in a row of a legend, for panels of 4.4 inches
_LONGEST_LABEL = 44  # characters of a label in a legend
_TITLE_WIDTH = 46  # characters in a line of a title
_APART = 0.075  # the smallest distance of two labelled targets, as a share of the axis
_CHARACTER = 0.64  # width of a digit, as a share of the font size
_BETWEEN = 0.6  # the smallest gap between two labels, as a share of the font size


def strategies_of(table: pd.DataFrame) -> list[str]:
    """Return the strategies of a table, in the order of legends."""
    return sorted(table["strategy"].unique(), key=strategy_rank)


def line_width(names: Sequence[str], name: str) -> float:
    """Return the width of a strategy's line. Later lines are thinner, so that all lines are visible if
    strategies have the same answers.
    """
    return 1.3 + 0.6 * (len(names) - 1 - names.index(name))


def axes_or_new(ax: Axes | None) -> Axes:
    """Return these axes, or the axes of a new figure of pyplot."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.figure(layout="constrained").add_subplot()


def pick(table: pd.DataFrame, **wanted: str | float | None) -> pd.DataFrame:
    """Return the rows with these values, where None stands for the table's first value. Raises UserError if
    there are none.
    """
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
    """Return the rows of a setting (by default the first) and of a target set (by default the widest)."""
    table = pick(table, setting=setting)
    return pick(table, targets=widest(table)[table["setting"].iloc[0]] if targets is None else targets)


def finish(ax: Axes, title: str, x: str, y: str, columns: int = 3) -> Axes:
    """Set the title (wrapped if it is long), labels, grid and legend in the style of all pictures."""
    shown = "\n".join(textwrap.fill(line, _TITLE_WIDTH) for line in title.splitlines())
    ax.set_title(shown, loc="left", fontsize="medium", parse_math=False)  # names may contain dollar signs
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
    """Return the label of an axis of costs."""
    unit = table["cost_unit"].iloc[0]
    return f"latency {what} ({unit})" if unit == "ms" else f"{what} ({unit})"


def panel_title(table: pd.DataFrame) -> str:
    """Return the title of a picture: the setting and the number of targets of its rows."""
    k = int(table["k"].iloc[0])
    return f"{table['setting'].iloc[0]}, {k} {'target' if k == 1 else 'targets'}"


def target_ticks(ax: Axes, targets: pd.Series) -> None:
    """Set ticks at the targets within the axis, and label those that have room, from the loosest on."""
    low, high = ax.get_xlim()
    values = sorted((float(target) for target in targets.unique() if low <= target <= high), reverse=True)
    if len(values) < 2:  # the axis' own ticks show more
        return
    font = FontProperties(size=rcParams["xtick.labelsize"]).get_size_in_points()
    width = 72 * ax.bbox.width / ax.figure.dpi  # of the axis, in points
    ticks: list[float] = []
    for value in values:
        if ticks:
            characters = (len(f"{ticks[-1]:g}") + len(f"{value:g}")) / 2
            apart = max(_APART, font * (_CHARACTER * characters + _BETWEEN) / width)
            if ticks[-1] - value < apart * (high - low):
                continue
        ticks.append(value)
    ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
    ax.set_xticks(values, minor=True)


def name_places(ax: Axes, values: Sequence[float]) -> None:
    """Label the places 0, 1, ... of a horizontal axis with these values, as many of them as fit."""
    step = math.ceil(len(values) / _MOST_LABELS)
    ax.set_xticks(range(0, len(values), step), [f"{value:g}" for value in values[::step]])


def reaches(middle: pd.Series, low: Any, high: Any) -> NDArray[np.float64]:
    """Return how far intervals reach below and above their middles: (2, N). Negative lengths, which rounding
    can cause for equal values, become zero.
    """
    lengths = np.stack([middle - low, high - middle]).astype(np.float64)
    return np.maximum(lengths, 0.0)
