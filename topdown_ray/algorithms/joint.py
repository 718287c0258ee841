"""Search for all targets at once: each target has an archive, and children are offered to every target that
they fit.

Each of the K targets, of one device or of several, keeps an archive of the Q best distinct architectures (in
canonical form) that meet its cost. In a generation, every target draws its share of P children from its
archive and its neighbours'. Each child that has been scored is offered to all archives, because its score
costs the same for one target as for ten. A share of the children are gradient-informed moves: one to a few
single changes of a parent that stay under the limit, drawn with a probability that grows with the gain that
the predictor's gradient predicts. The others mutate a parent or cross two, as in Once-for-All's search. A
child that the search has drawn before is drawn again, a bounded number of times, so that hardly any score is
spent twice.

Sources: quality diversity over niches, Mouret and Clune 2015, *Illuminating search spaces by mapping elites*
(arXiv 1504.04909); moves by gradients, Grathwohl et al. 2021, *Oops I Took A Gradient: Scalable Sampling for
Discrete Distributions*; mutation and crossover, Cai et al. 2020, *Once-for-All*.

Letters: S searches, K targets, A archives (those of the targets come first), J costs that targets limit, Q
places of an archive, P children of a generation, G genes, C single changes, N rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from topdown_ray.algorithms import rng
from topdown_ray.algorithms.archives import Archive, Children, below, merged, neighbours
from topdown_ray.algorithms.breeding import Born, Setting, breeder, can_compile, costs_of
from topdown_ray.algorithms.front import Front
from topdown_ray.algorithms.gradients import Gradient
from topdown_ray.algorithms.joint_parameters import Moves
from topdown_ray.algorithms.memory import Seen, identity_of
from topdown_ray.algorithms.parameters import Sizes
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.pruning import prune

# Chosen on the tuning cases, like the defaults of Moves.
_CHILDREN_A_PLACE, _FEWEST_PLACES, _MOST_PLACES = 60, 6, 128


def archive_size(children: int, K: int) -> int:
    """Return the number of places of each of K archives in a search with this many children: short searches
    converge, long ones stay diverse.
    """
    return min(max(children // (_CHILDREN_A_PLACE * K), _FEWEST_PLACES), _MOST_PLACES)


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
        compiled: bool | None = None,
    ):
        """fronts: add everything that is scored to them. compiled (None: wherever it can run): use compiled
        code instead of tensor operations, with the same results.
        """
        self.problem, self.sizes, self.moves, self.draws = problem, sizes, moves, draws
        self.device, self.S, self.K = draws.seeds.device, len(draws.seeds), len(targets)
        self.fronts = fronts
        self.running: torch.Tensor | None = None  # bool (S,): the searches that have not ended; None: all
        # for each archive: the target whose problem it has, and its limit
        self.niches = list(enumerate(targets))
        if moves.front_share:
            self.niches += below(problem, targets)
        self.A, whose = len(self.niches), [k for k, _ in self.niches]
        problems = dataclasses.replace(problem, by_target=tuple(problem.at(k) for k in whose))
        costs, limits = problems.constraints([limit for _, limit in self.niches])
        self.costs, self.limits = tuple(costs), limits.to(self.device)  # (A, J)
        self.owner = torch.tensor(whose, device=self.device)  # (A,)
        self.Q = moves.archive or archive_size(sizes.population * generations, self.K)
        self.seen = Seen(self.S, self.device)
        self.identity = identity_of(problem.space, self.device)
        self.scored = torch.zeros(self.S, self.K, dtype=torch.int64, device=self.device)
        self.gradients = torch.zeros(self.S, self.K, dtype=torch.int64, device=self.device)
        self.compiled = can_compile(self.costs, self.device) if compiled is None else compiled
        setting = Setting(
            space=problem.space,
            sizes=sizes,
            moves=moves,
            draws=draws,
            costs=self.costs,
            limits=self.limits,
            neighbours=neighbours([problem.at(k).cost for k in whose]).to(self.device),
            gradient=gradient if moves.gradient_share > 0 else None,
            parents=4 * self.A * self.Q,
            seen=self.seen,
            spent=self.gradients,
        )
        self.breed = breeder(setting, self.compiled)
        self.archive = self._initial()

    def _targets_of(self, number: int) -> torch.Tensor:
        """Return the target of each slot. The targets take turns, so that each is served equally often."""
        return (torch.arange(self.sizes.population, device=self.device) + number).remainder_(self.K)

    def _aims_of(self, number: int) -> torch.Tensor:
        """Return the archive that each slot serves: its target's, or one below it in the share of the
        front.
        """
        target, more = self._targets_of(number), self.A - self.K
        if not more:
            return target
        steps = (torch.arange(len(target) + 1, device=self.device) * self.moves.front_share).long()  # floor
        below = (steps[:-1] + number).remainder_(more).add_(self.K)
        return torch.where(steps[1:] > steps[:-1], below, target)

    def _initial(self) -> Archive:
        """Return P random architectures, each pruned until it fits its target."""
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
        empty = Archive.empty(S, self.A, Q, space.G, len(self.costs), self.device)
        born = Born(rows, name, costs_of(self.costs, rows), fresh)
        return self._filled_from_the_cheapest(self._merged(empty, self._scored(born, target, aim)))

    def _filled_from_the_cheapest(self, archive: Archive) -> Archive:
        """Start archives that no initial architecture fits from the cheapest architecture that does. Each of
        these is scored once in a search.
        """
        gaps = archive.accuracy[:, :, 0] == -torch.inf  # (S, A)
        if not bool(gaps.any()):
            return archive
        cheapest = torch.stack([self.problem.at(k).cheapest for k, _ in self.niches]).to(archive.genes)
        rows = self.problem.space.canonical(cheapest)  # (A, G)
        of_rows = (
            rows,
            self.problem.accuracy(rows),
            costs_of(self.costs, rows),
            self.identity.fingerprints(rows),
        )
        for values, new in zip(archive, of_rows, strict=True):
            places = gaps.view(*gaps.shape, *[1] * (new.dim() - 1))
            values[:, :, 0] = torch.where(places, new, values[:, :, 0])
        same = of_rows[3][:, None] == of_rows[3]  # (A, A)
        # whether an earlier archive starts from the same architecture
        before = (gaps[:, None] & same.tril(-1)).any(2)
        self.scored.index_add_(1, self.owner, (gaps & ~before).long())
        started = of_rows[1].expand_as(gaps).masked_fill(~gaps | before, -torch.inf)
        self._add_to_fronts(rows.expand(self.S, -1, -1), started, of_rows[2].expand(self.S, -1, -1))
        return archive

    def _scored(self, born: Born, target: torch.Tensor, aim: torch.Tensor) -> Children:
        """Score the fresh ones of S * n children. target, aim: int64 (n,), the target whose row counts each
        child, and the archive that it was drawn for.
        """
        S, n = self.S, len(target)
        rows = born.fresh.nonzero().view(-1)
        accuracy = torch.full((S * n,), -torch.inf, device=self.device)
        accuracy.index_copy_(0, rows, self.problem.accuracy(born.genes.index_select(0, rows)))
        served = torch.div(rows, n, rounding_mode="floor") * self.K + target.index_select(
            0, rows.remainder(n)
        )
        self.scored += torch.bincount(served, minlength=S * self.K).view(S, self.K)
        # children that were not scored must not be taken for copies of scored ones
        name = born.name * born.fresh
        genes, accuracy, cost = born.genes.view(S, n, -1), accuracy.view(S, n), born.cost.view(S, n, -1)
        kept = accuracy
        if self.running is not None:  # a search that has ended no longer takes part, as if it ran alone
            kept = accuracy.masked_fill(~self.running[:, None], -torch.inf)
        self._add_to_fronts(genes, kept, cost)
        return Children(genes, accuracy, cost, name.view(S, n), aim)

    def _add_to_fronts(self, genes: torch.Tensor, accuracy: torch.Tensor, cost: torch.Tensor) -> None:
        """Add children to the fronts: genes (S, n, G), accuracy (S, n), cost (S, n, J)."""
        for front in self.fronts:
            known = {
                i: cost[:, :, self.costs.index(one)] for i, one in enumerate(front.costs) if one in self.costs
            }
            front.add(genes, accuracy, known)

    def generation(self, number: int) -> None:
        """Run one generation: P children of every search are offered to all archives."""
        target, aim = self._targets_of(number), self._aims_of(number)
        born = self.breed(self.archive, number, aim, target)
        self.archive = self._merged(self.archive, self._scored(born, target, aim))

    def _merged(self, archive: Archive, children: Children) -> Archive:
        moves = self.moves
        return merged(
            archive, children, self.limits, moves.share_archive, moves.distinct_parents, self.compiled
        )

    def children_by(self, generations: int) -> torch.Tensor:
        """Return the children drawn for each target up to each generation, including the initial ones: int64
        (generations + 1, K).
        """
        by_number = [torch.bincount(self._targets_of(number), minlength=self.K) for number in range(self.K)]
        cycle = torch.stack(by_number).cpu()  # the turns repeat every K generations
        return cycle[torch.arange(generations + 1) % self.K].cumsum(0)

    @property
    def best(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the best architecture for every target: genes (S, K, G), accuracy (S, K)."""
        return self.archive.genes[:, : self.K, 0], self.archive.accuracy[:, : self.K, 0]
