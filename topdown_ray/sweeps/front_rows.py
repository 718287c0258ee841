"""The part of ``verify`` that holds the table ``front`` against the searches, and recomputes it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from topdown_ray.sweeps.checks import RowCheck, check, compared
from topdown_ray.sweeps.limited_rows import TOLERANCE
from topdown_ray.sweeps.recomputed import Recomputation
from topdown_ray.sweeps.spec import LIMIT


def fronts(front: pd.DataFrame, rows: pd.DataFrame, recomputation: Recomputation) -> Iterator[RowCheck]:
    """The checks of the fronts. front: the table, with the columns of its searches. rows: those that the
    specification promises.
    """
    held = rows["search_id"].map(front.groupby("search_id").size()).fillna(0).astype(int)
    good = rows["front_rows"].isna() | held.eq(rows["front_rows"])  # an older schema says nothing
    yield check("front_rows", "the number of the search's rows in front", rows, good, held.tolist())
    if front.empty:
        return
    front = front.assign(target=np.nan)
    beside = rows.drop_duplicates("search_id").set_index("search_id")[["run_id", "shard_id"]]
    known = front["search_id"].isin(beside.index)
    for check_ in _columns(front[known].reset_index(drop=True), beside, recomputation):
        yield _named(check_)


def _named(found: RowCheck) -> RowCheck:
    columns = tuple(f"front.{column}" for column in found.columns)
    return dataclasses.replace(found, name=f"front.{found.name}", columns=columns)


def _columns(front: pd.DataFrame, beside: pd.DataFrame, recomputation: Recomputation) -> Iterator[RowCheck]:
    for column in ("run_id", "shard_id"):
        yield compared(column, "the search's", front, front["search_id"].map(beside[column]).tolist())
    of_search = front.groupby("search_id", sort=False)
    yield compared("place", "from 0, ascending", front, of_search.cumcount().tolist())
    before = of_search["cost"].shift()
    ascends = check("cost", "ascending", front, before.isna() | front["cost"].ge(before))
    yield dataclasses.replace(ascends, name="cost, ascending")
    found = recomputation.of(front)
    yield check(
        "arch", "an architecture of the space, in canonical form", front, found.readable, found=found.reasons
    )
    yield from found.numbers()
    front = found.rows
    limits = [name for name in found.wanted.columns if name.startswith(LIMIT)]
    of_limits = found.wanted[limits].astype(float).rename(columns=lambda name: name.removeprefix(LIMIT))
    wanted = [
        {**others, **own} for others, own in zip(found.elsewhere, of_limits.to_dict("records"), strict=True)
    ]
    said = [json.loads(text) if isinstance(text, str) else {} for text in front["costs"]]
    good = [
        set(one) <= set(true) and all(abs(one[name] - true[name]) <= TOLERANCE * true[name] for name in one)
        for one, true in zip(said, wanted, strict=True)
    ]
    yield check("costs", "recomputed from arch", front, good, [json.dumps(one) for one in wanted])
    yield check("epsilon", "0 or more", front, front["epsilon"].ge(0))
    free = check("arch", "dominated by none of its front", front, ~_dominated(front), front["arch"].tolist())
    yield dataclasses.replace(free, name="arch, not dominated")


def _dominated(front: pd.DataFrame) -> pd.Series:
    """Which rows another row of the same front dominates in accuracy, cost, parameters and other costs."""
    verdict = pd.Series(False, index=front.index)
    others = [json.loads(text) if isinstance(text, str) else {} for text in front["costs"]]
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
