"""Compare two result folders: the same searches before and after a change.

A group is a label of a sweep's strategies at one target set, under one space, cost, protocol, predictor and
limits. Groups of two folders are matched even if their algorithm, hyper-parameters and search identities
differ, because a comparison is about these differences. The functions take and return data frames."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from topdown_ray import stats
from topdown_ray.errors import UserError
from topdown_ray.files import compact_json, short_hash
from topdown_ray.report.labelling import (
    SEARCH_COLUMNS,
    TRACE_COLUMNS,
    Data,
    Loaded,
    limits_text,
    ordered,
    prepare,
)
from topdown_ray.report.tables import spent, timings
from topdown_ray.store.place import Place
from topdown_ray.store.results import load_columns
from topdown_ray.store.transferred import MARK

# the facts that groups must have in common, in the order in which a message looks for a difference
_FACTS = {
    "space": "space",
    "cost_name": "cost",
    "cost_sha256": "cost table",
    "protocol": "protocol",
    "predictor_space": "space of the predictor",
    "predictor_sha256": "predictor",
    "limits": "limits",
    "targets": "target set",
    "strategy": "strategy label",
}
_HASHED = {"cost_sha256": "cost_name", "predictor_sha256": "predictor_name"}
_KEY = [name for name in _FACTS if name not in (*_HASHED, "predictor_space")]
_SHOWN = ["setting", *_FACTS, "predictor_name", "k", "cost_unit"]


@dataclass(frozen=True)
class Comparison:
    """The outcome of `topdown_ray.compare`. Accuracies and their differences are fractions."""

    rows: pd.DataFrame
    """For each group, one row with target NaN, which is the mean over the targets of each search, and one row
    for each target, loosest first. A group is described by its space, cost, predictor, limits, targets and
    strategy label. The other columns are:

    - `paired`, `n`: whether the two sides share seeds, and the number of pairs. If there are pairs, all
      numbers except the times come from them.
    - `n_before`, `n_after`: the number of searches of each side.
    - `seeds_only_before`, `seeds_only_after`: the number of seeds without a partner.
    - `before`, `after`, `difference`: mean accuracies, and `after` - `before`.
    - `low`, `high`, `interval`: the 95 % interval of the difference, and its method.
    - `ties`: pairs with equal answers.
    - `p`, `p_holm`: the p-value of the paired permutation test, and the same corrected for the number of
      targets.
    - `became_infeasible`, `became_feasible`: answers of shared seeds that changed in this way.
    - `missing`: feasible answers of `before` whose search is missing in `after`, although the sweep of
      `after` has the seed.
    - `seconds_before`, `seconds_after`, `time_ratio`: seconds of a search, or of the target alone, and
      `after` / `before`. They are NaN unless both sides were timed by the same clock.
    - `predictor_rows_before`, `predictor_rows_after`: predictor rows of a search, or of the target alone.
    """
    only_before: pd.DataFrame
    """Groups that only `before` has, with their number of seeds. `differs` names the fact in which they
    differ from a group of the other side with the same label and targets."""
    only_after: pd.DataFrame
    """Groups that only `after` has, in the same form."""


def compare(before: Loaded, after: Loaded, names: Sequence[str] | None = None) -> Comparison:
    """Compare the accuracy, time and predictor rows of two results.

    A group is one label of a sweep's strategies at one target set. Searches with the same seed are paired.

    Args:
        before: The results that `after` is compared with.
        after: The results that are judged.
        names: The names of both results, for messages.

    Returns:
        The differences of the groups that both results have, and the groups that only one of them has.

    Raises:
        UserError: The results have no group in common. Groups must have the same cost table and predictor, as
            far as the folders recorded them.
    """
    data = prepare([before, after], names)
    searches = data.searches.assign(limits=_limits(data.searches))
    searches["predictor_space"] = (
        searches["predictor_space"].fillna("") if "predictor_space" in searches else ""
    )
    searches["setting"] = _settings(searches)
    searches["strategy"] = searches["label"]  # hyper-parameters may differ
    searches["side"] = searches["folder"]
    codes = searches.groupby(["side", *_FACTS], sort=False, observed=True).ngroup()
    groups = searches.assign(code=codes, order=-searches["k"]).drop_duplicates("code")
    groups = ordered(groups, ["side", "setting", "order", "targets", "strategy"])
    sides = [groups[groups["side"] == side].to_dict("records") for side in (0, 1)]
    pairs = _pairs(*sides)
    if not pairs:
        raise UserError(f"compare: {_first_difference(*sides)}")
    group_of = {code: number for number, pair in enumerate(pairs) for code in pair}
    seeds = {*after.manifest.get("spec", {}).get("seeds", []), *searches.loc[searches["side"] == 1, "seed"]}
    kept = codes.map(group_of)
    matched = searches[kept.notna()].assign(group=kept.dropna().astype(int))
    lone = [[group for group in side if group["code"] not in group_of] for side in sides]
    of_code = {group["code"]: group for side in sides for group in side}
    facts = [{name: of_code[one][name] for name in _SHOWN} for one, _ in pairs]
    return Comparison(
        _rows(dataclasses.replace(data, searches=matched), facts, seeds),
        _lone(lone[0], sides[1], searches, codes),
        _lone(lone[1], sides[0], searches, codes),
    )


def compare_folders(before: str, after: str) -> Comparison:
    """Compare two result folders or URIs. Raises UserError."""
    folders = (before, after)
    first, second = (load_columns(each, SEARCH_COLUMNS, TRACE_COLUMNS) for each in folders)
    return compare(first, second, [Place(each).name for each in folders])


def regressions(comparison: Comparison, below: float) -> list[str]:
    """Return the reasons why ``after`` is worse than ``before``, in a few words each: groups whose mean
    difference is below this number (a fraction), feasible answers that became infeasible or are missing, and
    groups that are missing. The list is empty if it is not worse.
    """
    found = []
    for _, group in comparison.rows.groupby(["setting", "targets", "strategy", *_HASHED], sort=False):
        whole, single = group.iloc[0], group.iloc[1:]
        name = group_name(whole.to_dict())
        # if no search has an answer for every target, look at each target
        mean = whole["difference"] if whole["n_after"] else single["difference"].mean()
        if round(mean - below, 12) < 0:
            found.append(f"{name}: {100 * mean:+.3f} percentage points")
        lost = int(whole["became_infeasible"] + whole["missing"])
        if lost:
            answers = "1 answer is" if lost == 1 else f"{lost} answers are"
            found.append(f"{name}: {answers} no longer feasible, or missing")
        unanswered = single.loc[(single["n_before"] > 0) & (single["n_after"] == 0), "target"]
        found += [f"{name}: no feasible answer for the target {target:g}" for target in unanswered]
    for lone in comparison.only_before.to_dict("records"):
        why = f" (the {lone['differs']} differs)" if lone["differs"] else ""
        found.append(f"{group_name(lone)}: missing{why}")
    return found


def group_name(group: Mapping[Any, Any]) -> str:
    """Return the name of a group in messages."""
    return f"{group['setting']}, {group['targets']}, {group['strategy']}"


def _limits(rows: pd.DataFrame) -> pd.Series:
    """Return the limits of all targets of each row's search, in words; "" if there are none."""
    texts = rows["limits"].fillna("") if "limits" in rows else pd.Series("", index=rows.index)
    if not (texts != "").any():
        return texts
    search = rows.groupby(["folder", "search_id"], sort=False).ngroup()
    sorted_texts = texts[rows["target_index"].sort_values(kind="stable").index]
    words = sorted_texts.groupby(search).agg(lambda of_search: _in_words(list(of_search)))
    return search.map(words)


