"""Tables of a sweep's outcome: accuracy for each target, time and how it grows with the number of targets. Frames in, frames out.

A *setting* is what makes two searches comparable: space, protocol, cost table, predictor and hyper-parameters. A *clock* is how a
time was taken: of lone searches, or amortised over a batch; the two never meet in one number. All searches of a batch share its
time, so a batch is one timing, however many searches it holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from topdown_ray import stats
from topdown_ray.errors import UserError

LONE = "lone searches"
AMORTISED = "amortised over batches"
PUBLISHED = "published (another machine)"

STRATEGY_ORDER = ("random", "independent", "bottom_up", "top_down", "prune", "joint")

_NEEDED = ["search_id", "shard_id", "space", "strategy", "seed", "k", "targets", "target_index", "target", "accuracy", "cost"]
_NEEDED += ["evaluations", "wall_s", "search_wall_s", "batch_size"]
_DEFAULTS: dict[str, Any] = {  # for columns that an older schema lacks
    **dict.fromkeys(("predictor_name", "cost_sha256", "predictor_sha256", "cost_unit", "device"), ""),
    "protocol": "default",
    "cost_name": "cost",
    "threads": 0,
    "feasible": True,
}
_SETTING = ("protocol", "predictor_name", "cost_sha256", "predictor_sha256", "search", "algorithm")


class Loaded(Protocol):
    """What :func:`topdown_ray.load` returns, as far as it matters here."""

    @property
    def manifest(self) -> dict[str, Any]:
        """run.json."""

    @property
    def searches(self) -> pd.DataFrame:
        """A row a search and target."""

    @property
    def trace(self) -> pd.DataFrame:
        """The anytime curves."""


@dataclass(frozen=True)
class Data:
    """The rows of one or more folders, labelled: ``setting``, ``clock``, ``folder``, and ``targets`` as text."""

    searches: pd.DataFrame
    trace: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    def distinct(self) -> pd.DataFrame:
        """Every search once, though several folders may hold it: the same search has the same answer."""
        return self.searches.drop_duplicates(["search_id", "target_index"])


class Summary(NamedTuple):
    """The tables of :meth:`topdown_ray.Results.summary`."""

    accuracy: pd.DataFrame
    time: pd.DataFrame
    growth: pd.DataFrame
    single_target: pd.DataFrame


def summary(*parts: Loaded) -> Summary:
    """Accuracy for each target, time against the number of targets, its growth, time of a single target. Raises UserError."""
    data = prepare(parts)
    return Summary(accuracy(data), time(data), growth(data), single_target(data))


def prepare(parts: Sequence[Loaded], names: Sequence[str] | None = None) -> Data:
    """Put the rows of one or more result folders together. names: of the folders, for messages. Raises UserError."""
    names = [str(part.manifest.get("spec", {}).get("name", i)) for i, part in enumerate(parts)] if names is None else names
    searches = pd.concat([_labelled(part, i, name) for i, (part, name) in enumerate(zip(parts, names, strict=True))])
    searches["setting"] = _settings(searches)
    searches["clock"] = _clocks(searches)
    searches = _ordered(searches.reset_index(drop=True), ["setting", "k", "targets", "strategy", "seed", "target_index"])
    needed = ["search_id", "target_index", "evaluations", "best_accuracy"]
    traces = pd.concat([part.trace[needed].assign(folder=i) for i, part in enumerate(parts)], ignore_index=True)
    disagree = searches.groupby(["search_id", "target_index"])["accuracy"].nunique()
    notes = []
    if (disagree > 1).any():
        notes.append(
            f"{int((disagree > 1).sum())} answers differ between folders that hold the same search; the first is used."
        )
    return Data(searches, traces, notes)


def _labelled(part: Loaded, folder: int, name: str) -> pd.DataFrame:
    rows = part.searches
    if rows.empty:
        raise UserError(f"{name}: expected at least one finished search, found none")
    schema = part.manifest.get("schema", "unknown")
    for column in _NEEDED:
        if column not in rows or rows[column].isna().all():
            raise UserError(f"{name}: expected the column {column} in searches, found none (schema version {schema})")
    spec = part.manifest.get("spec", {})
    machine = part.manifest.get("machine", {}).get("processor", "")
    for column, value in _DEFAULTS.items():
        filled: Any = rows[column].astype(object).fillna(value) if column in rows else value
        rows = rows.assign(**{column: filled})
    return rows.assign(
        feasible=rows["feasible"].astype(bool),
        targets=[" ".join(f"{target:g}" for target in targets) for targets in rows["targets"]],
        search=json.dumps(spec.get("search", {}), sort_keys=True),
        algorithm=str(part.manifest.get("algorithm", "")),
        processor=machine,
        folder=folder,
    )


def _settings(rows: pd.DataFrame) -> pd.Series:
    """Labels of the settings: space and cost, and only what else is needed to tell two of them apart."""
    base = rows["space"] + " on " + rows["cost_name"].astype(str)
    base = base.where(rows["protocol"] != "notebook", base + " (notebook protocol)")
    settings = rows.assign(base=base)[["base", *_SETTING]].drop_duplicates()
    labels: dict[tuple[Any, ...], str] = {}
    for label, group in settings.groupby("base", sort=False):
        varying = [column for column in _SETTING if group[column].nunique() > 1]
        for row in group.to_dict("records"):
            extra = [_short(column, row[column], group[column]) for column in varying]
            labels[(label, *(row[column] for column in _SETTING))] = ", ".join([str(label), *extra])
    keys = zip(base, *(rows[column] for column in _SETTING), strict=True)
    return pd.Series([labels[key] for key in keys], index=rows.index)


def _short(column: str, value: str, values: pd.Series) -> str:
    if column != "search":
        return f"{column.removesuffix('_sha256')} {value[:8]}"
    parsed = [json.loads(other) for other in values]
    mine = json.loads(value)
    return ", ".join(f"{key} {mine[key]}" for key in mine if len({str(other.get(key)) for other in parsed}) > 1)


def _clocks(rows: pd.DataFrame) -> pd.Series:
    """How each row was timed; device and processor only where more than one took part."""
    mode: Any = pd.Series(np.where(rows["batch_size"] == 1, LONE, AMORTISED), index=rows.index)
    where = rows["device"].astype(str) + ", " + rows["threads"].astype(str) + " threads, " + rows["processor"]
    clocks: pd.Series = mode if where.nunique() == 1 else mode.str.cat(where, sep=" on ")
    return clocks


def strategy_rank(strategy: str) -> tuple[int, str]:
    """Sorts the known strategies in a fixed order, others by name behind them."""
    return (STRATEGY_ORDER.index(strategy) if strategy in STRATEGY_ORDER else len(STRATEGY_ORDER), strategy)


def _ordered(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    ranks = {name: rank for rank, name in enumerate(sorted(frame["strategy"].unique(), key=strategy_rank))}
    keys = frame.assign(strategy=frame["strategy"].map(ranks))[list(by)]
    return frame.loc[keys.sort_values(list(by), kind="stable").index].reset_index(drop=True)


def widest(frame: pd.DataFrame) -> dict[str, str]:
    """For each setting, the target set with the most targets (of several, the one with most rows)."""
    counts = frame.groupby(["setting", "k", "targets"]).size().reset_index(name="rows")
    best = counts.sort_values(["k", "rows"], kind="stable").groupby("setting").tail(1)
    return dict(zip(best["setting"], best["targets"], strict=True))


def describe(values: np.ndarray[Any, Any]) -> dict[str, float]:
    """n, mean, standard deviation, median and inter-quartile mean of a cell; NaN where there are too few values."""
    n = len(values)
    return {
        "n": n,
        "mean": float(values.mean()) if n else math.nan,
        "sd": float(values.std(ddof=1)) if n > 1 else math.nan,
        "median": float(np.median(values)) if n else math.nan,
        "iqm": stats.trimmed_mean(values),
    }


def accuracy(data: Data) -> pd.DataFrame:
    """Predicted top-1 (a fraction) for each setting, target set, strategy and target; low, high: of the inter-quartile mean.

    Target sets are kept apart: the same seed can give the same answer in two of them, which must not count twice.
    """
    keys = ["setting", "space", "strategy", "k", "targets", "target", "cost_unit"]
    records, cells = [], []
    for key, group in data.distinct().groupby(keys, sort=False):
        feasible = group["feasible"] & group["accuracy"].notna()
        cell = group.loc[feasible, "accuracy"].to_numpy(float)
        cells.append(cell)
        records.append({**dict(zip(keys, key, strict=True)), **describe(cell), "infeasible": int((~feasible).sum())})
    frame = pd.DataFrame(records)
    frame[["low", "high"]] = stats.intervals(cells, stats.QUARTER)
    return _ordered(frame.assign(order=-frame["k"]), ["setting", "order", "targets", "target", "strategy"]).drop(
        columns="order"
    )


def timings(data: Data, value: str, keys: Sequence[str]) -> pd.DataFrame:
    """One row a timing (a batch, or a lone search): keys and ``value``, with ``searches`` and ``batch_size``."""
    once = data.searches.drop_duplicates(["folder", "search_id", *(["target_index"] if "target" in keys else [])])
    groups = once.groupby(["folder", "shard_id", *keys], sort=False)
    return groups.agg(
        **{value: (value, "mean"), "searches": ("search_id", "nunique"), "batch_size": ("batch_size", "first")}
    ).reset_index()


def time(data: Data) -> pd.DataFrame:
    """Seconds of a whole search for each setting, clock, strategy and target set; low, high: of the mean; n: timings."""
    keys = ["setting", "space", "clock", "strategy", "k", "targets"]
    frame = _timed(timings(data, "search_wall_s", keys), "search_wall_s", keys)
    counted = ("evaluations", "unique_evaluations", "gradients")
    extra = [column for column in counted if column in data.searches and data.searches[column].notna().any()]
    totals = data.searches.groupby([*keys, "folder", "search_id"])[extra].sum(min_count=1).groupby(keys).mean().reset_index()
    return _ordered(frame.merge(totals, on=keys), ["setting", "clock", "k", "targets", "strategy"])


def single_target(data: Data) -> pd.DataFrame:
    """Seconds spent on one target: alone (k = 1), or its share of a search for k targets; low, high: of the mean."""
    keys = ["setting", "space", "clock", "strategy", "k", "targets", "target", "cost_unit"]
    frame = _timed(timings(data, "wall_s", keys), "wall_s", keys)
    return _ordered(frame, ["setting", "clock", "k", "targets", "target", "strategy"])


def _timed(units: pd.DataFrame, value: str, keys: Sequence[str]) -> pd.DataFrame:
    records, cells = [], []
    for key, group in units.groupby(list(keys), sort=False):
        cell = group[value].to_numpy(float)
        cells.append(cell)
        sizes = sorted({int(size) for size in group["batch_size"]})
        records.append(
            {
                **dict(zip(keys, key, strict=True)),
                **describe(cell),
                "searches": int(group["searches"].sum()),
                "batch_size": str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}",
            }
        )
    frame = pd.DataFrame(records).drop(columns="iqm")
    frame[["low", "high"]] = stats.intervals(cells)
    return frame


_FITTED = ("slope", "intercept", "further", "exponent")


def growth(data: Data) -> pd.DataFrame:
    """How a strategy's cost grows with the number of targets k, in seconds (for each clock) and in evaluations.

    slope, intercept: of the line through the means at each k. further: what one more target costs relative to the fitted cost of the
    first. exponent: p in cost ~ k^p, from the logarithms of the same means; below 1 is sub-linear. Intervals come from a
    bootstrap within each target set, or from Student's t on the line where a set has fewer than ``stats.LEAST`` timings.
    """
    seconds = timings(data, "search_wall_s", ["setting", "space", "clock", "strategy", "k", "targets"])
    totals = data.distinct().groupby(["setting", "space", "strategy", "k", "targets", "search_id"], sort=False)["evaluations"]
    records = []
    for (setting, space, clock, strategy), group in seconds.groupby(["setting", "space", "clock", "strategy"], sort=False):
        cells = {key: cell["search_wall_s"].to_numpy(float) for key, cell in group.groupby(["k", "targets"])}
        facts = {"setting": setting, "space": space, "strategy": strategy, "unit": "s", "clock": clock}
        records.append({**facts, **fit_growth(cells)})
    for (setting, space, strategy), group in totals.sum().reset_index().groupby(["setting", "space", "strategy"], sort=False):
        cells = {key: cell["evaluations"].to_numpy(float) for key, cell in group.groupby(["k", "targets"])}
        facts = {"setting": setting, "space": space, "strategy": strategy, "unit": "evaluations", "clock": "any"}
        records.append({**facts, **fit_growth(cells)})
    return _ordered(pd.DataFrame(records), ["setting", "clock", "strategy"])


def fit_growth(cells: Mapping[Any, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """The fits of :func:`growth`: cells by (k, target set). NaN with fewer than two different k."""
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
    elif sizes.min() >= stats.LEAST:
        resamples = stats.resamples_for(int(sizes.max()))
        columns = [stats.resampled_means(cell[:, None], stream=i + 1)[:resamples] for i, cell in enumerate(cells.values())]
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


def _means_by_k(k: np.ndarray[Any, Any], means: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The different k, and the mean (R, different k) of the sets that share one, of means (R, sets)."""
    at, index = np.unique(k, return_inverse=True)
    return at, means @ (np.eye(len(at))[index] / np.bincount(index))


def _line_and_power(k: np.ndarray[Any, Any], means: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """slope, intercept, further, exponent (4, R) of the means (R, sets); every k has the same weight."""
    at, level = _means_by_k(k, means)
    centred, log_k = at - at.mean(), np.log(at) - np.log(at).mean()
    slope = level @ centred / (centred**2).sum()
    intercept = level.mean(axis=1) - slope * at.mean()
    exponent = np.log(level) @ log_k / (log_k**2).sum()
    intercept[np.abs(intercept) < 1e-9 * level.mean()] = 0.0  # of an exact line through the origin
    first = intercept + slope
    return np.stack([slope, intercept, slope / np.where(first > 0, first, math.nan), exponent])
