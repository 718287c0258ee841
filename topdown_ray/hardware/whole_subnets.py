"""Check how accurate the sums of a latency table are: time random subnets as a whole on the machine of the
table, and compare the times with the sums.

The correction is a line through both, fitted robustly (Theil 1950, Sen 1968: the median of all slopes).
Leaving out each subnet in turn shows how large the errors on unseen subnets are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from topdown_ray.errors import UserError
from topdown_ray.figures import draw
from topdown_ray.files import written
from topdown_ray.hardware.rounds import (
    Effort,
    Journal,
    LayerWatch,
    OnState,
    half_widths,
    median_interval,
    rounds,
)
from topdown_ray.spaces import latency_table
from topdown_ray.spaces.cost import measured
from topdown_ray.spaces.latency_table import LatencyTable
from topdown_ray.spaces.registry import SPACES

Array = npt.NDArray[np.float64]

SUBNETS = 50
EFFORT = Effort(precision=0.02, least=11, most=100, minutes=3.0, warm=1)


@dataclass(frozen=True)
class SubnetComparison:
    """Sums of a table and times of whole subnets in ms, with one row for each subnet, and the figures of the
    comparison.
    """

    subnets: pd.DataFrame  # sum_ms, whole_ms, low_ms, high_ms, image_size
    figures: dict[str, Any]


def compare(
    watch: LayerWatch,
    path: Path,
    n: int = SUBNETS,
    effort: Effort = EFFORT,
    seed: int = 0,
    on_state: OnState = lambda state: None,
) -> SubnetComparison:
    """Time ``n`` random subnets and compare them with the sums of the table in ``path``. Write the figures
    and the correction into the table.

    Raises UserError if this is not the table's machine, because the subnets of another processor show nothing
    about it.
    """
    table = latency_table.read(path)
    here = watch.facts()
    for name in ("device", "clock", "hardware"):
        if here[name] != table.facts[name]:
            raise UserError(
                f"--check {path}: expected the machine of the table ({table.facts[name]}), found {here[name]}"
            )
    space = SPACES[table.space]
    genes = space.canonical(space.random(n, seed))
    configs = [space.to_config(row) for row in genes]
    watch.hold_subnets(configs)
    samples, _ = rounds(watch, n, effort, Journal(None, {}), on_state)
    low, high = median_interval(samples)
    cost = measured(latency_table.Source(path.stem, path, False), space)
    frame = pd.DataFrame(
        {
            "sum_ms": cost(genes).numpy(),
            "whole_ms": np.median(samples, axis=0),
            "low_ms": low,
            "high_ms": high,
            "image_size": [config["image_size"] for config in configs],
        }
    )
    figures = {
        **sum_errors(frame["sum_ms"].to_numpy(), frame["whole_ms"].to_numpy()),
        "subnets": n,
        "seed": seed,
        "rounds": len(samples),
        "half_width_median": float(np.median(half_widths(samples))),
        "contention": watch.contention(),
        "versions": here["versions"],
    }
    dataclasses.replace(table, check=figures).write(path)
    return SubnetComparison(frame, figures)


def sum_errors(total: Array, whole: Array) -> dict[str, float]:
    """Return figures of sums (n,) compared with whole times (n,): errors as fractions of the whole times,
    uncorrected and corrected.
    """
    offset, slope = fit(total, whole)
    n = len(total)
    left_out = np.array([_line(fit(np.delete(total, i), np.delete(whole, i)), total[i]) for i in range(n)])
    relative = total / whole - 1
    return {
        "bias": float(relative.mean()),
        "mae": float(np.abs(relative).mean()),
        "rmse": float(np.sqrt((relative**2).mean())),
        "mae_ms": float(np.abs(total - whole).mean()),
        "tau": float(stats.kendalltau(total, whole).statistic),
        "offset_ms": offset,
        "slope": slope,
        "corrected_bias": float((left_out / whole - 1).mean()),
        "corrected_mae": float(np.abs(left_out / whole - 1).mean()),
        "corrected_rmse": float(np.sqrt(((left_out / whole - 1) ** 2).mean())),
        "fastest_ms": float(whole.min()),
        "slowest_ms": float(whole.max()),
    }


def fit(total: Array, whole: Array) -> tuple[float, float]:
    """Return the offset and slope of the robust line through (sum, whole)."""
    if len(total) < 3 or np.ptp(total) == 0:
        raise UserError(f"--subnets: expected at least 3 subnets that differ, found {len(total)}")
    line = stats.theilslopes(whole, total)
    return float(line.intercept), float(line.slope)


def _line(line: tuple[float, float], x: float) -> float:
    return line[0] + line[1] * x


def write_comparison(comparison: SubnetComparison, table: LatencyTable, folder: Path, name: str) -> Path:
    """Write the times of the subnets as CSV, and a picture of them as SVG and PDF. Return the path of the
    SVG.
    """
    frame, figures = comparison.subnets, comparison.figures
    with written(folder / f"{name}.csv") as path:
        frame.to_csv(path, index=False)
    draw(
        folder,
        name,
        f"{table.space}: whole subnets against the sum of their layers, {table.describe()}",
        comparison_painter(table.space, frame, figures),
    )
    return folder / f"{name}.svg"


def comparison_painter(space: str, frame: pd.DataFrame, figures: Mapping[str, Any]) -> Callable[[Axes], Axes]:
    """Return what draws whole subnets against sums, with the diagonal and the fitted line.

    frame, figures: those of a :class:`SubnetComparison`."""

    def paint(axes: Axes) -> Axes:
        spread = np.abs(frame[["low_ms", "high_ms"]].to_numpy().T - frame["whole_ms"].to_numpy())
        axes.errorbar(
            frame["sum_ms"],
            frame["whole_ms"],
            yerr=spread,
            fmt="o",
            ms=3,
            lw=0.8,
            color="#0072b2",
            label="a subnet",
        )
        ends = np.array([frame["sum_ms"].min(), frame["sum_ms"].max()])
        axes.plot(ends, ends, lw=1, ls="--", color="#767676", label="sum = whole")
        line = figures["offset_ms"] + figures["slope"] * ends
        axes.plot(
            ends,
            line,
            lw=1,
            color="#d55e00",
            label=f"fit: {figures['slope']:.3f} x sum {figures['offset_ms']:+.2f} ms",
        )
        axes.set_xlabel("sum of the table (ms)")
        axes.set_ylabel("whole subnet (ms)")
        axes.set_title(f"{space}: bias {100 * figures['bias']:+.1f} %, tau {figures['tau']:.3f}", fontsize=10)
        axes.legend(fontsize=8, frameon=False, loc="lower right")
        axes.grid(alpha=0.2)
        return axes

    return paint
