"""Targets near the cheapest architecture, small populations, long searches: no exception, and the same rows
alone as in a batch.
"""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tight import cheapest, problem

from topdown_ray.algorithms import rng
from topdown_ray.algorithms.gradients import gradient_of
from topdown_ray.algorithms.memory import Memo
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.strategies import STRATEGIES, Outcome, Searches
from topdown_ray.errors import UserError
from topdown_ray.spaces.registry import SPACES
from topdown_ray.sweeps.hyperparameters import SearchParams
from topdown_ray.sweeps.reference_front import polish

CASES = [(space, cost) for space in SPACES for cost in ("macs", "epyc_1thread")] + [
    ("mobilenet_v3", "note10")
]
CPU = torch.device("cpu")


def answers(
    space: str, cost: str, targets: list[float], seeds: list[int], strategy: str, params: dict[str, Any]
) -> list[Outcome]:
    read = SearchParams(**params).of(strategy)
    with torch.inference_mode():
        draws = rng.Draws(seeds, space)
        searches = Searches(problem(space, cost), read, targets, draws)
        return sorted(STRATEGIES[strategy].serve(searches), key=lambda outcome: outcome.target_index)


def row(outcome: Outcome, s: int) -> dict[str, Any]:
    """All that a table holds of one search's answer, but its time. The trace: where this search gained."""
    curve = [(number, evaluations, float(best[s])) for number, evaluations, best in outcome.trace]
    gains = [point for i, point in enumerate(curve) if i == 0 or point[2] > curve[i - 1][2]]
    return {
        "genes": outcome.genes[s].tolist(),
        "accuracy": float(outcome.accuracy[s]),
        "evaluations": outcome.evaluations,
        "unique": int(outcome.unique_evaluations[s]),
        "gradients": None if outcome.gradients is None else int(outcome.gradients[s]),
        "trace": gains,
    }


def check(
    space: str, cost: str, targets: list[float], seeds: list[int], strategy: str, params: dict[str, Any]
) -> list[Outcome]:
    """The answers of the last seed, which are the same alone and in a batch, true and feasible."""
    together = answers(space, cost, targets, seeds, strategy, params)
    alone = answers(space, cost, targets, seeds[-1:], strategy, params)
    for one, many in zip(alone, together, strict=True):
        assert row(one, 0) == row(many, -1)
        assert (problem(space, cost).cost(many.genes) <= targets[many.target_index]).all()
        assert torch.equal(problem(space, cost).accuracy(many.genes), many.accuracy)
    return alone


def draw_and_check(data: st.DataObject, strategy: str, most_generations: int) -> None:
    space, cost = data.draw(st.sampled_from(CASES))
    lowest = cheapest(space, cost)
    above = st.one_of(st.just(0.0), st.floats(-4, 0.5).map(lambda exponent: lowest * 10**exponent))
    targets = data.draw(
        st.lists(above.map(lambda extra: lowest + extra), min_size=1, max_size=12, unique=True).map(sorted)
    )
    params = {
        "population": data.draw(st.integers(4, 20)),
        "generations": data.draw(st.integers(0, most_generations)),
        "warm_generations": data.draw(st.integers(0, 3)),
        "distinct_parents": data.draw(st.sampled_from([None, True, False])),
        "mutation_ratio": data.draw(st.sampled_from([0.5, 0.0, 1.0])),
    }
    seeds = data.draw(st.lists(st.integers(0, 2**32), min_size=2, max_size=3, unique=True))
    check(space, cost, targets[::-1], seeds, strategy, params)


@pytest.mark.usefixtures("published")
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_joint_serves_any_target_from_the_cheapest_up(data: st.DataObject) -> None:
    draw_and_check(data, "joint", 12)


@pytest.mark.usefixtures("published")
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data(), strategy=st.sampled_from([name for name in STRATEGIES if name != "joint"]))
def test_every_strategy_serves_any_target_from_the_cheapest_up(data: st.DataObject, strategy: str) -> None:
    draw_and_check(data, strategy, 3)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("space", "cost", "target", "population", "generations"),
    [
        ("resnet50d", "macs", 316.0, 20, 20),
        ("resnet50d", "macs", 360.0, 4, 40),
        ("mobilenet_v3", "macs", 101.0, 20, 20),
        ("mobilenet_v3", "macs", 102.0, 5, 40),
        ("proxyless", "macs", 137.0, 20, 20),
        ("mobilenet_v3", "note10", 9.9, 20, 20),
        ("mobilenet_v3", "note10", 10.2, 4, 40),
        ("mobilenet_v3", "note10", 20.0, 4, 60),
        pytest.param("mobilenet_v3", "macs", 101.0, 4, 150, marks=pytest.mark.slow),
        pytest.param("resnet50d", "epyc_1thread", 26.0, 5, 50, marks=pytest.mark.slow),
    ],
)
def test_a_joint_search_that_exhausts_its_architectures_goes_on(
    space: str, cost: str, target: float, population: int, generations: int
) -> None:
    """Fewer architectures fit than the search draws children: generations pass in which nothing is left to
    score.
    """
    params = {"population": population, "generations": generations}
    (outcome,) = check(space, cost, [target], [0, 1], "joint", params)
    assert int(outcome.unique_evaluations[0]) < outcome.evaluations


# --- no rows, and no numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
def test_no_rows_have_no_scores(space: str) -> None:
    case, none = problem(space, "macs"), torch.zeros(0, SPACES[space].G, dtype=torch.int8)
    gradient = gradient_of(case.accuracy, case.cost)
    assert gradient is not None
    assert case.accuracy(none).shape == case.cost(none).shape == (0,)
    assert gradient(none).shape == gradient.costs(none)[0].shape == (0, sum(SPACES[space].sizes))
    for compiled in (True, False):
        assert Memo(SPACES[space], case.accuracy, 3, CPU, compiled)(none).shape == (0,)


class Spoilt:
    """A predictor that answers ``value`` for every architecture of the lowest resolution, and otherwise as
    the one it wraps.
    """

    name = "spoilt"

    def __init__(self, case: Problem, value: float):
        self.case, self.value = case, value

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        return self.case.accuracy(genes).masked_fill(genes[:, self.case.space.resolution] == 0, self.value)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf, 1.01, -0.01])
def test_an_accuracy_that_is_no_fraction_ends_the_search(strategy: str, value: float) -> None:
    case = problem("proxyless", "macs")
    spoilt = Problem(case.space, Spoilt(case, value), case.cost, case.cheapest)
    params = SearchParams(population=20, generations=3, warm_generations=1)
    searches = Searches(
        spoilt,
        params.of(strategy),
        [300.0, 200.0],
        rng.Draws([0, 1], "proxyless"),
    )
    message = "^predictor: expected a top-1 from 0 to 1 for every architecture, "
    message += rf"found {value:g} by spoilt for the genes \[.*\]$"
    with torch.inference_mode(), pytest.raises(UserError, match=message):
        list(STRATEGIES[strategy].serve(searches))


def test_polishing_takes_no_architecture_without_an_accuracy() -> None:
    case = problem("proxyless", "macs")
    genes = case.space.random(1, 0)[0]
    genes[case.space.resolution] = 1
    with pytest.raises(UserError, match="found nan by spoilt"):
        polish(case.space, Spoilt(case, math.nan), case.cost, genes, 400.0)
