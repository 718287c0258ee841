"""Make the gradient-informed moves of a joint search in code that Numba compiles for CPUs.

The results have the same bits as those of the tensor operations in :mod:`breeding`.

Letters: J costs, G genes, C single changes, W of them rounded up to whole blocks, n rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from topdown_ray.algorithms.kernels import Words, _uniform
from topdown_ray.spaces.compiled import Bytes, Floats, compiled
from topdown_ray.spaces.terms import Ints

Flags = npt.NDArray[np.bool_]
BLOCK = 16  # single changes whose weights are summed together, so that drawing one reads few of them
NEVER = np.float32(-np.inf)  # the gain of a change that is never drawn; in single precision, like its vectors
_MASK = np.uint32(0xFFFFFF)


class Ranked(NamedTuple):
    """The single changes of some architectures (rows) that give a different one, in the order of all changes,
    padded to whole blocks with changes that are never drawn. W: C, rounded up to whole blocks.
    """

    number: Ints  # (rows,), the number of changes
    gene: npt.NDArray[np.int16]  # (rows, W), the gene that each changes
    choice: Bytes  # (rows, W), the choice that it changes to
    gains: Floats  # (rows, W), gains of top-1, as a fraction
    costs: Floats  # (rows, J, W), the change in each cost
    savings: Floats  # (rows, J), the most that any of them saves

    @classmethod
    def empty(cls, rows: int, C: int, J: int) -> Ranked:
        """Memory for some rows."""
        W = C + -C % BLOCK
        return cls(
            np.zeros(rows, np.int64),
            np.zeros((rows, W), np.int16),
            np.zeros((rows, W), np.int8),
            np.zeros((rows, W), np.float32),
            np.zeros((rows, J, W), np.float32),
            np.zeros((rows, J), np.float32),
        )


@compiled
def ranked(
    genes: Bytes,
    gains: Floats,
    costs: Floats,
    gene: Ints,
    choice: Bytes,
    controller: Ints,
    threshold: Bytes,
    out: Ranked,
    first: int,
) -> None:
    """Write the single changes of rows that give a different architecture to ``out``, from its row ``first``
    on: genes (n, G), gains (n, C), costs (J, n, C).
    """
    J, n, C = costs.shape
    for row in range(n):
        i, m = first + row, 0
        for c in range(C):
            g = gene[c]
            if genes[row, g] != choice[c] and genes[row, controller[g]] >= threshold[g]:
                out.gene[i, m], out.choice[i, m] = g, choice[c]
                # a gain that is NaN has no weight
                out.gains[i, m] = gains[row, c] if gains[row, c] == gains[row, c] else NEVER
                for j in range(J):
                    out.costs[i, j, m] = costs[j, row, c]
                m += 1
        while m % BLOCK:  # changes that are never drawn
            out.gene[i, m], out.choice[i, m], out.gains[i, m] = -1, 0, NEVER
            out.costs[i, :, m] = 0
            m += 1
        out.number[i] = m
        for j in range(J):
            least = np.float32(0)
            for c in range(m):
                if out.costs[i, j, c] < least:
                    least = out.costs[i, j, c]
            out.savings[i, j] = -least


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"nnan", "nsz"})
def _largest(values: Floats, n: int, least: np.float32) -> np.float32:
    """Return the largest of n values and ``least``, none of which is NaN. The flags allow vector
    instructions, and change no bit of a maximum.
    """
    largest = least
    for c in range(n):
        largest = values[c] if values[c] > largest else largest
    return largest


@compiled
def _move(
    ranked: Ranked,
    at: int,
    slacks: Floats,
    words: Words,
    most: int,
    scale: np.float32,
    weights: Ints,
    last_gene: int,
    row: Bytes,
    open_: Flags,
    promise: Floats,
    behind: Words,
    of_block: Ints,
) -> None:
    """Make one gradient-informed move of a row in place, with at most ``most`` single changes.

    at: the row's entry among ``ranked``; slacks (J,) of the row, changed in place; last_gene: that of the
    last of all single changes; the last four are scratch memory.
    """
    n, J = ranked.number[at], len(slacks)
    gene, gains, costs, savings = ranked.gene[at], ranked.gains[at], ranked.costs[at], ranked.savings[at]
    n_changes = 1 + np.int64(_uniform(words[0]) * np.float32(most))
    last = np.float32(len(weights) - 1)
    for c in range(n):
        open_[c] = True
    for i in range(n_changes):
        for c in range(n):
            promise[c] = gains[c] if open_[c] else NEVER
        for j in range(J):
            room = slacks[j] if i == n_changes - 1 else np.float32(slacks[j] + savings[j])
            for c in range(n):
                promise[c] = promise[c] if costs[j, c] <= room else NEVER
        best = _largest(promise, n, np.float32(-1))
        total = np.int64(0)
        for b in range(n // BLOCK):
            whole = np.int64(0)
            for c in range(BLOCK):
                steps = (best - promise[b * BLOCK + c]) * scale
                behind[b * BLOCK + c] = np.uint32(steps if steps < last else last)
                whole += weights[behind[b * BLOCK + c]]
            of_block[b] = whole
            total += whole
        # the word's 24 bits as a share of the sum of the weights
        left, changed = np.int64(words[1 + i] & _MASK) * total >> 24, last_gene
        if total > 0:
            b = 0
            while left >= of_block[b]:
                left -= of_block[b]
                b += 1
            c = b * BLOCK
            left -= weights[behind[c]]
            while left >= 0:
                c += 1
                left -= weights[behind[c]]
            changed = gene[c]
            row[changed] = ranked.choice[at, c]
            for j in range(J):
                slacks[j] -= costs[j, c]
        if i < n_changes - 1:
            for c in range(n):
                open_[c] &= gene[c] != changed
