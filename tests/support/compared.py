"""Synthetic results to be compared, before and after."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from support import synthetic
from topdown_ray.report.compare import Comparison
from topdown_ray.store.results import Results

SETS = [(35.0,), (40.0, 30.0, 20.0)]
EFFECTS = {"top_down": 0.0, "random": -0.01}
WIDE = "40 30 20"


def made(shift: float = 0.0, stream: int = 0, first_seed: int = 0, **options: Any) -> Results:
    """Rows of two strategies, whose accuracies are higher by ``shift`` than those of a result without one."""
    effects = {name: effect + shift for name, effect in options.pop("effects", EFFECTS).items()}
    searches, trace = synthetic.frames(effects, **{"sets": SETS, "stream": stream, **options})
    searches, trace = (frame.assign(seed=frame["seed"] + first_seed) for frame in (searches, trace))
    searches["unique_evaluations"] = searches["evaluations"] * 0.9
    return Results(synthetic.manifest(searches), searches, trace)


def changed(results: Results, **columns: Any) -> Results:
    """The same with other values in these columns of ``searches``."""
    searches = results.searches.assign(**columns)
    return Results(synthetic.manifest(searches), searches, results.trace)


def without(results: Results, gone: pd.Series) -> Results:
    """The same without some rows, which the sweep still promises."""
    return Results(results.manifest, results.searches[~gone], results.trace)


def row_of(
    comparison: Comparison, target: float = math.nan, strategy: str = "top_down", targets: str = WIDE
) -> Any:
    rows = comparison.rows
    at = rows["target"].isna() if math.isnan(target) else rows["target"] == target
    (found,) = rows[(rows["strategy"] == strategy) & (rows["targets"] == targets) & at].to_dict("records")
    return found


def written(results: Results, path: Path) -> Path:
    return synthetic.write(path, results.searches, results.trace, spec=results.manifest["spec"])
