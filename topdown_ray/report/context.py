"""Hold the input of all sections of a report: rows, options, shared tables, and a function that draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from topdown_ray.figures import PANEL, Picture
from topdown_ray.report import comparisons, tables, whole_sets
from topdown_ray.report.labelling import Data
from topdown_ray.report.page import Column, TableRow, text
from topdown_ray.report.pen import Drawing
from topdown_ray.store.results import Results


@dataclass(frozen=True)
class Options:
    """The options of a report."""

    published: bool = False  # also show the original notebook's figures
    reference: Path | None = None  # a reference front, CSV
    levels: tuple[float, ...] = ()  # accuracies to be reached, as fractions
    floor: float = comparisons.FLOOR  # the hypervolume's reference accuracy


@dataclass(frozen=True)
class ReportSource:
    """A result folder of the report."""

    where: str | Path
    name: str  # the name in messages
    results: Results  # without the anytime curves, which Data has
    missing: pd.DataFrame  # see tables.missing


def _target_set(row: TableRow) -> str:
    name = str(row["targets"])
    return name if "targets" in name else f"{'targets' if ' ' in name else 'target'} {name}"


OF_SETTING: Sequence[Column] = (text("setting"),)
#: The columns that group the rows of most tables.
OF_SET: Sequence[Column] = (text("setting"), Column("target set", _target_set, numeric=False))


@dataclass(frozen=True)
class Context:
    """The input of every section. Each table is computed at its first use, and then kept."""

    sources: Sequence[ReportSource]
    data: Data
    options: Options
    reference: pd.DataFrame | None  # a reference front
    figures: Path  # the folder for pictures
    pen: Callable[[Drawing], Picture] = Drawing.drawn

    @cached_property
    def accuracy(self) -> pd.DataFrame:
        """Accuracies for each target."""
        return tables.accuracy(self.data)

    @cached_property
    def time(self) -> pd.DataFrame:
        """Times of whole searches."""
        return tables.time(self.data)

    @cached_property
    def growth(self) -> pd.DataFrame:
        """How costs grow with the number of targets."""
        return tables.growth(self.data)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Paired differences between strategies."""
        return comparisons.differences(self.data)

    @property
    def settings(self) -> list[str]:
        """The labels of the settings, in order."""
        return list(self.accuracy["setting"].unique())

    @cached_property
    def names(self) -> list[str]:
        """The names of the folders on the page: without parent folders, unless two would be equal."""
        short = [Path(source.name).name for source in self.sources]
        sources = zip(short, self.sources, strict=True)
        return [name if short.count(name) == 1 else source.name for name, source in sources]

    @cached_property
    def quality(self) -> pd.DataFrame:
        """The quality of each search of the widest sets."""
        return whole_sets.quality(self.data)

    @cached_property
    def overview(self) -> pd.DataFrame:
        """The strategies of each setting, best first."""
        return whole_sets.overview(self.data, self.quality)

    def draw(
        self,
        name: str,
        caption: str,
        plot: Callable[..., Axes],
        table: pd.DataFrame,
        size: tuple[float, float] = PANEL,
        **options: Any,
    ) -> Picture:
        """Draw a table with one of the functions of ``plots`` into the report's folder of figures. size:
        width and height in inches.
        """
        return self.pen(Drawing(self.figures, name, caption, plot, table, size, options))
