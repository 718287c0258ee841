"""Keep the archives of joint searches: for each target, the best distinct architectures that meet its costs.

On a CPU, compiled code with the same bits replaces the tensor operations
(:mod:`topdown_ray.algorithms.archive_kernels`).

Letters: S searches, K targets, A archives (those of the targets come first), J costs, Q places of an archive,
G genes, n children, E entrants.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from topdown_ray.algorithms import archive_kernels
from topdown_ray.algorithms.evolution import best_first
from topdown_ray.algorithms.problem import Cost, Problem
from topdown_ray.spaces.limits import LimitedCost

_STONES = 4  # archives below the tightest target of each cost, if a share of the children serves the front


class Archive(NamedTuple):
    """The archives of S searches, each best first. Empty places have accuracy -inf."""

    genes: torch.Tensor  # int8 (S, A, Q, G), canonical
    accuracy: torch.Tensor  # float32 (S, A, Q)
    cost: torch.Tensor  # float64 (S, A, Q, J)
    name: torch.Tensor  # int64 (S, A, Q), fingerprints of the architectures

    @classmethod
    def empty(cls, S: int, A: int, Q: int, G: int, J: int, device: torch.device) -> Archive:
        """Return empty archives."""
        return cls(
            torch.zeros(S, A, Q, G, dtype=torch.int8, device=device),
            torch.full((S, A, Q), -math.inf, device=device),
            torch.full((S, A, Q, J), math.inf, dtype=torch.float64, device=device),
            torch.zeros(S, A, Q, dtype=torch.int64, device=device),
        )

    @property
    def tables(self) -> archive_kernels.ArchiveTables:
        """Return the same memory for compiled code."""
        return archive_kernels.ArchiveTables(*(part.numpy() for part in self))


class Children(NamedTuple):
    """Scored children, search by search. Those that were given up have accuracy -inf."""

    genes: torch.Tensor  # int8 (S, n, G), canonical
    accuracy: torch.Tensor  # float32 (S, n)
    cost: torch.Tensor  # float64 (S, n, J)
    name: torch.Tensor  # int64 (S, n)
    aim: torch.Tensor  # int64 (n,) or (S, n), the archive that each was drawn for


def merged(
    archive: Archive, children: Children, limits: torch.Tensor, share: bool, distinct: bool, compiled: bool
) -> Archive:
    """Offer children to all archives. Each archive keeps its Q best, and among equals the earlier ones.

    limits: float64 (A, J). share: whether a child is also offered to archives that it was not drawn for.
    distinct: whether an archive holds each architecture only once. compiled: use compiled code, which changes
    ``archive`` in place.
    """
    if compiled:
        new = archive_kernels.Offered(*(part.numpy() for part in children))
        archive_kernels.merge(archive.tables, new, limits.numpy(), share, distinct)
        return archive
    children = _entrants(archive, children, limits)
    S, A, Q = archive.accuracy.shape
    n, device = children.accuracy.shape[1], limits.device
    if n == 0:
        return archive
    fits = meets(children.cost[:, None], limits[:, None])  # (S, A, n)
    if not share:
        fits = fits & (children.aim[:, None] == torch.arange(A, device=device)[:, None])
    # the table of drawn children forgets entries, but an archive must not hold an architecture twice
    if distinct:
        known = (children.name[:, :, None] == archive.name.view(S, 1, A * Q)).any(2)
        twice = (children.name[:, :, None] == children.name[:, None]).tril(-1).any(2)
        fits = fits & (known | twice).logical_not_()[:, None]
    offered = children.accuracy[:, None].masked_fill(~fits, -math.inf)
    everyone = torch.cat([archive.accuracy, offered], dim=2).view(S * A, Q + n)
    order = best_first(everyone, Q).view(S, A, Q)  # of Q + n
    old = order < Q
    base = torch.arange(S * A, device=device).view(S, A, 1)
    of_archive = base * Q + order.clamp_max(Q - 1)
    of_children = torch.arange(S, device=device).view(S, 1, 1) * n + (order - Q).clamp_min(0)

    def pick(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        kept = mine.reshape(S * A * Q, -1).index_select(0, of_archive.view(-1))
        new = theirs.reshape(S * n, -1).index_select(0, of_children.view(-1))
        return torch.where(old.view(-1, 1), kept, new).view(mine.shape)

    accuracy = everyone.view(S, A, Q + n).gather(2, order)
    return Archive(
        pick(archive.genes, children.genes),
        accuracy,
        pick(archive.cost, children.cost),
        pick(archive.name, children.name),
    )


def _entrants(archive: Archive, children: Children, limits: torch.Tensor) -> Children:
    """Return the children that some archive may accept, with as many places for each search as the search
    with most of them needs.
    """
    S, n = children.accuracy.shape
    worst = archive.accuracy[:, :, -1]  # (S, A)
    enters = (children.accuracy[:, None] > worst[:, :, None]) & meets(children.cost[:, None], limits[:, None])
    counts = enters.any(1).sum(1)
    # (S, E)
    places = enters.any(1).byte().sort(dim=1, descending=True, stable=True).indices[:, : int(counts.max())]
    flat = (places + torch.arange(0, S * n, n, device=limits.device)[:, None]).view(-1)
    genes, accuracy, cost, name = (
        part.reshape(S * n, *part.shape[2:]).index_select(0, flat).view(*places.shape, *part.shape[2:])
        for part in children[:4]
    )
    return Children(genes, accuracy, cost, name, children.aim[places])


def meets(cost: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """Whether all J costs are within their limits: (..., J) -> bool (...)."""
    within = cost <= limits
    return within[..., 0] if within.shape[-1] == 1 else within.all(-1)


# --- which archives there are -------------------------------------------------------------------------------


def below(problem: Problem, targets: Sequence[float]) -> list[tuple[int, float]]:
    """Return, for each cost, ``_STONES`` limits at even distances between its tightest target and its
    cheapest architecture, and the target whose problem they have.
    """
    tightest = {_main(problem.at(k).cost): k for k in range(len(targets))}  # the last of each cost
    found = []
    for k in tightest.values():
        part = problem.at(k)
        low = float(part.cost(part.cheapest[None])[0])
        steps = [(targets[k] - low) * i / (_STONES + 1) for i in range(1, _STONES + 1)]
        found += [(k, targets[k] - step) for step in steps]
    return found


def neighbours(costs: Sequence[Cost]) -> torch.Tensor:
    """Return for each archive the one before it, itself, and the one after it under the same cost, or itself
    at the end: int64 (3, A). The K targets come first, then for each cost the archives below its tightest
    target.
    """
    before, after = list(range(len(costs))), list(range(len(costs)))
    for cost in dict.fromkeys(map(_main, costs)):
        own = [a for a in range(len(costs)) if _main(costs[a]) is cost]
        for looser, tighter in itertools.pairwise(own):
            before[tighter], after[looser] = looser, tighter
    return torch.tensor([before, list(range(len(costs))), after])


def _main(cost: Cost) -> Cost:
    return cost.main if isinstance(cost, LimitedCost) else cost
