"""Summarise sweeps as tables: accuracy for each target, time, and its growth with the number of targets.

The functions take and return data frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from topdown_ray import stats
from topdown_ray.report.labelling import AMORTISED as AMORTISED
from topdown_ray.report.labelling import LONE as LONE
from topdown_ray.report.labelling import Data, Loaded, ordered, prepare
from topdown_ray.store.manifest import labelled, promised_sets
from topdown_ray.store.target_sets import set_names


class Summary(NamedTuple):
    """The frames that `topdown_ray.summary` returns.

    Accuracies are comparable within a *setting*: one space, protocol, cost table, predictor and set of
    limits. Times are comparable within a *clock*: of searches that ran alone, or of batches of one size. In
    all frames except `growth`, `n` is the number of values, and `mean`, `sd` (standard deviation) and
    `median` describe them. `low` and `high` are the ends of a 95 % interval, and `interval` names its method.
    A statistic is NaN if there are too few values for it.
    """

    accuracy: pd.DataFrame
    """Predicted top-1 accuracies, as fractions: one row for each setting, target set, strategy and target.
    `low` and `high` belong to `iqm`, the inter-quartile mean. `cost` is the mean cost of the answers, and
    `infeasible` the number of searches without a feasible answer."""
    time: pd.DataFrame
    """Seconds of a whole search: one row for each setting, clock, strategy and target set. `low` and `high`
    belong to the mean, and `n` counts timings: a batch is one timing. Further columns hold the mean work of a
    search: `evaluations`, `unique_evaluations`, `gradients`, `predictor_rows` and `cpu_s`."""
    growth: pd.DataFrame
    """How the seconds, CPU seconds, evaluations and predictor rows of a search grow with k, its number of
    targets. `slope` and `intercept` belong to the line that is fitted to the means at each k. `further` is
    the slope relative to the fitted value at k = 1. `exponent` is p in a fit of k^p to the same means. Each
    of them has an interval, such as `slope_low` and `slope_high`. `sublinear` says whether the exponent is
    below 1: `yes`, `no` or `undecided`. It is `one k only` or `no interval` if there is nothing to judge."""
    single_target: pd.DataFrame
    """Seconds spent on one target, in a search for this target alone or as its share of a search for k
    targets. `low` and `high` belong to the mean."""


def summary(*parts: Loaded) -> Summary:
    """Compute the statistics of a report from one or several results.

    Args:
        *parts: Results of sweeps, as `topdown_ray.load` returns them.

    Returns:
        The frames `accuracy`, `time`, `growth` and `single_target`.

    Raises:
        UserError: The results have no rows, or do not have a column that the statistics need.
    """
    data = prepare(parts)
    return Summary(accuracy(data), time(data), growth(data), single_target(data))


def widest(frame: pd.DataFrame) -> dict[str, str]:
    """Return the target set with the most targets for each setting; of several, the one with most rows."""
    counts = frame.groupby(["setting", "k", "targets"]).size().reset_index(name="rows")
    best = counts.sort_values(["k", "rows"], kind="stable").groupby("setting").tail(1)
    return dict(zip(best["setting"], best["targets"], strict=True))


def statistics_of(values: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the number, mean, standard deviation, median and inter-quartile mean of the values of a cell. A
    statistic is NaN if there are too few values for it.
    """
    n = len(values)
    return {
        "n": n,
        "mean": float(values.mean()) if n else math.nan,
        "sd": float(values.std(ddof=1)) if n > 1 else math.nan,
        "median": float(np.median(values)) if n else math.nan,
        "iqm": stats.trimmed_mean(values),
    }


def accuracy(data: Data) -> pd.DataFrame:
    """Return the frame `accuracy` of :class:`Summary`.

    Target sets are kept apart because the same seed can give the same answer in two of them, and that answer
    must not count twice."""
    keys = ["setting", "space", "strategy", "k", "targets", "target", "cost_unit"]
    records: list[dict[str, Any]] = []
    cells: list[stats.Array] = []
    for key, group in data.distinct().groupby(keys, sort=False):
        feasible = group["feasible"] & group["accuracy"].notna()
        cell = group.loc[feasible, "accuracy"].to_numpy(float)
        cells.append(cell)
        records.append(
            {
                **dict(zip(keys, key, strict=True)),
                **statistics_of(cell),
                "cost": float(group.loc[feasible, "cost"].mean()),
                "infeasible": int((~feasible).sum()),
            }
        )
    frame = pd.DataFrame(records)
    frame[["low", "high"]] = stats.intervals(cells, stats.QUARTER)
    frame["interval"] = [stats.method(len(cell), stats.QUARTER) for cell in cells]
    return ordered(
        frame.assign(order=-frame["k"]), ["setting", "order", "targets", "target", "strategy"]
    ).drop(columns="order")


