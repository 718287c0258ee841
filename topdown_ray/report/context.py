"""What every section of a report is made from: rows, options, tables that are computed once, and a pen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from topdown_ray.figures import PANEL, Picture, draw
from topdown_ray.report import comparisons, tables
from topdown_ray.report.labelling import Data
from topdown_ray.report.page import Column, text
from topdown_ray.store.results import Results


@dataclass(frozen=True)
class Options:
    """What a report shows beside the sweep itself."""

    published: bool = False  # the original notebook's figures beside ours
    reference: Path | None = None  # a reference front, CSV
    levels: tuple[float, ...] = ()  # accuracies to be reached, fractions
    floor: float = comparisons.FLOOR  # the hypervolume's reference accuracy


@dataclass(frozen=True)
class ReportSource:
    """A result folder of the report."""

    where: str | Path
    name: str  # as messages give it
    results: Results  # without the anytime curves, which Data holds
    missing: pd.DataFrame  # see tables.missing


@dataclass(frozen=True)
class Context:
    """The input of every section. Each table is computed when it is first asked for, and then kept."""

    sources: Sequence[ReportSource]
    data: Data
    options: Options
    reference: pd.DataFrame | None  # a reference front
    figures: Path  # the folder that pictures go to

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

    @property
    def setting_columns(self) -> list[Column]:
        """The column that names the setting, where there are several."""
        return [text("setting")] if len(self.settings) > 1 else []

    @property
    def set_columns(self) -> list[Column]:
        """The first columns of most tables: setting and target set."""
        return [*self.setting_columns, text("targets", "target set")]

    def draw(
        self,
        name: str,
        caption: str,
        plot: Callable[..., Axes],
        table: pd.DataFrame,
        size: tuple[float, float] = PANEL,
        **options: Any,
    ) -> Picture:
        """Draw a table by one of the functions of ``plots``, into the report's folder of figures. size: width
        and height in inches.
        """
        return draw(self.figures, name, caption, lambda ax: plot(table, ax, **options), size)
