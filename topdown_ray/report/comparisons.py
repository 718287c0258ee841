"""Compare strategies: paired differences, anytime curves, effort to reach an accuracy, fronts and regret.

The functions take and return data frames."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from topdown_ray import stats
from topdown_ray.errors import UserError
from topdown_ray.report.labelling import Data
from topdown_ray.report.tables import spent, widest
from topdown_ray.strategy_styles import strategy_rank

# the default levels to be reached, as distances below the best accuracy known for a target
GAPS = (
    0.01,
    0.005,
    0.002,
)
FLOOR = 0.75  # accuracy of the reference point; architectures below it add nothing to a hypervolume
# cost of the reference point relative to the loosest target; above 1 so that the answer for it counts as well
BEYOND = 1.1
GRID_POINTS = 40
CURVE_RESAMPLES = 2_000  # enough for the edges of a band, which has many points


def differences(data: Data) -> pd.DataFrame:
    """Return the accuracy of one strategy minus that of another, paired by seed and target, for each setting,
    target set and target.

    A row with target NaN is the mean over the set's targets in each search. low, high: interval of the mean
    difference. improvement: the share of pairs in which ``strategy`` is better, where a tie counts half, with
    Wilson's interval. p: p-value of the paired permutation test (random signs); p_holm: corrected for the
    targets of the set."""
    rows = data.distinct()
    rows = rows[rows["feasible"]]
    keys = ["setting", "space", "k", "targets", "cost_unit"]
    records: list[dict[str, Any]] = []
    cells: list[stats.Array] = []
    families: list[range] = []
    for key, group in rows.sort_values("k", ascending=False, kind="stable").groupby(keys, sort=False):
        wide = group.set_index(["target", "seed", "strategy"])["accuracy"].unstack("strategy")
        names = sorted(wide.columns, key=strategy_rank)
        for against, strategy in itertools.combinations(names, 2):
            delta = (wide[strategy] - wide[against]).dropna()
            if delta.empty:
                continue
            facts = {**dict(zip(keys, key, strict=True)), "strategy": strategy, "against": against}
            first = len(records)
            for target, cell in delta.groupby(level="target"):
                records.append({**facts, "target": target})
                cells.append(cell.to_numpy(float))
            families.append(range(first, len(records)))
            table = delta.unstack("target").dropna()
            if table.shape[1] > 1 and len(table):
                records.append({**facts, "target": math.nan})
                cells.append(table.mean(axis=1).to_numpy(float))
    columns = [*keys, "strategy", "against", "target"]
    frame = pd.DataFrame(records, columns=columns)
    n = np.array([len(cell) for cell in cells], float)
    frame["n"] = n.astype(int)
    frame["ties"] = [int((cell == 0).sum()) for cell in cells]
    frame["mean"] = [float(cell.mean()) for cell in cells]
    frame[["low", "high"]] = stats.intervals(cells)
    frame["interval"] = [stats.method(len(cell)) for cell in cells]
    share = np.array([stats.improvement(cell) for cell in cells])
    frame["improvement"] = share
    frame["improvement_low"], frame["improvement_high"] = stats.wilson(share * n, n)
    frame["p"] = stats.sign_flip_p(cells)
    corrected = np.full(len(frame), np.nan)
    for family in families:
        corrected[family] = stats.holm(frame["p"].to_numpy()[family])
    frame["p_holm"] = np.where(frame["target"].isna(), frame["p"], corrected)
    return frame


def _of_widest(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["targets"] == frame["setting"].map(widest(frame))]


def traces(data: Data, rows: pd.DataFrame) -> tuple[NDArray[Any], stats.Array, stats.Array]:
    """Return the points of these rows' anytime curves, one curve after another: the place of the row,
    evaluations and best accuracy of each point.
    """
    answers = rows["answer"].to_numpy()
    begin, n = data.curves[answers], np.diff(data.curves)[answers]
    curve = np.repeat(np.arange(len(rows), dtype=np.int32), n)
    points = np.arange(len(curve)) + np.repeat(begin - (np.cumsum(n) - n), n)
    return curve, data.trace["evaluations"].to_numpy()[points], data.trace["best_accuracy"].to_numpy()[points]


def _spread(values: NDArray[Any], most: int) -> NDArray[Any]:
    """At most this many of the sorted values, evenly spread and including both ends."""
    places = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    chosen: NDArray[Any] = values[places]
    return chosen


def curves(data: Data, most: int | None = None) -> pd.DataFrame:
    """Return the inter-quartile mean of the best accuracy against the evaluations spent on a target, for each
    setting's widest target set. most: the largest number of targets, from the loosest to the tightest; None
    for all.

    Evaluations are counted within the target, without those for earlier targets.
    """
    keys = ["setting", "space", "strategy", "k", "targets", "target", "cost_unit"]
    rows = _of_widest(data.distinct())
    if most is not None:
        chosen = pd.Series(False, index=rows.index)
        for setting, targets in rows.groupby("setting", observed=True)["target"].unique().items():
            chosen |= (rows["setting"] == setting) & rows["target"].isin(_spread(np.sort(targets), most))
        rows = rows[chosen]
    records: list[dict[str, Any]] = []
    cells: list[stats.Array] = []
    for key, own in rows.groupby(keys, sort=False, observed=True):
        curve, spent, best = traces(data, own)
        if not len(curve):
            continue
        evaluations = spent.astype(np.float64)
        most = max(evaluations.max(), 1.0)  # a joint search may have drawn no child for a target
        steps = np.round(np.geomspace(max(evaluations.min(), 1.0), most, GRID_POINTS))
        grid = np.unique(np.append(steps, evaluations.max())).astype(np.float64)
        codes, _ = pd.factorize(curve)
        values = stats.step_values(codes, evaluations, best.astype(np.float64), grid)
        for i in np.flatnonzero(~np.isnan(values).any(axis=0)):
            records.append({**dict(zip(keys, key, strict=True)), "evaluations": grid[i]})
            cells.append(values[:, i])
    frame = pd.DataFrame(records, columns=[*keys, "evaluations"])
    frame["n"] = [len(cell) for cell in cells]
    frame["iqm"] = [stats.trimmed_mean(cell) for cell in cells]
    frame[["low", "high"]] = stats.intervals(cells, stats.QUARTER, CURVE_RESAMPLES)
    return frame


def reach(data: Data, levels: Sequence[float] = ()) -> pd.DataFrame:
    """Return the effort within a target to reach a given accuracy, for each setting's widest target set and
    each clock: evaluations, seconds, predictor rows, CPU seconds.

    levels: top-1 as fractions; by default ``GAPS`` below the best accuracy that any search found for the
    target. Searches that never reached a level count as infinitely late, so the median is NaN if half or more
    of them did not. Seconds, predictor rows and CPU seconds are computed from the evaluations at the search's
    mean rate within the target."""
    rows = _of_widest(
        data.searches.drop_duplicates(["setting", "clock", "search_id", "target_index"])
    ).reset_index(drop=True)
    curve, spent_there, reached = traces(data, rows)
    best = rows.groupby(["setting", "target"])["accuracy"].transform("max")
    rates = {name: _rate(rows, column) for name, column in _SPENT.items()}
    wanted = [(level, pd.Series(level, index=rows.index)) for level in levels] or [
        (-gap, best - gap) for gap in GAPS
    ]
    keys = ["setting", "space", "clock", "k", "targets", "target", "cost_unit", "strategy"]
    frames = []
    for order, (_, level) in enumerate(wanted):
        good = reached >= level.to_numpy()[curve] - 1e-12
        first = np.full(len(rows), math.inf)
        np.minimum.at(first, curve[good], spent_there[good])
        table = rows[keys].assign(order=order, level=level, evaluations=first, reached=np.isfinite(first))
        table = table.assign(**{name: _at_rate(first, rate) for name, rate in rates.items()})
        groups = table.groupby([*keys, "order", "level"], sort=False)
        median = {name: (name, "median") for name in ("evaluations", *_SPENT)}
        frames.append(groups.agg(n=("reached", "size"), reached=("reached", "sum"), **median).reset_index())
    frame = pd.concat(frames, ignore_index=True).replace([math.inf], math.nan)
    frame["rank"] = [strategy_rank(strategy) for strategy in frame["strategy"]]
    by = ["setting", "clock", "target", "order", "rank"]
    return frame.sort_values(by, kind="stable").drop(columns=["order", "rank"]).reset_index(drop=True)


# kind of effort -> the column of searches that counts it
_SPENT = {"seconds": "wall_s", "predictor_rows": "predictor_rows", "cpu_s": "cpu_s"}
_CLOCKED = ("wall_s", "cpu_s")


def _rate(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return how much of a column each search spent per evaluation within the target.

    A search that was not timed gets the mean of the searches that were. A group is NaN if the column has no
    value for one of its searches."""
    like = [rows[name] for name in ("setting", "clock", "strategy", "targets", "target")]
    rate: pd.Series = rows[column] / rows["evaluations"].clip(lower=1)  # a target may have had no child
    if column in _CLOCKED:
        rate = rate.where(rows["timed"])
        rate = rate.fillna(rate.groupby(like).transform("mean"))
    known: pd.Series = rows[column].notna() & rate.notna()
    return rate.where(known.groupby(like).transform("all"))


