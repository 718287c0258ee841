"""Compare the table ``front`` with the searches for ``verify``, and recompute it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from topdown_ray.algorithms.front import STEP
from topdown_ray.sweeps.checks import RowCheck, check, compared
from topdown_ray.sweeps.groups import LIMIT
from topdown_ray.sweeps.limited_rows import TOLERANCE, mapping
from topdown_ray.sweeps.recomputed import Recomputation


def fronts(front: pd.DataFrame, rows: pd.DataFrame, recomputation: Recomputation) -> Iterator[RowCheck]:
    """Yield the checks of the fronts. front: the table, with the columns of its searches. rows: those that
    pass :func:`topdown_ray.sweeps.checks.promised`.
    """
    held = rows["search_id"].map(front.groupby("search_id").size()).fillna(0).astype(int)
    good = held.eq(rows["front_rows"].fillna(0))  # older schemas have neither this column nor fronts
    yield check("front_rows", "the number of the search's rows in front", rows, good, held.tolist())
    if front.empty:
        return
    yield dataclasses.replace(_covered(front, rows), name="front, as accurate as the answers")
    front = front.assign(target=np.nan)
    beside = rows.drop_duplicates("search_id").set_index("search_id")[["run_id", "shard_id"]]
    known = front["search_id"].isin(beside.index)
    for check_ in _columns(front[known].reset_index(drop=True), rows, beside, recomputation):
        yield _named(check_)


def _named(found: RowCheck) -> RowCheck:
    columns = tuple(f"front.{column}" for column in found.columns)
    return dataclasses.replace(found, name=f"front.{found.name}", columns=columns)


def _columns(
    front: pd.DataFrame, rows: pd.DataFrame, beside: pd.DataFrame, recomputation: Recomputation
) -> Iterator[RowCheck]:
    for column in ("run_id", "shard_id"):
        yield compared(
            column, "the value of the search", front, front["search_id"].map(beside[column]).tolist()
        )
    of_search = front.groupby("search_id", sort=False)
    yield compared("place", "ascending from 0", front, of_search.cumcount().tolist())
    before = of_search["cost"].shift()
    ascends = check("cost", "costs in ascending order", front, before.isna() | front["cost"].ge(before))
    yield dataclasses.replace(ascends, name="cost, ascending")
    found = recomputation.of(front)
    yield check(
        "arch", "an architecture of the space, in canonical form", front, found.readable, found=found.reasons
    )
    yield from found.numbers()
    front = found.rows
    named: dict[str, set[str]] = {}
    for search_id, text in zip(rows["search_id"], rows["limits"], strict=True):
        named.setdefault(search_id, set()).update(mapping(text))
    own = [sorted(named[search_id]) for search_id in front["search_id"]]
    wanted = [
        {**others, **{name: float(row[f"{LIMIT}{name}"]) for name in names}}
        for others, names, row in zip(found.elsewhere, own, found.wanted.to_dict("records"), strict=True)
    ]
    said = [mapping(text) for text in front["costs"]]
    good = [
        set(one) == set(true) and all(abs(one[name] - true[name]) <= TOLERANCE * true[name] for name in one)
        for one, true in zip(said, wanted, strict=True)
    ]
    yield check("costs", "the values recomputed from arch", front, good, [json.dumps(one) for one in wanted])
    steps = front["epsilon"].isin([0.0, *(STEP * 2.0**i for i in range(40))])
    one = front.groupby("search_id")["epsilon"].transform("nunique") == 1
    yield check("epsilon", f"0 or {STEP:g} x 2^n, the same for the whole front", front, steps & one)
    limits = [{name: costs.get(name, 0.0) for name in names} for names, costs in zip(own, said, strict=True)]
    free = ~_dominated(front, limits)
    undominated = check(
        "arch",
        "an architecture that no other one of its front dominates",
        front,
        free,
        front["arch"].tolist(),
    )
    yield dataclasses.replace(undominated, name="arch, not dominated")


def _covered(front: pd.DataFrame, rows: pd.DataFrame) -> RowCheck:
    """Check that the front of each search has an architecture that costs no more than each of its answers and
    is as accurate, up to what thinning may lose.
    """
    own = rows[rows["search_id"].isin(front["search_id"])]
    best = []
    of_search = dict(list(front.groupby("search_id", sort=False)))
    for search_id, cost in zip(own["search_id"], own["cost"], strict=True):
        points = of_search[search_id]
        fitting = points.loc[points["cost"] <= cost, "accuracy"]
        best.append((fitting.max() if len(fitting) else -np.inf) + points["epsilon"].max())
    good = own["accuracy"].to_numpy(float) <= np.array(best, dtype=float)
    return check("accuracy", "at most the accuracy of the front at this cost", own, good, best)


def _dominated(front: pd.DataFrame, others: Sequence[Mapping[str, float]]) -> pd.Series:
    """Return which rows are dominated by another row of the same front in accuracy, cost, parameters and the
    costs of its limits (``others``).
    """
    verdict = pd.Series(False, index=front.index)
    names = sorted({name for one in others for name in one})
    values = front[["cost", "params_m"]].astype(float).fillna(0).to_numpy()
    more = np.array([[one.get(name, 0.0) for name in names] for one in others], float).reshape(len(front), -1)
    costs, accuracy = np.concatenate([values, more], axis=1), front["accuracy"].to_numpy(float)
    for places in front.groupby("search_id", sort=False).indices.values():
        own, score = costs[places], accuracy[places]
        cheaper = (own[None] <= own[:, None]).all(2) & (score[None] >= score[:, None])
        same = (own[None] == own[:, None]).all(2) & (score[None] == score[:, None])
        verdict.iloc[places] = (cheaper & ~same).any(1)
    return verdict
