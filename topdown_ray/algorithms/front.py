"""Keep the front of a search: the non-dominated architectures among all that it scored.

An architecture is dominated if another one is at least as accurate and costs no more in anything. The
remaining ones answer any target, including those that the search was not asked for. A front has at most
``MOST`` architectures. A larger one is thinned by the smallest step ``epsilon`` of a fixed ladder for which
every dropped architecture has one in the front that costs no more, that under further costs costs at most the
fraction ``epsilon`` more, and that is at most ``epsilon`` less accurate (epsilon-dominance, Laumanns et al.
2002, *Combining convergence and diversity in evolutionary multiobjective optimization*).

Letters: S searches, P children of a generation, G genes, J costs, n architectures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from topdown_ray.algorithms.problem import Cost
from topdown_ray.spaces.compiled import compiled

MOST = 1024  # largest number of architectures in a front
STEP = 1e-5  # of top-1: the first step of the ladder; each further step is twice as large
_HELD = 1 << 18  # most children of all searches that wait to be sifted: bounds memory


class FrontPoints(NamedTuple):
    """The front of one search, cheapest architecture first."""

    genes: torch.Tensor  # int8 (n, G), canonical
    accuracy: npt.NDArray[np.float64]  # (n,)
    costs: npt.NDArray[np.float64]  # (n, J)
    epsilon: float  # of top-1, and of further costs; 0: nothing non-dominated was dropped


class Front:
    """The fronts of S searches under J costs. The first cost orders them."""

    def __init__(self, costs: Sequence[Cost], S: int):
        self.costs = tuple(costs)
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, Mapping[int, torch.Tensor]]] = []
        self._kept: list[FrontPoints | None] = [None] * S

    @property
    def searched(self) -> bool:
        """Whether anything was added."""
        return bool(self._waiting) or self._kept[0] is not None

    def add(
        self, genes: torch.Tensor, accuracy: torch.Tensor, known: Mapping[int, torch.Tensor] | None = None
    ) -> None:
        """Add scored children: genes int8 (S, P, G), accuracy float32 (S, P), with -inf for none. known:
        those of the costs that need not be computed again, by their places, float64 (S, P). Nothing is
        copied, so the caller must not change these tensors.
        """
        self._waiting.append((genes, accuracy, known or {}))
        if sum(part.numel() for _, part, _ in self._waiting) >= _HELD:
            self.sift()

    def sift(self) -> None:
        """Keep only the architectures that nothing dominates."""
        if not self._waiting:
            return
        genes = torch.cat([part for part, _, _ in self._waiting], dim=1)
        accuracy = torch.cat([part for _, part, _ in self._waiting], dim=1)
        S, n, G = genes.shape
        of_costs = []
        for j, cost in enumerate(self.costs):
            parts = [known[j] for _, _, known in self._waiting if j in known]
            whole = len(parts) == len(self._waiting)
            of_costs.append(torch.cat(parts, dim=1) if whole else cost(genes.view(-1, G)).view(S, n))
        self._waiting = []
        costs = torch.stack(of_costs, dim=2).cpu().numpy()
        genes, scores = genes.cpu(), accuracy.cpu().double().numpy()
        for s in range(S):
            there = np.flatnonzero(scores[s] > -np.inf)
            new = FrontPoints(genes[s, torch.from_numpy(there)], scores[s, there], costs[s, there], 0.0)
            before = self._kept[s]
            self._kept[s] = _sifted(new if before is None else _joined(before, new), 0.0)

    def points(self, s: int) -> FrontPoints:
        """Return the front of one search."""
        self.sift()
        points = self._kept[s]
        if points is None:
            raise ValueError(f"front: expected a search that added what it scored, found none for {s}")
        epsilon = STEP
        thinned = points
        while len(thinned.accuracy) > MOST:
            thinned = _sifted(points, epsilon)
            epsilon *= 2
        return thinned


def _joined(one: FrontPoints, other: FrontPoints) -> FrontPoints:
    return FrontPoints(
        torch.cat([one.genes, other.genes]),
        np.concatenate([one.accuracy, other.accuracy]),
        np.concatenate([one.costs, other.costs]),
        0.0,
    )


def _sifted(points: FrontPoints, epsilon: float) -> FrontPoints:
    """Return the architectures that nothing dominates, cheapest first, and the first one of equals."""
    keys = (-points.accuracy, *points.costs.T[::-1])
    order = np.lexsort(keys)  # a stable order by cost, then by the other costs, then by descending accuracy
    kept = order[_undominated(points.costs[order], points.accuracy[order], epsilon)]
    genes = points.genes.index_select(0, torch.from_numpy(kept))
    return FrontPoints(genes, points.accuracy[kept], points.costs[kept], epsilon)


@compiled
def _undominated(
    costs: npt.NDArray[np.float64], accuracy: npt.NDArray[np.float64], epsilon: float
) -> npt.NDArray[np.int64]:
    """Return the places of rows that no kept row before them dominates. The rows are in the order of their
    costs, so that no row is dominated by a later one.
    """
    n, J = costs.shape
    kept = np.empty(n, np.int64)
    m = 0
    for i in range(n):
        dominated = False
        for q in range(m - 1, -1, -1):  # the nearest in cost first, because they are most likely to dominate
            j = kept[q]
            if accuracy[j] >= accuracy[i] - epsilon:
                dominated = True
                for c in range(1, J):
                    if costs[j, c] > costs[i, c] * (1 + epsilon):
                        dominated = False
                        break
                if dominated:
                    break
        if not dominated:
            kept[m] = i
            m += 1
    return kept[:m]
