"""Pick an architecture for any cost from the answers and the fronts of a sweep's searches."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

from topdown_ray.errors import UserError, brief, rounded_up

_COLUMNS = ["search_id", "space", "label", "seed", "cost_name", "cost_unit", "predictor_name"]
_COLUMNS += ["predictor_space", "accuracy", "cost", "costs", "macs_m", "params_m", "arch"]
_COUNTED = {"macs": "macs_m", "params": "params_m"}


class Tables(Protocol):
    """The tables of :class:`topdown_ray.Results` that a pick reads."""

    @property
    def searches(self) -> pd.DataFrame:
        """One row for each search and target."""

    @property
    def front(self) -> pd.DataFrame:
        """The fronts of the searches that keep one."""


@dataclass(frozen=True)
class Pick:
    """The most accurate architecture known to a sweep that meets a cost and some limits."""

    arch: dict[str, Any]
    """The architecture as OFA's configuration."""
    accuracy: float
    """Predicted top-1 accuracy, a fraction."""
    cost: float
    """Cost of the architecture, in `cost_unit`."""
    cost_name: str
    """Name of the cost."""
    cost_unit: str
    """Unit of the cost."""
    macs_m: float | None
    """Multiply-accumulates in 1e6; None for a space without an OFA network."""
    params_m: float | None
    """Parameters in 1e6; None for a space without an OFA network."""
    space: str
    """Space of the architecture."""
    label: str
    """Label of the strategy that found it."""
    seed: int
    """Seed of the search that found it."""
    search_id: str
    """Identity of the search that found it."""
    predictor_name: str
    """Name of the predictor."""
    predictor_space: str
    """Space that the predictor was trained on."""
    source: str
    """`answer` if the architecture is the answer for a target, `front` if it comes from a front."""
    epsilon: float | None
    """Largest loss from thinning the front, a fraction: an architecture that the search scored but did not
    keep is at most this much more accurate if it costs no more under the search's cost and limits and has no
    more parameters. None for an answer, and for an architecture that was found for another cost."""
    candidates: int
    """Number of architectures that met the cost and the limits."""
    loosest: float
    """Loosest target under this cost. The searches did not look for more expensive architectures."""


def pick(
    results: Tables,
    at: float,
    cost: str | None = None,
    limits: Mapping[str, float] | None = None,
    space: str | None = None,
    strategy: str | None = None,
) -> Pick:
    """Pick an architecture, see :meth:`topdown_ray.Results.pick`."""
    if not isinstance(at, int | float) or isinstance(at, bool) or not 0 < at < math.inf:
        raise UserError(f"at: expected a positive number, found {brief(at)}")
    for name, most in (limits or {}).items():
        if not isinstance(most, int | float) or isinstance(most, bool):
            raise UserError(f"limits: {name}: expected a number, found {brief(most)}")
    answers = results.searches[results.searches["feasible"].astype(bool)]
    if answers.empty:
        raise UserError("results: expected a search that met its target, found none")
    parts = [answers.assign(epsilon=math.nan, source="answer"), results.front.assign(source="front")]
    rows = pd.concat(parts, ignore_index=True)[[*_COLUMNS, "epsilon", "source"]]
    rows = _of(rows[rows["accuracy"].notna()], "space", "space", space)
    rows = _under_cost(rows, cost)
    if strategy is not None:
        names = dict(zip(answers["label"], answers["strategy"], strict=True))
        named = rows["label"].eq(strategy) | rows["label"].map(names).eq(strategy)
        if not named.any():
            raise UserError(f"strategy: expected one of {_known(rows['label'])}, found {brief(strategy)}")
        rows = rows[named]
    meets = pd.Series(True, index=rows.index)
    for name, most in (limits or {}).items():
        meets &= _under(rows, name) <= most
    cheapest, unit = rows["cost"][meets].min(), rows["cost_unit"].iloc[0]
    chosen = rows[meets & (rows["cost"] <= at)]
    if chosen.empty:
        under = " and ".join(f"{name} <= {most:g}" for name, most in (limits or {}).items())
        if math.isnan(cheapest):
            raise UserError(
                f"limits: expected limits that an architecture of these results meets, found {under}"
            )
        under = f" under {under}" if under else ""
        raise UserError(
            f"at: expected at least {rounded_up(cheapest)} {unit}, the cost of the cheapest architecture "
            f"in these results{under}, found {at:g}"
        )
    row = most_accurate_first(chosen).iloc[0].to_dict()
    of_cost = answers[(answers["space"] == row["space"]) & (answers["cost_name"] == row["cost_name"])]
    facts: dict[str, Any] = {name: row[name] for name in _COLUMNS if name != "costs"}
    for name in ("macs_m", "params_m", "epsilon"):
        facts[name] = None if pd.isna(row[name]) else float(row[name])
    facts |= {"arch": json.loads(row["arch"]), "seed": int(row["seed"]), "source": row["source"]}
    return Pick(**facts, candidates=chosen["arch"].nunique(), loosest=float(of_cost["target"].max()))


def most_accurate_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by accuracy, and rows of equal accuracy by cost, the cheapest first."""
    return rows.sort_values(["accuracy", "cost"], ascending=[False, True], kind="stable")


def _known(values: pd.Series) -> str:
    return ", ".join(map(str, values.unique()[:20]))


def _of(rows: pd.DataFrame, column: str, argument: str, value: str | None = None) -> pd.DataFrame:
    """Return the rows with a value, which can be left out if there is only one."""
    if value is None and rows[column].nunique() <= 1:
        return rows
    if value is None or not rows[column].eq(value).any():
        found = "none" if value is None else brief(value)
        raise UserError(f"{argument}: expected one of {_known(rows[column])}, found {found}")
    return rows[rows[column].eq(value)]


def _under_cost(rows: pd.DataFrame, cost: str | None) -> pd.DataFrame:
    """Return the rows whose cost of this name is known, with it as their cost. They include rows that were
    found for other devices.
    """
    own = _of(rows, "cost_name", "cost", cost)
    others = rows[rows["cost_name"] != own["cost_name"].iloc[0]]
    if others.empty:
        return own
    name, unit = own["cost_name"].iloc[0], own["cost_unit"].iloc[0]
    costs, there = [], []
    for mine, value, text in zip(others["cost_name"], others["cost"], others["costs"], strict=True):
        known = json.loads(text) if isinstance(text, str) else {}
        costs.append(known.pop(name, math.nan))
        there.append(json.dumps({**known, mine: value}))
    others = others.assign(cost=costs, costs=there, cost_name=name, cost_unit=unit, epsilon=math.nan)
    known_here: pd.DataFrame = pd.concat([own, others[others["cost"].notna()]], ignore_index=True)
    return known_here


def _under(rows: pd.DataFrame, name: str) -> pd.Series:
    """Return the costs of architectures under the cost of a limit. Raises UserError if none is known."""
    if name in _COUNTED:
        values = rows[_COUNTED[name]].astype(float)
    else:
        known = [json.loads(text) if isinstance(text, str) else {} for text in rows["costs"]]
        values = pd.Series([costs.get(name, math.nan) for costs in known], index=rows.index, dtype=float)
        values = values.where(rows["cost_name"] != name, rows["cost"])
    if values.isna().all():
        raise UserError(
            f"limits: expected macs, params or a cost of the sweep, found {brief(name)}, which these results "
            "do not record"
        )
    return values
