"""Represent latency tables, MAC counts and the predictor's first layer as sums over terms.

A *term* is a small table over a few genes (for MobileNetV3: resolution, the stage's depth, kernel and expand
ratio of a block -> ms). The value of an architecture is the sum over its terms. All lookups of all
architectures take one matrix product (the places in the concatenated table) and one gather."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class FlatTerms(NamedTuple):
    """The genes of a sum's terms, and the places of its entries in the concatenated table, see
    :func:`flatten`.
    """

    genes: Ints  # (T, 4)
    strides: Ints  # (T, 4), 0 if a term has fewer genes
    offsets: Ints  # (T,)


class FlatSum(NamedTuple):
    """A sum over terms in whole ticks, and further sums with their limits, for compiled code."""

    terms: FlatTerms  # the terms of all sums, one after another
    ticks: Array
    ends: Ints  # (J,), the end of the terms of each sum
    units: Array  # (J,), the size of a tick of each sum
    most: Array  # (J,), the limit of each sum; infinite for the first one

    @classmethod
    def of(cls, sums: Sequence[tuple[Sequence[Term], float, float]]) -> FlatSum:
        """Make it from the terms, the tick and the limit of each sum."""
        terms = [term for part, _, _ in sums for term in part]
        ends = np.cumsum([len(part) for part, _, _ in sums])
        units, most = (
            np.array(values, dtype=np.float64) for values in zip(*(x[1:] for x in sums), strict=True)
        )
        return cls(flatten(terms), concatenate(terms), ends, units, most)


@dataclass(frozen=True)
class Term:
    """One small table over the joint choices of ``genes``: values (choices of gene 0, of gene 1, ...,
    [D]).
    """

    genes: tuple[int, ...]
    values: Array


def tabulate(choices: Sequence[int], genes: tuple[int, ...], value: Callable[..., float | Array]) -> Term:
    """Make a term with the entry ``value(*choice indices)`` for every combination of the genes' choices.

    choices: the number of choices of every gene of the space."""
    sizes = [choices[g] for g in genes]
    entries = [value(*combination) for combination in itertools.product(*map(range, sizes))]
    values = np.asarray(entries, dtype=np.float64)
    return Term(genes, values.reshape(*sizes, *values.shape[1:]))


class TermIndex:
    """Computes the places of terms in the concatenated table: genes int8 (N, G) -> int32 (N, T)."""

    def __init__(self, terms: Sequence[Term], G: int):
        import torch

        strides = np.zeros((G, len(terms)), dtype=np.float32)
        offsets = np.zeros(len(terms), dtype=np.float32)
        rows = 0
        for t, term in enumerate(terms):
            offsets[t] = rows
            sizes = term.values.shape[: len(term.genes)]
            for axis, g in enumerate(term.genes):
                strides[g, t] = int(np.prod(sizes[axis + 1 :], dtype=np.int64))
            rows += int(np.prod(sizes, dtype=np.int64))
        assert rows < 2**24  # float32 represents the places exactly
        assert strides.max() < 2**7  # int8
        self.strides = torch.from_numpy(strides)  # (G, T)
        self.small_strides = self.strides.to(torch.int8)
        self.offsets = torch.from_numpy(offsets)  # (T,)
        self.whole_offsets = self.offsets.to(torch.int32)

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Return places in the concatenated table: genes int8 (N, G) -> int32 (N, T)."""
        import torch

        if genes.device.type == "cpu":  # three times faster than the float product, and as exact
            return torch._int_mm(genes, self.small_strides).add_(self.whole_offsets)
        return torch.addmm(self.offsets, genes.float(), self.strides).int()

    def to(self, device: torch.device) -> TermIndex:
        """Return this index with its tensors on a device."""
        self.strides, self.offsets = self.strides.to(device), self.offsets.to(device)
        return self


