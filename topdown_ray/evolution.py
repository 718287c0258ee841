"""Evolutionary search of S searches at once, in lock step.

One generation of all searches is a handful of tensor operations and one predictor call on S x P rows, on CPU or GPU by the same
code. Nothing here loops without a bound. Source: the evolutionary search of Once-for-All (Cai et al. 2020, *Once-for-All: Train
One Network and Specialize it for Efficient Deployment*; ``ofa.tutorial.EvolutionFinder``,
``ofa.nas.search_algorithm.EvolutionFinder``).

Letters: S searches, P children a generation, Q parents, G genes, N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from topdown_ray import rng
from topdown_ray.pruning import prune
from topdown_ray.spaces import Space

MAX_REDRAWS = 1024  # of a child; then it is a copy of its (feasible) first parent
MAX_INITIAL_REDRAWS = 1 << 14  # of a random architecture; then the last draw is pruned until it fits
# few pending rows draw several attempts at once, more and more of them: fewer operations, the same results
_ROWS_A_ROUND, _MOST_ROWS_A_ROUND = 512, 1 << 14


@dataclass(frozen=True)
class Problem:
    """What is searched: a space, its accuracy predictor and its cost, both plain callables on genes (N, G)."""

    space: Space
    accuracy: Callable[[torch.Tensor], torch.Tensor]  # -> float32 (N,)
    cost: Callable[[torch.Tensor], torch.Tensor]  # -> float64 (N,)
    cheapest: torch.Tensor  # genes (G,) of the cheapest architecture: what is left where nothing else fits


@dataclass(frozen=True)
class Sizes:
    """Sizes and rates of the evolution."""

    population: int  # P, children a generation
    parents: int  # Q, survivors
    mutations: int  # children by mutation; the others by crossover
    mutate_prob: float


class State(NamedTuple):
    """S searches between two generations: their parents, best first, and the best architecture each ever scored."""

    parents: torch.Tensor  # int8 (S, Q, G)
    accuracy: torch.Tensor  # float32 (S, Q)
    best: torch.Tensor  # int8 (S, G)
    best_accuracy: torch.Tensor  # float32 (S,)


def initial(problem: Problem, sizes: Sizes, limit: float, draws: rng.Draws, target: int) -> State:
    """P feasible architectures drawn uniformly at random and scored; the first ``mutations`` of them are the population."""
    genes = random_feasible(problem, sizes.population, limit, draws, target, 0)  # (S, P, G)
    accuracy = problem.accuracy(genes.view(-1, genes.shape[2])).view(genes.shape[:2])
    best, best_accuracy = _ranked(genes, accuracy, 1)
    kept = max(sizes.mutations, sizes.parents)
    parents = _ranked(genes[:, :kept], accuracy[:, :kept], sizes.parents)
    return State(*parents, best[:, 0], best_accuracy[:, 0])


def copies(sizes: Sizes, genes: torch.Tensor, accuracy: torch.Tensor) -> State:
    """A population that is one scored architecture, copied: genes (S, G), accuracy (S,)."""
    S, G = genes.shape
    Q = sizes.parents
    return State(genes[:, None].expand(S, Q, G).contiguous(), accuracy[:, None].expand(S, Q).contiguous(), genes, accuracy)


def generation(problem: Problem, sizes: Sizes, state: State, limit: float, draws: rng.Draws, target: int, number: int) -> State:
    """One generation: the parents survive, P children of theirs that meet the limit are scored and compete with them."""
    S, Q, G = state.parents.shape
    P, M = sizes.population, sizes.mutations
    picks = rng.uniform(rng.keys(rng.slots(draws.stream(rng.PARENTS, target, number), P), 0), 2)
    picks = picks.mul_(Q).long().view(S, P, 2)  # floor
    picks += torch.arange(0, S * Q, Q, device=picks.device)[:, None, None]
    pool = state.parents.view(S * Q, G)

    mothers = pool.index_select(0, picks[:, :M, 0].reshape(-1))  # (S*M, G)
    slots = rng.slots(draws.stream(rng.MUTATION, target, number), M)
    mutants, _ = _first_feasible(Mutation(problem.space, sizes.mutate_prob, mothers), problem, limit, mothers, slots)

    mothers, fathers = (pool.index_select(0, picks[:, M:, parent].reshape(-1)) for parent in (0, 1))
    slots = rng.slots(draws.stream(rng.CROSSOVER, target, number), P - M)
    crossed, _ = _first_feasible(Crossover(mothers, fathers), problem, limit, mothers, slots)

    children = torch.cat([mutants.view(S, M, G), crossed.view(S, P - M, G)], dim=1)
    accuracy = problem.accuracy(children.view(S * P, G)).view(S, P)
    everyone = torch.cat([state.parents, children], dim=1)
    parents, accuracy = _ranked(everyone, torch.cat([state.accuracy, accuracy], dim=1), Q)
    better = accuracy[:, 0] > state.best_accuracy
    best = torch.where(better[:, None], parents[:, 0], state.best)
    return State(parents, accuracy, best, torch.where(better, accuracy[:, 0], state.best_accuracy))


def random_feasible(problem: Problem, n: int, limit: float, draws: rng.Draws, target: int, number: int) -> torch.Tensor:
    """n architectures for every search, uniform among those that meet the limit: genes (S, n, G).

    After ``MAX_INITIAL_REDRAWS`` draws without success a row's last draw is pruned until it fits.
    """
    space = problem.space
    slots = rng.slots(draws.stream(rng.INITIAL, target, number), n)
    nothing = torch.zeros(len(slots), space.G, dtype=torch.int8, device=slots.device)
    propose = UniformDraw(space)
    genes, failed = _first_feasible(propose, problem, limit, nothing, slots, MAX_INITIAL_REDRAWS)
    if len(failed):
        last = propose(failed, rng.keys(slots[failed], MAX_INITIAL_REDRAWS - 1))
        slots = rng.slots(draws.stream(rng.PRUNING, target, number), n)[failed]
        genes[failed] = prune(space, problem.cost, last, limit, slots, problem.cheapest)
    return genes.view(-1, n, space.G)


def random_draw(
    problem: Problem,
    n: int,
    limit: float,
    draws: rng.Draws,
    target: int,
    number: int,
    best: torch.Tensor,
    best_accuracy: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best of n more random feasible architectures and the best so far: genes (S, G), accuracy (S,)."""
    genes = random_feasible(problem, n, limit, draws, target, number)
    accuracy = problem.accuracy(genes.view(-1, genes.shape[2])).view(genes.shape[:2])
    ranked, accuracy = _ranked(
        torch.cat([best[:, None], genes], dim=1), torch.cat([best_accuracy[:, None], accuracy], dim=1), 1
    )
    return ranked[:, 0], accuracy[:, 0]


