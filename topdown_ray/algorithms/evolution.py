"""Advance S evolutionary searches in lock step: their state, one generation, and selection.

One generation of all searches is a handful of tensor operations and one predictor call on S x P rows; on a
CPU compiled code with the same bits takes the place of the tensor operations
(:mod:`topdown_ray.algorithms.kernels`). Source: the evolutionary search of Once-for-All (Cai et al. 2020,
*Once-for-All: Train One Network and Specialize it for Efficient Deployment*;
``ofa.tutorial.EvolutionFinder``, ``ofa.nas.search_algorithm.EvolutionFinder``).

Letters: S searches, P children a generation, Q parents, G genes, N rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from topdown_ray.algorithms import kernels, proposals, rng
from topdown_ray.algorithms.memory import identity_of
from topdown_ray.algorithms.parameters import Sizes
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.proposals import offsets, random_feasible


class EvolutionState(NamedTuple):
    """The state of S searches between two generations: their parents, best first, and the best architecture
    that each has scored.
    """

    parents: torch.Tensor  # int8 (S, Q, G)
    accuracy: torch.Tensor  # float32 (S, Q)
    best: torch.Tensor  # int8 (S, G)
    best_accuracy: torch.Tensor  # float32 (S,)

    def part(self, index: torch.Tensor) -> EvolutionState:
        """Return the state of some of the searches: index int64 (n,)."""
        return EvolutionState(*(value.index_select(0, index) for value in self))

    def with_part(self, index: torch.Tensor, part: EvolutionState) -> EvolutionState:
        """Return this state with that of some of the searches replaced: index int64 (n,)."""
        return EvolutionState(
            *(value.index_copy(0, index, own) for value, own in zip(self, part, strict=True))
        )


def initial(problem: Problem, sizes: Sizes, limit: float, draws: rng.Draws, target: int) -> EvolutionState:
    """Draw and score P feasible architectures uniformly at random. The first ``mutations`` of them are the
    population.
    """
    genes = random_feasible(problem, sizes.population, limit, draws, target, 0)  # (S, P, G)
    accuracy = problem.accuracy(genes.view(-1, genes.shape[2])).view(genes.shape[:2])
    best, best_accuracy = _ranked(genes, accuracy, 1)
    kept = max(sizes.mutations, sizes.parents)
    parents = _survivors(problem, sizes, genes[:, :kept], accuracy[:, :kept])
    return EvolutionState(*parents, best[:, 0], best_accuracy[:, 0])


def copies(sizes: Sizes, genes: torch.Tensor, accuracy: torch.Tensor) -> EvolutionState:
    """Return a population of copies of one scored architecture: genes (S, G), accuracy (S,)."""
    S, G = genes.shape
    Q = sizes.parents
    return EvolutionState(
        genes[:, None].expand(S, Q, G).contiguous(),
        accuracy[:, None].expand(S, Q).contiguous(),
        genes,
        accuracy,
    )


def generation(
    problem: Problem,
    sizes: Sizes,
    state: EvolutionState,
    limit: float,
    draws: rng.Draws,
    target: int,
    number: int,
) -> EvolutionState:
    """Run one generation: the parents survive, and P children of theirs that meet the limit are scored and
    compete with them.
    """
    children = proposals.children(problem, sizes, state.parents, limit, draws, target, number)
    accuracy = problem.accuracy(children.view(-1, children.shape[2])).view(children.shape[:2])
    compiled = proposals.compiled_cost(problem, children.device) is not None
    if compiled and not sizes.distinct_parents:
        survivors = kernels.survivors(*(x.numpy() for x in (*state[:2], children, accuracy, *state[2:])))
        return EvolutionState(*(torch.from_numpy(x) for x in survivors))
    everyone = torch.cat([state.parents, children], dim=1)
    parents, accuracy = _survivors(problem, sizes, everyone, torch.cat([state.accuracy, accuracy], dim=1))
    better = accuracy[:, 0] > state.best_accuracy
    best = torch.where(better[:, None], parents[:, 0], state.best)
    return EvolutionState(parents, accuracy, best, torch.where(better, accuracy[:, 0], state.best_accuracy))


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
    """Return the best of n more random feasible architectures and the best so far: genes (S, G), accuracy
    (S,).
    """
    genes = random_feasible(problem, n, limit, draws, target, number)
    accuracy = problem.accuracy(genes.view(-1, genes.shape[2])).view(genes.shape[:2])
    ranked, accuracy = _ranked(
        torch.cat([best[:, None], genes], dim=1), torch.cat([best_accuracy[:, None], accuracy], dim=1), 1
    )
    return ranked[:, 0], accuracy[:, 0]


def _survivors(
    problem: Problem, sizes: Sizes, genes: torch.Tensor, accuracy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the parents of the next generation: genes (S, N, G), accuracy (S, N)."""
    if not sizes.distinct_parents:
        return _ranked(genes, accuracy, sizes.parents)
    name = (
        identity_of(problem.space, genes.device)
        .fingerprints(genes.reshape(-1, genes.shape[2]))
        .view(accuracy.shape)
    )
    # if too few are distinct, repeated ones fill the last places
    repeats = (name[:, :, None] == name[:, None]).tril_(-1).any(dim=2)
    return _ranked(genes, accuracy, sizes.parents, repeats)


def best_first(accuracy: torch.Tensor, n: int, behind: torch.Tensor | None = None) -> torch.Tensor:
    """Return the places of the n best of each row, best first, and among equals the earlier ones first:
    float32 (R, N) -> int64 (R, n).

    behind: bool (R, N), which come after all others.
    """
    N = accuracy.shape[1]
    # accuracy and position in one whole number: no two are equal, so that the fast partial sort has only one
    # answer
    bits = accuracy.view(torch.int32)
    ascending = bits ^ (bits >> 31 & 0x7FFFFFFF)  # whole numbers in the order of the floats
    unique = ascending.long().mul_(N).sub_(offsets(N, 1, accuracy.device))
    if behind is not None:
        unique -= behind * (N << 33)  # more than the range of all accuracies
    return unique.topk(n, dim=1).values.neg_().remainder_(N)


def _ranked(
    genes: torch.Tensor, accuracy: torch.Tensor, n: int, behind: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the n best of every search, see :func:`best_first`: genes (S, N, G), accuracy (S, N)."""
    S, N, G = genes.shape
    order = best_first(accuracy, n, behind).add_(offsets(S, N, genes.device)[:, None]).view(-1)
    return genes.reshape(S * N, G).index_select(0, order).view(S, n, G), accuracy.reshape(-1).index_select(
        0, order
    ).view(S, n)