def _in_words(texts: Sequence[str]) -> str:
    limits = [json.loads(text) if text else {} for text in texts]
    if any(one != limits[0] for one in limits):  # the words may not mention all of them
        return f"{limits_text(limits)} ({short_hash(compact_json(limits))[:4]})"
    return " and ".join(f"{name} <= {most:.12g}" for name, most in sorted(limits[0].items()))


def _settings(rows: pd.DataFrame) -> pd.Series:
    """Return space, cost, limits and protocol in words, as reports name them."""
    words = rows["space"].astype(object) + rows["marked"].map({True: MARK, False: ""})
    words += " on " + rows["cost_name"].astype(object)
    words += rows["limits"].astype(object).map(lambda text: f", {text}" if text else "")
    return words + rows["protocol"].map(lambda name: " (notebook protocol)" if name == "notebook" else "")


def _differs(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> str | None:
    """Return the first fact in which two groups differ. A fact that a folder did not record does not differ.
    If a hash is not recorded, the name counts instead.
    """

    def differ(column: str) -> bool:
        return one[column] != other[column] and (column in _KEY or bool(one[column] and other[column]))

    for column in _FACTS:
        if differ(column):
            return column
        if column in _HASHED and not (one[column] and other[column]) and differ(_HASHED[column]):
            return column
    return None


def _pairs(before: Sequence[dict[Any, Any]], after: Sequence[dict[Any, Any]]) -> list[tuple[int, int]]:
    """Return the codes of the groups to compare, each with at most one other, in the order of ``before``."""
    candidates = defaultdict(list)
    for group in after:
        candidates[tuple(group[name] for name in _KEY)].append(group)
    pairs = []
    for one in before:
        free = candidates[tuple(one[name] for name in _KEY)]
        fitting = [other for other in free if _differs(one, other) is None]
        if fitting:  # prefer an equal hash to one that is not recorded
            best = max(fitting, key=lambda other: sum(one[name] == other[name] for name in _HASHED))
            free.remove(best)
            pairs.append((one["code"], best["code"]))
    return pairs


def _first_difference(before: Sequence[dict[Any, Any]], after: Sequence[dict[Any, Any]]) -> str:
    """Return what distinguishes the two groups that agree in most facts."""
    order = list(_FACTS)
    found = ((_differs(one, other) or order[0], one, other) for one in before for other in after)
    column, one, other = max(found, key=lambda each: order.index(each[0]))

    def shown(group: Mapping[Any, Any]) -> str:
        if column in _HASHED:
            return f"{group[_HASHED[column]]} {group[column][:8]}".strip()
        return group[column] or "none"

    return f"expected sweeps of the same {_FACTS[column]}, found {shown(one)} and {shown(other)}"


def _lone(
    groups: Sequence[dict[Any, Any]],
    others: Sequence[dict[Any, Any]],
    searches: pd.DataFrame,
    codes: pd.Series,
) -> pd.DataFrame:
    """Return the groups that only one side has. others: all groups of the other side."""
    by_key = {tuple(group[name] for name in _KEY): group for group in others}
    records = []
    for group in groups:
        same = by_key.get(tuple(group[name] for name in _KEY))
        column = None if same is None else _differs(group, same)
        seeds = searches.loc[codes == group["code"], "seed"].nunique()
        differs = _FACTS[column] if column else ""
        records.append({**{name: group[name] for name in _SHOWN}, "seeds": seeds, "differs": differs})
    return pd.DataFrame(records, columns=[*_SHOWN, "seeds", "differs"])


def _rows(data: Data, facts: Sequence[dict[str, Any]], seeds: set[int]) -> pd.DataFrame:
    """Return the rows of all groups that both sides have; ``data`` holds their number as ``group``. seeds:
    those of the sweep after.
    """
    rows = data.searches
    answers = rows["accuracy"].where(rows["feasible"])
    tables = {
        key: part.set_index(["seed", "target"])["accuracy"].unstack("target")
        for key, part in rows.assign(accuracy=answers).groupby(["group", "side"])
    }
    records: list[dict[str, Any]] = []
    cells: list[tuple[stats.Array, stats.Array]] = []
    for group, of_group in enumerate(facts):
        for row, *pair in _of_group(tables[group, 0], tables[group, 1], seeds):
            records.append({"group": group, **of_group, **row})
            cells.append((pair[0], pair[1]))
    frame = pd.DataFrame(records)
    paired = frame["paired"].to_numpy()
    deltas = [y - x if is_paired else x[:0] for (x, y), is_paired in zip(cells, paired, strict=True)]
    frame["n"] = [len(delta) for delta in deltas]
    frame["n_before"], frame["n_after"] = ([len(pair[side]) for pair in cells] for side in (0, 1))
    frame["before"], frame["after"] = ([_mean(pair[side]) for pair in cells] for side in (0, 1))
    frame["difference"] = np.where(paired, [*map(_mean, deltas)], frame["after"] - frame["before"])
    unpaired = [stats.welch(y, x) for x, y in cells]
    frame[["low", "high"]] = np.where(paired[:, None], stats.intervals(deltas), unpaired)
    methods = [
        stats.method(len(delta)) if is_paired else "none" if math.isnan(low) else "Welch"
        for delta, is_paired, low in zip(deltas, paired, frame["low"], strict=True)
    ]
    frame["interval"] = methods
    frame["ties"] = [int((delta == 0).sum()) for delta in deltas]
    frame["p"] = stats.sign_flip_p(deltas)
    frame["p_holm"] = frame["p"]
    for _, family in frame[frame["target"].notna()].groupby("group"):
        frame.loc[family.index, "p_holm"] = stats.holm(family["p"].to_numpy())
    effort = [_effort(data, "search_wall_s", []).assign(target=math.nan), _effort(data, "wall_s", ["target"])]
    frame = frame.merge(pd.concat(effort), on=["group", "target"], how="left").drop(columns="group")
    counts = ["seeds_only_before", "seeds_only_after", "became_infeasible", "became_feasible", "missing"]
    return frame[[name for name in frame if name not in counts] + counts]


def _mean(cell: stats.Array) -> float:
    return float(cell.mean()) if len(cell) else math.nan


def _of_group(
    before: pd.DataFrame, after: pd.DataFrame, seeds: set[int]
) -> list[tuple[dict[str, Any], stats.Array, stats.Array]]:
    """Return the row of all targets together and the row of each, with the accuracies before and after.
    before, after: accuracies by seed and target, NaN if not feasible.
    """
    before, after = before.align(after, join="outer", axis=1)
    shared = before.index.intersection(after.index)
    lost = before[~before.index.isin(shared) & before.index.isin(list(seeds))]
    x, y = before.loc[shared], after.loc[shared]
    changes = {
        "became_infeasible": x.notna() & y.isna(),
        "became_feasible": x.isna() & y.notna(),
        "missing": lost.notna(),
    }
    common = {
        "paired": len(shared) > 0,
        "seeds_only_before": len(before) - len(shared),
        "seeds_only_after": len(after) - len(shared),
    }
    if len(shared):
        before, after = x.where(y.notna()), y.where(x.notna())
    # a target without any answers must not make every mean NaN
    answered = before.notna().any() & after.notna().any()
    whole = (table.loc[:, answered].dropna().mean(axis=1).dropna() for table in (before, after))
    first, second = (table.to_numpy(float) for table in whole)
    cells: dict[float, tuple[stats.Array, stats.Array]] = {math.nan: (first, second)}
    for target in sorted(map(float, before.columns), reverse=True):
        first, second = (table[target].dropna().to_numpy(float) for table in (before, after))
        cells[target] = first, second
    rows = []
    for target, pair in cells.items():
        of_target = before.columns if math.isnan(target) else [target]
        counts = {name: int(change.loc[:, of_target].to_numpy().sum()) for name, change in changes.items()}
        rows.append(({"target": target, **common, **counts}, *pair))
    return rows


def _effort(data: Data, value: str, target: list[str]) -> pd.DataFrame:
    """Return seconds (the column ``value``) and predictor rows of both sides. target: ["target"] for a row
    for each target.
    """
    keys = ["group", "side", *target]
    units = timings(data, value, [*keys, "clock"]).groupby(keys)
    table = units.agg(seconds=(value, "mean"), clock=("clock", "first"), clocks=("clock", "nunique"))
    table = table.join(spent(data, keys).set_index(keys)["predictor_rows"])
    sides = [table.xs(i, level="side").add_suffix(end) for i, end in enumerate(("_before", "_after"))]
    both = sides[0].join(sides[1], how="outer")
    comparable = (both["clock_before"] == both["clock_after"]) & both["clocks_before"].eq(1)
    comparable &= both["clocks_after"].eq(1)
    for name in ("seconds_before", "seconds_after"):
        both[name] = both[name].where(comparable)
    both["time_ratio"] = both["seconds_after"] / both["seconds_before"]
    both["clock"] = both["clock_before"].where(comparable, "")
    names = ["clock", "seconds_before", "seconds_after", "time_ratio"]
    return both[[*names, "predictor_rows_before", "predictor_rows_after"]].reset_index()
