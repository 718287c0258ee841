"""Draw uniformly from all gene rows whose cost meets a limit, even if there are very few of them.

A cost is a sum of terms that read a few genes each. The genes are put into an order in which, after each of
them, later terms still read only a few of the earlier ones. The choices of those are the *state*. The
*excess* of a choice is the number of ticks by which it raises the exact cheapest completion of its state, so
the excesses of a row are never negative, and their sum is what the row costs above the cheapest architecture.
A dynamic programme counts, for every state and budget b, the completions whose excesses, each rounded down to
whole levels, sum to at most b. With these counts a row is drawn gene by gene, uniformly from all rows within
the budget. Rounding down only adds rows that are slightly too expensive, so every feasible row is among them,
and a row is accepted if its exact excess meets the limit.

Accepted rows are therefore uniform over all feasible rows, up to rounding: counts are float64 sums with at
most a few hundred roundings, and a gene is drawn with a 53-bit number, which changes the distribution by less
than 1e-12 in total variation. Source: counting and sampling knapsack solutions by dynamic programming with
rounded weights and an acceptance step, Dyer 2003, *Approximate counting by dynamic programming*.

Letters: N rows, G genes, B the largest budget in levels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from topdown_ray.algorithms import rng
from topdown_ray.spaces.cost import CostModel
from topdown_ray.spaces.terms import Array, Term, aligned, elimination, minimise

# levels of the slack between the cheapest cost and the limit: more than 19 of 20 draws are accepted
LEVELS = 1 << 10
MAX_DRAWS = 256  # of one row; if one draw in ten is accepted, all of them fail with a probability below 1e-11
_MOST_COUNTS = 1 << 22  # 32 MB; the spaces here need 0.8 to 1.6 million

Ints = npt.NDArray[np.int64]


class _Gene(NamedTuple):
    """What the choices of one gene lead to, for each state before it."""

    gene: int
    following: Ints  # (states, choices), the state after the choice
    excess: Array  # (states, choices), ticks
    levels: Ints  # (states, choices), the excess in whole levels


class Counts:
    """The counts of all completions under a cost and a limit."""

    def __init__(self, cost: CostModel, limit: float):
        self.G, self.rows = len(cost.sizes), math.prod(cost.sizes)
        self.slack = _ticks_within(limit, cost.tick) - minimise(cost.terms, cost.sizes)[0]
        self.genes: list[_Gene] = []
        self.counts: list[Array] = []  # of completions before each gene, and after the last: (states, B + 1)
        order = _order(cost.terms, cost.sizes)
        scopes = _scopes(order, cost.terms)
        levels = min(LEVELS, _MOST_COUNTS // sum(math.prod(cost.sizes[g] for g in scope) for scope in scopes))
        if self.slack >= 0 and levels > 0:
            self._count(cost, order, scopes, levels)

    def _count(
        self, cost: CostModel, order: Sequence[int], scopes: Sequence[tuple[int, ...]], levels: int
    ) -> None:
        sizes, last = cost.sizes, {g: i for i, g in enumerate(order)}
        level = int(self.slack) // levels + 1  # ticks
        B = int(self.slack) // level
        cheapest = np.zeros(1)  # ticks of the cheapest completion of every state
        self.counts.append(np.ones((1, B + 1)))
        for i in reversed(range(self.G)):
            axes = (*scopes[i], order[i])
            shape = [sizes[g] for g in axes]
            places = np.indices(shape).reshape(len(axes), -1)
            after = [axes.index(g) for g in scopes[i + 1]]
            following = np.zeros(len(places[0]), dtype=np.int64)
            for axis in after:
                following = following * shape[axis] + places[axis]
            ticks = np.zeros(shape)
            for term in cost.terms:
                if max(last[g] for g in term.genes) == i:
                    ticks = ticks + aligned(term.genes, term.values, axes, sizes)
            total = (ticks.reshape(-1) + cheapest[following]).reshape(-1, sizes[order[i]])
            cheapest = total.min(axis=1)
            excess = total - cheapest[:, None]
            step = _Gene(order[i], following.reshape(total.shape), excess, excess.astype(np.int64) // level)
            counts = np.zeros((len(total), B + 1))
            for state, choice in np.argwhere(step.levels <= B).tolist():
                spent = step.levels[state, choice]
                counts[state, spent:] += self.counts[0][step.following[state, choice], : B + 1 - spent]
            self.genes.insert(0, step)
            self.counts.insert(0, counts)

    @property
    def share(self) -> float:
        """The share of all rows that is counted, at least that of the feasible ones; 1 if there are no
        counts.
        """
        if self.slack < 0:
            return 0.0
        return float(self.counts[0][0, -1]) / self.rows if self.counts else 1.0

    def draw(
        self, slots: torch.Tensor, meets: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw a uniform feasible row for each random counter: slots int64 (N,) (:func:`rng.slots`) -> genes
        int8 (N, G), bool (N,).

        meets: which rows meet further limits, genes (N, G) -> bool (N,). The second result is false if no row
        was found, because there are no counts or ``MAX_DRAWS`` draws were too expensive.
        """
        genes = torch.zeros(len(slots), self.G, dtype=torch.int8)
        pending = torch.arange(len(slots))
        for attempt in range(MAX_DRAWS if self.genes else 0):
            words = (
                rng.words(rng.keys(slots[pending], attempt), 2 * self.G)
                .numpy()
                .view(np.uint32)
                .astype(np.float64)
            )
            uniform = (words[:, ::2] + np.floor(words[:, 1::2] / 2**11) / 2**21) / 2**32  # 53 bits
            drawn, excess = self._walk(uniform)
            fits = torch.from_numpy(excess <= self.slack)
            if meets is not None:
                fits &= meets(torch.from_numpy(drawn))
            genes[pending[fits]] = torch.from_numpy(drawn)[fits]
            pending = pending[~fits]
            if len(pending) == 0:
                break
        success = torch.ones(len(slots), dtype=torch.bool)
        success[pending] = False
        return genes, success

    def _walk(self, uniform: Array) -> tuple[npt.NDArray[np.int8], Array]:
        """Return rows within the budget, drawn gene by gene, and their excesses: uniform (N, G) in [0, 1) ->
        int8 (N, G), ticks (N,).
        """
        rows = np.arange(len(uniform))
        drawn = np.zeros(uniform.shape, dtype=np.int8)
        state, excess = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows))
        left = np.full(len(rows), self.counts[0].shape[1] - 1)  # of the budget
        for i, step in enumerate(self.genes):
            budget = left[:, None] - step.levels[state]  # (N, choices)
            weights = self.counts[i + 1][step.following[state], budget.clip(0)] * (budget >= 0)
            total = weights.cumsum(axis=1)
            # below the number of choices: uniform < 1
            choice = (total <= (uniform[:, i] * total[:, -1])[:, None]).sum(axis=1)
            drawn[:, step.gene] = choice
            excess += step.excess[state, choice]
            left = budget[rows, choice]
            state = step.following[state, choice]
        return drawn, excess


