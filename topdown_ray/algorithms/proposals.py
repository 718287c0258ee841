"""Propose architectures: random ones, and children by mutation and crossover, redrawn until they meet a
limit.

All loops here are bounded. On a CPU, compiled code with the same bits replaces the tensor operations
(:mod:`topdown_ray.algorithms.kernels`). Source of mutation and crossover: Cai et al. 2020, *Once-for-All:
Train One Network and Specialize it for Efficient Deployment* (``ofa.tutorial.EvolutionFinder``).

Letters: S searches, P children of a generation, Q parents, G genes, N rows.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Protocol

import torch

from topdown_ray.algorithms import kernels, rng
from topdown_ray.algorithms.parameters import Sizes
from topdown_ray.algorithms.problem import Problem, flat_cost
from topdown_ray.algorithms.pruning import prune
from topdown_ray.algorithms.uniform import counts_of
from topdown_ray.spaces.cost import CostModel
from topdown_ray.spaces.limits import LimitedCost
from topdown_ray.spaces.space import Space
from topdown_ray.spaces.terms import FlatSum

CPU = torch.device("cpu")
MAX_REDRAWS = 1024  # of a child, before it becomes a copy of its (feasible) first parent
MAX_INITIAL_REDRAWS = 1 << 14  # of a random architecture, before it is drawn from the counts of feasible ones
# a row that fails this many draws is not redrawn further if less than one in a thousand such rows would
# still succeed
_FIRST_REDRAWS, _RARE_SHARE = 512, 1e-3
# few pending rows draw several attempts at once, more and more of them: fewer operations, the same results
_ROWS_A_ROUND, _MOST_ROWS_A_ROUND = 512, 1 << 14


def children(
    problem: Problem,
    sizes: Sizes,
    parents: torch.Tensor,
    limit: float,
    draws: rng.Draws,
    target: int,
    number: int,
) -> torch.Tensor:
    """Draw P children of every search that meet the limit, mutants first: parents (S, Q, G) -> genes (S, P,
    G).
    """
    cost = compiled_cost(problem, parents.device)
    if cost is not None:
        return _compiled_children(problem, sizes, parents, limit, draws, target, number, cost)
    S, Q, G = parents.shape
    P, M = sizes.population, sizes.mutations
    picks = rng.to_uniform(draws.words(rng.PARENTS, target, number, P, 1, 2))
    picks = picks.mul_(Q).long().view(S, P, 2).add_(offsets(S, Q, picks.device)[:, None, None])  # floor
    pool = parents.view(S * Q, G)

    # rows: the mutants of all searches, then the crossed children of all searches
    mothers = pool.index_select(0, torch.cat([picks[:, :M, 0].reshape(-1), picks[:, M:, 0].reshape(-1)]))
    fathers = pool.index_select(0, picks[:, M:, 1].reshape(-1))
    propose = Offspring(
        mutation(problem.space, sizes.mutate_prob, mothers.device), mothers, fathers, draws, target, number
    )
    rows, failed = _first_feasible(propose, problem, limit, S * P, MAX_REDRAWS, mothers.device)
    if len(failed):
        rows[failed] = mothers[failed]
    return torch.cat([rows[: S * M].view(S, M, G), rows[S * M :].view(S, P - M, G)], dim=1)


def compiled_cost(problem: Problem, device: torch.device) -> FlatSum | None:
    """Return the cost for compiled code if that can run: on a CPU, with costs that are sums over terms."""
    return flat_cost(problem.cost, device)


def _compiled_children(
    problem: Problem,
    sizes: Sizes,
    parents: torch.Tensor,
    limit: float,
    draws: rng.Draws,
    target: int,
    number: int,
    cost: FlatSum,
) -> torch.Tensor:
    """:func:`children` in compiled code: the same bits."""
    mutating = mutation(problem.space, sizes.mutate_prob, CPU).compiled
    kinds, streams = (sizes.population, sizes.mutations), (rng.PARENTS, rng.MUTATION, rng.CROSSOVER)
    seeds = draws.seeds.numpy()
    born = kernels.children(
        parents.numpy(), seeds, *kinds, streams, target, number, mutating, cost, limit, MAX_REDRAWS
    )
    return torch.from_numpy(born)


def random_feasible(
    problem: Problem, n: int, limit: float, draws: rng.Draws, target: int, number: int
) -> torch.Tensor:
    """Draw n architectures for every search, uniformly among the gene rows that meet the limit, including
    inactive genes: genes (S, n, G).

    Rows are redrawn until they meet the limit. A row that fails is drawn from the counts of all feasible rows
    (:mod:`uniform`), which has the same distribution. If there are no counts (the cost is not a
    :class:`CostModel`, or its terms couple too many genes), or if nothing is feasible, the last draw of the
    row is pruned until it fits, which is not uniform.
    """
    genes, failed = _redrawn(
        problem, n, limit, draws, target, number, min(_FIRST_REDRAWS, MAX_INITIAL_REDRAWS)
    )
    main = problem.cost.main if isinstance(problem.cost, LimitedCost) else problem.cost
    counts = counts_of(main, limit) if len(failed) and isinstance(main, CostModel) else None
    limited = isinstance(problem.cost, LimitedCost)  # whose rows were never redrawn many times
    often = counts is not None and not limited and counts.share * MAX_INITIAL_REDRAWS > _RARE_SHARE
    if len(failed) and (counts is None or often):
        genes, failed = _redrawn(problem, n, limit, draws, target, number, MAX_INITIAL_REDRAWS)
    if len(failed) and counts is not None:
        slots = rng.slots(draws.stream(rng.UNIFORM, target, number), n)[failed].cpu()
        found, success = counts.draw(slots, _other_limits(problem.cost, genes.device))
        genes[failed] = found.to(genes.device)
        failed = failed[success.logical_not().to(failed.device)]
    if len(failed):
        last = UniformDraw(problem.space, draws, target, number, n).again(failed, MAX_INITIAL_REDRAWS - 1)
        slots = rng.slots(draws.stream(rng.PRUNING, target, number), n)[failed]
        genes[failed] = prune(problem.space, problem.cost, last, limit, slots, problem.cheapest)
    return genes.view(-1, n, problem.space.G)


def _other_limits(cost: object, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return a function that tests which rows on the CPU meet the limits in addition to the target; None if
    there are none.
    """
    if not isinstance(cost, LimitedCost):
        return None
    return lambda rows: cost.meets(rows.to(device)).cpu()


