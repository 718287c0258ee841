"""Draw the children of a joint search in code that Numba compiles for CPUs.

The results have the same bits as those of the tensor operations in :mod:`breeding`.

Searches share nothing, so every function takes them one after another. Within a search, rows come in the
order of their slots, which also decides among equals.

Letters: S searches, K targets, A archives, J costs, Q places of an archive, P children of a generation, G
genes, C single changes, n rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from topdown_ray.algorithms.archive_kernels import ArchiveTables, Doubles
from topdown_ray.algorithms.kernels import (
    Mutating,
    _cross,
    _hash,
    _key,
    _mutate,
    _stream,
    _uniform,
    _word,
    _words,
)
from topdown_ray.algorithms.move_kernels import BLOCK, Flags, Ranked, _move
from topdown_ray.spaces.compiled import Bytes, Floats, compiled, place_of
from topdown_ray.spaces.terms import FlatSum, FlatTerms, Ints


class SeenTables(NamedTuple):
    """The tables of :class:`memory.Seen`, and the number of places of each search."""

    names: Ints  # (S * places,)
    owners: npt.NDArray[np.int32]
    places: int


class RankingTables(NamedTuple):
    """The tables of :class:`gradients.Ranking`, and the number of places of each search."""

    names: Ints  # (S * places,)
    owners: Ints
    rows: Ranked
    places: int


class Facts(NamedTuple):
    """What does not change between generations."""

    seeds: Ints  # (S,)
    limits: Doubles  # (A, J)
    neighbours: Ints  # (3, A)
    controller: Ints  # (G,), the depth gene that can switch each gene off, or any gene
    threshold: Bytes  # (G,), the choice of the depth gene from which on the gene is active
    identity: FlatTerms
    digits: Ints  # (rows, 2)
    costs: FlatSum
    mutating: Mutating
    gene: Ints  # (C,), the gene of each single change
    choice: Bytes  # (C,)
    weights: Ints  # (steps + 1,), weights of moves by how far they are behind the best one
    scale: np.float32  # steps per unit of top-1
    changes: int  # largest number of single changes in a move
    neighbour_rate: float
    distinct: bool
    moves: int  # children of each kind: slots below ``moves`` are moves, below ``mutants`` mutants
    mutants: int


class BornTables(NamedTuple):
    """The tables of :class:`breeding.Born`: the children of a generation that are already drawn."""

    genes: Bytes  # (S * P, G)
    name: Ints  # (S * P,)
    cost: Doubles  # (S * P, J)
    fresh: Flags  # (S * P,)


class Ahead(NamedTuple):
    """Parents of a generation whose changes were missing, in the order in which they were met."""

    names: Ints  # (rows,)
    genes: Bytes  # (rows, G)
    rows: Ranked
    latest: Ints  # (S * places of the ranking,): the latest row that belongs into each place, plus one
    before: Ints  # (rows,): the row before it in the same place, plus one; 0: none


class Breeding(NamedTuple):
    """Everything that drawing the children of a generation reads and changes."""

    facts: Facts
    archives: ArchiveTables
    ranking: RankingTables
    seen: SeenTables
    born: BornTables
    ahead: Ahead
    spent: Ints  # (S, K), gradients that were computed for each target
    pending: Ints  # (S * P,), slots of all searches, ascending; the first ``state[PENDING]`` are to be drawn
    state: Ints  # (3,), see below


# places of ``Breeding.state``; AHEAD: how many rows of ``ahead`` have their changes
ATTEMPT, PENDING, AHEAD = 0, 1, 2


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
    """Draw the children of a generation, each at most ``attempts`` times, until all of them meet their limits
    and are new, or until the changes of some parents are missing. Returns how many rows of ``ahead`` after
    the first ``state[AHEAD]`` have to be ranked before drawing continues; 0: the generation is complete.

    purpose: of the stream of random numbers; aim, payer (P,): the archive and the target that each slot
    serves. At least ``tile`` rows are ranked at once: if fewer are missing, parents of later attempts fill
    the tile.
    """
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
    """Return how many places of each archive are filled: accuracy (S, A, Q) -> (S, A)."""
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
    """Return the place among S * A * Q of a parent from the archive that a child serves, or from a
    neighbour's.
    """
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
def _found(ahead: Ahead, place: int, name: np.int64) -> int:
    """Return the row of the architecture with this name that belongs into a place of the ranking, or -1 for
    none.
    """
    i = int(ahead.latest[place]) - 1
    while i >= 0 and ahead.names[i] != name:
        i = int(ahead.before[i]) - 1
    return i


@compiled
def _add(ahead: Ahead, i: int, place: int, name: np.int64, genes: Bytes) -> None:
    """Make an architecture that belongs into a place of the ranking the i-th row."""
    ahead.names[i], ahead.genes[i] = name, genes
    ahead.before[i], ahead.latest[place] = ahead.latest[place], i + 1


@compiled
def _parents(
    drawing: Breeding, filled: Ints, pending: Ints, place: tuple[int, int, int, int], aim: Ints, payer: Ints
) -> tuple[Ints, Ints, Ints, int]:
    """Draw the parents of children that are still to be drawn.

    Returns the places of mothers and fathers (n,); for each move, where its mother's changes are (n,): a
    place of the ranking, or -1 - i for the i-th row of ``ahead``; and how many are missing, which are
    appended to ``ahead``. Only if none is missing, the gradients are counted and the ranking makes room.
    """
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
                ranking.owners[source[i]] = i  # of several new entries for one place, the last one stays
    held, lacking = drawing.state[AHEAD], 0
    number = np.empty(n_missing, np.int64)  # the number of each missing one among ``ahead``
    for j in range(n_missing):
        i = missing[j]
        number[j] = _found(ahead, source[i], names[mother[i]])
        if number[j] < 0:
            number[j] = held + lacking
            _add(ahead, number[j], source[i], names[mother[i]], genes[mother[i]])
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
    """Fill the last tile of missing parents with those of later attempts. Returns the new number of missing
    ones.
    """
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
                belongs = search * ranking.places + (names[at] & (ranking.places - 1))
                if ranking.names[belongs] != names[at] and _found(ahead, belongs, names[at]) < 0:
                    _add(ahead, held + lacking, belongs, names[at], genes[at])
                    lacking += 1
    return lacking


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
    """Make one attempt at each pending child. Those that meet their limits and are new are born. Returns the
    slots that are still pending. mother, father, source: see :func:`_parents`.
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
            if row[controller[g]] < threshold[g]:  # depth genes are always active
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
    for i in range(n):  # a separate loop, so that the processor fetches many places at once
        if facts.distinct and fits[i]:
            fits[i] = seen.names[table[i]] != name[i]
            if fits[i]:
                seen.owners[table[i]] = i
    again, left = np.empty(n, np.int64), 0
    for i in range(n):
        # of several children in one place of the table, only the last one is new
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
        if (
            pending[i] % P < facts.moves and source[i] < 0
        ):  # stays in the ranking, unless another one takes its place
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
