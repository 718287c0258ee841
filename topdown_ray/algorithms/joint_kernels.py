"""The inner loop of a joint search, compiled for CPUs with Numba: drawing children, moving by gradients, and
merging archives, with the same bits as the tensor operations of :mod:`breeding` and :mod:`archives`.

Searches share nothing, so every function takes them one after another; within a search rows come in the order
of their slots, which is the order that decides among equals.

Letters: S searches, K targets, A archives, J costs, Q places of an archive, P children a generation, G genes,
C single changes, n rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from topdown_ray.algorithms.kernels import (
    Mutating,
    Words,
    _cross,
    _hash,
    _key,
    _mutate,
    _stream,
    _uniform,
    _word,
    _words,
)
from topdown_ray.spaces.compiled import Bytes, Floats, compiled, place_of
from topdown_ray.spaces.terms import FlatSum, FlatTerms, Ints

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
MOVE, MUTANT, CROSSED = 0, 1, 2  # how a child is made
_MASK = np.uint32(0xFFFFFF)
NEVER = np.float32(-np.inf)  # the gain of a change that is not drawn; in single precision, as its vectors
BLOCK = 16  # single changes whose weights are summed together, so that drawing one looks at few of them


class ArchiveTables(NamedTuple):
    """The tables of :class:`archives.Archive`."""

    genes: Bytes  # (S, A, Q, G)
    accuracy: Floats  # (S, A, Q)
    cost: Doubles  # (S, A, Q, J)
    name: Ints  # (S, A, Q)


class SeenTables(NamedTuple):
    """The tables of :class:`memory.Seen`, and how many places each search has."""

    names: Ints  # (S * places,)
    owners: npt.NDArray[np.int32]
    places: int


class Ranked(NamedTuple):
    """The single changes of some architectures (rows) that give another one, in the order of all changes, and
    behind them changes without a chance up to whole blocks. W: C, up to whole blocks.
    """

    number: Ints  # (rows,), how many there are
    gene: npt.NDArray[np.int16]  # (rows, W), that each changes
    choice: Bytes  # (rows, W), that it changes to
    gains: Floats  # (rows, W), of top-1, as a fraction
    costs: Floats  # (rows, J, W), what they change in each cost
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


class RankingTables(NamedTuple):
    """The tables of :class:`gradients.Ranking`, and how many places each search has."""

    names: Ints  # (S * places,)
    owners: Ints
    rows: Ranked
    places: int


class Facts(NamedTuple):
    """What does not change from generation to generation."""

    seeds: Ints  # (S,)
    limits: Doubles  # (A, J)
    neighbours: Ints  # (3, A)
    controller: Ints  # (G,), the depth gene that switches each gene off, or any
    threshold: Bytes  # (G,), from which choice of it on the gene takes part
    identity: FlatTerms
    digits: Ints  # (rows, 2)
    costs: FlatSum
    mutating: Mutating
    gene: Ints  # (C,), of each single change
    choice: Bytes  # (C,)
    weights: Ints  # (steps + 1,), of moves by how far they are behind the best one
    scale: np.float32  # steps a unit of top-1
    changes: int  # at most so many single changes a move
    neighbour_rate: float
    distinct: bool
    moves: int  # children of each kind: slots below ``moves`` are moves, below ``mutants`` mutants
    mutants: int


class BornTables(NamedTuple):
    """The tables of :class:`breeding.Born`: the children of a generation as far as they are drawn."""

    genes: Bytes  # (S * P, G)
    name: Ints  # (S * P,)
    cost: Doubles  # (S * P, J)
    fresh: Flags  # (S * P,)


class Ahead(NamedTuple):
    """Parents of a generation whose changes were lacking, in the order in which they were met."""

    names: Ints  # (rows,)
    genes: Bytes  # (rows, G)
    rows: Ranked


class Breeding(NamedTuple):
    """All that drawing the children of a generation reads and changes."""

    facts: Facts
    archives: ArchiveTables
    ranking: RankingTables
    seen: SeenTables
    born: BornTables
    ahead: Ahead
    spent: Ints  # (S, K), gradients that were computed for each target
    pending: Ints  # (S * P,), slots of all searches, ascending; the first ``state[PENDING]`` are to be drawn
    state: Ints  # (3,), see below


ATTEMPT, PENDING, AHEAD = (
    0,
    1,
    2,
)  # places of ``Breeding.state``; AHEAD: how many of its rows have their changes


@compiled
def draw(
    drawing: Breeding,
    P: int,
    purpose: int,
    generation: int,
    aim: Ints,
    payer: Ints,
    attempts: int,
    tile: int,
) -> int:
    """Draw the children of a generation, each ``attempts`` times at most, until all of them meet their limits
    and are new, or until changes of parents are lacking. Returns how many rows of ``ahead`` behind the
    first ``state[AHEAD]`` are to be ranked before drawing goes on; 0: the generation is complete.

    purpose: of the stream of random numbers; aim, payer (P,): the archive and the target that each slot
    serves. Rows are ranked by ``tile`` at least: where fewer are lacking, parents of later attempts fill the
    tile."""
    archives, state = drawing.archives, drawing.state
    filled = _filled_places(archives.accuracy)
    while state[ATTEMPT] < attempts and state[PENDING] > 0:
        pending = drawing.pending[: state[PENDING]]
        place = (P, purpose, generation, state[ATTEMPT])
        mother, father, source, lacking = _parents(drawing, filled, pending, place, aim, payer)
        if lacking > 0:
            return _with_later_ones(drawing, filled, pending, place, aim, lacking, attempts, tile)
        left = _children(drawing, pending, place, aim, mother, father, source)
        drawing.pending[: len(left)] = left
        state[PENDING] = len(left)
        state[ATTEMPT] += 1
    return 0


@compiled
def _filled_places(accuracy: Floats) -> Ints:
    """How many places of each archive are filled: accuracy (S, A, Q) -> (S, A)."""
    S, A, Q = accuracy.shape
    filled = np.zeros((S, A), np.int64)
    for s in range(S):
        for a in range(A):
            for q in range(Q):
                filled[s, a] += accuracy[s, a, q] > -np.inf
    return filled


@compiled
def _parent(
    facts: Facts, filled: Ints, Q: int, search: int, aim: int, first: np.uint32, second: np.uint32
) -> Any:
    """The place among S * A * Q of a parent from the archive that a child serves, or from a neighbour's."""
    u, A = _uniform(first), len(facts.limits)
    rate = facts.neighbour_rate / 2
    step = 1
    if u < np.float32(rate):
        step = 2
    elif u >= np.float32(1 - rate):
        step = 0
    archive = facts.neighbours[step, aim]
    if filled[search, archive] == 0:
        archive = aim
    v = _uniform(second)
    rank = np.int64(np.float32(v * v) * np.float32(filled[search, archive]))
    return (search * A + archive) * Q + rank