def _redrawn(
    problem: Problem, n: int, limit: float, draws: rng.Draws, target: int, number: int, bound: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw uniform rows until they meet the limit: genes (S * n, G), and the rows that never did in ``bound``
    draws.
    """
    propose, seeds = UniformDraw(problem.space, draws, target, number, n), draws.seeds
    cost = compiled_cost(problem, seeds.device)
    if cost is None:
        return _first_feasible(propose, problem, limit, len(seeds) * n, bound, seeds.device)
    stream = (rng.INITIAL, target, number)
    drawn, misses = kernels.random_feasible(
        propose.choices.numpy(), seeds.numpy(), n, *stream, cost, limit, bound
    )
    return torch.from_numpy(drawn), torch.from_numpy(misses).nonzero().view(-1)


class Proposal(Protocol):
    """Draws architectures for numbered rows."""

    def first(self, attempts: int) -> torch.Tensor:
        """Return the first attempts of all rows, row by row: genes (N * attempts, G)."""

    def again(self, rows: torch.Tensor, attempt: torch.Tensor | int) -> torch.Tensor:
        """Return one attempt of each of these rows (ascending): genes (n, G)."""


class UniformDraw:
    """Draws every gene uniformly at random, in n rows for every search."""

    def __init__(self, space: Space, draws: rng.Draws, target: int, number: int, n: int):
        self.slots = rng.slots(draws.stream(rng.INITIAL, target, number), n)
        self.choices = torch.tensor(space.sizes, dtype=torch.float32, device=self.slots.device)

    def first(self, attempts: int) -> torch.Tensor:
        """See :class:`Proposal`."""
        rows = torch.arange(len(self.slots), device=self.slots.device).repeat_interleave(attempts)
        return self.again(rows, torch.arange(attempts, device=rows.device).repeat(len(self.slots)))

    def again(self, rows: torch.Tensor, attempt: torch.Tensor | int) -> torch.Tensor:
        """See :class:`Proposal`."""
        keys = rng.keys(self.slots.index_select(0, rows), attempt)
        return rng.uniform(keys, len(self.choices)).mul_(self.choices).to(torch.int8)  # floor


class Mutation:
    """Redraws each group of genes, all its genes together, with its probability.

    One 24-bit number for each group decides both: the group is redrawn if the number is below the share of
    its probability, and the place of the number below it selects the combination of choices.
    """

    def __init__(self, space: Space, mutate_prob: float, device: torch.device):
        limits, scales, counts, offsets, genes = [], [], [], [], []
        choices: list[tuple[int, int]] = []
        for group in space.mutation_groups:
            probability = mutate_prob if group.probability is None else group.probability
            limit = round(probability * 2**24)
            combinations = list(itertools.product(*(range(space.sizes[g]) for g in group.genes)))
            limits.append(limit)
            scales.append(len(combinations) / max(limit, 1))
            counts.append(len(combinations) - 1)
            offsets.append(len(choices))
            genes.append((group.genes[0], group.genes[-1]))  # one gene, or two
            choices += [(combination[0], combination[-1]) for combination in combinations]
        self.limits = torch.tensor(limits, dtype=torch.int32, device=device)
        self.scales, self.counts = (
            torch.tensor(x, dtype=torch.float32, device=device) for x in (scales, counts)
        )
        self.offsets, self.genes = torch.tensor(offsets, device=device), torch.tensor(genes, device=device)
        self.choices = torch.tensor(choices, dtype=torch.int8, device=device)
        tables = (self.limits, self.scales, self.counts, self.offsets, self.genes, self.choices)
        self.compiled = kernels.Mutating(*(table.cpu().numpy() for table in tables))

    def __call__(self, genes: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Mutate rows in place: genes (N, G), random words (N, groups)."""
        n_groups = len(self.limits)
        drawn = words & 2**24 - 1
        event = (drawn < self.limits).view(-1).nonzero().view(-1)
        row = torch.div(event, n_groups, rounding_mode="floor")
        group = event - row * n_groups
        scaled = drawn.view(-1).index_select(0, event).float().mul_(self.scales.index_select(0, group))
        combination = (
            torch.minimum(scaled, self.counts.index_select(0, group))
            .long()
            .add_(self.offsets.index_select(0, group))
        )
        places = self.genes.index_select(0, group).add_(row.mul_(genes.shape[1])[:, None])  # (events, 2)
        genes.view(-1).scatter_(0, places.view(-1), self.choices.index_select(0, combination).view(-1))
        return genes


@functools.cache
def mutation(space: Space, mutate_prob: float, device: torch.device) -> Mutation:
    """Return the mutation of a space. Its tables are built once."""
    return Mutation(space, mutate_prob, device)


def crossed(mothers: torch.Tensor, fathers: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Take every gene independently from either parent, by one random bit for each gene: genes (N, G), words
    (N, ceil(G/32)) -> genes (N, G).
    """
    shifts = _sign_shifts(mothers.shape[1], words.device)
    # 0 or -1: no bit or all bits set
    parts = [words[:, w : w + 1] << shift >> 31 for w, shift in enumerate(shifts)]
    mask = torch.cat([part.to(torch.int8) for part in parts], dim=1)
    return (mothers ^ fathers).bitwise_and_(mask).bitwise_xor_(mothers)


@functools.cache
def _sign_shifts(G: int, device: torch.device) -> list[torch.Tensor]:
    """Return, for each word, the left shifts that bring its bits, one for each gene, to the sign."""
    return [
        torch.arange(31, 31 - min(32, G - g), -1, dtype=torch.int32, device=device) for g in range(0, G, 32)
    ]


class Offspring:
    """Draws the children of all searches: the first rows mutate their mothers, the others cross them with
    fathers.
    """

    def __init__(
        self,
        mutate: Mutation,
        mothers: torch.Tensor,
        fathers: torch.Tensor,
        draws: rng.Draws,
        target: int,
        number: int,
    ):
        self.mutate, self.mothers, self.fathers = mutate, mothers, fathers
        self.draws, self.target, self.number = draws, target, number
        self.n_mutants = len(mothers) - len(fathers)
        self.n_groups, self.n_words = len(mutate.limits), (mothers.shape[1] + 31) // 32
        self.slots: torch.Tensor | None = None

    def first(self, attempts: int) -> torch.Tensor:
        """See :class:`Proposal`."""
        mothers, fathers, S = self.mothers, self.fathers, len(self.draws.seeds)
        if attempts > 1:
            mothers, fathers = (parents.repeat_interleave(attempts, dim=0) for parents in (mothers, fathers))
        mutants, others = self.n_mutants // S, len(self.fathers) // S
        return self._children(
            mothers if attempts > 1 else mothers.clone(),
            fathers,
            self.draws.words(rng.MUTATION, self.target, self.number, mutants, attempts, self.n_groups),
            self.draws.words(rng.CROSSOVER, self.target, self.number, others, attempts, self.n_words),
        )

    def again(self, rows: torch.Tensor, attempt: torch.Tensor | int) -> torch.Tensor:
        """See :class:`Proposal`."""
        if self.slots is None:
            S, n = len(self.draws.seeds), (self.n_mutants, len(self.fathers))
            streams = (
                self.draws.stream(purpose, self.target, self.number)
                for purpose in (rng.MUTATION, rng.CROSSOVER)
            )
            self.slots = torch.cat(
                [rng.slots(stream, count // S) for stream, count in zip(streams, n, strict=True)]
            )
        keys = rng.keys(self.slots.index_select(0, rows), attempt)
        mutants = int(torch.searchsorted(rows, self.n_mutants))
        return self._children(
            self.mothers.index_select(0, rows),
            self.fathers.index_select(0, rows[mutants:] - self.n_mutants),
            rng.words(keys[:mutants], self.n_groups),
            rng.words(keys[mutants:], self.n_words),
        )

    def _children(
        self,
        genes: torch.Tensor,
        fathers: torch.Tensor,
        mutation_words: torch.Tensor,
        crossover_words: torch.Tensor,
    ) -> torch.Tensor:
        mutants = len(mutation_words)
        self.mutate(genes[:mutants], mutation_words)
        genes[mutants:] = crossed(genes[mutants:], fathers, crossover_words)
        return genes


def _first_feasible(
    propose: Proposal, problem: Problem, limit: float, n: int, bound: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Redraw n rows until they meet the limit, at most ``bound`` times: genes (n, G), and the rows that never
    did.
    """
    block = min(max(_ROWS_A_ROUND // n, 1), bound)
    genes, success = _first_fitting(propose.first(block), problem, limit, block)
    pending = success.logical_not_().nonzero().view(-1)
    attempt, rows_a_round = block, 2 * _ROWS_A_ROUND
    while attempt < bound and len(pending):
        block = min(max(rows_a_round // len(pending), 1), bound - attempt)
        rows_a_round = min(2 * rows_a_round, _MOST_ROWS_A_ROUND)
        rows = pending.repeat_interleave(block) if block > 1 else pending
        attempts = (
            torch.arange(attempt, attempt + block, device=device).repeat(len(pending))
            if block > 1
            else attempt
        )
        drawn, success = _first_fitting(propose.again(rows, attempts), problem, limit, block)
        found = success.nonzero().view(-1)
        genes.index_copy_(0, pending.index_select(0, found), drawn.index_select(0, found))
        pending = pending.index_select(0, success.logical_not_().nonzero().view(-1))
        attempt += block
    return genes, pending


def _first_fitting(
    drawn: torch.Tensor, problem: Problem, limit: float, block: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first of every ``block`` attempts that fits, and whether one does: genes (n * block, G) ->
    (n, G), bool (n,).
    """
    fits = problem.cost(drawn) <= limit
    if block == 1:
        return drawn, fits
    success, first = fits.view(-1, block).byte().max(dim=1)
    return drawn.index_select(0, first.add_(offsets(len(first), block, first.device))), success.bool()


@functools.cache
def offsets(n: int, step: int, device: torch.device) -> torch.Tensor:
    """Return 0, step, 2 step, ...: int64 (n,)."""
    return torch.arange(0, n * step, step, device=device)
