"""Run the inner loop of a search in code that Numba compiles for CPUs, with the same bits as the tensor
operations for other devices.

Between two calls of the predictor, a generation is a few thousand table look-ups and random bits. As tensor
operations they take longer than the predictor; compiled, row by row, they take only a small fraction of its
time. Every function here has a twin in torch (:mod:`evolution`, :mod:`memory`), which runs on CUDA and with
which the tests compare it bit by bit.

Letters: S searches, P children of a generation, Q parents, G genes, N rows, T terms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from topdown_ray.spaces.compiled import Bytes, Floats, compiled, place_of
from topdown_ray.spaces.terms import FlatSum, FlatTerms, Ints

Words = npt.NDArray[np.uint32]


class Mutating(NamedTuple):
    """The mutation tables of :class:`proposals.Mutation`, with one entry for each group. ``choices`` has one
    for each combination.
    """

    limits: npt.NDArray[np.int32]
    scales: Floats
    counts: Floats
    offsets: Ints
    genes: Ints  # (groups, 2)
    choices: Bytes  # (combinations, 2)


# --- random numbers: see rng --------------------------------------------------------------------------------


@compiled
def _mix(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def _stream(seed: np.int64, purpose: int, target: int, generation: int) -> np.uint64:
    name = np.uint64(purpose) << np.uint64(48) ^ np.uint64(target) << np.uint64(32) ^ np.uint64(generation)
    return _mix(_mix(name * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(seed))


@compiled
def _key(stream: np.uint64, slot: int, attempt: int) -> np.uint64:
    return _mix(stream + np.uint64(slot) + (np.uint64(attempt) << np.uint64(32)))


@compiled
def _word(key: np.uint64, i: int) -> np.uint32:
    """Return the i-th word of a key."""
    low, high = np.uint32(key & np.uint64(0xFFFFFFFF)), np.uint32(key >> np.uint64(32))
    x = np.uint32(low + np.uint32(np.uint32(i + 1) * np.uint32(0x9E3779B9)))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32(x + high)
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@compiled
def _words(key: np.uint64, words: Words) -> None:
    """Fill an array of uint32 with the words of a key."""
    for i in range(len(words)):
        words[i] = _word(key, i)


@compiled
def _uniform(word: np.uint32) -> np.float32:
    return np.float32(np.int32(word & np.uint32(0xFFFFFF))) * np.float32(2.0**-24)


# --- proposals ----------------------------------------------------------------------------------------------


@compiled
def _cost(cost: FlatSum, row: Bytes) -> float:
    """Return the first sum, or infinity if another one breaks its limit."""
    ticks = 0.0
    for t in range(cost.ends[0]):
        ticks += cost.ticks[place_of(cost.terms, t, row)]
    for j in range(1, len(cost.ends)):
        spent = 0.0
        for t in range(cost.ends[j - 1], cost.ends[j]):
            spent += cost.ticks[place_of(cost.terms, t, row)]
        if spent * cost.units[j] > cost.most[j]:
            return np.inf
    return float(ticks * cost.units[0])


@compiled
def _mutate(mutating: Mutating, words: Words, row: Bytes) -> None:
    for i in range(len(words)):
        drawn = np.int32(words[i] & np.uint32(0xFFFFFF))
        if drawn < mutating.limits[i]:
            scaled = min(np.float32(drawn) * mutating.scales[i], mutating.counts[i])
            combination = np.int64(scaled) + mutating.offsets[i]
            row[mutating.genes[i, 0]] = mutating.choices[combination, 0]
            row[mutating.genes[i, 1]] = mutating.choices[combination, 1]


@compiled
def _cross(mother: Bytes, father: Bytes, words: Words, row: Bytes) -> None:
    for g in range(len(row)):
        row[g] = father[g] if words[g >> 5] >> np.uint32(g & 31) & np.uint32(1) else mother[g]


@compiled
def children(
    parents: Bytes,
    seeds: Ints,
    P: int,
    M: int,
    purposes: tuple[int, int, int],
    target: int,
    generation: int,
    mutating: Mutating,
    cost: FlatSum,
    limit: float,
    redraws: int,
) -> Bytes:
    """Draw the children of a generation: parents int8 (S, Q, G), seeds int64 (S,) -> int8 (S, P, G), mutants
    first.

    purposes: of the streams for the parents, the mutations and the crossovers. A child that does not meet the
    limit after ``redraws`` draws is a copy of its first parent.
    """
    S, Q, G = parents.shape
    born = np.empty((S, P, G), np.int8)
    pair = np.empty(2, np.uint32)
    mutation_words = np.empty(len(mutating.limits), np.uint32)
    crossover_words = np.empty((G + 31) // 32, np.uint32)
    for s in range(S):
        picking = _stream(seeds[s], purposes[0], target, generation)
        mutation = _stream(seeds[s], purposes[1], target, generation)
        crossover = _stream(seeds[s], purposes[2], target, generation)
        for p in range(P):
            _words(_key(picking, p, 0), pair)
            mother = parents[s, np.int64(_uniform(pair[0]) * np.float32(Q))]
            father = parents[s, np.int64(_uniform(pair[1]) * np.float32(Q))]
            row = born[s, p]
            for attempt in range(redraws + 1):
                if attempt == redraws:
                    row[:] = mother
                elif p < M:
                    _words(_key(mutation, p, attempt), mutation_words)
                    row[:] = mother
                    _mutate(mutating, mutation_words, row)
                else:
                    _words(_key(crossover, p - M, attempt), crossover_words)
                    _cross(mother, father, crossover_words, row)
                if _cost(cost, row) <= limit:
                    break
    return born


@compiled
def random_feasible(
    sizes: Floats,
    seeds: Ints,
    n: int,
    purpose: int,
    target: int,
    generation: int,
    cost: FlatSum,
    limit: float,
    redraws: int,
) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """Make n uniform draws that meet the limit for every search: int8 (S*n, G), and which of them do not meet
    it after all redraws (S*n,).
    """
    S, G = len(seeds), len(sizes)
    drawn = np.empty((S * n, G), np.int8)
    failed = np.zeros(S * n, np.bool_)
    words = np.empty(G, np.uint32)
    for s in range(S):
        stream = _stream(seeds[s], purpose, target, generation)
        for i in range(n):
            row = drawn[s * n + i]
            failed[s * n + i] = True
            for attempt in range(redraws):
                _words(_key(stream, i, attempt), words)
                for g in range(G):
                    row[g] = np.int8(_uniform(words[g]) * sizes[g])
                if _cost(cost, row) <= limit:
                    failed[s * n + i] = False
                    break
    return drawn, failed


@compiled
def pruned(
    genes: Bytes,
    slots: Ints,
    gene: Ints,
    lowered: Bytes,
    ends: Ints,
    picks: int,
    resolution: int,
    cost: FlatSum,
    limit: float,
    cheapest: Bytes,
) -> Bytes:
    """Return the first architecture on each row's way down that meets the limit, see :mod:`pruning`: genes
    (N, G), slots (N,) -> (N, G).

    gene, lowered (E,): the events, kind by kind; ends: where those of each kind end; picks: random picks of a
    kind, after which the kinds follow in order.
    """
    found, n_kinds = genes.copy(), len(ends)
    following = np.empty(n_kinds, np.int64)  # the next event of each kind
    for i in range(len(genes)):
        row, first = found[i], genes[i]
        if _cost(cost, row) <= limit:
            continue
        for kind in range(n_kinds):
            following[kind] = ends[kind - 1] if kind else 0
        key, pick, met = _mix(np.uint64(slots[i])), 0, False
        while not met and pick < picks + n_kinds:
            drawn = _uniform(_word(key, pick)) * np.float32(n_kinds) if pick < picks else np.float32(0)
            kind = int(drawn) if pick < picks else pick - picks
            while following[kind] < ends[kind]:
                event = following[kind]
                following[kind] += 1
                if first[gene[event]] > lowered[event]:
                    row[gene[event]] = min(row[gene[event]], lowered[event])
                    met = _cost(cost, row) <= limit
                    if met or pick < picks:
                        break
            pick += 1
        while not met and row[resolution] > 0:
            row[resolution] -= 1
            met = _cost(cost, row) <= limit
        if not met:
            row[:] = cheapest
    return found


# --- selection ----------------------------------------------------------------------------------------------


@compiled
def survivors(
    parents: Bytes,
    parents_accuracy: Floats,
    born: Bytes,
    accuracy: Floats,
    best: Bytes,
    best_accuracy: Floats,
) -> tuple[Bytes, Floats, Bytes, Floats]:
    """Return the Q best of parents and children, best first and among equals the earlier ones first, and the
    best ever scored.

    parents (S, Q, G), their accuracy (S, Q), born (S, P, G), accuracy (S, P), best (S, G), best_accuracy (S,)
    -> the same four of the next state.
    """
    S, Q, G = parents.shape
    P = born.shape[1]
    N = Q + P
    bits_of_parents, bits_of_children = parents_accuracy.view(np.int32), accuracy.view(np.int32)
    next_parents, next_accuracy = np.empty((S, Q, G), np.int8), np.empty((S, Q), np.float32)
    next_best, next_best_accuracy = best.copy(), best_accuracy.copy()
    order = np.empty(N, np.int64)
    for s in range(S):
        for i in range(N):
            bits = np.int64(bits_of_parents[s, i] if i < Q else bits_of_children[s, i - Q])
            ascending = bits ^ (bits >> 31 & 0x7FFFFFFF)  # whole numbers in the order of the floats
            order[i] = i - ascending * N  # the best first; no two are equal
        order.sort()
        for q in range(Q):
            i = order[q] % N
            if i < Q:
                next_parents[s, q], next_accuracy[s, q] = parents[s, i], parents_accuracy[s, i]
            else:
                next_parents[s, q], next_accuracy[s, q] = born[s, i - Q], accuracy[s, i - Q]
        if next_accuracy[s, 0] > best_accuracy[s]:
            next_best[s], next_best_accuracy[s] = next_parents[s, 0], next_accuracy[s, 0]
    return next_parents, next_accuracy, next_best, next_best_accuracy


# --- memory -------------------------------------------------------------------------------------------------


@compiled
def recall(
    genes: Bytes,
    n: int,
    identity: FlatTerms,
    digits: Ints,
    keys: Ints,
    values: Floats,
    owners: npt.NDArray[np.int32],
    slots: int,
    scores: Floats,
    scored: Ints,
) -> tuple[Ints, Ints, Ints, Ints]:
    """Look up rows of S searches (n each) in their memories. Known accuracies are written to ``scores`` (N,).

    keys (S * slots, 2), values (S * slots,), owners (S * slots,): the memories; see :class:`memory.Memo`.
    Returns the rows that the predictor has to score, the place of each in the memory (-1: another new entry
    takes it), and the other new rows with, for each, the number of the scored one that it equals. ``scored``
    (S,) counts the rows to score.
    """
    N = len(genes)
    key, slot = np.empty((N, 2), np.int64), np.empty(N, np.int64)
    new, place = np.empty(N, np.int64), np.empty(N, np.int64)
    n_new = 0
    for i in range(N):
        first, second = np.int64(0), np.int64(0)
        for t in range(len(identity.offsets)):
            at = place_of(identity, t, genes[i])
            first += digits[at, 0]
            second += digits[at, 1]
        key[i, 0], key[i, 1] = first, second
        slot[i] = np.int64(i // n) * slots + np.int64(_hash(first, second) & np.uint64(slots - 1))
    for i in range(N):  # a separate loop, so that the processor fetches many places at once
        at = slot[i]
        if keys[at, 0] == key[i, 0] and keys[at, 1] == key[i, 1]:
            scores[i] = values[at]
        else:
            new[n_new], place[n_new] = i, at
            owners[at] = i  # of several new entries for one place, the last one stays
            n_new += 1
    rows, places = np.empty(n_new, np.int64), np.empty(n_new, np.int64)
    waiting, leaders = np.empty(n_new, np.int64), np.empty(n_new, np.int64)
    number = np.empty(N, np.int64)  # the number of a scored row
    n_rows, n_waiting = 0, 0
    for j in range(n_new):
        i, at = new[j], place[j]
        owner = owners[at]
        equal = key[owner, 0] == key[i, 0] and key[owner, 1] == key[i, 1]
        if equal and owner != i:
            waiting[n_waiting], leaders[n_waiting] = i, owner
            n_waiting += 1
        else:
            rows[n_rows], places[n_rows] = i, (at if equal else -1)
            number[i] = n_rows
            scored[i // n] += 1
            n_rows += 1
            if equal:
                keys[at, 0], keys[at, 1] = key[i, 0], key[i, 1]
    for w in range(n_waiting):
        leaders[w] = number[leaders[w]]
    return rows[:n_rows], places[:n_rows], waiting[:n_waiting], leaders[:n_waiting]


@compiled
def remember(
    found: Floats, rows: Ints, places: Ints, waiting: Ints, leaders: Ints, values: Floats, scores: Floats
) -> None:
    """Copy the predictor's answers ``found`` for the rows of :func:`recall` to ``scores`` and to the
    ``values`` of the memory.
    """
    for j in range(len(rows)):
        scores[rows[j]] = found[j]
        if places[j] >= 0:
            values[places[j]] = found[j]
    for w in range(len(waiting)):
        scores[waiting[w]] = found[leaders[w]]


@compiled
def _hash(first: np.int64, second: np.int64) -> np.uint64:
    return _mix(np.uint64(first) ^ _mix(np.uint64(second)))
