"""Check for ``verify`` what follows from the manifest: identities, artefacts, targets, numbers of
evaluations, and anytime curves.

Nothing here recomputes an architecture. :mod:`topdown_ray.sweeps.verify` does that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.strategies import STRATEGIES, find_strategy
from topdown_ray.errors import brief
from topdown_ray.sweeps.groups import Group
from topdown_ray.sweeps.identities import search_identity
from topdown_ray.sweeps.spec import SweepSpec

NO_NETWORK = "the space has no OFA network"


@dataclass(frozen=True)
class RowCheck:
    """One rule, applied to all rows that it concerns, and the first row that breaks it."""

    name: str
    columns: tuple[str, ...]  # columns of ``searches``; those of ``trace`` as trace.COLUMN
    rule: str
    rows: int = 0
    failures: int = 0
    search_id: str | None = None  # of the first failing row
    target: float | None = None
    expected: str = ""
    found: str = ""
    largest: float | None = None  # largest difference of recomputed numbers
    tolerance: float | None = None
    not_checked: str = ""  # why nothing, or not everything, could be checked
    by_plugins: bool = False  # recomputed by the functions of plug-ins


def check(
    columns: str,
    rule: str,
    rows: pd.DataFrame,
    good: npt.ArrayLike,
    expected: Sequence[Any] | None = None,
    found: Sequence[Any] | None = None,
    **more: Any,
) -> RowCheck:
    """Make a check from a verdict on each row. columns: their names, separated by commas. expected, found:
    the values of each row, for the message.
    """
    bad = np.flatnonzero(~np.asarray(good, dtype=bool))
    names = tuple(columns.split(", "))
    if not len(bad):
        return RowCheck(columns, names, rule, len(rows), **more)
    at = int(bad[0])
    row = rows.iloc[at]
    values = [row[name.removeprefix("trace.")] for name in names] if found is None else [found[at]]
    shown = ", ".join(brief(plain(value)) for value in values)
    wanted = rule if expected is None else brief(plain(expected[at]))
    where: dict[str, Any] = {
        "search_id": str(row["search_id"]),
        "target": float(row["target"]) if pd.notna(row["target"]) else None,
        "expected": wanted,
        "found": shown,
    }
    return RowCheck(columns, names, rule, len(rows), len(bad), **where, **more)


def compared(column: str, rule: str, rows: pd.DataFrame, expected: Sequence[Any], **more: Any) -> RowCheck:
    """Compare a column with the value that each row should have."""
    values = [plain(value) for value in rows[column.removeprefix("trace.")]]
    wanted = [plain(value) for value in expected]
    good = [a is not None and a == b for a, b in zip(values, wanted, strict=True)]
    if not all(good):
        at = good.index(False)
        values[at], wanted[at] = _where_they_differ(values[at], wanted[at])
    return check(column, rule, rows, good, wanted, values, **more)


def _where_they_differ(found: Any, expected: Any) -> tuple[Any, Any]:
    """Return both values. Of two lists of the same length, return only the first entries that differ, because
    a message shows only the beginning of a list.
    """
    if isinstance(found, tuple) and isinstance(expected, tuple) and len(found) == len(expected):
        at = [a == b for a, b in zip(found, expected, strict=True)].index(False)
        return f"{found[at]} at position {at}", f"{expected[at]} at position {at}"
    return found, expected


def plain(value: Any) -> Any:
    """Return a cell as a plain Python value."""
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    return value.item() if isinstance(value, np.generic) else value


def promised(rows: pd.DataFrame, spec: SweepSpec) -> tuple[list[RowCheck], pd.DataFrame]:
    """Compare each row with the specification's spaces, strategies, protocol, targets and seeds. Return the
    checks, and the rows that pass all of them.
    """
    targets = [_targets(value) for value in rows["targets"]]
    sets = {
        (space, number): set(device.sets)
        for space in spec.spaces
        for number, device in enumerate(spec.devices(space))
    }
    places = zip(targets, rows["target_index"].tolist(), rows["target"].tolist(), strict=True)
    known: dict[str, set[Any]] = {
        "space": set(spec.spaces),
        "strategy": {entry.name for entry in spec.strategies},
        "protocol": {spec.protocol},
        "seed": set(spec.seeds),
    }
    verdicts: dict[str, tuple[str, list[bool]]] = {
        column: ("a value that run.json names", [value in values for value in rows[column].tolist()])
        for column, values in known.items()
    }
    of_label = {entry.label: entry.name for entry in spec.strategies}
    labels = zip(rows["label"].tolist(), rows["strategy"].tolist(), strict=True)
    verdicts["label"] = (
        "a label that run.json gives to the strategy",
        [of_label.get(label) == name for label, name in labels],
    )
    places_of = list(zip(rows["space"], rows["cost_number"], strict=True))
    verdicts["targets"] = (
        "a target set that run.json names",
        [of_row in sets.get(place, ()) for of_row, place in zip(targets, places_of, strict=True)],
    )
    limits = {
        ((space, number), of_set, i): dict(one) if one else None
        for space in spec.spaces
        for number, device in enumerate(spec.devices(space))
        for n, of_set in enumerate(device.sets)
        for i, one in enumerate(device.limits_of(n) or ((),) * len(of_set))
    }
    stated = zip(places_of, targets, rows["target_index"].tolist(), rows["limits"].tolist(), strict=True)
    verdicts["limits"] = (
        "the target's limits in run.json",
        [
            limits.get((place, of_row, index)) == (json.loads(text) if isinstance(text, str) else None)
            for place, of_row, index, text in stated
        ],
    )
    verdicts["k"] = (
        "the number of targets",
        [len(of_row) == k for of_row, k in zip(targets, rows["k"].tolist(), strict=True)],
    )
    verdicts["target_index, target"] = (
        "the entry of targets at target_index",
        [0 <= index < len(of_row) and of_row[int(index)] == target for of_row, index, target in places],
    )
    checks = [check(columns, rule, rows, good) for columns, (rule, good) in verdicts.items()]
    return checks, rows[np.all([good for _, good in verdicts.values()], axis=0)]


def _targets(value: Any) -> tuple[float, ...]:
    return () if value is None else tuple(value)


def identities(rows: pd.DataFrame, spec: SweepSpec, hashes: Mapping[str, Mapping[str, str]]) -> RowCheck:
    """Check each search's identity, which follows from everything that decides the search.

    rows: those that pass :func:`promised`. hashes: for each space, those of its cost table and its predictor.
    """
    wanted: dict[int, str] = {}
    groups = searched(spec)
    keys = [rows["space"], rows["cost_number"], rows["label"], rows["targets"].map(_targets)]
    for key, seeds in rows["seed"].groupby(keys, sort=False):
        found = groups[cast("PartKey", key)]
        identity = search_identity(found.group, spec.protocol, hashes[found.group.space], found.part)
        wanted.update(zip(seeds.index, map(identity, seeds.tolist()), strict=True))
    return compared(
        "search_id",
        "the hash of everything that decides the search",
        rows,
        [wanted[index] for index in rows.index],
    )


def once(rows: pd.DataFrame, spec: SweepSpec, complete: bool) -> tuple[RowCheck, int]:
    """Check that every search is there once, with all its targets, and that a complete sweep has all
    searches. Also return the number of searches without rows.
    """
    single = ~rows.duplicated(["search_id", "target_index"], keep=False)
    whole = rows.groupby("search_id")["target_index"].transform("nunique") == rows["k"]
    rule = "each search and target once"
    found = check("search_id, target_index", rule, rows, single & whole)
    names = (rows["space"], rows["cost_number"], rows["label"], rows["targets"].map(_targets), rows["seed"])
    have = set(zip(*names, strict=True))
    absent = (
        (found.group.each[found.part], seed)
        for key, found in searched(spec).items()
        for seed in spec.seeds
        if (*key, seed) not in have
    )
    first = next(absent, None)
    missing = 0 if first is None else 1 + sum(1 for _ in absent)
    if first is None or found.failures or not complete:
        return found, missing
    group, seed = first
    label = (
        f"{group.space}, {group.label}, targets {' '.join(f'{target:g}' for target in group.targets)}, "
        f"seed {seed}"
    )
    return RowCheck(
        found.name, found.columns, rule, len(rows), missing, expected=brief(label), found="no rows"
    ), missing


def generations_of(strategy: str, params: EvolutionParams, k: int, index: int) -> int | None:
    """Return the number of generations that a strategy runs for a target, or None for strategies that this
    module does not know.
    """
    if strategy == "joint":
        return params.generations + (k - 1) * params.warm_generations
    if _is_full(strategy, k, index):
        return params.generations
    return {"bottom_up": params.warm_generations, "top_down": params.warm_generations, "prune": 0}.get(
        strategy
    )


def evaluations_by(strategy: str, params: EvolutionParams, k: int, index: int, generation: int) -> int | None:
    """Return the number of children that a strategy has scored for a target up to a generation, or None as
    above.
    """
    population = params.population
    if strategy == "joint":  # slot j of generation n serves target (j + n) mod k
        each, rest = divmod(population, k)
        rounds, begun = divmod(generation + 1, k)
        return (
            (generation + 1) * each
            + rounds * rest
            + sum((index - number) % k < rest for number in range(begun))
        )
    if _is_full(strategy, k, index):
        return population * (1 + generation)
    begin = {"bottom_up": 0, "top_down": 1, "prune": 1}.get(strategy)
    return None if begin is None else begin + population * generation


def _is_full(strategy: str, k: int, index: int) -> bool:
    first = {"bottom_up": k - 1, "top_down": 0, "prune": 0}
    return strategy in ("independent", "random") or first.get(strategy) == index


def counts(rows: pd.DataFrame, spec: SweepSpec, schema: int) -> Iterator[RowCheck]:
    """Check the generations, evaluations, predictor rows and gradients of each row. rows: those that pass
    :func:`promised`.
    """
    rule = "the number that follows from the strategy"
    of = searched(spec)
    places = list(zip(_part_keys(rows), rows["target_index"].astype(int), strict=True))
    wanted = {(key, index): of[key].generations(index) for key, index in set(places)}
    known = np.array([wanted[place] is not None for place in places], dtype=bool)
    own, mine = rows[known], [place for place, is_known in zip(places, known, strict=True) if is_known]
    limits = [wanted[place] or 0 for place in mine]
    patient = np.array([of[key].params.patience is not None for key, _ in mine], dtype=bool)
    early = patient & own["generations"].between(0, pd.Series(limits, index=own.index)).to_numpy()
    ran = np.where(early, own["generations"], limits)  # a patient search may have ended early
    yield compared("generations", rule, own, ran.tolist())
    by = {
        (place, number): of[place[0]].evaluations(place[1], number)
        for place, number in set(zip(mine, ran.tolist(), strict=True))
    }
    yield compared("evaluations", rule, own, [by[each] for each in zip(mine, ran.tolist(), strict=True)])
    if not known.all():
        sums = rows["evaluations"].groupby(rows["search_id"]).transform("sum")
        total = [of[key].total for key, _ in places]
        may_end = np.array([of[key].params.patience is not None for key, _ in places], dtype=bool)
        good = (sums == total) | (may_end & (sums <= total))
        yield check("evaluations", f"{rule}, summed over the targets", rows, good, total, sums.tolist())
    if schema < 2:
        yield RowCheck(
            "unique_evaluations",
            ("unique_evaluations",),
            "",
            not_checked=f"tables of schema {schema} do not have this column",
        )
    else:
        # an archive of joint that no child fits starts from the cheapest architecture, which is scored
        most = rows["evaluations"] + rows["strategy"].eq("joint")
        good = rows["unique_evaluations"].between(0, most)
        yield check("unique_evaluations", "from 0 to evaluations (joint: one more)", rows, good)
    if schema < 3:
        yield RowCheck(
            "gradients", ("gradients",), "", not_checked=f"tables of schema {schema} do not have this column"
        )
        return
    takes_none = rows["strategy"].isin(
        set(STRATEGIES) & {"independent", "random", "bottom_up", "top_down", "prune"}
    )
    limit = rows["evaluations"].where(~takes_none, 0)
    yield check("gradients", "0 (joint: at most evaluations)", rows, rows["gradients"].between(0, limit))


#: The space, the number of the cost, the label and the targets of a search.
PartKey = tuple[str, int, str, tuple[float, ...]]


class Searched(NamedTuple):
    """A group of searches, and one of its parts."""

    group: Group
    part: int

    @property
    def params(self) -> EvolutionParams:
        """The hyper-parameters."""
        return self.group.params

    @property
    def total(self) -> int:
        """The evaluations of a search, over all of its devices."""
        return find_strategy(self.group.strategy).evaluations(self.params, len(self.group.targets))

    def _place(self, index: int) -> tuple[int, int]:
        """Return the number of targets of the whole search, and the position among them of one of this part's
        targets.
        """
        before = sum(len(part.targets) for part in self.group.each[: self.part])
        return len(self.group.targets), before + index

    def generations(self, index: int) -> int | None:
        """See :func:`generations_of`."""
        return generations_of(self.group.strategy, self.params, *self._place(index))

    def evaluations(self, index: int, generation: int) -> int | None:
        """See :func:`evaluations_by`."""
        return evaluations_by(self.group.strategy, self.params, *self._place(index), generation)


def searched(spec: SweepSpec) -> dict[PartKey, Searched]:
    """Return the groups of a sweep by the values that identify the rows of each of their parts."""
    return {
        (group.space, part.device, group.label, part.targets): Searched(group, number)
        for group in spec.groups()
        for number, part in enumerate(group.each)
    }


def _part_keys(rows: pd.DataFrame) -> list[PartKey]:
    columns = (rows["space"], rows["cost_number"].astype(int), rows["label"], rows["targets"].map(_targets))
    return list(zip(*columns, strict=True))


def curves(trace: pd.DataFrame, rows: pd.DataFrame, spec: SweepSpec) -> Iterator[RowCheck]:
    """Check the anytime curves against the rows in which they end. rows: those that pass :func:`promised`."""
    keys = ["search_id", "target_index"]
    names = ["run_id", "shard_id", "seed", "target", "space", "cost_number", "label", "targets"]
    names += ["generations", "accuracy"]
    beside = rows.drop_duplicates(keys)[keys + names]
    points = trace.merge(beside, on=keys, how="left", suffixes=("", "_of_row"))
    points = points.sort_values([*keys, "generation"], kind="stable").reset_index(drop=True)
    has_row = points["label"].notna()
    yield check("trace.target_index", "one of the search's targets", points, has_row)
    points = points[has_row].reset_index(drop=True)
    with_curve = pd.MultiIndex.from_frame(points[keys])
    have = pd.MultiIndex.from_frame(rows[keys]).isin(with_curve)
    columns = "trace.search_id, trace.shard_id, trace.target_index"
    missing = check(columns, "at least one point in the trace", rows, have, found=["none"] * len(rows))
    yield replace(missing, name="trace, a curve for each row")
    for column in ("run_id", "seed"):
        yield compared(f"trace.{column}", "the value of the row", points, points[f"{column}_of_row"].tolist())
    group = points.groupby(keys, sort=False)
    first, last = group.cumcount() == 0, group.cumcount(ascending=False) == 0
    ends = points["generation"].eq(points["generations"]) | ~last
    begins = points["generation"].eq(0) | ~first
    rises = points["generation"].gt(group["generation"].shift()) | first
    yield check(
        "trace.generation", "ascending from 0 to the row's generations", points, ends & begins & rises
    )
    of = searched(spec)
    places = zip(_part_keys(points), points["target_index"], points["generation"], strict=True)
    spent = [None if n != n else of[key].evaluations(int(i), int(n)) for key, i, n in places]
    known = np.array([value is not None for value in spent], dtype=bool)
    yield compared(
        "trace.evaluations",
        "the number that follows from the strategy",
        points[known],
        [value for value in spent if value is not None],
    )
    better = points["best_accuracy"].ge(group["best_accuracy"].shift()) | (
        first & points["best_accuracy"].notna()
    )
    agrees = points["best_accuracy"].eq(points["accuracy"]) | ~last
    yield check(
        "trace.best_accuracy", "never falling, and the row's accuracy at the end", points, better & agrees
    )
