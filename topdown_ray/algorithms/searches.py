"""S searches over the same targets, as a strategy runs them: what they search, what they remember, and what
they find for each target.
"""

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

Trace = list[tuple[int, int, torch.Tensor]]  # (generation, evaluations within the target, best accuracy (S,))


@dataclass
class Outcome:
    """The answers of S searches for one target."""

    target_index: int
    genes: torch.Tensor  # int8 (S, G)
    accuracy: torch.Tensor  # float32 (S,)
    generations: int
    evaluations: int  # children scored, each search
    # int64 (S,), of these the ones that the search had not scored before: predictor rows
    unique_evaluations: torch.Tensor
    seconds: Seconds  # of the whole batch, for this target
    trace: Trace = field(repr=False)
    gradients: torch.Tensor | None = None  # int64 (S,), gradients of the predictor, each search
    # int64 (S,), the generations after which each search ended, where some ended before ``generations``; the
    # trace holds a point for each of them
    ended: torch.Tensor | None = None

    def length(self, s: int) -> tuple[int, int]:
        """The generations and the evaluations of one search."""
        if self.ended is None:
            return self.generations, self.evaluations
        generations = int(self.ended[s])
        return generations, next(point[1] for point in self.trace if point[0] == generations)


class Searches:
    """S searches over the same targets: what they search, how, and their random numbers.

    ``problem.accuracy`` remembers what each search has scored. ``predictor`` is the predictor itself, and
    ``predict`` computes its accuracies anew. ``fronts`` take in what a strategy scores, one for each device;
    a strategy may leave them empty."""

    def __init__(
        self,
        problem: Problem,
        params: EvolutionParams,
        targets: Sequence[float],
        draws: rng.Draws,
        fronts: Sequence[Front] = (),
        gradient_of: Callable[..., Gradient | None] = gradient_of,
    ) -> None:
        """targets: loosest first, of each device. gradient_of: as :func:`gradients.gradient_of`."""
        device = draws.seeds.device
        memo = Memo(problem.space, problem.accuracy, len(draws.seeds), device)
        self.problem = replace(problem, accuracy=memo)
        self.predictor = problem.accuracy
        self.predict = memo.predict
        self.params, self.sizes = params, params.sizes()
        self.targets, self.draws, self.fronts = targets, draws, fronts
        self.gradient_of = gradient_of
        self.lap = Laps(device)  # each outcome takes the seconds since the one before it
        self._memo = memo

    def evolve(
        self, target_index: int, state: EvolutionState | None, generations: int, seed_evaluations: int
    ) -> _Served:
        """Evolve for one target, from a fresh random population where ``state`` is None."""
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
    ) -> _Served:
        """Take steps until there are no more generations, or until every search has run out of patience.

        evaluations: of each search before the first step."""
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
        return _Served(state, outcome)

    def pruned(self, target_index: int, genes: torch.Tensor) -> EvolutionState:
        """A population of copies of the previous answer, pruned until it fits; costs one evaluation."""
        slots = rng.slots(self.draws.stream(rng.PRUNING, target_index, 1), 1)
        problem, limit = self.problem.at(target_index), self.targets[target_index]
        lowered = prune(problem.space, problem.cost, genes, limit, slots, problem.cheapest)
        return evolution.copies(self.sizes, lowered, problem.accuracy(lowered))


def _check_fits(problem: Problem, state: EvolutionState, limit: float) -> None:
    """Raise UserError where a population that is carried over to another target breaks its limits."""
    for genes in (state.parents.view(-1, problem.space.G), state.best):
        if not bool((problem.cost(genes) <= limit).all()):
            raise UserError(
                "limits: expected limits that a population meets when it is carried over to the next target, "
                "found one that breaks them; use a strategy that prunes (top_down) or starts again "
                "(independent)"
            )


@dataclass(frozen=True)
class _Served:
    state: EvolutionState
    outcome: Outcome