def concatenate(terms: Sequence[Term]) -> Array:
    """Return the concatenated table for the places of :class:`TermIndex`: (rows,) or (rows, D)."""
    return np.concatenate([term.values.reshape(-1, *term.values.shape[len(term.genes) :]) for term in terms])


def flatten(terms: Sequence[Term]) -> FlatTerms:
    """Return the data of :class:`TermIndex` for compiled code: for each term its genes, their strides, and
    its offset.
    """
    assert max(len(term.genes) for term in terms) <= 4
    genes, strides = (np.zeros((len(terms), 4), dtype=np.int64) for _ in range(2))
    offsets = np.zeros(len(terms), dtype=np.int64)
    rows = 0
    for t, term in enumerate(terms):
        sizes = term.values.shape[: len(term.genes)]
        genes[t, : len(sizes)] = term.genes
        strides[t, : len(sizes)] = [
            int(np.prod(sizes[axis + 1 :], dtype=np.int64)) for axis in range(len(sizes))
        ]
        offsets[t] = rows
        rows += int(np.prod(sizes, dtype=np.int64))
    return FlatTerms(genes, strides, offsets)


def aligned(genes: Sequence[int], values: Array, axes: Sequence[int], sizes: Sequence[int]) -> Array:
    """Return a table over ``genes`` with one axis for each gene of ``axes``, which include all ``genes``. The
    axes of other genes have length 1.
    """
    order = sorted(range(len(genes)), key=lambda axis: axes.index(genes[axis]))
    return values.transpose(order).reshape([sizes[g] if g in genes else 1 for g in axes])


def elimination(
    scopes: Sequence[Sequence[int]], sizes: Sequence[int]
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Return an order in which to eliminate all genes from tables over these scopes, with the smallest joint
    table first.

    Each gene is paired with the other genes of its joint table, ascending, which are all eliminated later.
    """
    return _elimination(tuple(map(tuple, scopes)), tuple(sizes))


@functools.cache  # the tables of a space have few different scopes, and finding an order takes long
def _elimination(
    scopes: tuple[tuple[int, ...], ...], sizes: tuple[int, ...]
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    open_scopes = [set(scope) for scope in scopes]
    remaining = set(range(len(sizes)))
    order: list[tuple[int, tuple[int, ...]]] = []

    def joint_genes(gene: int) -> set[int]:
        return {gene}.union(*(scope for scope in open_scopes if gene in scope))

    while remaining:
        gene = min(remaining, key=lambda g: (math.prod(sizes[x] for x in joint_genes(g)), g))
        others = joint_genes(gene) - {gene}
        open_scopes = [scope for scope in open_scopes if gene not in scope] + [others]
        order.append((gene, tuple(sorted(others))))
        remaining.remove(gene)
    return tuple(order)


def minimise(terms: Sequence[Term], sizes: Sequence[int]) -> tuple[float, npt.NDArray[np.int8]]:
    """Return the exact smallest sum of scalar terms, and a row of genes (G,) that has it, by bucket
    elimination.

    Genes are eliminated one at a time, with the smallest joint table first. The tables of the package's
    spaces have at most a few hundred entries. Source: Dechter 1999, *Bucket elimination: a unifying framework
    for reasoning*."""
    factors = [(term.genes, term.values) for term in terms]
    decisions: list[tuple[int, tuple[int, ...], npt.NDArray[np.intp]]] = []
    for gene, others in elimination([term.genes for term in terms], sizes):
        axes = (gene, *others)
        joint = np.zeros([sizes[g] for g in axes])
        for genes, values in factors:
            if gene in genes:
                joint = joint + aligned(genes, values, axes, sizes)
        factors = [factor for factor in factors if gene not in factor[0]] + [(others, joint.min(axis=0))]
        decisions.append((gene, others, joint.argmin(axis=0)))

    row = np.zeros(len(sizes), dtype=np.int8)
    for gene, given, choice in reversed(decisions):
        row[gene] = choice[tuple(row[g] for g in given)]
    return float(sum(float(values) for genes, values in factors if genes == ())), row
