"""Statistics of repeated searches: intervals, paired tests, fronts. Arrays in, arrays out; no tables, no
pictures.

Sources: inter-quartile mean, stratified bootstrap and probability of improvement after Agarwal et al. 2021,
*Deep Reinforcement Learning at the Edge of the Statistical Precipice*; the widened percentile levels for
small samples after Hesterberg 2015, *What Teachers Should Know About the Bootstrap*; Holm 1979; Wilson 1927;
IGD+ after Ishibuchi et al. 2015.

A *cell* is the sample of one stratum (a strategy at a target, say): a value a search. Resampling happens
within a cell."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special  # the distributions of scipy.stats, which takes a second to import, are made of it

Array = NDArray[np.float64]

CONFIDENCE = 0.95
QUARTER = 0.25  # what the inter-quartile mean leaves out on each side
RESAMPLES = 10_000
LEAST = 5  # values for an interval: even the range of four of them misses the true median once in eight times
# a mean of fewer values has Student's interval: the widened bootstrap of five covers 92.4 % instead of 95 %
STUDENT = 8
EXACT_FLIPS = 13  # up to this many pairs, all 2^n sign patterns are enumerated

_BLOCK = 1_000_000  # numbers in a block of resamples: 8 MB
_COLUMNS = 512
_KEPT = 10_000_000  # numbers of resamples that are kept: 20 MB


def trimmed_mean(values: Array, trim: float = QUARTER) -> float:
    """The mean without the smallest and largest ``int(trim n)`` values; NaN of nothing. As
    scipy.stats.trim_mean.
    """
    n = len(values)
    cut = int(trim * n)
    return float(np.sort(values)[cut : n - cut].mean()) if n else math.nan


def tails(n: int, confidence: float = CONFIDENCE) -> float:
    """The level of the lower percentile for a sample of n: widened so that it covers as Student's t does
    (Hesterberg 2015).

    The plain percentile interval of ten values covers the mean in 90 of 100 cases instead of 95.
    """
    quantile = special.stdtrit(n - 1, (1 + confidence) / 2)
    return float(special.ndtr(-math.sqrt(n / (n - 1)) * quantile))


def resamples_for(n: int) -> int:
    """How many bootstrap resamples: fewer of very large samples, whose interval needs no far tails."""
    return int(np.clip(40_000_000 // max(n, 1), 1_000, RESAMPLES))


def resampled_means(columns: Array, trim: float = 0.0, stream: int = 0, resamples: int = RESAMPLES) -> Array:
    """Bootstrap means: columns (n, K) -> (resamples, K), each column resampled on its own.

    Resampling a sorted column is drawing how often each of its ranks occurs, so a trimmed mean is a weighted
    sum of the sorted values, and all columns share one matrix of weights. The numbers depend on n and
    ``stream`` alone: what else is in a report does not change an interval."""
    n = len(columns)
    cut = int(trim * n)
    # unsorted, several columns of one cell stay together
    ordered = np.sort(columns, axis=0) if cut else columns
    blocks = []
    for counts in _counts(n, min(resamples, resamples_for(n)), stream):
        kept = counts
        if cut:
            # how many of the kept ranks lie at or below each value
            last = np.clip(np.cumsum(counts, axis=1), cut, n - cut)
            kept = np.diff(last, axis=1, prepend=cut)
        blocks.append(kept @ ordered / (n - 2 * cut))
    return np.concatenate(blocks)


def _counts(n: int, resamples: int, stream: int) -> Iterator[Array]:
    """How often each of n values occurs in a resample: blocks of rows. Where they are few, they are kept for
    the next cells of as many values.
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
    """Intervals of the (trimmed) means of cells: (number of cells, 2); NaN for a cell of fewer than
    ``LEAST``.

    By bootstrap; of a mean (``trim`` 0) of fewer than ``STUDENT`` values, Student's. :func:`method` names
    which."""
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
    """How the interval of a (trimmed) mean of n values is made."""
    return "none" if n < LEAST else "Student's t" if n < STUDENT and not trim else "bootstrap"


