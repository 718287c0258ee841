"""Run general packages as contestants of ``topdown-ray bench fronts``: pymoo and pyribs, with the operators
of Once-for-All's ``EvolutionFinder``. Each is imported when it runs.

The operators: random architectures that meet the loosest target, and children of which half mutate a parent,
every group of genes with probability 0.1, and half cross two, gene by gene. A child over the loosest target
is drawn again, which costs no row. Children are in canonical form. This form was chosen for NSGA-II among
five at 10,000 rows, by its hypervolume on the seeds 1010 to 1012 of MobileNetV3 under Note10 and of
ResNet50D: the four others cross first and then mutate every child, as pymoo's own operators do, with
crossover for 0.5 or 0.9 of the children and mutation at 0.1 or 0.05. Nothing else here was tuned.

``nsga2`` and ``sms-emoa``: pymoo's NSGA-II (Deb et al. 2002) and SMS-EMOA (Beume et al. 2007), population
100, minimise cost and minus top-1 under the constraint of the loosest target. pymoo drops children that its
population or the same generation holds.

``map-elites``: CVT-MAP-Elites (Vassiliades et al. 2018) with the archive of pyribs, cost as the only measure,
150 cells between the cheapest cost and the loosest target, top-1 as the objective. In one dimension a
centroidal Voronoi tessellation of a uniform measure is even, so the centroids are given instead of found by
k-means. The emitters of pyribs are for real numbers; the loop here draws 100 pairs of parents from the
archive, makes a child of each, and scores those that it has not scored before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from topdown_ray.algorithms import proposals
from topdown_ray.spaces.space import Space
from topdown_ray.sweeps.bench.front_recorder import Arena, Recorder

POPULATION = 100
MUTATE = 0.1  # Once-for-All's probability that a group of genes mutates
REDRAWS = 100  # of a child, before it becomes a copy of its parent
CELLS = 150

Run = Callable[[int], None]  # a search with this seed
Make = Callable[[Arena, Recorder], Run]


# --- Once-for-All's operators -------------------------------------------------------------------------------


class Operators:
    """Once-for-All's random architectures, mutation and crossover, all within the loosest target: genes int8
    (N, G), canonical.
    """

    def __init__(self, arena: Arena, seed: int) -> None:
        self.space: Space = arena.space
        self.cost, self.limit, self.cheapest = arena.cost, arena.targets[0], arena.cheapest
        self.generator = np.random.default_rng(seed)
        self.mutate = proposals.mutation(self.space, MUTATE, torch.device("cpu"))

    def random(self, n: int) -> torch.Tensor:
        """Uniform ones."""

        def draw(rows: torch.Tensor) -> torch.Tensor:
            shape = (len(rows), self.space.G)
            return torch.from_numpy(self.generator.integers(0, self.space.sizes, shape).astype(np.int8))

        return self._redrawn(self.cheapest.repeat(n, 1), draw)

    def mutated(self, parents: torch.Tensor) -> torch.Tensor:
        """Children by mutation."""

        def draw(rows: torch.Tensor) -> torch.Tensor:
            return self.mutate(parents[rows].clone(), self._words(len(rows), len(self.mutate.limits)))

        return self._redrawn(parents, draw)

    def crossed(self, mothers: torch.Tensor, fathers: torch.Tensor) -> torch.Tensor:
        """Children by crossover."""

        def draw(rows: torch.Tensor) -> torch.Tensor:
            words = self._words(len(rows), (self.space.G + 31) // 32)
            return proposals.crossed(mothers[rows], fathers[rows], words)

        return self._redrawn(mothers, draw)

    def children(self, mothers: torch.Tensor, fathers: torch.Tensor) -> torch.Tensor:
        """A child for each pair: at random a mutant of the mother, or a crossing of both."""
        mutants = torch.from_numpy(self.generator.random(len(mothers)) < 0.5)
        genes = torch.empty_like(mothers)
        genes[mutants] = self.mutated(mothers[mutants])
        genes[~mutants] = self.crossed(mothers[~mutants], fathers[~mutants])
        return genes

    def _words(self, n: int, width: int) -> torch.Tensor:
        return torch.from_numpy(self.generator.integers(-(2**31), 2**31, (n, width), dtype=np.int32))

    def _redrawn(self, otherwise: torch.Tensor, draw: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return rows that ``draw`` makes, redrawn until they meet the loosest target."""
        genes, pending = otherwise.clone(), torch.arange(len(otherwise))
        for _ in range(REDRAWS):
            drawn = draw(pending)
            fits = self.cost(drawn) <= self.limit
            genes[pending[fits]] = drawn[fits]
            pending = pending[~fits]
            if not len(pending):
                break
        return self.space.canonical(genes)