def _at_rate(evaluations: stats.Array, rate: pd.Series) -> stats.Array:
    """The cost of these evaluations: infinity for infinitely many, NaN if the rate is not known."""
    known = np.where(np.isfinite(evaluations), evaluations, 0.0) * rate.to_numpy(float)
    return np.where(np.isnan(known) | np.isfinite(evaluations), known, math.inf)


def fronts(data: Data, floor: float = FLOOR, reference: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the hypervolume of each search's front, for each setting, strategy and target set of two or more
    targets.

    The reference point is (``BEYOND`` times the set's loosest target, ``floor``). The unit is that of the
    cost times percentage points. With a reference front (:func:`read_reference`) the table also has the
    distance to it (IGD+). low, high: interval of the mean over searches."""
    rows = data.distinct()
    rows = rows[rows["feasible"] & (rows["k"] > 1)]
    keys = ["setting", "space", "k", "targets", "cost_unit", "strategy"]
    records: list[dict[str, Any]] = []
    volumes: list[stats.Array] = []
    distances: list[stats.Array] = []
    for key, group in rows.groupby(keys, sort=False):
        codes, identities = pd.factorize(group["search_id"])
        limit = BEYOND * float(group["target"].max())
        cost, accuracy = group["cost"].to_numpy(float), group["accuracy"].to_numpy(float)
        volumes.append(100 * stats.hypervolume(codes, cost, accuracy, limit, floor))
        records.append(
            {**dict(zip(keys, key, strict=True)), "reference_cost": limit, "reference_accuracy": floor}
        )
        if reference is not None:
            ours = known_for(reference, group.iloc[0])
            points = np.stack([cost, accuracy], axis=1)
            known = ours[["cost", "accuracy"]].to_numpy(float)
            each = [
                stats.igd_plus(points[codes == i], known) if len(known) else math.nan
                for i in range(len(identities))
            ]
            distances.append(np.array(each))
    frame = pd.DataFrame(records, columns=[*keys, "reference_cost", "reference_accuracy"])
    frame["n"] = [len(cell) for cell in volumes]
    frame["hypervolume"] = [float(cell.mean()) for cell in volumes]
    frame["sd"] = [float(cell.std(ddof=1)) if len(cell) > 1 else math.nan for cell in volumes]
    frame[["low", "high"]] = stats.intervals(volumes)
    frame["interval"] = [stats.method(len(cell)) for cell in volumes]
    if reference is not None:
        frame["distance"] = [float(cell.mean()) for cell in distances]
        frame[["distance_low", "distance_high"]] = stats.intervals(distances)
    return frame


def regret(data: Data, reference: pd.DataFrame) -> pd.DataFrame:
    """Return the regret of each strategy against a reference front, for each setting, target set and target;
    low, high: interval of the mean.

    The reference for a target is the front's most accurate architecture that meets it. A row with target NaN
    is the mean over the set's targets in each search. predictor_rows, cpu_s: see :func:`spent_of_sets`. The
    table is empty if the front belongs to another space, cost table or predictor."""
    rows = data.distinct()
    rows = rows[rows["feasible"] & rows["accuracy"].notna()]
    keys = [
        "setting",
        "space",
        "cost_name",
        "cost_sha256",
        "predictor_sha256",
        "k",
        "targets",
        "cost_unit",
        "strategy",
    ]
    records: list[dict[str, Any]] = []
    cells: list[stats.Array] = []
    for key, group in rows.groupby(keys, sort=False):
        facts = dict(zip(keys, key, strict=True))
        known = known_for(reference, facts)
        best = {
            target: known.loc[known["cost"] <= target, "accuracy"].max()
            for target in group["target"].unique()
        }
        regrets = group.assign(regret=group["target"].map(best).astype(float) - group["accuracy"]).dropna(
            subset="regret"
        )
        table = regrets.set_index(["search_id", "target"])["regret"].unstack("target")
        for target in sorted(table.columns, reverse=True):
            records.append({**facts, "target": target, "best": best[target]})
            cells.append(table[target].dropna().to_numpy(float))
        if table.shape[1] > 1:
            whole = table.dropna()
            records.append(
                {
                    **facts,
                    "target": math.nan,
                    "best": float(np.mean([best[target] for target in table.columns])),
                }
            )
            cells.append(whole.mean(axis=1).to_numpy(float))
    frame = pd.DataFrame(records, columns=[*keys, "target", "best"])
    frame["regret"] = [float(cell.mean()) if len(cell) else math.nan for cell in cells]
    frame["sd"] = [float(cell.std(ddof=1)) if len(cell) > 1 else math.nan for cell in cells]
    frame["n"] = [len(cell) for cell in cells]
    frame[["low", "high"]] = stats.intervals(cells)
    frame["interval"] = [stats.method(len(cell)) for cell in cells]
    if frame.empty:
        return frame.assign(predictor_rows=math.nan, cpu_s=math.nan)
    return frame.merge(spent_of_sets(data), how="left")


def spent_of_sets(data: Data) -> pd.DataFrame:
    """Return the mean ``predictor_rows`` and ``cpu_s`` of a whole search, for each setting, strategy and
    target set.

    cpu_s is NaN if the searches were timed by several clocks, which cannot be averaged."""
    keys = ["setting", "space", "strategy", "k", "targets"]
    frame = spent(data, keys)[[*keys, "predictor_rows", "cpu_s"]]
    clocks = data.searches.groupby(keys, observed=True)["clock"].nunique().reset_index()
    return frame.assign(cpu_s=frame["cpu_s"].where(frame.merge(clocks, how="left")["clock"] == 1))


def unlike(data: Data, reference: pd.DataFrame | None) -> list[str]:
    """Return a warning if no data has the reference front's space, cost table and predictor."""
    cases = data.searches[["space", "cost_name", "cost_sha256", "predictor_sha256"]].drop_duplicates()
    if reference is None or not all(known_for(reference, case).empty for _, case in cases.iterrows()):
        return []
    return [
        "The reference front belongs to another space, cost table or predictor. The report therefore has no "
        "regret against it and no distance to it."
    ]


def read_reference(path: Path) -> pd.DataFrame:
    """Read a reference front from a CSV file with the columns cost, accuracy (a fraction) and, for several
    spaces, space. Raises UserError.
    """
    try:
        frame = pd.read_csv(path, comment="#")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: expected a CSV file with columns cost and accuracy, found {error}"
        ) from error
    for column in ("cost", "accuracy"):
        if column not in frame:
            raise UserError(f"{path}: expected a column {column}, found {', '.join(map(str, frame.columns))}")
        numbers = pd.to_numeric(frame[column], errors="coerce")
        if numbers.isna().any() or frame.empty:
            raise UserError(f"{path}: {column}: expected numbers, found {frame[column].tolist()[:5]}")
    if not frame["accuracy"].between(0, 1).all():
        raise UserError(
            f"{path}: accuracy: expected fractions from 0 to 1, found {frame['accuracy'].max():g}"
        )
    # the predictor and table that made the front, if its file has them: others must not be compared with it
    for line in path.read_text().splitlines():
        name, _, value = line.removeprefix("# ").partition(" ")
        if line.startswith("# ") and name in ("cost_sha256", "predictor_sha256"):
            frame[name] = value.strip()
    return frame


def known_for(reference: pd.DataFrame, case: Mapping[str, Any] | pd.Series) -> pd.DataFrame:
    """Return the rows of a reference front with the same space, cost table and predictor, as far as its file
    names them.
    """
    for column in ("space", "cost_name", "cost_sha256", "predictor_sha256"):
        if column in reference:
            reference = reference[reference[column] == case[column]]
    return reference
