"""Compute statistics of repeated searches: intervals, paired tests, and quality measures of fronts.

The functions take and return arrays.

Sources: inter-quartile mean, stratified bootstrap and probability of improvement after Agarwal et al. 2021,
*Deep Reinforcement Learning at the Edge of the Statistical Precipice*; the widened percentile levels for
small samples after Hesterberg 2015, *What Teachers Should Know About the Bootstrap*; Holm 1979; Wilson 1927;
IGD+ after Ishibuchi et al. 2015.

A *cell* is the sample of one stratum, for example of a strategy at a target, with one value for each search.
Values are resampled within a cell."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special  # scipy.stats would take a second to import

Array = NDArray[np.float64]

CONFIDENCE = 0.95
QUARTER = 0.25  # the share that the inter-quartile mean leaves out on each side
RESAMPLES = 10_000
LEAST = 5  # values for an interval: even the range of four values misses the true median in 1 of 8 cases
# means of fewer values have Student's interval: the widened bootstrap of five values covers only 92.4 %
STUDENT = 8
EXACT_FLIPS = 13  # up to this many pairs, all 2^n sign patterns are enumerated

_BLOCK = 1_000_000  # numbers in a block of resamples: 8 MB
_COLUMNS = 512
_KEPT = 10_000_000  # numbers of resamples that are kept: 20 MB


def trimmed_mean(values: Array, trim: float = QUARTER) -> float:
    """Return the mean without the smallest and largest ``int(trim n)`` values, as scipy.stats.trim_mean does;
    NaN for no values.
    """
    n = len(values)
    cut = int(trim * n)
    return float(np.sort(values)[cut : n - cut].mean()) if n else math.nan


def tails(n: int, confidence: float = CONFIDENCE) -> float:
    """Return the level of the lower percentile for a sample of n, widened so that the interval has the
    coverage of Student's t (Hesterberg 2015).

    The plain percentile interval of ten values covers the mean in 90 of 100 cases instead of 95.
    """
    quantile = special.stdtrit(n - 1, (1 + confidence) / 2)
    return float(special.ndtr(-math.sqrt(n / (n - 1)) * quantile))


def resamples_for(n: int) -> int:
    """Return the number of bootstrap resamples. Very large samples need fewer, because their percentiles are
    not far in the tails.
    """
    return int(np.clip(40_000_000 // max(n, 1), 1_000, RESAMPLES))


def resampled_means(columns: Array, trim: float = 0.0, stream: int = 0, resamples: int = RESAMPLES) -> Array:
    """Return bootstrap means: columns (n, K) -> (resamples, K), each column resampled on its own.

    To resample a sorted column is to draw how often each of its ranks occurs. A trimmed mean is therefore a
    weighted sum of the sorted values, and all columns share one matrix of weights. The weights depend only on
    n and ``stream``, so that other rows of a report do not change an interval."""
    n = len(columns)
    cut = int(trim * n)
    # if they are not sorted, several columns of one cell stay paired
    ordered = np.sort(columns, axis=0) if cut else columns
    blocks = []
    for counts in _counts(n, min(resamples, resamples_for(n)), stream):
        kept = counts
        if cut:
            # how many of the kept ranks are at or below each value
            last = np.clip(np.cumsum(counts, axis=1), cut, n - cut)
            kept = np.diff(last, axis=1, prepend=cut)
        blocks.append(kept @ ordered / (n - 2 * cut))
    return np.concatenate(blocks)


def _counts(n: int, resamples: int, stream: int) -> Iterator[Array]:
    """Yield how often each of n values occurs in a resample, in blocks of rows. If there are few, they are
    kept for the next cells with the same number of values.
    """
    few = n * resamples <= _KEPT
    blocks = _kept_counts(n, resamples, stream) if few else _drawn_counts(n, resamples, stream)
    return (block.astype(np.float64) for block in blocks)


@lru_cache(maxsize=8)
def _kept_counts(n: int, resamples: int, stream: int) -> list[NDArray[Any]]:
    return [block.astype(np.min_scalar_type(n)) for block in _drawn_counts(n, resamples, stream)]


def _drawn_counts(n: int, resamples: int, stream: int) -> Iterator[NDArray[np.intp]]:
    generator = np.random.default_rng([n, stream])
    size = max(1, _BLOCK // n)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = generator.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)


def intervals(cells: Sequence[Array], trim: float = 0.0, resamples: int = RESAMPLES) -> Array:
    """Return the intervals of the (trimmed) means of cells: (number of cells, 2); NaN for a cell of fewer
    than ``LEAST`` values.

    They are bootstrap intervals, but a mean (``trim`` 0) of fewer than ``STUDENT`` values has Student's.
    :func:`method` names the one that is used."""
    result = np.full((len(cells), 2), np.nan)
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, cell in enumerate(cells):
        if method(len(cell), trim) == "Student's t":
            reach = (
                special.stdtrit(len(cell) - 1, (1 + CONFIDENCE) / 2) * cell.std(ddof=1) / math.sqrt(len(cell))
            )
            result[i] = cell.mean() - reach, cell.mean() + reach
        elif len(cell) >= LEAST:
            by_size[len(cell)].append(i)
    for n, members in by_size.items():
        for start in range(0, len(members), _COLUMNS):
            part = members[start : start + _COLUMNS]
            means = resampled_means(np.stack([cells[i] for i in part], axis=1), trim, resamples=resamples)
            result[part] = percentiles(means, n).T
    return result


def method(n: int, trim: float = 0.0) -> str:
    """Return the name of the method for the interval of a (trimmed) mean of n values."""
    return "none" if n < LEAST else "Student's t" if n < STUDENT and not trim else "bootstrap"


def welch(first: Array, second: Array) -> tuple[float, float]:
    """Return Welch's interval of mean(first) - mean(second) for two independent samples; NaN if one has fewer
    than ``LEAST`` values.
    """
    if min(len(first), len(second)) < LEAST:
        return math.nan, math.nan
    difference = float(first.mean() - second.mean())
    parts = np.array([cell.var(ddof=1) / len(cell) for cell in (first, second)])
    if parts.sum() == 0:
        return difference, difference
    freedom = parts.sum() ** 2 / (parts**2 / (np.array([len(first), len(second)]) - 1)).sum()
    reach = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2) * math.sqrt(parts.sum()))
    return difference - reach, difference + reach


def percentiles(resampled: Array, n: int) -> Array:
    """Return the interval of resampled statistics (resamples, ...) of a sample of n: (2, ...)."""
    low = tails(n)
    # each column contiguous in memory, which is twice as fast
    columns = np.ascontiguousarray(np.moveaxis(resampled, 0, -1))
    return np.asarray(np.quantile(columns, [low, 1 - low], axis=-1))


def sign_flip_p(differences: Sequence[Array]) -> Array:
    """Return the two-sided p of the paired permutation test (random signs) on the mean for each cell of
    differences; NaN for an empty cell.

    It is exact up to ``EXACT_FLIPS`` pairs, and comes from 10,000 random patterns for more. If there is no
    difference, p <= a in at most the share a of cases."""
    result = np.full(len(differences), np.nan)
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, cell in enumerate(differences):
        if len(cell):
            by_size[len(cell)].append(i)
    for n, members in by_size.items():
        for start in range(0, len(members), _COLUMNS):
            part = members[start : start + _COLUMNS]
            columns = np.stack([differences[i] for i in part], axis=1)
            # sums that are equal up to rounding count as equally extreme
            observed = np.abs(columns.sum(axis=0)) * (1 - 1e-12) - 1e-15
            extreme, patterns = np.zeros(len(part)), 0
            for signs in _signs(n):
                extreme += (np.abs(signs @ columns) >= observed).sum(axis=0)
                patterns += len(signs)
            result[part] = extreme / patterns if n <= EXACT_FLIPS else (extreme + 1) / (patterns + 1)
    return result


def _signs(n: int) -> Iterator[Array]:
    if n <= EXACT_FLIPS:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        yield 1.0 - 2.0 * bits.astype(np.float64)
        return
    generator = np.random.default_rng([n, 1])
    size = max(1, _BLOCK // n)
    for start in range(0, RESAMPLES, size):
        rows = min(size, RESAMPLES - start)
        yield 1.0 - 2.0 * generator.integers(0, 2, size=(rows, n)).astype(np.float64)


def holm(p: Array) -> Array:
    """Return Holm's step-down correction of the p-values of one family. NaN stay NaN and do not count."""
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def wilson(successes: Array, n: Array, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
    """Return Wilson's interval of a proportion. Unlike a bootstrap interval, it does not shrink to a point
    when all pairs agree.
    """
    z = float(special.ndtri((1 + confidence) / 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = successes / n
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return np.clip(centre - half, 0.0, 1.0), np.clip(centre + half, 0.0, 1.0)


def improvement(differences: Array) -> float:
    """Return the share of pairs in which the first is better, where a tie counts half (Agarwal et al. 2021,
    for pairs).
    """
    return float((differences > 0).mean() + 0.5 * (differences == 0).mean()) if len(differences) else math.nan


def line_fit(x: Array, y: Array) -> dict[str, tuple[float, float, float]]:
    """Fit the least-squares line: slope and intercept, each with Student's interval; NaN unless there are two
    different x.
    """
    if len(np.unique(x)) < 2:
        return dict.fromkeys(("slope", "intercept"), (math.nan, math.nan, math.nan))
    from scipy.stats import linregress

    fit = linregress(x, y)
    reach = special.stdtrit(len(x) - 2, (1 + CONFIDENCE) / 2) if len(x) >= LEAST else math.nan
    return {
        name: (float(value), float(value - reach * error), float(value + reach * error))
        for name, value, error in (
            ("slope", fit.slope, fit.stderr),
            ("intercept", fit.intercept, fit.intercept_stderr),
        )
    }


def hypervolume(
    search: NDArray[Any], cost: Array, accuracy: Array, cost_limit: float, accuracy_floor: float
) -> Array:
    """Return the area between each search's front and the reference point (cost_limit, accuracy_floor), with
    low cost and high accuracy as better.

    search: a code 0 .. S-1 for each row. Returns (S,), in the cost's unit times top-1 as a fraction; 0 if no
    row is better than the reference point."""
    total = np.zeros(int(search.max()) + 1 if len(search) else 0)
    order = np.lexsort((cost, search))
    codes, costs = search[order], np.minimum(cost[order], cost_limit)
    heights = _running_best(codes, np.maximum(accuracy[order] - accuracy_floor, 0.0))
    last = np.append(codes[1:] != codes[:-1], True)[: len(codes)]
    following = np.where(last, cost_limit, np.append(costs[1:], cost_limit)[: len(codes)])
    np.add.at(total, codes, heights * (following - costs))
    return total


def _running_best(codes: NDArray[Any], values: Array) -> Array:
    """Return the largest value so far within each run of equal codes (sorted); values are not negative."""
    best = values.copy()
    step = 1
    while step < len(values):
        same = codes[step:] == codes[:-step]
        if not same.any():
            break
        best[step:] = np.where(same, np.maximum(best[step:], best[:-step]), best[step:])
        step *= 2
    return best


def igd_plus(front: Array, reference: Array) -> float:
    """Return how far a front (m, 2) of (cost, accuracy) is behind a reference front (r, 2) as IGD+; 0 if it
    is behind nowhere.

    Both axes are divided by the reference front's range, so the distance has no unit.
    """
    span = np.ptp(reference, axis=0)
    scale = np.where(span > 0, span, 1.0)
    # (r, m, 2): positive numbers are worse
    behind = (front[None, :, :] - reference[:, None, :]) / scale * np.array([1.0, -1.0])
    return float(np.sqrt((np.maximum(behind, 0.0) ** 2).sum(axis=2)).min(axis=1).mean())


def step_values(curve: NDArray[Any], x: Array, y: Array, grid: Array) -> Array:
    """Evaluate step curves on a common grid: (number of curves, len(grid)); NaN before a curve's first point.

    curve: a code 0 .. C-1 for each point; x: rising within each curve. After its last point a curve keeps its
    value."""
    order = np.lexsort((x, curve))
    codes, first = curve[order], np.searchsorted(grid, x[order])  # first place of the grid from a point on
    n_curves, width = int(codes[-1]) + 1 if len(codes) else 0, len(grid) + 1
    cells = codes.astype(np.int64) * width + first
    # of several points before the same place of the grid, the last one
    last = np.append(cells[1:] != cells[:-1], True)[: len(cells)]
    point = np.full(n_curves * width, -1, np.int64)
    point[cells[last]] = np.flatnonzero(last)
    point = np.maximum.accumulate(point.reshape(n_curves, width)[:, :-1], axis=1)
    return np.where(point >= 0, np.append(y[order], np.nan)[point], np.nan)


@dataclass(frozen=True)
class Agreement:
    """How well predicted accuracies agree with measured ones. Errors are fractions. Correlations are NaN if
    all values are equal.
    """

    n: int
    kendall: float
    spearman: float
    mae: float
    bias: float  # mean of predicted - measured


def agreement(predicted: Array, measured: Array) -> Agreement:
    """Return rank correlations (Kendall's tau-b, Spearman's rho) and errors of predicted accuracies."""
    from scipy.stats import kendalltau, spearmanr

    kendall = spearman = float("nan")
    if len(measured) > 1 and np.ptp(predicted) > 0 and np.ptp(measured) > 0:
        kendall = float(kendalltau(predicted, measured).statistic)
        spearman = float(spearmanr(predicted, measured).statistic)
    difference = predicted - measured
    return Agreement(
        len(measured), kendall, spearman, float(np.abs(difference).mean()), float(difference.mean())
    )
