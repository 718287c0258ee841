"""All targets in one search: an archive for each target, children offered to every target that they fit.

Each of the K targets, of one device or of several, keeps an archive of the Q best distinct architectures
(canonical form) that meet its cost. In a generation every target draws its share of P children from its
archive and its neighbours'; each child, once scored, is offered to all archives, since its score costs the
same for one target as for ten. A share of the children are gradient-informed moves: one to a few single
changes of a parent, drawn with a probability that grows with the gain that the predictor's gradient promises,
only changes that stay under the limit. The others mutate a parent or cross two, as in Once-for-All's search.
A child that the search has drawn before is drawn again, a bounded number of times, so that next to no score
is spent twice.

Sources: quality diversity over niches, Mouret and Clune 2015, *Illuminating search spaces by mapping elites*
(arXiv 1504.04909); moves by gradients, Grathwohl et al. 2021, *Oops I Took A Gradient: Scalable Sampling for
Discrete Distributions*; mutation and crossover, Cai et al. 2020, *Once-for-All*.

Letters: S searches, K targets, A archives (those of the targets come first), J costs that targets limit, Q
places of an archive, P children a generation, G genes, C single changes, N rows."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from topdown_ray.algorithms import proposals, rng
from topdown_ray.algorithms.evolution import best_first
from topdown_ray.algorithms.front import Front
from topdown_ray.algorithms.gradients import Gradient, Ranking
from topdown_ray.algorithms.joint_parameters import Moves
from topdown_ray.algorithms.memory import Seen, identity_of
from topdown_ray.algorithms.parameters import Sizes
from topdown_ray.algorithms.problem import Cost, Problem
from topdown_ray.algorithms.pruning import prune
from topdown_ray.spaces.cost import CostModel
from topdown_ray.spaces.limits import LimitedCost

MAX_REDRAWS = 6  # of a child that is too expensive or known; then it is given up
# Chosen on the tuning cases, as the defaults of Moves.
_CHILDREN_A_PLACE, _FEWEST_PLACES, _MOST_PLACES = 60, 6, 128
_STONES = 4  # archives below the tightest target of each cost, where a share of the children serves the front
# A move's weight falls by half every half life below the best one, looked up in steps: exponentials computed
# in a batch may differ in their last bits with the row's place in it.
_STEPS, _HALVINGS = 16, 20
_WEIGHT_ONE = 1 << 20


def archive_size(children: int, K: int) -> int:
    """Places of each of K archives in a search of so many children: short searches converge, long ones stay
    diverse.
    """
    return min(max(children // (_CHILDREN_A_PLACE * K), _FEWEST_PLACES), _MOST_PLACES)


class Archive(NamedTuple):
    """The archives of S searches, each best first; places that are still empty have accuracy -inf."""

    genes: torch.Tensor  # int8 (S, A, Q, G), canonical
    accuracy: torch.Tensor  # float32 (S, A, Q)
    cost: torch.Tensor  # float64 (S, A, Q, J)
    name: torch.Tensor  # int64 (S, A, Q), fingerprints of the architectures


class Children(NamedTuple):
    """Scored children, search by search; those that were given up have accuracy -inf."""

    genes: torch.Tensor  # int8 (S, n, G), canonical
    accuracy: torch.Tensor  # float32 (S, n)
    cost: torch.Tensor  # float64 (S, n, J)
    name: torch.Tensor  # int64 (S, n)
    aim: torch.Tensor  # int64 (n,) or (S, n), the archive that each was drawn for


class Joint:
    """S joint searches over the same targets, between two generations."""

    def __init__(
        self,
        problem: Problem,
        sizes: Sizes,
        moves: Moves,
        targets: Sequence[float],
        draws: rng.Draws,
        gradient: Gradient | None,
        generations: int,
        fronts: Sequence[Front] = (),
    ):
        """fronts: take in all that is scored."""
        self.problem, self.sizes, self.moves, self.draws = problem, sizes, moves, draws
        self.device, self.S, self.K = draws.seeds.device, len(draws.seeds), len(targets)
        self.fronts = fronts
        self.running: torch.Tensor | None = None  # bool (S,): the searches that have not ended; None: all
        self.niches = list(enumerate(targets))  # of each archive: whose problem it has, and its limit
        if moves.front_share:
            self.niches += _below(problem, targets)
        self.A, whose = len(self.niches), [k for k, _ in self.niches]
        problems = dataclasses.replace(problem, by_target=tuple(problem.at(k) for k in whose))
        self.costs, limits = problems.constraints([limit for _, limit in self.niches])
        self.limits = limits.to(self.device)  # (A, J)
        self.owner = torch.tensor(whose, device=self.device)  # (A,)
        self.neighbours = _neighbours([problem.at(k).cost for k in whose]).to(self.device)  # (3, A)
        # the costs whose changes are known
        self.summed = [j for j, cost in enumerate(self.costs) if isinstance(cost, CostModel)]
        self.Q = moves.archive or archive_size(sizes.population * generations, self.K)
        self.gradient = gradient if moves.gradient_share > 0 else None
        self.seen = Seen(self.S, self.device)
        self.ranking = (
            None
            if self.gradient is None
            else Ranking(self.gradient, self.S, 4 * self.A * self.Q, self.device)
        )
        self.identity = identity_of(problem.space, self.device)
        n_moves = 0 if self.gradient is None else round(moves.gradient_share * sizes.population)
        n_mutants = round(sizes.mutations / sizes.population * (sizes.population - n_moves))
        self.kinds = (n_moves, n_mutants, sizes.population - n_moves - n_mutants)
        self.scored = torch.zeros(self.S, self.K, dtype=torch.int64, device=self.device)
        self.gradients = torch.zeros(self.S, self.K, dtype=torch.int64, device=self.device)
        # rows: the moves of all searches, then the mutants of all, then the crossed children of all
        firsts = [sum(self.kinds[:i]) for i in range(3)]
        slots = [
            torch.arange(first, first + n).repeat(self.S) for first, n in zip(firsts, self.kinds, strict=True)
        ]
        owners = [torch.arange(self.S).repeat_interleave(n) for n in self.kinds]
        self.row_slot = torch.cat(slots).to(self.device)
        self.row_search = torch.cat(owners).to(self.device)
        self.row_of = torch.empty_like(self.row_slot)  # (S * P,): search by search, slot by slot -> row
        self.row_of[self.row_search * sizes.population + self.row_slot] = torch.arange(
            len(self.row_slot), device=self.device
        )
        self.archive = self._initial()

    def _targets_of(self, number: int) -> torch.Tensor:
        """The target of each slot: all targets take turns, so that each is served as often as the others."""
        return (torch.arange(self.sizes.population, device=self.device) + number).remainder_(self.K)

    def _aims_of(self, number: int) -> torch.Tensor:
        """The archive that each slot serves: its target's, or in the share of the front one below."""
        target, more = self._targets_of(number), self.A - self.K
        if not more:
            return target
        steps = (torch.arange(len(target) + 1, device=self.device) * self.moves.front_share).long()  # floor
        below = (steps[:-1] + number).remainder_(more).add_(self.K)
        return torch.where(steps[1:] > steps[:-1], below, target)

    def _initial(self) -> Archive:
        """P random architectures, each pruned until it fits its target."""
        P, Q, S, space = self.sizes.population, self.Q, self.S, self.problem.space
        slots = rng.slots(self.draws.stream(rng.JOINT, 0, 0), P)
        choices = torch.tensor(space.sizes, dtype=torch.float32, device=self.device)
        # floor
        genes = rng.uniform(rng.keys(slots, 0), space.G).mul_(choices).to(torch.int8).view(S, P, space.G)
        target, aim = self._targets_of(0), self._aims_of(0)
        walks = rng.slots(self.draws.stream(rng.PRUNING, 0, 0), P).view(S, P)
        for a, (k, limit) in enumerate(self.niches):
            own, problem = (aim == a).nonzero().view(-1), self.problem.at(k)
            if len(own):
                rows, walk = genes[:, own].reshape(-1, space.G), walks[:, own].reshape(-1)
                pruned = prune(space, problem.cost, rows, limit, walk, problem.cheapest)
                genes[:, own] = pruned.view(S, len(own), space.G)
        rows = space.canonical(genes.view(-1, space.G))
        name = self.identity.fingerprints(rows)
        search = torch.arange(S, device=self.device).repeat_interleave(P)
        fresh = (
            self.seen.add(name, search)
            if self.moves.distinct_parents
            else torch.ones_like(name, dtype=torch.bool)
        )
        empty = Archive(
            genes.new_zeros(S, self.A, Q, space.G),
            torch.full((S, self.A, Q), -math.inf, device=self.device),
            torch.full((S, self.A, Q, len(self.costs)), math.inf, dtype=torch.float64, device=self.device),
            torch.zeros(S, self.A, Q, dtype=torch.int64, device=self.device),
        )
        return self._filled_from_the_cheapest(
            self._merged(empty, self._scored(rows, name, self._costs_of(rows), fresh, target, aim))
        )

    def _filled_from_the_cheapest(self, archive: Archive) -> Archive:
        """Archives that no initial architecture fits start from the cheapest architecture that does, each of
        them scored once a search.
        """
        gaps = archive.accuracy[:, :, 0] == -math.inf  # (S, A)
        if not bool(gaps.any()):
            return archive
        cheapest = torch.stack([self.problem.at(k).cheapest for k, _ in self.niches]).to(archive.genes)
        rows = self.problem.space.canonical(cheapest)  # (A, G)
        of_rows = (rows, self.problem.accuracy(rows), self._costs_of(rows), self.identity.fingerprints(rows))
        for values, new in zip(archive, of_rows, strict=True):
            places = gaps.view(*gaps.shape, *[1] * (new.dim() - 1))
            values[:, :, 0] = torch.where(places, new, values[:, :, 0])
        same = of_rows[3][:, None] == of_rows[3]  # (A, A)
        before = (gaps[:, None] & same.tril(-1)).any(2)  # an earlier one starts from the same architecture
        self.scored.index_add_(1, self.owner, (gaps & ~before).long())
        started = of_rows[1].expand_as(gaps).masked_fill(~gaps | before, -math.inf)
        self._add_to_fronts(rows.expand(self.S, -1, -1), started, of_rows[2].expand(self.S, -1, -1))
        return archive

    def _costs_of(self, genes: torch.Tensor) -> torch.Tensor:
        """genes (N, G) -> float64 (N, J)."""
        return torch.stack([cost(genes) for cost in self.costs], dim=1)

    def _scored(
        self,
        genes: torch.Tensor,
        name: torch.Tensor,
        cost: torch.Tensor,
        fresh: torch.Tensor,
        target: torch.Tensor,
        aim: torch.Tensor,
    ) -> Children:
        """Score the fresh ones of S * n rows, search by search."""
        S, n = self.S, len(target)
        rows = fresh.nonzero().view(-1)
        accuracy = torch.full((len(genes),), -math.inf, device=self.device)
        accuracy.index_copy_(0, rows, self.problem.accuracy(genes.index_select(0, rows)))
        served = torch.div(rows, n, rounding_mode="floor") * self.K + target.index_select(
            0, rows.remainder(n)
        )
        self.scored += torch.bincount(served, minlength=S * self.K).view(S, self.K)
        name = name * fresh  # what was not scored must not pass for a twin of what was
        genes, accuracy, cost = genes.view(S, n, -1), accuracy.view(S, n), cost.view(S, n, -1)
        kept = accuracy
        if self.running is not None:  # a search that has ended takes no more part, as if it ran alone
            kept = accuracy.masked_fill(~self.running[:, None], -math.inf)
        self._add_to_fronts(genes, kept, cost)
        return Children(genes, accuracy, cost, name.view(S, n), aim)

    def _add_to_fronts(self, genes: torch.Tensor, accuracy: torch.Tensor, cost: torch.Tensor) -> None:
        """genes (S, n, G), accuracy (S, n), cost (S, n, J)."""
        for front in self.fronts:
            known = {
                i: cost[:, :, self.costs.index(one)] for i, one in enumerate(front.costs) if one in self.costs
            }
            front.add(genes, accuracy, known)

    def generation(self, number: int) -> None:
        """One generation: P children of every search, offered to all archives."""
        S, P, G = self.S, self.sizes.population, self.problem.space.G
        target, aim = self._targets_of(number), self._aims_of(number)
        genes = torch.zeros(S * P, G, dtype=torch.int8, device=self.device)
        name = torch.zeros(S * P, dtype=torch.int64, device=self.device)
        cost = torch.full((S * P, len(self.costs)), math.inf, dtype=torch.float64, device=self.device)
        fresh = torch.zeros(S * P, dtype=torch.bool, device=self.device)
        slots = rng.slots(self.draws.stream(rng.JOINT, 0, number), P)
        pending = torch.arange(S * P, device=self.device)
        for attempt in range(MAX_REDRAWS):
            search, slot = self.row_search.index_select(0, pending), self.row_slot.index_select(0, pending)
            served, payer = aim.index_select(0, slot), target.index_select(0, slot)
            keys = rng.keys(slots.index_select(0, search * P + slot), attempt)
            drawn = self.problem.space.canonical(self._children(pending, search, served, payer, keys))
            drawn_cost, drawn_name = self._costs_of(drawn), self.identity.fingerprints(drawn)
            good = _meets(drawn_cost, self.limits.index_select(0, served))
            if self.moves.distinct_parents:
                fits = good.nonzero().view(-1)
                new = self.seen.add(drawn_name.index_select(0, fits), search.index_select(0, fits))
                good = torch.zeros_like(good).index_copy_(0, fits, new)
            found = good.nonzero().view(-1)
            rows = pending.index_select(0, found)
            genes.index_copy_(0, rows, drawn.index_select(0, found))
            name.index_copy_(0, rows, drawn_name.index_select(0, found))
            cost.index_copy_(0, rows, drawn_cost.index_select(0, found))
            fresh.index_fill_(0, rows, True)
            pending = pending.index_select(0, good.logical_not_().nonzero().view(-1))
            if len(pending) == 0:
                break
        genes, name, cost, fresh = (part.index_select(0, self.row_of) for part in (genes, name, cost, fresh))
        self.archive = self._merged(self.archive, self._scored(genes, name, cost, fresh, target, aim))

    def _children(
        self,
        rows: torch.Tensor,
        search: torch.Tensor,
        aim: torch.Tensor,
        payer: torch.Tensor,
        keys: torch.Tensor,
    ) -> torch.Tensor:
        """One attempt of each of these rows (ascending): genes (n, G). payer: the target that each is drawn
        for, in whose row its gradient counts.
        """
        space, sizes = self.problem.space, self.sizes
        words = rng.words(keys, 4)
        mother, place = self._parents(search, aim, words[:, :2])
        moves = int(torch.searchsorted(rows, self.S * self.kinds[0]))
        mutants = int(torch.searchsorted(rows, self.S * sum(self.kinds[:2])))
        genes = mother
        if moves:
            genes[:moves] = self._moved(
                mother[:moves],
                place[:moves],
                search[:moves],
                aim[:moves],
                payer[:moves],
                rng.words(keys[:moves], 5 + self.moves.changes)[:, 4:],
            )
        if mutants > moves:
            mutate = proposals.mutation(space, sizes.mutate_prob, self.device)
            mutate(genes[moves:mutants], rng.words(keys[moves:mutants], 4 + len(mutate.limits))[:, 4:])
        if len(rows) > mutants:
            father, _ = self._parents(search[mutants:], aim[mutants:], words[mutants:, 2:])
            bits = rng.words(keys[mutants:], 4 + (space.G + 31) // 32)[:, 4:]
            genes[mutants:] = proposals.crossed(genes[mutants:], father, bits)
        return genes

    def _parents(
        self, search: torch.Tensor, aim: torch.Tensor, words: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A parent for each row from the archive that it serves, or a neighbour's: genes (n, G), and its
        place among S * A * Q.
        """
        A, Q, G = self.A, self.Q, self.problem.space.G
        u = rng.to_uniform(words)
        rate = self.moves.neighbour_rate / 2
        step = (u[:, 0] < rate).long() - (u[:, 0] >= 1 - rate).long()
        niche = search * A + self.neighbours.view(-1).index_select(0, (step + 1) * A + aim)
        filled = (self.archive.accuracy > -math.inf).sum(2).view(-1)  # (S * A,)
        # a neighbour that nothing was offered to yet has no parents
        niche = torch.where(filled.index_select(0, niche) > 0, niche, search * A + aim)
        rank = u[:, 1].square().mul(filled.index_select(0, niche)).long()  # floor
        place = niche * Q + rank
        return self.archive.genes.view(-1, G).index_select(0, place), place

    def _moved(
        self,
        genes: torch.Tensor,
        place: torch.Tensor,
        search: torch.Tensor,
        aim: torch.Tensor,
        payer: torch.Tensor,
        words: torch.Tensor,
    ) -> torch.Tensor:
        """Gradient-informed moves of mothers that stay within the costs of what they serve: genes (n, G)."""
        assert self.gradient is not None
        assert self.ranking is not None
        changes = self.gradient.changes
        gains, costs, computed = self.ranking(
            genes, self.archive.name.view(-1).index_select(0, place), search
        )
        spent = search.index_select(0, computed) * self.K + payer.index_select(0, computed)
        self.gradients += torch.bincount(spent, minlength=self.S * self.K).view(self.S, self.K)
        spent_costs = self.archive.cost.view(-1, len(self.costs)).index_select(0, place)
        slacks = (self.limits.index_select(0, aim) - spent_costs).float()[:, self.summed].unbind(1)
        open_ = changes.effective(genes)
        n_changes = 1 + rng.to_uniform(words[:, 0]).mul_(self.moves.changes).long()  # floor
        # what one more change can save at most
        savings = [change.masked_fill(~open_, 0).amin(1).neg_() for change in costs]
        weights = _weights(self.device)
        scale = _STEPS / (self.moves.temperature * math.log(2))
        for i in range(self.moves.changes):
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

    def _entrants(self, archive: Archive, children: Children) -> Children:
        """The children that some archive may take in, as many places a search as the search with most of them
        needs.
        """
        S, n = children.accuracy.shape
        worst = archive.accuracy[:, :, -1]  # (S, A)
        enters = (children.accuracy[:, None] > worst[:, :, None]) & _meets(
            children.cost[:, None], self.limits[:, None]
        )
        counts = enters.any(1).sum(1)
        # (S, E)
        places = (
            enters.any(1).byte().sort(dim=1, descending=True, stable=True).indices[:, : int(counts.max())]
        )
        flat = (places + torch.arange(0, S * n, n, device=self.device)[:, None]).view(-1)
        genes, accuracy, cost, name = (
            part.reshape(S * n, *part.shape[2:]).index_select(0, flat).view(*places.shape, *part.shape[2:])
            for part in children[:4]
        )
        return Children(genes, accuracy, cost, name, children.aim[places])

    def _merged(self, archive: Archive, children: Children) -> Archive:
        """Offer children to all archives: each keeps its Q best, earlier before later among equals."""
        children = self._entrants(archive, children)
        S, A, Q = archive.accuracy.shape
        n = children.accuracy.shape[1]
        if n == 0:
            return archive
        fits = _meets(children.cost[:, None], self.limits[:, None])  # (S, A, n)
        if not self.moves.share_archive:
            fits = fits & (children.aim[:, None] == torch.arange(A, device=self.device)[:, None])
        # the table of what was drawn forgets; an archive must not hold anything twice
        if self.moves.distinct_parents:
            known = (children.name[:, :, None] == archive.name.view(S, 1, A * Q)).any(2)
            twice = (children.name[:, :, None] == children.name[:, None]).tril(-1).any(2)
            fits = fits & (known | twice).logical_not_()[:, None]
        offered = children.accuracy[:, None].masked_fill(~fits, -math.inf)
        everyone = torch.cat([archive.accuracy, offered], dim=2).view(S * A, Q + n)
        order = best_first(everyone, Q).view(S, A, Q)  # of Q + n
        old = order < Q
        base = torch.arange(S * A, device=self.device).view(S, A, 1)
        of_archive = base * Q + order.clamp_max(Q - 1)
        of_children = torch.arange(S, device=self.device).view(S, 1, 1) * n + (order - Q).clamp_min(0)

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

    def children_by(self, generations: int) -> torch.Tensor:
        """Children drawn for each target up to each generation, the initial ones included: int64 (generations
        + 1, K).
        """
        by_number = [torch.bincount(self._targets_of(number), minlength=self.K) for number in range(self.K)]
        cycle = torch.stack(by_number).cpu()  # the turns repeat every K generations
        return cycle[torch.arange(generations + 1) % self.K].cumsum(0)

    @property
    def best(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The best architecture for every target: genes (S, K, G), accuracy (S, K)."""
        return self.archive.genes[:, : self.K, 0], self.archive.accuracy[:, : self.K, 0]


def _main(cost: Cost) -> Cost:
    return cost.main if isinstance(cost, LimitedCost) else cost


def _below(problem: Problem, targets: Sequence[float]) -> list[tuple[int, float]]:
    """For each cost ``_STONES`` limits at even distances between its tightest target and its cheapest
    architecture, and the target whose problem they have.
    """
    tightest = {_main(problem.at(k).cost): k for k in range(len(targets))}  # the last of each cost
    found = []
    for k in tightest.values():
        part = problem.at(k)
        low = float(part.cost(part.cheapest[None])[0])
        steps = [(targets[k] - low) * i / (_STONES + 1) for i in range(1, _STONES + 1)]
        found += [(k, targets[k] - step) for step in steps]
    return found


def _neighbours(costs: Sequence[Cost]) -> torch.Tensor:
    """For each archive the one before it, itself, and the one after it under the same cost, or itself at the
    end: int64 (3, A). The K targets come first, then for each cost those below its tightest target.
    """
    before, after = list(range(len(costs))), list(range(len(costs)))
    for cost in dict.fromkeys(map(_main, costs)):
        own = [a for a in range(len(costs)) if _main(costs[a]) is cost]
        for looser, tighter in itertools.pairwise(own):
            before[tighter], after[looser] = looser, tighter
    return torch.tensor([before, list(range(len(costs))), after])


def _meets(cost: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """Whether all J costs are within their limits: (..., J) -> bool (...)."""
    within = cost <= limits
    return within[..., 0] if within.shape[-1] == 1 else within.all(-1)


@functools.cache
def _weights(device: torch.device) -> torch.Tensor:
    """Weights of moves by how far they are behind the best one: int64, by steps of a half life."""
    steps = torch.arange(_STEPS * _HALVINGS + 1, dtype=torch.float64)
    weights = (_WEIGHT_ONE * 0.5 ** (steps / _STEPS)).round().long()
    weights[-1] = 0
    return weights.to(device)
