"""Define the contestants of ``topdown-ray bench fronts``: the strategies of this project, and those of other
packages from ``front_externals`` and ``front_nas``.

The strategies run as in a sweep (:class:`topdown_ray.algorithms.strategies.Searches`), one search at a time,
over the targets of the case. Their lengths are sized for the budget, because most of their children are in
the cache and cost no row: the length is the longest one found with which a few tuning seeds, from 1000 on,
finish within the budget on average. A search that reaches its budget before its end is stopped there.
``joint``, which serves all targets at once, runs a few generations more and is nearly always stopped, like
the contestants of other packages. ``top_down`` keeps the paper's ratio of five generations to one warm
generation; ``independent`` has one length for all its targets; ``joint`` has ``warm_generations: 0``. All
other hyper-parameters are the defaults, except in the variants with ``distinct_parents: true`` and, of
``joint``, with ``front_share: 0.2`` and with ``gradient_share: 0``.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from topdown_ray.algorithms.gradients import Gradient, gradient_of
from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.rng import Draws
from topdown_ray.algorithms.strategies import STRATEGIES, Outcome, Searches
from topdown_ray.spaces.predictor import Predictor
from topdown_ray.sweeps.bench import front_externals, front_nas
from topdown_ray.sweeps.bench.front_externals import Make, Run
from topdown_ray.sweeps.bench.front_recorder import (
    Arena,
    BudgetSpent,
    RecordedGradient,
    Recorder,
    RecordingPredictor,
)

TUNING_SEEDS = range(1000, 1005)
PROBES = 10  # largest number of lengths that are tried
CLOSE = 0.97  # share of the budget that is close enough
# most children per row of the budget: a search with nearly all of them in its cache never reaches its budget
MOST_CHILDREN = 12
DISTINCT = {"distinct_parents": True}
FRONT = {"front_share": 0.2}
_RATIO = 5  # generations to one warm generation: the paper's 500 and 100


class Prepared(NamedTuple):
    """A contestant that is ready to run with a recorder and its budget."""

    run: Run  # runs until its end or BudgetSpent
    lengths: dict[str, int]  # generations and warm generations, if it was sized


@dataclass(frozen=True)
class Contestant:
    """A contestant by name."""

    name: str
    prepare: Callable[[Arena, Recorder], Prepared]
    needs: tuple[str, ...] = ()  # packages that it imports

    @property
    def missing(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


# --- strategies of this project -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ours:
    """A strategy, and its hyper-parameters that differ from the defaults."""

    strategy: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def params(self, generations: int) -> EvolutionParams:
        """Return the parameters of a search of this length."""
        warm = max(1, round(generations / _RATIO)) if self.strategy == "top_down" else 0
        model = STRATEGIES[self.strategy].parameters
        return model(generations=generations, warm_generations=warm, **self.changes)

    def children(self, generations: int, targets: int) -> int:
        """Return the number of children of a search of this length."""
        return STRATEGIES[self.strategy].evaluations(self.params(generations), targets)

    def outcomes(
        self,
        arena: Arena,
        predictor: Predictor,
        params: EvolutionParams,
        seeds: range,
        gradient_of: Callable[..., Gradient | None] = gradient_of,
    ) -> list[Outcome]:
        """The outcomes of searches with these seeds."""
        draws = Draws(seeds, arena.space.name)
        searches = Searches(arena.problem(predictor), params, arena.targets, draws, gradient_of=gradient_of)
        return list(STRATEGIES[self.strategy].serve(searches))


def spent_by(ours: Ours, arena: Arena, generations: int) -> float:
    """Return the rows of the predictor that the tuning seeds use on average."""
    outcomes = ours.outcomes(arena, arena.predictor, ours.params(generations), TUNING_SEEDS)
    rows = np.sum([outcome.unique_evaluations.numpy() for outcome in outcomes], axis=0)
    gradients = np.sum(
        [outcome.gradients.numpy() for outcome in outcomes if outcome.gradients is not None], axis=0
    )
    return float(np.mean(rows + arena.case.gradient_rows * gradients))


def sized(ours: Ours, arena: Arena, budget: int) -> int:
    """Return the generations of the longest search found that stays within the budget on average.
    Deterministic and bounded.
    """
    targets, most = len(arena.targets), 1
    while ours.children(2 * most, targets) <= MOST_CHILDREN * budget:
        most *= 2
    fits, fails, generations = 0, most + 1, 1
    while ours.children(generations + 1, targets) <= budget:
        generations += 1
    for _ in range(PROBES):
        generations = min(generations, most)
        spent = spent_by(ours, arena, generations)
        if spent <= budget:
            fits = generations
        else:
            fails = generations
        if fails - fits <= 1 or CLOSE * budget <= spent <= budget:
            break
        # in proportion, but within the range that is still open
        guess = round(generations * 0.99 * budget / max(spent, 1.0))
        generations = guess if fits < guess < fails else (fits + fails) // 2
    return fits


def prepared(ours: Ours, arena: Arena, recorder: Recorder) -> Prepared:
    """Return a strategy of this project, sized for the recorder's budget."""
    generations = sized(ours, arena, recorder.budget)
    if ours.strategy == "joint":
        generations += math.ceil((1 - CLOSE) * generations)
    params = ours.params(generations)
    predictor, gradient = RecordingPredictor.of(recorder), RecordedGradient(recorder, arena.cost)

    def run(seed: int) -> None:
        # gradients do not use the predictor's call
        ours.outcomes(arena, predictor, params, range(seed, seed + 1), lambda *_: gradient)

    return Prepared(run, {"generations": params.generations, "warm_generations": params.warm_generations})


# --- all of them --------------------------------------------------------------------------------------------


def _ours(name: str, ours: Ours) -> Contestant:
    return Contestant(name, partial(prepared, ours))


def _external(name: str, make: Make, *needs: str) -> Contestant:
    return Contestant(name, lambda arena, recorder: Prepared(make(arena, recorder), {}), needs)


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        _ours("joint", Ours("joint")),
        _ours("joint, front", Ours("joint", FRONT)),
        _ours("joint, no gradients", Ours("joint", {"gradient_share": 0.0})),
        _ours("joint, front, no gradients", Ours("joint", {**FRONT, "gradient_share": 0.0})),
        _ours("top_down", Ours("top_down")),
        _ours("top_down, distinct", Ours("top_down", DISTINCT)),
        _ours("independent", Ours("independent")),
        _ours("independent, distinct", Ours("independent", DISTINCT)),
        _external("nsga2", partial(front_externals.pymoo, "nsga2"), "pymoo"),
        _external("sms-emoa", partial(front_externals.pymoo, "sms-emoa"), "pymoo"),
        _external("map-elites", front_externals.map_elites, "ribs"),
        _external("ofa2", partial(front_nas.ofa2, False), "pymoo", "ofa2"),
        _external("ofa2, limited", partial(front_nas.ofa2, True), "pymoo", "ofa2"),
        _external("dynast, nsga2", partial(front_nas.dynast, "nsga2"), "pymoo", "dynast"),
        _external("dynast, age", partial(front_nas.dynast, "age"), "pymoo", "dynast"),
    )
}


def race_one(prepared: Prepared, seed: int) -> bool:
    """Run a contestant once. Return whether its recorder stopped it at its budget."""
    try:
        prepared.run(seed)
    except BudgetSpent:
        return True
    return False