# --- proposals: (rows (N,), their keys (N,)) -> genes (N, G) ------------------------------------------------------------------

Proposal = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class UniformDraw:
    """Every gene uniformly at random."""

    def __init__(self, space: Space):
        self.sizes = space.sizes

    def __call__(self, rows: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        choices = torch.tensor(self.sizes, dtype=torch.float32, device=keys.device)
        return rng.uniform(keys, len(self.sizes)).mul_(choices).to(torch.int8)  # floor


class Mutation:
    """Each group of genes is redrawn, all its genes together, with its probability: mothers (N, G)."""

    def __init__(self, space: Space, mutate_prob: float, mothers: torch.Tensor):
        groups, device = space.mutation_groups, mothers.device
        self.mothers = mothers
        combinations, scales, genes, strides, sizes = [], [], [], [], []
        for group in groups:
            first, last = group.genes[0], group.genes[-1]  # one gene, or two
            count = space.sizes[first] * (space.sizes[last] if len(group.genes) > 1 else 1)
            combinations.append(count)
            scales.append(count / (mutate_prob if group.probability is None else group.probability))
            genes.append((first, last))
            strides.append((count // space.sizes[first], 1))
            sizes.append((space.sizes[first], space.sizes[last]))
        self.combinations = torch.tensor(combinations, dtype=torch.float32, device=device)
        self.scales = torch.tensor(scales, dtype=torch.float32, device=device)
        self.genes, self.strides, self.sizes = (torch.tensor(x, device=device) for x in (genes, strides, sizes))

    def __call__(self, rows: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        genes = self.mothers.index_select(0, rows)
        # one number decides both: below the probability it redraws, and where it lies below it says to what
        drawn = rng.uniform(keys, len(self.combinations)).mul_(self.scales)  # (N, groups)
        row, group = (drawn < self.combinations).nonzero(as_tuple=True)
        combination = drawn[row, group].long()[:, None]  # floor
        choices = combination.div(self.strides[group], rounding_mode="floor") % self.sizes[group]  # (events, 2)
        places = row[:, None] * genes.shape[1] + self.genes[group]
        genes.view(-1)[places.view(-1)] = choices.view(-1).to(torch.int8)
        return genes


class Crossover:
    """Every gene independently from either parent: mothers, fathers (N, G)."""

    def __init__(self, mothers: torch.Tensor, fathers: torch.Tensor):
        self.mothers, self.differences = mothers, mothers ^ fathers
        self.word, self.shift = (part.to(mothers.device) for part in _bit_places(mothers.shape[1]))

    def __call__(self, rows: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        words = rng.words(keys, (len(self.word) + 31) // 32)
        mask = (words.index_select(1, self.word) << self.shift >> 31).to(torch.int8)  # 0 or -1, all bits set
        return self.mothers.index_select(0, rows) ^ self.differences.index_select(0, rows).bitwise_and_(mask)


def _bit_places(G: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which word and which left shift bring gene g's bit to the sign of a 32-bit word."""
    g = torch.arange(G)
    return g // 32, (31 - g % 32).to(torch.int32)


def _first_feasible(
    propose: Proposal, problem: Problem, limit: float, fallback: torch.Tensor, slots: torch.Tensor, bound: int = MAX_REDRAWS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Redraw every row until it meets the limit, ``bound`` times at most: genes (N, G), and the rows that never did (their
    genes are the fallback's)."""
    genes = fallback.clone()
    pending = torch.arange(len(slots), device=slots.device)
    attempt, rows_a_round = 0, _ROWS_A_ROUND
    while attempt < bound and len(pending):
        block = min(max(rows_a_round // len(pending), 1), bound - attempt)
        rows_a_round = min(2 * rows_a_round, _MOST_ROWS_A_ROUND)
        rows = pending.repeat_interleave(block) if block > 1 else pending
        attempts = torch.arange(attempt, attempt + block, device=slots.device).repeat(len(pending))
        drawn = propose(rows, rng.keys(slots.index_select(0, rows), attempts))
        fits = (problem.cost(drawn) <= limit).view(-1, block)
        success, first = fits.byte().max(dim=1)
        found = success.nonzero().view(-1)
        genes[pending[found]] = drawn[found * block + first[found]]
        pending = pending[(success == 0).nonzero().view(-1)]
        attempt += block
    return genes, pending


def _ranked(genes: torch.Tensor, accuracy: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The n best of every search, best first, earlier before later among equals: genes (S, N, G), accuracy (S, N)."""
    S, N, G = genes.shape
    ranked = torch.sort(accuracy, dim=1, descending=True, stable=True)
    order = ranked.indices[:, :n] + torch.arange(0, S * N, N, device=genes.device)[:, None]
    return genes.reshape(S * N, G).index_select(0, order.reshape(-1)).view(S, -1, G), ranked.values[:, :n].contiguous()
