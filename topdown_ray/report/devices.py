"""Evaluate searches for several devices: the front of each, and the loss of its answers on another device."""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from topdown_ray import stats
from topdown_ray.report.labelling import Data

_KEYS = ["space", "strategy"]


def on_devices(data: Data) -> pd.DataFrame:
    """Return the feasible answers of sweeps over several devices, one row for each answer. The column ``on``
    maps each device of its sweep to the answer's cost there.
    """
    rows = data.distinct()
    rows = rows[rows["feasible"] & rows["accuracy"].notna()]
    if "costs" not in rows:
        return rows.iloc[:0].assign(on=None)
    names = set(rows["cost_name"])
    rows = rows[rows["costs"].notna() & (len(names) > 1)]
    others = [json.loads(text) if isinstance(text, str) else {} for text in rows["costs"]]
    on = [
        {name: cost, **{other: value for other, value in costs.items() if other in names}}
        for name, cost, costs in zip(rows["cost_name"], rows["cost"].astype(float), others, strict=True)
    ]
    several = np.array([len(costs) > 1 for costs in on], dtype=bool)
    return rows.assign(on=pd.Series(on, index=rows.index, dtype=object))[several]


def front_points(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean answer for each target of each device in the largest target set: cost, accuracy, and
    ``share``, the cost as a share of the device's loosest target. rows: :func:`on_devices`.
    """
    widest = rows["k"] == rows.groupby([*_KEYS, "cost_name"])["k"].transform("max")
    keys = [*_KEYS, "cost_name", "cost_unit", "target"]
    points = rows[widest].groupby(keys, sort=False, observed=True)[["cost", "accuracy"]].mean().reset_index()
    loosest = points.groupby([*_KEYS, "cost_name"], observed=True)["target"].transform("max")
    return points.assign(share=points["cost"] / loosest)


def losses(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the loss of answers for one device on another one, for each space and strategy, one row for each
    pair of devices. rows: :func:`on_devices`.

    ``loss`` (a fraction) is the difference from the most accurate answer, for any device and by any strategy,
    that costs no more on the other device. An answer counts only if its cost there is between that device's
    cheapest answer and its loosest target: ``n`` of ``answers`` do. low, high: a 95 % interval of the mean
    over seeds."""
    records: list[dict[str, Any]] = []
    cells: list[stats.Array] = []
    for space, of_space in rows.groupby("space", sort=False, observed=True):
        names = list(dict.fromkeys(of_space["cost_name"]))
        own_rows = of_space.groupby("cost_name", observed=True)
        bounds = pd.DataFrame({"low": own_rows["cost"].min(), "high": own_rows["target"].max()})
        for run_on in names:
            known = _Staircase.of(of_space, run_on)
            low, high = bounds.loc[run_on]
            cost = of_space["on"].map(lambda on, run_on=run_on: on.get(run_on, np.nan)).to_numpy(float)
            lost = known.at(cost) - of_space["accuracy"].to_numpy(float)
            inside = (cost >= low) & (cost <= high)
            groups = of_space.groupby(["strategy", "cost_name"], sort=False, observed=True).indices
            for key, places in groups.items():
                strategy, found_for = cast("tuple[str, str]", key)
                own = places[inside[places]]
                by_seed = pd.Series(lost[own]).groupby(of_space["seed"].to_numpy()[own]).mean()
                cells.append(by_seed.to_numpy(float))
                facts = {"space": space, "strategy": strategy, "found_for": found_for, "run_on": run_on}
                loss = float(np.mean(lost[own])) if len(own) else np.nan
                records.append({**facts, "loss": loss, "n": len(own), "answers": len(places)})
    columns = ["space", "strategy", "found_for", "run_on", "loss", "n", "answers"]
    frame = pd.DataFrame(records, columns=columns)
    frame[["low", "high"]] = stats.intervals(cells)
    return frame


class _Staircase:
    """The most accurate known architecture at each cost on one device."""

    def __init__(self, cost: NDArray[np.float64], accuracy: NDArray[np.float64]):
        order = np.argsort(cost, kind="stable")
        self._cost, self._best = cost[order], np.maximum.accumulate(accuracy[order])

    @classmethod
    def of(cls, rows: pd.DataFrame, device: str) -> _Staircase:
        known = rows[rows["on"].map(lambda on: device in on)]
        cost = known["on"].map(lambda on: on[device]).to_numpy(float)
        return cls(cost, known["accuracy"].to_numpy(float))

    def at(self, cost: NDArray[np.float64]) -> NDArray[np.float64]:
        """The best accuracy at no more than these costs; NaN if no architecture is known."""
        places = np.searchsorted(self._cost, cost, side="right")
        best: NDArray[np.float64] = np.concatenate([[np.nan], self._best])[
            np.where(np.isnan(cost), 0, places)
        ]
        return best
