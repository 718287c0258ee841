"""Draw heat maps of genes against targets: which choices the answers share, and how far they agree.

>>> data = tables.prepare([topdown_ray.load("results/paper")])  # doctest: +SKIP
>>> axes = plots_genes.choices(architectures.compared(data).genes)  # doctest: +SKIP

Each row is a gene, with genes of one kind together in a band, and each column is a target. Both colour maps
are sequential, suit colour-blind readers, and are visible on light and dark pages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from topdown_ray.figures import PANEL
from topdown_ray.report.axes import pick
from topdown_ray.report.tables import widest

_FONT = 8  # points; the smallest size that is nine pixels high on a telephone
_ROW = 0.135  # inches for each gene
_AROUND = 1.4  # inches for title, targets and colour bar
_GAP = 0.8  # rows between two bands
_LINE = 46  # characters that fit into the line of targets
_LONE = 3  # the smallest number of rows whose kind is written next to the band; else each row has it
_UNKNOWN = "#8c8c8c"
_BESIDE: dict[str, Any] = {  # where the name of a band is written
    "xycoords": ("axes fraction", "data"),
    "rotation": 90,
    "ha": "center",
    "va": "center",
    "fontsize": _FONT,
    "parse_math": False,
    "annotation_clip": False,
}
_CHOICE = "mean choice: 0 is the smallest, 1 the largest"
_EQUAL = "share of pairs of answers with the same choice"


def size(table: pd.DataFrame) -> tuple[float, float]:
    """Return the width and height of a picture of this table's genes, in inches."""
    genes = table.drop_duplicates("gene")
    rows = len(genes) + _GAP * (genes["kind"].nunique() - 1)
    return PANEL[0], _AROUND + _ROW * max(rows, 4)


def choices(
    table: pd.DataFrame,
    ax: Axes | None = None,
    setting: str | None = None,
    strategy: str | None = None,
    targets: str | None = None,
) -> Axes:
    """Draw the mean choice of each gene for each target, from its smallest choice to its largest. table:
    ``architectures.compared().genes``.

    A cell is hatched if the gene is active in no answer. By default, the table's first strategy and widest
    target set are drawn.
    """
    return _heat(table, ax, (setting, strategy, targets), "choice", "viridis", _CHOICE)


def agreement(
    table: pd.DataFrame,
    ax: Axes | None = None,
    setting: str | None = None,
    strategy: str | None = None,
    targets: str | None = None,
) -> Axes:
    """Draw the share of pairs of answers that agree on a gene, for each gene and target. table:
    ``architectures.compared().genes``.

    A cell is hatched if the gene is active in fewer than two answers."""
    return _heat(table, ax, (setting, strategy, targets), "agreement", "cividis", _EQUAL)


def _bands(kinds: pd.Series) -> list[str]:
    """The kinds of genes from top to bottom: first those of the whole network, last those of each block."""
    sizes = kinds.value_counts(sort=False).sort_values(kind="stable")
    return list(sizes.index)


def _heat(
    table: pd.DataFrame,
    ax: Axes | None,
    wanted: tuple[str | None, str | None, str | None],
    value: str,
    colours: str,
    meaning: str,
) -> Axes:
    setting, strategy, targets = wanted
    table = pick(table, setting=setting, strategy=strategy)
    table = pick(table, targets=widest(table)[table["setting"].iloc[0]] if targets is None else targets)
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure(layout="constrained", figsize=size(table)).add_subplot()
    genes = table.drop_duplicates("gene").sort_values("gene")
    values = table.pivot(index="gene", columns="target", values=value)
    top, places, names = 0.0, [], []
    for kind in _bands(genes["kind"]):
        band = genes[genes["kind"] == kind]
        image = _band(ax, values.loc[band["gene"]], top, colours)
        beside = len(band) >= _LONE
        if beside:
            ax.annotate(kind, (-0.19, top + len(band) / 2), **_BESIDE)
        places += list(top + np.arange(len(band)) + 0.5)
        names += list(band["place"] if beside else band["name"])
        top += len(band) + _GAP
    ax.set_xlim(0, values.shape[1])
    ax.set_ylim(top - _GAP, 0)
    ax.set_yticks(places, names, fontsize=_FONT, parse_math=False)
    labels = [f"{target:g}" for target in values.columns]
    step = math.ceil(len(labels) * (max(map(len, labels)) + 1) / _LINE)
    ax.set_xticks(np.arange(0, len(labels), step) + 0.5, labels[::step], fontsize=_FONT)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    first = table.iloc[0]
    ax.set_xlabel(f"target ({first['cost_unit']})", fontsize=_FONT, parse_math=False)
    title = f"{first['setting']}\n{first['strategy']}"
    ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
    bar = ax.figure.colorbar(image, ax=ax, location="bottom", aspect=30, fraction=0.03, pad=0.01)
    bar.set_label(meaning, fontsize=_FONT)
    bar.ax.tick_params(labelsize=_FONT, length=0)
    bar.outline.set_visible(False)
    return ax


def _band(ax: Axes, values: pd.DataFrame, top: float, colours: str) -> AxesImage:
    """Draw the genes of one kind, from ``top`` downwards."""
    height, width = values.shape
    hatch: dict[str, Any] = {"hatch": "//////", "edgecolor": _UNKNOWN, "linewidth": 0, "fill": False}
    ax.add_patch(Rectangle((0, top), width, height, zorder=-1, **hatch))  # visible in cells without a value
    place: dict[str, Any] = {"extent": (0, width, top + height, top), "aspect": "auto"}
    cells = values.to_numpy(float)
    return ax.imshow(cells, colours, interpolation="none", vmin=0, vmax=1, **place)