@functools.lru_cache(maxsize=2)  # a search asks for its targets one after another
def counts_of(cost: CostModel, limit: float) -> Counts:
    """Return the counts under a cost and a limit, which are computed once."""
    return Counts(cost, limit)


def _ticks_within(limit: float, tick: float) -> int:
    """Return the largest whole number of ticks that costs at most ``limit``, by the arithmetic of
    :class:`CostModel`.
    """
    ticks = math.floor(min(limit / tick, 2.0**53))
    while ticks * tick > limit:
        ticks -= 1
    while ticks < 2**53 and (ticks + 1) * tick <= limit:
        ticks += 1
    return ticks


def _order(terms: Sequence[Term], sizes: Sequence[int]) -> list[int]:
    """Return an order of the genes with few states: the elimination tree from its root, with small branches
    first.
    """
    steps = elimination([term.genes for term in terms], sizes)
    when = {gene: i for i, (gene, _) in enumerate(steps)}
    branches: dict[int, list[list[int]]] = {gene: [] for gene in when}
    roots: list[list[int]] = []
    for gene, others in steps:  # everything that depends on a gene was eliminated before it
        branch = [gene, *(g for small in sorted(branches[gene], key=len) for g in small)]
        (branches[min(others, key=when.__getitem__)] if others else roots).append(branch)
    return [gene for branch in sorted(roots, key=len) for gene in branch]


def _scopes(order: Sequence[int], terms: Sequence[Term]) -> list[tuple[int, ...]]:
    """Return, before each gene of the order and after the last, the genes that make up the state: those that
    later terms still read.
    """
    place = {gene: i for i, gene in enumerate(order)}
    scopes = []
    for i in range(len(order) + 1):
        read = {
            g for term in terms if max(place[x] for x in term.genes) >= i for g in term.genes if place[g] < i
        }
        scopes.append(tuple(sorted(read, key=place.__getitem__)))
    return scopes
