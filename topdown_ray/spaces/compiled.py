"""Compute sums over terms in code that Numba compiles for CPUs.

Dimensions: N rows, G genes, T terms, H hidden units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from topdown_ray.spaces.terms import FlatTerms, Ints

Function = TypeVar("Function", bound=Callable[..., Any])
Bytes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]


def compiled(function: Function) -> Function:
    """Compile a function with Numba. The result is cached for all processes of a machine."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@compiled
def place_of(terms: FlatTerms, t: int, row: Bytes) -> Any:
    """Return the place of a row's t-th term in the concatenated table."""
    genes, strides = terms.genes[t], terms.strides[t]
    return (
        terms.offsets[t]
        + row[genes[0]] * strides[0]
        + row[genes[1]] * strides[1]
        + row[genes[2]] * strides[2]
        + row[genes[3]] * strides[3]
    )


@compiled
def first_layer(
    genes: Bytes, terms: FlatTerms, table: Floats, bias: Floats, padding: int, relu: bool
) -> Floats:
    """Add the terms' rows of ``table`` (rows, H) in order, and the bias (H,): genes (N, G) ->
    (N + padding, H), with zeros in the padding.
    """
    N, T, H = len(genes), len(terms.offsets), table.shape[1]
    out, places = np.empty((N + padding, H), np.float32), np.empty(T, np.int64)
    out[N:] = 0
    for i in range(N):
        for t in range(T):
            places[t] = place_of(terms, t, genes[i])
        for h in range(H):
            out[i, h] = table[places[0], h]
        t = 1
        while t + 4 <= T:  # four at a time in the same order, for fewer passes over the sums
            a, b, c, d = places[t], places[t + 1], places[t + 2], places[t + 3]
            for h in range(H):
                out[i, h] = (((out[i, h] + table[a, h]) + table[b, h]) + table[c, h]) + table[d, h]
            t += 4
        while t < T:
            a = places[t]
            for h in range(H):
                out[i, h] += table[a, h]
            t += 1
        if relu:
            for h in range(H):
                value = out[i, h] + bias[h]
                out[i, h] = np.float32(0) if value < 0 else value
        else:
            for h in range(H):
                out[i, h] += bias[h]
    return out


@compiled
def swapped(genes: Bytes, terms: FlatTerms, values: Any, swaps: Ints, total: Any) -> None:
    """Add to ``total`` (N, C) the difference that each single change of a row makes to a sum over terms.
    genes (N, G); values of the table's rows (N, rows), or (1, rows) for all; swaps (n, 5): change, term,
    gene, choice and stride.
    """
    places = np.empty(len(terms.offsets), np.int64)
    for i in range(len(genes)):
        row = i if len(values) > 1 else 0
        for t in range(len(places)):
            places[t] = place_of(terms, t, genes[i])
        for k in range(len(swaps)):
            step = swaps[k, 3] - genes[i, swaps[k, 2]]
            if step != 0:
                at = places[swaps[k, 1]]
                total[i, swaps[k, 0]] += values[row, at + step * swaps[k, 4]] - values[row, at]
