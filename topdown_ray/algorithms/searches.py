"""Give a strategy S searches over the same targets: their problem, their cache of accuracies, and their
outcome for each target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from topdown_ray.algorithms import evolution, rng
from topdown_ray.algorithms.clock import Laps, Seconds
from topdown_ray.algorithms.evolution import EvolutionState
from topdown_ray.algorithms.front import Front
from topdown_ray.algorithms.gradients import Gradient, gradient_of
from topdown_ray.algorithms.memory import Memo
from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.patience import Step, run_patiently
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.pruning import prune
from topdown_ray.errors import UserError

Trace = list[tuple[int, int, torch.Tensor]]
"""Points of an anytime curve: generation, evaluations within the target, and best accuracies float32 (S,)."""


@dataclass
class Outcome:
    """The answers of S searches for one target."""

    target_index: int
    """Index of the target, from 0 for the loosest."""
    genes: torch.Tensor
    """The answers: int8 (S, G)."""
    accuracy: torch.Tensor
    """Predicted top-1 accuracies of the answers, fractions: float32 (S,)."""
    generations: int
    """Number of generations that the longest of the searches ran."""
    evaluations: int
    """Number of children that each search drew for this target."""
    unique_evaluations: torch.Tensor
    """Number of these children that were not in the cache, and were scored by the predictor: int64 (S,)."""
    seconds: Seconds
    """Wall and CPU seconds of the whole batch for this target."""
    trace: Trace = field(repr=False)
    """The anytime curves: points in the order of the generations. A generation without a better answer may
    be left out, except the last one."""
    gradients: torch.Tensor | None = None
    """Number of gradients of the predictor in each search: int64 (S,). None if the strategy uses none."""
    ended: torch.Tensor | None = None
    """The generation after which each search ended: int64 (S,), if some ended before ``generations``. The
    trace holds a point for each of these generations."""

    def length(self, s: int) -> tuple[int, int]:
        """Return the number of generations and of evaluations of search s."""
        if self.ended is None:
            return self.generations, self.evaluations
        generations = int(self.ended[s])
        return generations, next(point[1] for point in self.trace if point[0] == generations)


class Searches:
    """S searches over the same targets, which differ in their seeds and advance in lock step.

    A strategy receives this object. Letters in shapes: S searches, G genes of the space.

    Attributes:
        targets: The targets, loosest first.
        params: The hyper-parameters. Use `params.read_as(Model)` for a model of your own.
        sizes: Population, parents and mutations as whole numbers.
        problem: The space, the costs, and the accuracy with a cache for each search.
        predictor: The predictor itself.
        predict: Computes accuracies without the cache.
        draws: The random numbers of the searches.
        fronts: The fronts to which a strategy may add the architectures that it scores, one for each device.
    """

    def __init__(
        self,
        problem: Problem,
        params: EvolutionParams,
        targets: Sequence[float],
        draws: rng.Draws,
        fronts: Sequence[Front] = (),
        gradient_of: Callable[..., Gradient | None] = gradient_of,
    ) -> None:
        """Prepare the searches.

        Args:
            problem: The space, its costs and its predictor.
            params: The hyper-parameters.
            targets: The targets of each device, loosest first.
            draws: The random numbers, which hold the seeds.
            fronts: One front for each device, or none.
            gradient_of: As :func:`gradients.gradient_of`.
        """
        device = draws.seeds.device
        memo = Memo(problem.space, problem.accuracy, len(draws.seeds), device)
        self.problem = replace(problem, accuracy=memo)
        self.predictor = problem.accuracy
        self.predict = memo.predict
        self.params, self.sizes = params, params.sizes()
        self.targets, self.draws, self.fronts = targets, draws, fronts
        self.gradient_of = gradient_of
        self.lap = Laps(device)  # each outcome gets the seconds since the one before it
        self._memo = memo

    def evolve(
        self, target_index: int, state: EvolutionState | None, generations: int, seed_evaluations: int
    ) -> Served:
        """Run an evolutionary search for one target.

        Args:
            target_index: The index of the target in `targets`.
            state: The population to start from, such as `pruned` returns. None starts from a random one.
            generations: The number of generations.
            seed_evaluations: The evaluations that were spent on making `state`: 0 without a state or for the
                state of another target, 1 for the state that `pruned` returns.

        Returns:
            The population at the end (`state`) and the answers (`outcome`).

        Raises:
            UserError: A population that is carried over breaks the limits of this target.
        """
        limit, problem = self.targets[target_index], self.problem.at(target_index)
        evaluations = seed_evaluations
        if state is None:
            state = evolution.initial(problem, self.sizes, limit, self.draws, target_index)
            evaluations += self.sizes.population
        elif self.problem.by_target:
            _check_fits(problem, state, limit)

        def step(problem: Problem, draws: rng.Draws, state: EvolutionState, number: int) -> EvolutionState:
            return evolution.generation(problem, self.sizes, state, limit, draws, target_index, number)

        return self.run(target_index, state, generations, evaluations, step)

    def run(
        self, target_index: int, state: EvolutionState, generations: int, evaluations: int, step: Step
    ) -> Served:
        """Take steps until all generations are done, or until every search has run out of patience.

        Use it for a strategy with a generation of its own; `evolve` calls it with OFA's.

        Args:
            target_index: The index of the target in `targets`.
            state: The population to start from.
            generations: The largest number of generations.
            evaluations: The evaluations of each search before the first step.
            step: A function that returns the next state, given the problem, the random numbers, the state and
                the number of the generation, from 1.

        Returns:
            The population at the end (`state`) and the answers (`outcome`).
        """
        accuracies, ended, problem = [state.best_accuracy], None, self.problem.at(target_index)
        if self.params.patience is None:
            for number in range(1, generations + 1):
                state = step(problem, self.draws, state, number)
                accuracies.append(state.best_accuracy)
        else:
            state, ended = run_patiently(
                problem,
                self._memo,
                self.draws,
                state,
                generations,
                self.params.patience,
                step,
                accuracies,
            )
        counts = [evaluations + number * self.sizes.population for number in range(len(accuracies))]
        trace = list(zip(range(len(accuracies)), counts, accuracies, strict=True))
        outcome = Outcome(
            target_index,
            state.best,
            state.best_accuracy,
            len(accuracies) - 1,
            counts[-1],
            self._memo.take_count(),
            self.lap(),
            trace,
            ended=ended,
        )
        return Served(state, outcome)

    def pruned(self, target_index: int, genes: torch.Tensor) -> EvolutionState:
        """Return a population of copies of an answer that is pruned until it meets a target.

        Making it takes one evaluation of each search.

        Args:
            target_index: The index of the target in `targets`.
            genes: The answers for another target: int8 (S, G).
        """
        slots = rng.slots(self.draws.stream(rng.PRUNING, target_index, 1), 1)
        problem, limit = self.problem.at(target_index), self.targets[target_index]
        lowered = prune(problem.space, problem.cost, genes, limit, slots, problem.cheapest)
        return evolution.copies(self.sizes, lowered, problem.accuracy(lowered))


def _check_fits(problem: Problem, state: EvolutionState, limit: float) -> None:
    """Raise UserError if a population that is carried over to another target breaks the limits of that
    target.
    """
    for genes in (state.parents.view(-1, problem.space.G), state.best):
        if not bool((problem.cost(genes) <= limit).all()):
            raise UserError(
                "limits: expected limits that do not tighten from one target to the next looser one, because "
                "this strategy carries its population over, found a tighter one; use top_down or independent"
            )


@dataclass(frozen=True)
class Served:
    """A target that was served: the population at the end, and the answers."""

    state: EvolutionState
    outcome: Outcome
