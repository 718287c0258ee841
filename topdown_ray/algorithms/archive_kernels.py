"""Merge the archives of joint searches in code that Numba compiles for CPUs.

The results have the same bits as those of the tensor operations in :mod:`archives`.

Letters: S searches, A archives, J costs, Q places of an archive, G genes, n children.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from topdown_ray.spaces.compiled import Bytes, Floats, compiled
from topdown_ray.spaces.terms import Ints

Doubles = npt.NDArray[np.float64]


class ArchiveTables(NamedTuple):
    """The tables of :class:`archives.Archive`."""

    genes: Bytes  # (S, A, Q, G)
    accuracy: Floats  # (S, A, Q)
    cost: Doubles  # (S, A, Q, J)
    name: Ints  # (S, A, Q)


@compiled
def _within(cost: Doubles, limits: Doubles) -> bool:
    within = True
    for j in range(len(limits)):
        within &= cost[j] <= limits[j]
    return within


class Offered(NamedTuple):
    """The tables of :class:`archives.Children`."""

    genes: Bytes  # (S, n, G)
    accuracy: Floats  # (S, n)
    cost: Doubles  # (S, n, J)
    name: Ints  # (S, n)
    aim: Ints  # (n,)


@compiled
def merge(archives: ArchiveTables, new: Offered, limits: Doubles, share: bool, distinct: bool) -> None:
    """Offer scored children to all archives, which are changed in place. limits: (A, J)."""
    genes, accuracy, cost, name, aim = new
    S, A, Q = archives.accuracy.shape
    n = accuracy.shape[1]
    worst, entering, names = np.empty(A, np.float32), np.empty(n, np.int64), np.empty(n, np.int64)
    offered = np.empty(n, np.bool_)
    for s in range(S):
        best_of, held = archives.accuracy[s], archives.name[s].reshape(-1)
        for a in range(A):
            worst[a] = best_of[a, Q - 1]
        m = 0
        for i in range(n):
            enters = False
            for a in range(A):
                enters |= accuracy[s, i] > worst[a] and _within(cost[s, i], limits[a])
            if enters:
                # the table of drawn children forgets entries, but an archive must not hold an architecture
                # twice
                twice = False
                if distinct:
                    for q in range(len(held)):
                        twice |= held[q] == name[s, i]
                    for e in range(m):
                        twice |= names[e] == name[s, i]
                entering[m], names[m], offered[m] = i, name[s, i], not twice
                m += 1
        for e in range(m):
            if not offered[e]:
                continue
            i = entering[e]
            for a in range(A):
                own = best_of[a]
                if accuracy[s, i] > own[Q - 1] and (share or aim[i] == a) and _within(cost[s, i], limits[a]):
                    q = Q - 1
                    while q > 0 and own[q - 1] < accuracy[s, i]:
                        own[q] = own[q - 1]
                        archives.genes[s, a, q] = archives.genes[s, a, q - 1]
                        archives.cost[s, a, q] = archives.cost[s, a, q - 1]
                        archives.name[s, a, q] = archives.name[s, a, q - 1]
                        q -= 1
                    own[q] = accuracy[s, i]
                    archives.genes[s, a, q] = genes[s, i]
                    archives.cost[s, a, q] = cost[s, i]
                    archives.name[s, a, q] = name[s, i]