# --- pymoo --------------------------------------------------------------------------------------------------


def genes_of(x: Any) -> torch.Tensor:
    """Genes int8 (N, G) of an array of whole numbers."""
    return torch.from_numpy(np.asarray(x).astype(np.int8))


def pymoo(algorithm: str, arena: Arena, recorder: Recorder) -> Run:
    """NSGA-II (``nsga2``) or SMS-EMOA (``sms-emoa``) of pymoo."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.algorithms.moo.sms import SMSEMOA
    from pymoo.core.crossover import Crossover
    from pymoo.core.problem import Problem
    from pymoo.core.sampling import Sampling
    from pymoo.operators.mutation.nom import NoMutation
    from pymoo.optimize import minimize

    class CostAndAccuracy(Problem):  # type: ignore[misc]
        """Minimise minus the accuracy and the cost."""

        def __init__(self) -> None:
            upper = np.array(arena.space.sizes) - 1
            bounds = {"xl": np.zeros(arena.space.G, int), "xu": upper, "vtype": int}
            super().__init__(n_var=arena.space.G, n_obj=2, n_ieq_constr=1, **bounds)

        def _evaluate(self, x: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
            accuracy, cost = recorder.score(genes_of(x))
            out["F"] = np.stack([-accuracy, cost], axis=1)
            out["G"] = (cost - arena.targets[0])[:, None]

    class RandomRows(Sampling):  # type: ignore[misc]
        """Random architectures."""

        def __init__(self, operators: Operators) -> None:
            super().__init__()
            self.operators = operators

        def _do(self, problem: Any, n_samples: int, **_: Any) -> NDArray[Any]:
            return self.operators.random(n_samples).numpy().astype(int)

    class Mate(Crossover):  # type: ignore[misc]
        """One child of two parents: a mutant of the first, or both crossed."""

        def __init__(self, operators: Operators) -> None:
            super().__init__(n_parents=2, n_offsprings=1, prob=1.0)
            self.operators = operators

        def _do(self, problem: Any, x: Any, *_: Any, **__: Any) -> NDArray[Any]:
            return self.operators.children(genes_of(x[0]), genes_of(x[1])).numpy().astype(int)[None]

    chosen = {"nsga2": NSGA2, "sms-emoa": SMSEMOA}[algorithm]

    def run(seed: int) -> None:
        operators = Operators(arena, seed)
        own = {"sampling": RandomRows(operators), "crossover": Mate(operators), "mutation": NoMutation()}
        searching = chosen(pop_size=POPULATION, **own, eliminate_duplicates=True)
        minimise(minimize, CostAndAccuracy(), searching, seed, recorder.budget)

    return run


def minimise(minimize: Any, problem: Any, algorithm: Any, seed: int, budget: int) -> None:
    """Minimise until the recorder stops the search. The limit on generations applies only if no new child can
    be drawn.
    """
    generations = 2 * budget // POPULATION + 2
    minimize(problem, algorithm, ("n_gen", generations), seed=seed, verbose=False, copy_algorithm=False)


# --- pyribs -------------------------------------------------------------------------------------------------


def map_elites(arena: Arena, recorder: Recorder) -> Run:
    """CVT-MAP-Elites over the cost, with the archive of pyribs."""
    from ribs.archives import CVTArchive

    low, high = arena.cost.cheapest()[0], arena.targets[0]
    edges = np.linspace(low, high, CELLS + 1)
    centroids = ((edges[1:] + edges[:-1]) / 2)[:, None]

    def run(seed: int) -> None:
        archive = CVTArchive(solution_dim=arena.space.G, centroids=centroids, ranges=[(low, high)], seed=seed)
        operators, known = Operators(arena, seed), set[bytes]()
        children, stalled = operators.random(POPULATION), 0
        while stalled < REDRAWS:  # no new child can be found
            new = _unknown(children, known)
            stalled = 0 if len(new) else stalled + 1
            if len(new):
                accuracy, cost = recorder.score(new)
                archive.add(new.numpy(), accuracy, cost[:, None])
            parents = genes_of(archive.sample_elites(2 * POPULATION)["solution"])
            children = operators.children(parents[:POPULATION], parents[POPULATION:])

    return run


def _unknown(genes: torch.Tensor, known: set[bytes]) -> torch.Tensor:
    """Return the rows that are not known yet, and record them as known."""
    fresh = []
    for place, row in enumerate(genes.numpy()):
        name = row.tobytes()
        if name not in known:
            known.add(name)
            fresh.append(place)
    return genes[fresh]
