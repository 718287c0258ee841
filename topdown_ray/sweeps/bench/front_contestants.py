"""The contestants of ``topdown-ray bench fronts``: our own strategies here, other packages in
``front_externals`` and ``front_nas``.

Our strategies run as in a sweep (:class:`topdown_ray.algorithms.strategies.Searches`), one search at a time,
over the targets of the case. Their lengths are sized for the budget, since most of their children are ones
that they remember and that cost no row: the longest search found whose dearest of a few tuning seeds stays
within the budget, because a search that is cut leaves its last targets unserved. ``joint``, which serves all
targets at once, runs a few generations more and is cut, as the contestants of other packages are.
``top_down`` keeps the paper's ratio of five generations to one warm generation; ``independent`` has one
length for all its targets; ``joint`` has ``warm_generations: 0``. All other hyper-parameters are the
defaults."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

from topdown_ray.algorithms import strategies
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
PROBES = 10  # lengths that are tried, at most
CLOSE = 0.97  # of the budget: close enough
# children a row of the budget, at most: a search that remembers nearly all of them never meets its budget
MOST_CHILDREN = 12
_RATIO = 5  # generations to one warm generation: the paper's 500 and 100


class Prepared(NamedTuple):
    """A contestant that is ready for a recorder and its budget."""

    run: Run  # until its end or BudgetSpent
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


# --- our own strategies -------------------------------------------------------------------------------------


def _params(strategy: str, distinct: bool, generations: int) -> EvolutionParams:
    """The parameters of a search of this length."""
    warm = {"top_down": max(1, round(generations / _RATIO))}.get(strategy, 0)
    return STRATEGIES[strategy].parameters(
        generations=generations,
        warm_generations=warm,
        distinct_parents=distinct or None,  # None: as the strategy has it
    )


def _outcomes(
    strategy: str, arena: Arena, predictor: Predictor, params: EvolutionParams, seeds: range
) -> list[Outcome]:
    draws = Draws(seeds, arena.space.name)
    searches = Searches(arena.problem(predictor), params, arena.targets, draws)
    return list(STRATEGIES[strategy].serve(searches))


def spent_by(strategy: str, distinct: bool, arena: Arena, generations: int) -> float:
    """What the dearest of the tuning seeds spends, in rows of the predictor."""
    params = _params(strategy, distinct, generations)
    outcomes = _outcomes(strategy, arena, arena.predictor, params, TUNING_SEEDS)
    rows = np.sum([outcome.unique_evaluations.numpy() for outcome in outcomes], axis=0)
    gradients = np.sum(
        [outcome.gradients.numpy() for outcome in outcomes if outcome.gradients is not None], axis=0
    )
    return float(np.max(rows + arena.case.gradient_rows * gradients))


def sized(strategy: str, distinct: bool, arena: Arena, budget: int) -> int:
    """The generations of the longest search found that stays within the budget; deterministic, bounded."""

    def children(generations: int) -> int:
        count: Any = STRATEGIES[strategy].evaluations
        return int(count(_params(strategy, distinct, generations), len(arena.targets)))

    most = 1
    while children(2 * most) <= MOST_CHILDREN * budget:
        most *= 2
    fits, fails, generations = 0, most + 1, 1
    while children(generations + 1) <= budget:
        generations += 1
    for _ in range(PROBES):
        generations = min(generations, most)
        spent = spent_by(strategy, distinct, arena, generations)
        if spent <= budget:
            fits = generations
        else:
            fails = generations
        if fails - fits <= 1 or CLOSE * budget <= spent <= budget:
            break
        # in proportion, but within what is still open
        guess = round(generations * 0.99 * budget / max(spent, 1.0))
        generations = guess if fits < guess < fails else (fits + fails) // 2
    return fits


def _prepare(strategy: str, distinct: bool, arena: Arena, recorder: Recorder) -> Prepared:
    generations = sized(strategy, distinct, arena, recorder.budget)
    if strategy == "joint":
        generations += math.ceil((1 - CLOSE) * generations)
    params = _params(strategy, distinct, generations)
    predictor, gradient = RecordingPredictor.of(recorder), RecordedGradient(recorder, arena.cost)

    def run(seed: int) -> None:
        # gradients do not pass through the predictor's call
        with patch.object(strategies, "gradient_of", lambda *_: gradient):
            _outcomes(strategy, arena, predictor, params, range(seed, seed + 1))

    return Prepared(run, {"generations": params.generations, "warm_generations": params.warm_generations})


# --- all of them --------------------------------------------------------------------------------------------


def _external(name: str, make: Make, *needs: str) -> Contestant:
    return Contestant(name, lambda arena, recorder: Prepared(make(arena, recorder), {}), needs)


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("joint", partial(_prepare, "joint", False)),
        Contestant("top_down", partial(_prepare, "top_down", False)),
        Contestant("top_down, distinct", partial(_prepare, "top_down", True)),
        Contestant("independent", partial(_prepare, "independent", False)),
        Contestant("independent, distinct", partial(_prepare, "independent", True)),
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
    """Run a contestant once; whether its recorder cut it at its budget."""
    try:
        prepared.run(seed)
    except BudgetSpent:
        return True
    return False