def timings(data: Data, value: str, keys: Sequence[str]) -> pd.DataFrame:
    """Return one row for each timing (a batch, or a search that ran alone) with the keys, ``value``,
    ``searches`` and ``batch_size``.
    """
    timed = data.searches[data.searches["timed"]]
    once = timed.drop_duplicates(["folder", "search_id", *(["target_index"] if "target" in keys else [])])
    groups = once.groupby(["folder", "shard_id", *keys], sort=False)
    return groups.agg(
        **{
            value: (value, "mean"),
            "searches": ("search_id", "nunique"),
            "batch_size": ("batch_size", "first"),
        }
    ).reset_index()


def time(data: Data) -> pd.DataFrame:
    """Return the frame `time` of :class:`Summary`."""
    keys = ["setting", "space", "clock", "strategy", "k", "targets"]
    frame = _timed(timings(data, "search_wall_s", keys), "search_wall_s", keys)
    totals = spent(data, keys)
    return ordered(frame.merge(totals, on=keys), ["setting", "clock", "k", "targets", "strategy"])


def spent(data: Data, keys: Sequence[str]) -> pd.DataFrame:
    """Return the mean work of a search: ``evaluations`` (children), ``unique_evaluations``, ``gradients``,
    ``predictor_rows`` (unique evaluations and gradients together, in rows of the predictor) and ``cpu_s`` on
    one core. A value is NaN if a folder did not record it.
    """
    counted = ["evaluations", "unique_evaluations", "gradients", "predictor_rows"]
    searches = data.searches.groupby([*keys, "folder", "search_id"], observed=True)
    totals = searches[counted].sum(min_count=1)
    incomplete = searches["predictor_rows"].count() < searches.size()
    totals["predictor_rows"] = totals["predictor_rows"].mask(incomplete)
    totals["incomplete"] = incomplete
    means = totals.groupby(list(keys), observed=True).mean()
    means["predictor_rows"] = means["predictor_rows"].mask(means.pop("incomplete") > 0)
    seconds = (
        timings(data, "search_cpu_s", keys)
        .groupby(list(keys), observed=True)["search_cpu_s"]
        .agg(["mean", "count", "size"])
    )
    means["cpu_s"] = seconds["mean"].where(seconds["count"] == seconds["size"])
    return means.reset_index()


def single_target(data: Data) -> pd.DataFrame:
    """Return the frame `single_target` of :class:`Summary`."""
    keys = ["setting", "space", "clock", "strategy", "k", "targets", "target", "cost_unit"]
    frame = _timed(timings(data, "wall_s", keys), "wall_s", keys)
    return ordered(frame, ["setting", "clock", "k", "targets", "target", "strategy"])


def _timed(units: pd.DataFrame, value: str, keys: Sequence[str]) -> pd.DataFrame:
    records, cells = [], []
    for key, group in units.groupby(list(keys), sort=False):
        cell = group[value].to_numpy(float)
        cells.append(cell)
        sizes = sorted({int(size) for size in group["batch_size"]})
        records.append(
            {
                **dict(zip(keys, key, strict=True)),
                **statistics_of(cell),
                "searches": int(group["searches"].sum()),
                "batch_size": str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}",
            }
        )
    frame = pd.DataFrame(records).drop(columns="iqm")
    frame[["low", "high"]] = stats.intervals(cells)
    frame["interval"] = [stats.method(len(cell)) for cell in cells]
    return frame


def missing(part: Loaded) -> pd.DataFrame:
    """Return the searches of a sweep that have no rows, one row for each group: space, strategy, targets,
    promised, missing, seeds.
    """
    spec = part.manifest.get("spec", {})
    rows = part.searches.drop_duplicates("search_id")
    rows = rows.assign(_targets=rows["targets"].map(tuple))
    keys = ["space", "label", "_targets"]
    have = {(*key, None): set(group["seed"]) for key, group in rows.groupby(keys)}
    have |= {key: set(group["seed"]) for key, group in rows.groupby([*keys, "cost_name"])}
    records = []
    seeds = list(spec.get("seeds", []))
    for space in spec.get("spaces", []):
        for _, strategy, _ in map(labelled, spec.get("strategies", [])):
            for targets, cost in promised_sets(part.manifest, space):
                absent = sorted(set(seeds) - have.get((space, strategy, targets, cost), set()))
                (label,) = set_names([targets])
                label += f" under {cost}" if cost else ""
                records.append((space, strategy, label, len(seeds), len(absent), " ".join(map(str, absent))))
    frame = pd.DataFrame(records, columns=["space", "strategy", "targets", "promised", "missing", "seeds"])
    return frame if frame["missing"].any() else frame.iloc[:0]


def _cells(rows: pd.DataFrame, value: str) -> dict[Any, np.ndarray[Any, Any]]:
    groups = rows.groupby(["k", "targets"], observed=True)
    return {key: cell[value].to_numpy(float) for key, cell in groups}


