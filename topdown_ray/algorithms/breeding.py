"""Draw the children of a joint search: gradient-informed moves, mutants, and crossed children of parents from
the archives.

A child that is too expensive, or that its search has drawn before, is drawn again, a bounded number of times.
On a CPU, compiled code with the same bits replaces the tensor operations
(:mod:`topdown_ray.algorithms.joint_kernels`, :mod:`topdown_ray.algorithms.move_kernels`).

Letters: S searches, K targets, A archives, J costs, Q places of an archive, P children of a generation, G
genes, C single changes, n rows.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from topdown_ray.algorithms import joint_kernels, move_kernels, proposals, rng
from topdown_ray.algorithms.archives import Archive, meets
from topdown_ray.algorithms.gradients import Changes, Gradient, Ranking, places_for
from topdown_ray.algorithms.joint_parameters import Moves
from topdown_ray.algorithms.memory import Seen, identity_of
from topdown_ray.algorithms.parameters import Sizes
from topdown_ray.algorithms.problem import Cost
from topdown_ray.spaces.cost import CostModel
from topdown_ray.spaces.space import Space
from topdown_ray.spaces.terms import FlatSum
from topdown_ray.spaces.tiles import LEAST

MAX_REDRAWS = 6  # of a child that is too expensive or known, before it is given up
# The weight of a move halves with each half life below the best one. It is looked up in steps, because the
# last bits of exponentials that are computed in a batch may depend on the row's place in it.
_STEPS, _HALVINGS = 16, 20
_WEIGHT_ONE = 1 << 20


class Born(NamedTuple):
    """Children, search by search and slot by slot. Those that were given up are not fresh."""

    genes: torch.Tensor  # int8 (S * P, G), canonical
    name: torch.Tensor  # int64 (S * P,), fingerprints
    cost: torch.Tensor  # float64 (S * P, J)
    fresh: torch.Tensor  # bool (S * P,)

    @classmethod
    def none_yet(cls, rows: int, G: int, J: int, device: torch.device) -> Born:
        """Children that are still to be drawn."""
        return cls(
            torch.zeros(rows, G, dtype=torch.int8, device=device),
            torch.zeros(rows, dtype=torch.int64, device=device),
            torch.full((rows, J), math.inf, dtype=torch.float64, device=device),
            torch.zeros(rows, dtype=torch.bool, device=device),
        )


@dataclass(frozen=True)
class Setting:
    """What drawing needs to know about S searches, and what they have drawn."""

    space: Space
    sizes: Sizes
    moves: Moves
    draws: rng.Draws
    costs: tuple[Cost, ...]  # J
    limits: torch.Tensor  # float64 (A, J)
    neighbours: torch.Tensor  # int64 (3, A)
    gradient: Gradient | None  # None: no moves
    parents: int  # parents of each search whose gradients are kept
    seen: Seen
    spent: torch.Tensor  # int64 (S, K): the gradients that were computed for each target

    @property
    def kinds(self) -> tuple[int, int, int]:
        """Return how many children of a generation are moves, mutants and crossed children."""
        P = self.sizes.population
        n_moves = 0 if self.gradient is None else round(self.moves.gradient_share * P)
        n_mutants = round(self.sizes.mutations / P * (P - n_moves))
        return n_moves, n_mutants, P - n_moves - n_mutants


class Breeder(Protocol):
    """Draws the children of a generation."""

    def __call__(self, archive: Archive, number: int, aim: torch.Tensor, payer: torch.Tensor) -> Born:
        """Draw P children for every search. aim, payer: int64 (P,), the archive that each slot serves, and
        the target whose row counts its gradient.
        """


def breeder(setting: Setting, compiled: bool) -> Breeder:
    """Return a breeder in compiled code or in tensor operations, which draw the same children."""
    return CompiledBreeder(setting) if compiled else TensorBreeder(setting)


def can_compile(costs: tuple[Cost, ...], device: torch.device) -> bool:
    """Whether compiled code can run: on a CPU, with costs that are sums over terms."""
    return device.type == "cpu" and all(isinstance(cost, CostModel) for cost in costs)


class CompiledBreeder:
    """Draws children in compiled code."""

    def __init__(self, setting: Setting):
        self._setting = setting
        space, moves, device = setting.space, setting.moves, torch.device("cpu")
        identity, (n_moves, n_mutants, _) = identity_of(space, device), setting.kinds
        sums = [(cost.terms, cost.tick, np.inf) for cost in setting.costs if isinstance(cost, CostModel)]
        changes = Changes(space, device)
        self._facts = joint_kernels.Facts(
            seeds=setting.draws.seeds.numpy(),
            limits=setting.limits.numpy(),
            neighbours=setting.neighbours.numpy(),
            controller=np.array([max(gene.depth_gene, 0) for gene in space.genes]),
            threshold=np.array([gene.minimum_depth for gene in space.genes], np.int8),
            identity=identity.sum,
            digits=identity.digits.numpy(),
            costs=FlatSum.of(sums),
            mutating=proposals.mutation(space, setting.sizes.mutate_prob, device).compiled,
            gene=changes.gene.numpy(),
            choice=changes.choice.numpy(),
            weights=_weights(device).numpy(),
            scale=np.float32(_steps_a_unit(moves)),
            changes=moves.changes,
            neighbour_rate=moves.neighbour_rate,
            distinct=moves.distinct_parents,
            moves=n_moves,
            mutants=n_moves + n_mutants,
        )
        self._seen = joint_kernels.SeenTables(
            setting.seen.names.numpy(), setting.seen.owners.numpy(), setting.seen.places
        )
        S, P = len(setting.draws.seeds), setting.sizes.population
        rows = 0 if setting.gradient is None else S * places_for(setting.parents)
        self._ranking = joint_kernels.RankingTables(
            np.zeros(rows, np.int64), np.zeros(rows, np.int64), self._room(rows), rows // S
        )
        most = S * n_moves * MAX_REDRAWS
        self._ahead = joint_kernels.Ahead(
            np.zeros(most, np.int64),
            np.zeros((most, space.G), np.int8),
            self._room(most),
            np.zeros(rows, np.int64),
            np.zeros(most, np.int64),
        )
        self._pending = np.arange(S * P)

    def _room(self, rows: int) -> move_kernels.Ranked:
        return move_kernels.Ranked.empty(rows, len(self._facts.gene), len(self._setting.costs))

    def __call__(self, archive: Archive, number: int, aim: torch.Tensor, payer: torch.Tensor) -> Born:
        """See :class:`Breeder`."""
        setting, rows = self._setting, len(self._pending)
        born = Born.none_yet(rows, setting.space.G, len(setting.costs), setting.limits.device)
        state = np.array([0, rows, 0])
        self._ahead.latest.fill(0)
        drawing = joint_kernels.Breeding(
            facts=self._facts,
            archives=archive.tables,
            ranking=self._ranking,
            seen=self._seen,
            born=joint_kernels.BornTables(*(part.numpy() for part in born)),
            ahead=self._ahead,
            spent=setting.spent.numpy(),
            pending=self._pending.copy(),
            state=state,
        )
        rest = (setting.sizes.population, rng.JOINT, number, aim.numpy(), payer.numpy(), MAX_REDRAWS, LEAST)
        while lacking := joint_kernels.draw(drawing, *rest):
            first = state[joint_kernels.AHEAD]
            self._rank(first, first + lacking)
            state[joint_kernels.AHEAD] += lacking
        return born

    def _rank(self, first: int, end: int) -> None:
        """Rank the single changes of some parents in advance by their gradients."""
        gradient, facts, genes = self._setting.gradient, self._facts, self._ahead.genes[first:end]
        assert gradient is not None
        rows = torch.from_numpy(genes)
        costs = torch.stack(gradient.costs(rows)).numpy()
        changes = (facts.gene, facts.choice, facts.controller, facts.threshold)
        move_kernels.ranked(genes, gradient(rows).numpy(), costs, *changes, self._ahead.rows, first)


class TensorBreeder:
    """Draws children in tensor operations."""

    def __init__(self, setting: Setting):
        self._setting = setting
        self._space, self._moves, draws = setting.space, setting.moves, setting.draws
        self._device = device = draws.seeds.device
        gradient = setting.gradient
        self._ranking = None
        if gradient is not None:
            self._ranking = Ranking(gradient, len(draws.seeds), setting.parents, device)
        self._identity = identity_of(setting.space, device)
        self._S, self._A, self._kinds = len(draws.seeds), len(setting.limits), setting.kinds
        # the costs whose changes are known
        self._summed = [j for j, cost in enumerate(setting.costs) if isinstance(cost, CostModel)]
        # rows: the moves of all searches, then the mutants of all, then the crossed children of all
        P, firsts = setting.sizes.population, [sum(self._kinds[:i]) for i in range(3)]
        slots = [
            torch.arange(first, first + n).repeat(self._S)
            for first, n in zip(firsts, self._kinds, strict=True)
        ]
        owners = [torch.arange(self._S).repeat_interleave(n) for n in self._kinds]
        self._row_slot = torch.cat(slots).to(device)
        self._row_search = torch.cat(owners).to(device)
        self._row_of = torch.empty_like(self._row_slot)  # (S * P): search by search, slot by slot -> row
        self._rows = len(self._row_slot)
        self._row_of[self._row_search * P + self._row_slot] = torch.arange(self._rows, device=device)

    def __call__(self, archive: Archive, number: int, aim: torch.Tensor, payer: torch.Tensor) -> Born:
        """See :class:`Breeder`."""
        setting, P = self._setting, self._setting.sizes.population
        born = Born.none_yet(self._rows, self._space.G, len(setting.costs), self._device)
        slots = rng.slots(setting.draws.stream(rng.JOINT, 0, number), P)
        pending = torch.arange(self._rows, device=self._device)
        for attempt in range(MAX_REDRAWS):
            search, slot = (
                self._row_search.index_select(0, pending),
                self._row_slot.index_select(0, pending),
            )
            served = aim.index_select(0, slot)
            keys = rng.keys(slots.index_select(0, search * P + slot), attempt)
            children = self._children(archive, pending, search, served, payer.index_select(0, slot), keys)
            drawn = self._space.canonical(children)
            cost = costs_of(setting.costs, drawn)
            name = self._identity.fingerprints(drawn)
            good = meets(cost, setting.limits.index_select(0, served))
            if self._moves.distinct_parents:
                fits = good.nonzero().view(-1)
                new = setting.seen.add(name.index_select(0, fits), search.index_select(0, fits))
                good = torch.zeros_like(good).index_copy_(0, fits, new)
            found = good.nonzero().view(-1)
            rows = pending.index_select(0, found)
            for whole, part in zip(born, (drawn, name, cost), strict=False):
                whole.index_copy_(0, rows, part.index_select(0, found))
            born.fresh.index_fill_(0, rows, True)
            pending = pending.index_select(0, good.logical_not_().nonzero().view(-1))
            if len(pending) == 0:
                break
        return Born(*(part.index_select(0, self._row_of) for part in born))

    def _children(
        self,
        archive: Archive,
        rows: torch.Tensor,
        search: torch.Tensor,
        aim: torch.Tensor,
        payer: torch.Tensor,
        keys: torch.Tensor,
    ) -> torch.Tensor:
        """Make one attempt at each of these rows (ascending): genes (n, G). payer: the target that each is
        drawn for, whose row counts its gradient.
        """
        space, setting = self._space, self._setting
        words = rng.words(keys, 4)
        mother, place = self._parents(archive, search, aim, words[:, :2])
        moves = int(torch.searchsorted(rows, self._S * self._kinds[0]))
        mutants = int(torch.searchsorted(rows, self._S * sum(self._kinds[:2])))
        genes = mother
        if moves:
            genes[:moves] = self.moved(
                archive,
                mother[:moves],
                place[:moves],
                search[:moves],
                aim[:moves],
                payer[:moves],
                rng.words(keys[:moves], 5 + self._moves.changes)[:, 4:],
            )
        if mutants > moves:
            mutate = proposals.mutation(space, setting.sizes.mutate_prob, self._device)
            mutate(genes[moves:mutants], rng.words(keys[moves:mutants], 4 + len(mutate.limits))[:, 4:])
        if len(rows) > mutants:
            father, _ = self._parents(archive, search[mutants:], aim[mutants:], words[mutants:, 2:])
            bits = rng.words(keys[mutants:], 4 + (space.G + 31) // 32)[:, 4:]
            genes[mutants:] = proposals.crossed(genes[mutants:], father, bits)
        return genes

    def _parents(
        self, archive: Archive, search: torch.Tensor, aim: torch.Tensor, words: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw a parent for each row from the archive that it serves, or from a neighbour's: genes (n, G),
        and its place among S * A * Q.
        """
        A, Q, G = self._A, archive.accuracy.shape[2], self._space.G
        u = rng.to_uniform(words)
        rate = self._moves.neighbour_rate / 2
        step = (u[:, 0] < rate).long() - (u[:, 0] >= 1 - rate).long()
        niche = search * A + self._setting.neighbours.view(-1).index_select(0, (step + 1) * A + aim)
        filled = (archive.accuracy > -math.inf).sum(2).view(-1)  # (S * A,)
        # a neighbour without entries has no parents
        niche = torch.where(filled.index_select(0, niche) > 0, niche, search * A + aim)
        rank = u[:, 1].square().mul(filled.index_select(0, niche)).long()  # floor
        place = niche * Q + rank
        return archive.genes.view(-1, G).index_select(0, place), place

    def moved(
        self,
        archive: Archive,
        genes: torch.Tensor,
        place: torch.Tensor,
        search: torch.Tensor,
        aim: torch.Tensor,
        payer: torch.Tensor,
        words: torch.Tensor,
    ) -> torch.Tensor:
        """Make gradient-informed moves of mothers that stay within the costs of what they serve: genes (n,
        G).
        """
        setting = self._setting
        assert self._ranking is not None
        changes = self._ranking.gradient.changes
        gains, costs, computed = self._ranking(genes, archive.name.view(-1).index_select(0, place), search)
        K = setting.spent.shape[1]
        spent = search.index_select(0, computed) * K + payer.index_select(0, computed)
        setting.spent.add_(torch.bincount(spent, minlength=self._S * K).view(self._S, K))
        spent_costs = archive.cost.view(-1, len(setting.costs)).index_select(0, place)
        slacks = (setting.limits.index_select(0, aim) - spent_costs).float()[:, self._summed].unbind(1)
        open_ = changes.effective(genes)
        n_changes = 1 + rng.to_uniform(words[:, 0]).mul_(self._moves.changes).long()  # floor
        # what one more change can save at most
        savings = [change.masked_fill(~open_, 0).amin(1).neg_() for change in costs]
        weights = _weights(self._device)
        scale = _steps_a_unit(self._moves)
        for i in range(self._moves.changes):
            last = n_changes == i + 1
            allowed = open_
            for change, slack, saving in zip(costs, slacks, savings, strict=True):
                allowed = allowed & (change <= (slack + saving.masked_fill(last, 0))[:, None])
            promise = gains.masked_fill(~allowed, -math.inf)
            behind = (promise.amax(1, keepdim=True).clamp_min_(-1) - promise).mul_(scale)
            total = weights.index_select(0, behind.clamp_(0, len(weights) - 1).int().view(-1)).view(
                behind.shape
            )
            total = total.mul_(allowed).cumsum(1)
            # the word's 24 bits as a share of the sum of the weights
            threshold = ((words[:, 1 + i] & 0xFFFFFF) * total[:, -1]) >> 24
            pick = (total <= threshold[:, None]).sum(1).clamp_max_(len(changes.gene) - 1)
            done = (total[:, -1] > 0) & (n_changes > i)
            gene = changes.gene.index_select(0, pick)
            before = genes.gather(1, gene[:, None])
            chosen = torch.where(done[:, None], changes.choice.index_select(0, pick)[:, None], before)
            genes = genes.scatter(1, gene[:, None], chosen)
            slacks = tuple(
                slack - change.gather(1, pick[:, None])[:, 0].masked_fill(~done, 0)
                for change, slack in zip(costs, slacks, strict=True)
            )
            open_ = open_ & (changes.gene != gene[:, None])
        return genes


def costs_of(costs: tuple[Cost, ...], genes: torch.Tensor) -> torch.Tensor:
    """Return all costs: genes (n, G) -> float64 (n, J)."""
    return torch.stack([cost(genes) for cost in costs], dim=1)


@functools.cache
def _weights(device: torch.device) -> torch.Tensor:
    """Return the weights of moves by how far they are behind the best one: int64, in steps of a half life."""
    steps = torch.arange(_STEPS * _HALVINGS + 1, dtype=torch.float64)
    weights = (_WEIGHT_ONE * 0.5 ** (steps / _STEPS)).round().long()
    weights[-1] = 0
    return weights.to(device)


def _steps_a_unit(moves: Moves) -> float:
    """Return how many steps of the table of weights one unit of top-1 is."""
    return _STEPS / (moves.temperature * math.log(2))
