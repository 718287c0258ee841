"""Check for ``verify`` whether rows meet the further limits of their targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from topdown_ray.sweeps.checks import RowCheck, check
from topdown_ray.sweeps.groups import COST, LIMIT

TOLERANCE = 1e-4  # relative difference of a cost


class LimitedRows:
    """The costs of the further limits of each row, as the row states them and recomputed.

    wanted: the recomputed costs, with a column for each artefact whose name begins with ``LIMIT``. elsewhere:
    for each row, the recomputed cost of its architecture on the sweep's other devices.
    """

    def __init__(self, rows: pd.DataFrame, wanted: pd.DataFrame, elsewhere: Sequence[Mapping[str, float]]):
        self.rows = rows
        self.limits = [mapping(text) for text in rows["limits"]]
        self.said = [mapping(text) for text in rows["costs"]]
        self.wanted = [
            {**others, **{name: float(row[f"{LIMIT}{name}"]) for name in limits}}
            for others, limits, row in zip(elsewhere, self.limits, wanted.to_dict("records"), strict=True)
        ]
        self.over = self._all(self.wanted, lambda cost, most: cost <= most * (1 + 1e-7), negated=True)
        self.under = self._all(self.wanted, lambda cost, most: cost < most * (1 - 1e-7))
        self.meets = self._all(self.said, lambda cost, most: cost <= most)
        self.true = self._all(self.wanted, lambda cost, most: cost <= most)

    def _all(
        self, costs: list[dict[str, float]], good: Callable[[float, float], bool], negated: bool = False
    ) -> pd.Series:
        found = [
            all(good(cost.get(name, np.nan), most) for name, most in limits.items()) != negated
            for cost, limits in zip(costs, self.limits, strict=True)
        ]
        return pd.Series(found, index=self.rows.index, dtype=bool)

    def checked(self, own_functions: set[str]) -> RowCheck:
        """Check the column ``costs``."""
        differences = [
            max((abs(said[name] - cost) / cost for name, cost in wanted.items()), default=0.0)
            if set(said) == set(wanted)
            else np.inf
            for said, wanted in zip(self.said, self.wanted, strict=True)
        ]
        largest = max(differences, default=0.0)
        rule = "the values recomputed from arch"
        if any(name.startswith((LIMIT, COST)) for name in own_functions):
            rule += ", for plug-ins by their own functions"
        good = [difference <= TOLERANCE for difference in differences]
        more: dict[str, Any] = {"largest": largest, "tolerance": TOLERANCE}
        return check("costs", rule, self.rows, good, [json.dumps(one) for one in self.wanted], **more)


def mapping(text: Any) -> dict[str, float]:
    """Return the numbers of a JSON mapping, or none if a cell has no such mapping."""
    try:
        found = json.loads(text) if isinstance(text, str) else {}
        return {name: float(value) for name, value in found.items()} if isinstance(found, dict) else {}
    except (TypeError, ValueError):
        return {}
