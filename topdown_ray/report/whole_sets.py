"""Evaluate searches over a whole set of targets: the best strategy, its share of the time, and its progress.

The *quality* of a search is the mean accuracy of its answers over the targets of the set. Only searches that
met all targets have one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from topdown_ray import stats
from topdown_ray.report.comparisons import CURVE_RESAMPLES, GRID_POINTS, traces
from topdown_ray.report.labelling import Data, ordered
from topdown_ray.report.tables import widest

_KEYS = ["setting", "space", "strategy", "k", "targets", "cost_unit"]
#: How the package's strategies serve the targets of a set: loosest first, tightest first, or all at once.
_ORDER = dict.fromkeys(("random", "independent", "top_down", "prune"), "loosest")
_ORDER |= {"bottom_up": "tightest", "joint": "together"}


def quality(data: Data) -> pd.DataFrame:
    """Return the quality of each search of each setting's widest set, one row for each search, with
    ``seconds`` (NaN if its batch is no timing of ``clock``, the setting's main clock), ``predictor_rows`` and
    ``evaluations``. ``met``: whether it met all targets; if not, its quality is NaN.
    """
    rows = data.searches[data.searches["targets"] == data.searches["setting"].map(widest(data.searches))]
    clocks = _main_clocks(rows)
    rows = rows.drop_duplicates(["strategy", "setting", "search_id", "target_index"])
    met = rows["feasible"] & rows["accuracy"].notna()
    clock = rows["setting"].astype(object).map(clocks).fillna("")
    timed = rows["timed"] & (rows["clock"].astype(object) == clock)
    rows = rows.assign(met=met, seconds=rows["search_wall_s"].astype(float).where(timed), clock=clock)
    keys = [*_KEYS, "search_id", "seed", "kind", "label", "clock"]
    frame = rows.groupby(keys, sort=False, observed=True).agg(
        quality=("accuracy", "mean"),
        met=("met", "all"),
        answers=("met", "size"),
        seconds=("seconds", "first"),
        predictor_rows=("predictor_rows", "sum"),
        known=("predictor_rows", "count"),
        evaluations=("evaluations", "sum"),
    )
    frame["predictor_rows"] = frame["predictor_rows"].where(frame["known"] == frame["answers"])
    frame["met"] &= frame["answers"] == frame.index.get_level_values("k")
    frame["quality"] = frame["quality"].where(frame["met"])
    return frame.drop(columns=["answers", "known"]).reset_index()


def _main_clocks(rows: pd.DataFrame) -> dict[str, str]:
    """For each setting, the clock that times most of its series; of several, the one with most searches.

    If each clock times only one of several series, the setting has none, because no times can be compared."""
    timed = rows[rows["timed"]]
    counts = timed.groupby(["setting", "clock"], observed=True).agg(
        series=("strategy", "nunique"), searches=("search_id", "nunique")
    )
    best = counts.sort_values(["series", "searches"], kind="stable").reset_index().groupby("setting").tail(1)
    series = best["setting"].map(rows.groupby("setting", observed=True)["strategy"].nunique()).astype(int)
    best = best[(best["series"] > 1) | (series == 1)]
    return dict(zip(best["setting"].astype(str), best["clock"].astype(str), strict=True))


def overview(data: Data, searches: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the strategies of each setting's widest set, best first: sorted by the number of others that a
    strategy is better than on shared seeds, then by the mean.

    n: the number of ``searches`` that met all targets. mean: the mean of their quality (a fraction); low,
    high: its interval. difference: from the best strategy, paired by seed, with its interval; NaN for the
    best one. seconds, predictor_rows: means of a search, with seconds by ``clock``. The argument searches is
    the result of :func:`quality`, if it is already available."""
    all_searches = quality(data) if searches is None else searches
    promised = all_searches.groupby(["setting", "strategy"], observed=True).size()
    records: list[dict[str, Any]] = []
    cells: list[stats.Array] = []
    pairs: list[stats.Array] = []
    met = all_searches[all_searches["met"]]
    for setting, of_setting in met.groupby("setting", sort=False, observed=True):
        groups = {
            str(name): rows for name, rows in of_setting.groupby("strategy", observed=True) if len(rows)
        }
        by_seed = {name: rows.groupby("seed")["quality"].mean() for name, rows in groups.items()}
        names = _ranked(by_seed)
        for rank, name in enumerate(names):
            rows = groups[name]
            facts = {key: rows[key].iloc[0] for key in [*_KEYS, "label", "clock"]}
            counts = {"rank": rank + 1, "n": len(rows), "searches": int(promised[setting, name])}
            spent = {value: float(rows[value].mean()) for value in ("seconds", "predictor_rows")}
            records.append({**facts, **counts, **spent})
            cells.append(rows["quality"].to_numpy(float))
            delta = (by_seed[name] - by_seed[names[0]]).dropna() if rank else pd.Series(dtype=float)
            pairs.append(delta.to_numpy(float))
    columns = [*_KEYS, "label", "clock", "rank", "n", "searches", "seconds", "predictor_rows"]
    frame = pd.DataFrame(records, columns=columns)
    frame["mean"] = [float(cell.mean()) for cell in cells]
    frame[["low", "high"]] = stats.intervals(cells)
    frame["pairs"] = [len(cell) for cell in pairs]
    frame["difference"] = [float(cell.mean()) if len(cell) else np.nan for cell in pairs]
    frame[["difference_low", "difference_high"]] = stats.intervals(pairs)
    return frame


def _ranked(by_seed: Mapping[str, pd.Series]) -> list[str]:
    """Names, sorted by the number of others that they are better than, paired by seed if they share some."""

    def ahead(one: str, other: str) -> float:
        delta = (by_seed[one] - by_seed[other]).dropna()
        return float(delta.mean() if len(delta) else by_seed[one].mean() - by_seed[other].mean())

    wins = {one: sum(ahead(one, other) > 0 for other in by_seed) for one in by_seed}
    return sorted(by_seed, key=lambda name: (-wins[name], -float(by_seed[name].mean())))


def anytime(data: Data, searches: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the quality of the answers against the work done so far, for each setting's widest set.

    A curve begins when all searches have an answer for every target. If the last of them has it only after
    the mean work of a search, the curve begins when half of them do. It ends at that mean. work: ``seconds``
    (by the setting's main clock) or ``predictor rows`` (``evaluations`` if a folder does not record these);
    x: the amount of work; mean, low, high: those of the quality. Within a target, work is spread evenly over
    its evaluations; ``joint`` searches for all targets at once, the others for one after another. ``end``
    marks the point of finished searches at their mean work. A strategy whose order is not known has only this
    point. searches: the result of :func:`quality`, if it is already available.
    """
    searches = quality(data) if searches is None else searches
    searches = searches[searches["met"]]
    known = bool(searches["predictor_rows"].notna().all())
    axes = {
        "seconds": "wall_s",
        **({"predictor rows": "predictor_rows"} if known else {"evaluations": "evaluations"}),
    }
    all_rows = data.distinct().sort_values(["search_id", "target_index"], kind="stable")
    of_series = all_rows.groupby(["setting", "strategy"], observed=True).indices
    records: list[dict[str, Any]] = []
    cells: list[stats.Array] = []
    for key, group in searches.groupby([*_KEYS, "kind"], sort=False, observed=True):
        facts = {**dict(zip(_KEYS, key[:-1], strict=True)), "clock": group["clock"].iloc[0]}
        order = _ORDER.get(str(key[-1]))
        for kind_of_work, column in axes.items():
            own = group[group[column if kind_of_work != "seconds" else "seconds"].notna()]
            if own.empty:
                continue
            total = own["seconds" if kind_of_work == "seconds" else column].mean()
            if order is not None:
                rows = all_rows.iloc[of_series[key[0], key[2]]]
                rows = rows[rows["search_id"].isin(own["search_id"])]
                for x, cell in _curve(data, rows, column, order, int(own["k"].iloc[0])):
                    records.append({**facts, "work": kind_of_work, "x": x, "end": False})
                    cells.append(cell)
            records.append({**facts, "work": kind_of_work, "x": float(total), "end": True})
            cells.append(own["quality"].to_numpy(float))
    frame = pd.DataFrame(records, columns=[*_KEYS, "clock", "work", "x", "end"])
    frame["n"] = [len(cell) for cell in cells]
    frame["mean"] = [float(cell.mean()) for cell in cells]
    frame[["low", "high"]] = stats.intervals(cells, resamples=CURVE_RESAMPLES)
    return ordered(frame, ["setting", "work", "strategy", "end", "x"])


def _curve(
    data: Data, rows: pd.DataFrame, column: str, order: str, k: int
) -> Sequence[tuple[float, stats.Array]]:
    """Points of the work done, each with the quality of the searches at that point. rows: one for each search
    and target.
    """
    curve, evaluations, best = traces(data, rows)
    if not len(curve):
        return []
    work = rows[column].to_numpy(float).reshape(-1, k)
    begin, length = _spans(work, order)
    spent = rows["evaluations"].clip(lower=1).to_numpy(float)
    x = begin.ravel()[curve] + length.ravel()[curve] * evaluations / spent[curve]
    first = np.full(len(rows), np.inf)
    np.minimum.at(first, curve, x)
    complete, end = first.reshape(-1, k).max(axis=1), float(work.sum(axis=1).mean())
    start = float(complete.max() if complete.max() < end else np.median(complete))
    if not np.isfinite(start):
        return []
    low = max(start, end * 1e-6, 1e-9)
    grid = np.unique(np.maximum(np.geomspace(low, max(end, low), GRID_POINTS), low))
    values = stats.step_values(curve, x, best.astype(np.float64), grid)
    if len(values) < len(rows):  # the last rows have no curve
        return []
    means: NDArray[Any] = values.reshape(-1, k, len(grid)).mean(axis=1)
    cells = [(float(at), cell[~np.isnan(cell)]) for at, cell in zip(grid, means.T, strict=True)]
    return [(at, cell) for at, cell in cells if len(cell)]


def _spans(work: NDArray[Any], order: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The start and the length of the work on each target; work: (searches, targets)."""
    if order == "together":
        total = work.sum(axis=1, keepdims=True)
        return np.zeros_like(work), np.broadcast_to(total, work.shape)
    turned = work[:, ::-1] if order == "tightest" else work
    begin = np.cumsum(turned, axis=1) - turned
    return (begin[:, ::-1] if order == "tightest" else begin), work