@compiled
def _found(names: Ints, n: int, name: np.int64) -> int:
    """Which of the first n names this is, -1 for none."""
    for i in range(n):
        if names[i] == name:
            return i
    return -1


@compiled
def _parents(
    drawing: Breeding, filled: Ints, pending: Ints, place: tuple[int, int, int, int], aim: Ints, payer: Ints
) -> tuple[Ints, Ints, Ints, int]:
    """Parents of children that are still to be drawn.

    Returns the places of mothers and fathers (n,); for each move where its mother's changes are (n,): a place
    of the ranking, or -1 - i for the i-th row of ``ahead``; and how many are lacking, which are put behind
    those of ``ahead``. Only where none is lacking the gradients are counted, and the ranking makes room."""
    facts, archives, ranking, ahead = drawing.facts, drawing.archives, drawing.ranking, drawing.ahead
    P, purpose, generation, attempt = place
    n, Q, G = len(pending), archives.genes.shape[2], archives.genes.shape[3]
    genes, names = archives.genes.reshape(-1, G), archives.name.reshape(-1)
    mother, father, source = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    missing, n_missing = np.empty(n, np.int64), 0
    for i in range(n):
        search, slot = pending[i] // P, pending[i] % P
        key = _key(_stream(facts.seeds[search], purpose, 0, generation), slot, attempt)
        mother[i] = _parent(facts, filled, Q, search, aim[slot], _word(key, 0), _word(key, 1))
        if slot >= facts.mutants:
            father[i] = _parent(facts, filled, Q, search, aim[slot], _word(key, 2), _word(key, 3))
        if slot < facts.moves:
            name = names[mother[i]]
            source[i] = search * ranking.places + (name & (ranking.places - 1))
            if ranking.names[source[i]] != name:
                missing[n_missing] = i
                n_missing += 1
                ranking.owners[source[i]] = i  # of several newcomers to one place the last one stays there
    held, lacking = drawing.state[AHEAD], 0
    number = np.empty(n_missing, np.int64)  # of each missing one among ``ahead``
    for j in range(n_missing):
        name = names[mother[missing[j]]]
        number[j] = _found(ahead.names, held + lacking, name)
        if number[j] < 0:
            number[j] = held + lacking
            ahead.names[number[j]], ahead.genes[number[j]] = name, genes[mother[missing[j]]]
            lacking += 1
    if lacking == 0:
        for j in range(n_missing):
            i = missing[j]
            owner = ranking.owners[source[i]]
            if owner == i or names[mother[owner]] != names[mother[i]]:
                drawing.spent[pending[i] // P, payer[pending[i] % P]] += 1
        for j in range(n_missing):
            i = missing[j]
            if ranking.owners[source[i]] == i:
                ranking.names[source[i]] = names[mother[i]]
            source[i] = -1 - number[j]
    return mother, father, source, lacking


@compiled
def _with_later_ones(
    drawing: Breeding,
    filled: Ints,
    pending: Ints,
    place: tuple[int, int, int, int],
    aim: Ints,
    lacking: int,
    attempts: int,
    tile: int,
) -> int:
    """Fill the last tile of lacking parents with those of later attempts: the new number of lacking ones."""
    facts, archives, ranking, ahead = drawing.facts, drawing.archives, drawing.ranking, drawing.ahead
    P, purpose, generation, attempt = place
    Q, G, held = archives.genes.shape[2], archives.genes.shape[3], drawing.state[AHEAD]
    genes, names = archives.genes.reshape(-1, G), archives.name.reshape(-1)
    for later in range(attempt + 1, attempts):
        for i in range(len(pending)):
            search, slot = pending[i] // P, pending[i] % P
            if lacking % tile == 0:
                return lacking
            if slot < facts.moves:
                key = _key(_stream(facts.seeds[search], purpose, 0, generation), slot, later)
                at = _parent(facts, filled, Q, search, aim[slot], _word(key, 0), _word(key, 1))
                known = ranking.names[search * ranking.places + (names[at] & (ranking.places - 1))]
                if known != names[at] and _found(ahead.names, held + lacking, names[at]) < 0:
                    ahead.names[held + lacking], ahead.genes[held + lacking] = names[at], genes[at]
                    lacking += 1
    return lacking


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
    """Keep the single changes of rows that give another architecture: genes (n, G), gains (n, C), costs (J,
    n, C); in ``out`` from its row ``first`` on.
    """
    J, n, C = costs.shape
    for row in range(n):
        i, m = first + row, 0
        for c in range(C):
            g = gene[c]
            if genes[row, g] != choice[c] and genes[row, controller[g]] >= threshold[g]:
                out.gene[i, m], out.choice[i, m] = g, choice[c]
                # a gain that is no number weighs nothing
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
    """The largest of n values and ``least``; none is NaN. The flags let it run on vectors, and change no bit
    of a maximum.
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
    """One gradient-informed move of a row, in place: of ``most`` single changes at most.

    at: the row's entry among ``ranked``; slacks (J,) of the row, changed in place; last_gene: that of the
    last of all single changes; the last four are scratch."""
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


@compiled
def _children(
    drawing: Breeding,
    pending: Ints,
    place: tuple[int, int, int, int],
    aim: Ints,
    mother: Ints,
    father: Ints,
    source: Ints,
) -> Ints:
    """One attempt at each pending child; those that meet their limits and are new are born. Returns the slots
    that are still pending. mother, father, source: see :func:`_parents`.
    """
    facts, archives, ranking, seen = drawing.facts, drawing.archives, drawing.ranking, drawing.seen
    drawn, ahead = drawing.born, drawing.ahead.rows
    P, purpose, generation, attempt = place
    n, G, J, C = len(pending), archives.genes.shape[3], archives.cost.shape[3], len(facts.gene)
    genes, costs = archives.genes.reshape(-1, G), archives.cost.reshape(-1, J)
    weights, limits, last_gene = facts.weights, facts.limits, facts.gene[C - 1]
    controller, threshold, mutating = facts.controller, facts.threshold, facts.mutating
    sums, identity, digits = facts.costs, facts.identity, facts.digits
    of_move = np.empty(5 + facts.changes, np.uint32)
    of_mutant = np.empty(4 + len(mutating.limits), np.uint32)
    of_crossed = np.empty(4 + (G + 31) // 32, np.uint32)
    W, slacks = ahead.gene.shape[1], np.empty(J, np.float32)
    scratch = (
        np.empty(W, np.bool_),
        np.empty(W, np.float32),
        np.empty(W, np.uint32),
        np.empty(W // BLOCK, np.int64),
    )
    born, cost, name = np.empty((n, G), np.int8), np.empty((n, J)), np.empty(n, np.int64)
    fits, table = np.empty(n, np.bool_), np.empty(n, np.int64)
    for i in range(n):
        search, slot = pending[i] // P, pending[i] % P
        key = _key(_stream(facts.seeds[search], purpose, 0, generation), slot, attempt)
        row, served = born[i], aim[slot]
        for g in range(G):
            row[g] = genes[mother[i], g]
        if slot < facts.moves:
            _words(key, of_move)
            for j in range(J):
                slacks[j] = np.float32(limits[served, j] - costs[mother[i], j])
            rows, at = (ranking.rows, source[i]) if source[i] >= 0 else (ahead, -1 - source[i])
            own = of_move[4:]
            _move(rows, at, slacks, own, facts.changes, facts.scale, weights, last_gene, row, *scratch)
        elif slot < facts.mutants:
            _words(key, of_mutant)
            _mutate(mutating, of_mutant[4:], row)
        else:
            _words(key, of_crossed)
            _cross(genes[mother[i]], genes[father[i]], of_crossed[4:], row)
        for g in range(G):
            if row[controller[g]] < threshold[g]:  # depth genes themselves always take part
                row[g] = 0
        fits[i], first = True, 0
        for j in range(J):
            ticks = 0.0
            for t in range(first, sums.ends[j]):
                ticks += sums.ticks[place_of(sums.terms, t, row)]
            first = sums.ends[j]
            cost[i, j] = ticks * sums.units[j]
            fits[i] &= cost[i, j] <= limits[served, j]
        if fits[i]:
            high, low = np.int64(0), np.int64(0)
            for t in range(len(identity.offsets)):
                digit = place_of(identity, t, row)
                high += digits[digit, 0]
                low += digits[digit, 1]
            name[i] = np.int64(_hash(high, low))
            table[i] = search * seen.places + (name[i] & (seen.places - 1))
    for i in range(n):  # a loop of its own, so that the processor fetches many places at once
        if facts.distinct and fits[i]:
            fits[i] = seen.names[table[i]] != name[i]
            if fits[i]:
                seen.owners[table[i]] = i
    again, left = np.empty(n, np.int64), 0
    for i in range(n):
        # of several children in one place of the table only the last one is new
        if fits[i] and (not facts.distinct or seen.owners[table[i]] == i):
            at = pending[i]
            drawn.genes[at], drawn.cost[at], drawn.name[at] = born[i], cost[i], name[i]
            drawn.fresh[at] = True
            if facts.distinct:
                seen.names[table[i]] = name[i]
        else:
            again[left] = pending[i]
            left += 1
    names = archives.name.reshape(-1)
    for i in range(n):
        if pending[i] % P < facts.moves and source[i] < 0:  # to stay in the ranking, unless another one does
            name, m = names[mother[i]], -1 - source[i]
            at = pending[i] // P * ranking.places + (name & (ranking.places - 1))
            if ranking.names[at] == name:
                ranking.rows.number[at] = ahead.number[m]
                ranking.rows.gene[at] = ahead.gene[m]
                ranking.rows.choice[at] = ahead.choice[m]
                ranking.rows.gains[at] = ahead.gains[m]
                ranking.rows.costs[at] = ahead.costs[m]
                ranking.rows.savings[at] = ahead.savings[m]
    return again[:left]


# --- archives -----------------------------------------------------------------------------------------------


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
    """Offer scored children to all archives, which change in place. limits: (A, J)."""
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
                # the table of what was drawn forgets; an archive must not hold anything twice
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
