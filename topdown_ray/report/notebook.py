"""Compare with the figures published in the original notebook of Kumar and Szidon (arXiv 2012.06748).

Its times were measured on another machine. Its accuracies are single runs. In its top-down searches, the
architectures reported for all targets but the loosest were pruned further after they had been scored. It
searched MobileNetV3's genes under the names of all three spaces, so only MobileNetV3 and the notebook
protocol can be compared with it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from topdown_ray.files import data
from topdown_ray.report.labelling import PUBLISHED
from topdown_ray.report.tables import fit_growth


def published() -> pd.DataFrame:
    """Return one row for each published number: experiment, space, strategy, k, target (ms; NaN for a whole
    search), metric, value.
    """
    records: list[dict[str, Any]] = []
    for row in _table().to_dict("records"):
        values = [float(value) for value in row["value"].split()]
        targets = [float(x) for x in row["targets_ms"].split()] if len(values) > 1 else [math.nan]
        common = {name: row[name] for name in ("experiment", "space", "strategy", "k", "metric")}
        records += [{**common, "target": x, "value": value} for x, value in zip(targets, values, strict=True)]
    return pd.DataFrame(records)


def _table() -> pd.DataFrame:
    """The figures as in the file of the package."""
    with data("notebook_experiments.csv").open() as file:
        return pd.read_csv(file, comment="#", dtype={"targets_ms": str, "value": str})


def comparable(searches: pd.DataFrame) -> pd.DataFrame:
    """Return the settings (setting, space) that can be compared with the notebook: those that searched
    MobileNetV3's genes under the Note10 table, in ms.
    """
    rows = searches[["setting", "space", "protocol", "cost_name", "cost_unit"]].drop_duplicates()
    same = rows["space"].isin(_table()["searched"].unique()) | (rows["protocol"] == "notebook")
    return rows.loc[
        same & (rows["cost_name"] == "note10") & (rows["cost_unit"] == "ms"), ["setting", "space"]
    ]


def for_settings(searches: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Return the published numbers of an experiment (running_time, accuracy or single_target_time) for each
    comparable setting.
    """
    table = published()
    return comparable(searches).merge(table[table["experiment"] == experiment], on="space")


def accuracy_beside(searches: pd.DataFrame, accuracy: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies of experiment 2, published and from this sweep's set of the same ten targets. The
    table is empty if there is no such set.
    """
    theirs = for_settings(searches, "accuracy").rename(columns={"value": "published"})
    ours = accuracy[["setting", "strategy", "k", "target", "n", "mean", "sd", "iqm", "low", "high"]]
    frame = theirs.merge(ours, on=["setting", "strategy", "k", "target"])
    frame["difference"] = frame["mean"] - frame["published"]
    return frame.drop(columns=["experiment", "metric"]).sort_values(
        ["setting", "strategy", "target"], ignore_index=True
    )


def growth(searches: pd.DataFrame) -> pd.DataFrame:
    """Fit the published running times as :func:`topdown_ray.report.tables.growth` fits those of a sweep."""
    records = []
    for (setting, space, strategy), group in for_settings(searches, "running_time").groupby(
        ["setting", "space", "strategy"]
    ):
        cells = {(k, ""): np.array([value]) for k, value in zip(group["k"], group["value"], strict=True)}
        facts = {"setting": setting, "space": space, "strategy": strategy, "unit": "s", "clock": PUBLISHED}
        records.append({**facts, **fit_growth(cells)})
    return pd.DataFrame(records)
