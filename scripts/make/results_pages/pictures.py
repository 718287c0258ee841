"""The pictures of the results pages, drawn from stored tables alone: the same table gives the same bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from results_pages.stored import ROOT, Stored
from topdown_ray.figures import draw
from topdown_ray.hardware.whole_subnets import comparison_painter, sum_errors
from topdown_ray.report import panels, plots

FOLDER = ROOT / "docs" / "figures"


def _latency_check(frame: pd.DataFrame, axes: Axes) -> Axes:
    figures = sum_errors(frame["sum_ms"].to_numpy(), frame["whole_ms"].to_numpy())
    return comparison_painter("mobilenet_v3", frame, figures)(axes)


#: Name of the file -> the stored table, what the picture shows, and how it is drawn.
PICTURES: dict[str, tuple[str, str, Callable[[pd.DataFrame, Axes], Axes]]] = {
    "fronts": (
        "strategies_fronts",
        "MobileNetV3 on the Note10 table: mean cost and inter-quartile mean accuracy of the answers for each "
        "of ten targets, for six strategies; bands: 95 %",
        panels.front,
    ),
    "quality": (
        "strategies_quality",
        "MobileNetV3 on the Note10 table: mean accuracy over ten targets against the predictor rows of a "
        "search, for six strategies. A curve begins when at least half of the searches have an answer for "
        "every target. Markers: finished searches; bands and bars: 95 %",
        panels.quality,
    ),
    "time_by_k": (
        "time_by_k",
        "MobileNetV3 on the Note10 table: time of a search against its number of targets; each search ran "
        "alone; bars: mean, lines: 95 %",
        plots.time_by_k,
    ),
    "latency_check": (
        "latency_check",
        "MobileNetV3: measured times of whole subnets against the sums of the latency table epyc_1thread; "
        "bars: 95 %",
        _latency_check,
    ),
}


def drawn(name: str, tables: Mapping[str, Stored]) -> str:
    """A picture as SVG."""
    table, caption, paint = PICTURES[name]
    frame = tables[table].frame()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), name, caption, lambda ax: paint(frame, ax))
        return (Path(folder) / f"{name}.svg").read_text()