def welch(first: Array, second: Array) -> tuple[float, float]:
    """Welch's interval of mean(first) - mean(second), two samples that share nothing; NaN where one has fewer
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
    """The interval of resampled statistics (resamples, ...) of a sample of n: (2, ...)."""
    low = tails(n)
    # one column in a row of memory: twice as fast
    columns = np.ascontiguousarray(np.moveaxis(resampled, 0, -1))
    return np.asarray(np.quantile(columns, [low, 1 - low], axis=-1))


def sign_flip_p(differences: Sequence[Array]) -> Array:
    """Two-sided p of the paired permutation test (random signs) on the mean, one for each cell of
    differences; NaN of nothing.

    Exact up to ``EXACT_FLIPS`` pairs, from 10,000 random patterns above. Under no difference, p <= a in at
    most a of the cases."""
    result = np.full(len(differences), np.nan)
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, cell in enumerate(differences):
        if len(cell):
            by_size[len(cell)].append(i)
    for n, members in by_size.items():
        for start in range(0, len(members), _COLUMNS):
            part = members[start : start + _COLUMNS]
            columns = np.stack([differences[i] for i in part], axis=1)
            observed = np.abs(columns.sum(axis=0)) * (1 - 1e-12) - 1e-15  # equal up to rounding is as extreme
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
    """Holm's step-down correction of the p-values of one family; NaN stay NaN and do not count."""
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def wilson(successes: Array, n: Array, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
    """Wilson's interval of a proportion; unlike a bootstrap it does not shrink to a point when all pairs
    agree.
    """
    z = float(special.ndtri((1 + confidence) / 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = successes / n
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return np.clip(centre - half, 0.0, 1.0), np.clip(centre + half, 0.0, 1.0)


def improvement(differences: Array) -> float:
    """The share of pairs in which the first is better, a tie counting half (Agarwal et al. 2021, for
    pairs).
    """
    return float((differences > 0).mean() + 0.5 * (differences == 0).mean()) if len(differences) else math.nan


def line_fit(x: Array, y: Array) -> dict[str, tuple[float, float, float]]:
    """The least-squares line: slope and intercept, each with Student's interval. Needs two different x; else
    NaN.
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
    """The area between each search's front and the reference point (cost_limit, accuracy_floor), cost down,
    accuracy up.

    search: codes 0 .. S-1, one a row. Returns (S,), in the cost's unit times top-1 as a fraction; 0 where no
    row counts."""
    total = np.zeros(int(search.max()) + 1 if len(search) else 0)
    order = np.lexsort((cost, search))
    codes, costs = search[order], np.minimum(cost[order], cost_limit)
    heights = _running_best(codes, np.maximum(accuracy[order] - accuracy_floor, 0.0))
    last = np.append(codes[1:] != codes[:-1], True)[: len(codes)]
    following = np.where(last, cost_limit, np.append(costs[1:], cost_limit)[: len(codes)])
    np.add.at(total, codes, heights * (following - costs))
    return total


def _running_best(codes: NDArray[Any], values: Array) -> Array:
    """The largest value so far within each run of equal codes (sorted); values are not negative."""
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
    """How far a front (m, 2) of (cost, accuracy) stays behind a reference front (r, 2): IGD+, 0 where it is
    nowhere behind.

    Both axes are divided by the reference front's range, so the distance has no unit.
    """
    span = np.ptp(reference, axis=0)
    scale = np.where(span > 0, span, 1.0)
    # (r, m, 2), positive is worse
    behind = (front[None, :, :] - reference[:, None, :]) / scale * np.array([1.0, -1.0])
    return float(np.sqrt((np.maximum(behind, 0.0) ** 2).sum(axis=2)).min(axis=1).mean())


def step_values(curve: NDArray[Any], x: Array, y: Array, grid: Array) -> Array:
    """Step curves on a common grid: (number of curves, len(grid)); NaN before a curve's first point.

    curve: codes 0 .. C-1, one a point; x: rising within each curve; the last point's value holds for ever
    after."""
    order = np.lexsort((x, curve))
    codes, first = curve[order], np.searchsorted(grid, x[order])  # the first place of the grid at each point
    n_curves, width = int(codes[-1]) + 1 if len(codes) else 0, len(grid) + 1
    cells = codes.astype(np.int64) * width + first
    last = np.append(cells[1:] != cells[:-1], True)[: len(cells)]  # of the points that no place lies between
    point = np.full(n_curves * width, -1, np.int64)
    point[cells[last]] = np.flatnonzero(last)
    point = np.maximum.accumulate(point.reshape(n_curves, width)[:, :-1], axis=1)
    return np.where(point >= 0, np.append(y[order], np.nan)[point], np.nan)


@dataclass(frozen=True)
class Agreement:
    """Predicted against measured accuracies. Errors in fractions; NaN where all values are equal."""

    n: int
    kendall: float
    spearman: float
    mae: float
    bias: float  # mean of predicted - measured


def agreement(predicted: Array, measured: Array) -> Agreement:
    """Rank correlations (Kendall's tau-b, Spearman's rho) and errors."""
    from scipy.stats import kendalltau, spearmanr

    kendall = spearman = float("nan")
    if len(measured) > 1 and np.ptp(predicted) > 0 and np.ptp(measured) > 0:
        kendall = float(kendalltau(predicted, measured).statistic)
        spearman = float(spearmanr(predicted, measured).statistic)
    difference = predicted - measured
    return Agreement(
        len(measured), kendall, spearman, float(np.abs(difference).mean()), float(difference.mean())
    )