_FITTED = ("slope", "intercept", "further", "exponent")


def growth(data: Data) -> pd.DataFrame:
    """Return the frame `growth` of :class:`Summary`.

    The exponent comes from the logarithms of the same means as the line. Intervals come from a bootstrap
    within each target set, or from Student's t on the line if a set has fewer than ``stats.STUDENT``
    timings."""
    records = []
    clocked = ["setting", "space", "clock", "strategy"]
    for value, unit in (("search_wall_s", "s"), ("search_cpu_s", "CPU s")):
        seconds = timings(data, value, [*clocked, "k", "targets"]).dropna(subset=value)
        for (setting, space, clock, strategy), group in seconds.groupby(clocked, sort=False, observed=True):
            facts = {"setting": setting, "space": space, "strategy": strategy, "unit": unit, "clock": clock}
            records.append({**facts, **fit_growth(_cells(group, value))})
    rows = data.distinct()
    counted = rows.groupby(
        ["setting", "space", "strategy", "k", "targets", "search_id"], sort=False, observed=True
    )
    for value, unit in (("evaluations", "evaluations"), ("predictor_rows", "predictor rows")):
        totals = counted[value].sum(min_count=1).reset_index().dropna(subset=value)
        for (setting, space, strategy), group in totals.groupby(
            ["setting", "space", "strategy"], sort=False, observed=True
        ):
            facts = {"setting": setting, "space": space, "strategy": strategy, "unit": unit, "clock": "any"}
            records.append({**facts, **fit_growth(_cells(group, value))})
    return ordered(pd.DataFrame(records), ["setting", "clock", "strategy"])


def fit_growth(cells: Mapping[Any, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Return the fits of :func:`growth` for cells by (k, target set); NaN with fewer than two different k."""
    k = np.array([key[0] for key in cells], float)
    sizes = np.array([len(cell) for cell in cells.values()])
    facts = {"n": int(sizes.sum()), "n_k": len(np.unique(k))}
    if facts["n_k"] < 2:
        nothing = {f"{name}{end}": math.nan for name in _FITTED for end in ("", "_low", "_high")}
        return {**facts, **nothing, "sublinear": "one k only", "interval": "none"}
    means = np.array([[cell.mean() for cell in cells.values()]])
    fitted = _line_and_power(k, means)[:, 0]
    if all(np.ptp(cell) == 0 for cell in cells.values()) and sizes.max() > 1:
        bounds, method = np.stack([fitted, fitted]), "exact: no spread"
    elif sizes.min() >= stats.STUDENT:
        resamples = stats.resamples_for(int(sizes.max()))
        columns = [
            stats.resampled_means(cell[:, None], stream=i + 1)[:resamples]
            for i, cell in enumerate(cells.values())
        ]
        spread = _line_and_power(k, np.concatenate(columns, axis=1))
        bounds, method = stats.percentiles(spread.T, int(sizes.min())), "bootstrap"
    else:
        at, level = _means_by_k(k, means)
        line, power = stats.line_fit(at, level[0]), stats.line_fit(np.log(at), np.log(level[0]))
        parts = (line["slope"], line["intercept"], (0.0, math.nan, math.nan), power["slope"])
        bounds, method = np.array([part[1:] for part in parts]).T, "Student's t"
    if np.isnan(bounds[:, 3]).any():
        verdict, method = "no interval", "none"
    else:
        verdict = "yes" if bounds[1, 3] < 1 - 1e-9 else "no" if bounds[0, 3] >= 1 - 1e-9 else "undecided"
    values = {
        f"{name}{end}": float(value)
        for i, name in enumerate(_FITTED)
        for end, value in (("", fitted[i]), ("_low", bounds[0, i]), ("_high", bounds[1, i]))
    }
    return {**facts, **values, "sublinear": verdict, "interval": method}


def _means_by_k(
    k: np.ndarray[Any, Any], means: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the different k and, from means (R, sets), the mean (R, different k) of the sets of each k."""
    at, index = np.unique(k, return_inverse=True)
    return at, means @ (np.eye(len(at))[index] / np.bincount(index))


def _line_and_power(k: np.ndarray[Any, Any], means: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return slope, intercept, further and exponent (4, R) of the means (R, sets). Each k has the same
    weight.
    """
    at, level = _means_by_k(k, means)
    centred, log_k = at - at.mean(), np.log(at) - np.log(at).mean()
    slope = level @ centred / (centred**2).sum()
    intercept = level.mean(axis=1) - slope * at.mean()
    exponent = np.log(level) @ log_k / (log_k**2).sum()
    intercept[np.abs(intercept) < 1e-9 * level.mean()] = 0.0  # rounding error of a line through the origin
    first = intercept + slope
    return np.stack([slope, intercept, slope / np.where(first > 0, first, math.nan), exponent])
