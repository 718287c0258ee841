"""Regret: what a strategy's answers lack to a reference front, and the report's table of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from topdown_ray import stats
from topdown_ray.report.comparisons import known_for
from topdown_ray.report.labelling import Data
from topdown_ray.report.page import Column, Table, interval, number, text


def regret(data: Data, reference: pd.DataFrame) -> pd.DataFrame:
    """What each strategy lacks to a reference front, for each setting, target set and target; low, high: of
    the mean.

    The reference for a target is its most accurate architecture that meets it. A row with target NaN is the
    mean over the set's targets in each search. Empty where the front is of another space, cost table or
    predictor."""
    rows = data.distinct()
    rows = rows[rows["feasible"] & rows["accuracy"].notna()]
    keys = [
        "setting",
        "space",
        "cost_name",
        "cost_sha256",
        "predictor_sha256",
        "k",
        "targets",
        "cost_unit",
        "strategy",
    ]
    records: list[dict[str, Any]] = []
    cells: list[stats.Array] = []
    for key, group in rows.groupby(keys, sort=False):
        facts = dict(zip(keys, key, strict=True))
        known = known_for(reference, facts)
        best = {
            target: known.loc[known["cost"] <= target, "accuracy"].max()
            for target in group["target"].unique()
        }
        lacking = group.assign(regret=group["target"].map(best).astype(float) - group["accuracy"]).dropna(
            subset="regret"
        )
        table = lacking.set_index(["search_id", "target"])["regret"].unstack("target")
        for target in sorted(table.columns, reverse=True):
            records.append({**facts, "target": target, "best": best[target]})
            cells.append(table[target].dropna().to_numpy(float))
        if table.shape[1] > 1:
            whole = table.dropna()
            records.append(
                {
                    **facts,
                    "target": math.nan,
                    "best": float(np.mean([best[target] for target in table.columns])),
                }
            )
            cells.append(whole.mean(axis=1).to_numpy(float))
    frame = pd.DataFrame(records, columns=[*keys, "target", "best"])
    frame["regret"] = [float(cell.mean()) if len(cell) else math.nan for cell in cells]
    frame["sd"] = [float(cell.std(ddof=1)) if len(cell) > 1 else math.nan for cell in cells]
    frame["n"] = [len(cell) for cell in cells]
    frame[["low", "high"]] = stats.intervals(cells)
    frame["interval"] = [stats.method(len(cell)) for cell in cells]
    return frame


def unlike(data: Data, reference: pd.DataFrame | None) -> list[str]:
    """A warning where nothing in the data is of the reference front's space, cost table and predictor."""
    cases = data.searches[["space", "cost_name", "cost_sha256", "predictor_sha256"]].drop_duplicates()
    if reference is None or not all(known_for(reference, case).empty for _, case in cases.iterrows()):
        return []
    return [
        "The reference front is of another space, cost table or predictor: there is no regret and no "
        "distance to it."
    ]


def table(frame: pd.DataFrame, first: Sequence[Column]) -> Table:
    """The report's table of :func:`regret`; first: the columns that name the setting and the target set."""
    label = np.where(frame["target"].isna(), "all", frame["target"].map("{:g}".format))
    percent: dict[str, Any] = {"digits": ".3f", "scale": 100.0}
    columns = [*first, text("strategy"), text("target_label", "target"), text("cost_unit", "unit")]
    columns += [
        number("best", "reference top-1 (%)", **percent),
        number("regret", "regret (points)", **percent),
    ]
    columns += [
        number("sd", "sd (points)", **percent),
        interval("low", "high", **percent),
        text("interval", "interval by"),
    ]
    columns.append(number("n"))
    return Table("regret", "Regret against the reference front", frame.assign(target_label=label), columns)
