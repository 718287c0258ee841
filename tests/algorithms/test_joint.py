"""The strategy joint: exact archives, true counts, gradients as autograd has them, moves with the chances
they should have.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.problems import PROBLEMS, SMALL, searches, small
from support.sweeping import ALL_SPACES, assert_same
from support.sweeping import run as sweep_results

from topdown_ray.algorithms import breeding, evolution, gradients, memory, rng
from topdown_ray.algorithms.breeding import TensorBreeder
from topdown_ray.algorithms.gradients import Gradient, gradient_of
from topdown_ray.algorithms.joint import Joint
from topdown_ray.algorithms.joint_parameters import JointParams, Moves
from topdown_ray.algorithms.parameters import Sizes
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.strategies import STRATEGIES, Searches
from topdown_ray.spaces.cost import parameters
from topdown_ray.spaces.limits import LimitedCost
from topdown_ray.spaces.predictor import features
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.tiles import LEAST
from topdown_ray.sweeps import identities
from topdown_ray.sweeps.groups import Group
from topdown_ray.sweeps.hyperparameters import SearchParams
from topdown_ray.sweeps.identities import search_id
from topdown_ray.sweeps.verify import verify

SIX = Moves(archive=6)
GRADIENTS: dict[str, Any] = {
    name: gradient_of(problem.accuracy, problem.cost) for name, problem in PROBLEMS.items()
}


def neighbours(gradient: Gradient, genes: torch.Tensor) -> torch.Tensor:
    """Every single change of every row: genes (N, G) -> (N, C, G)."""
    changes = gradient.changes
    changed = genes[:, None].repeat(1, len(changes.gene), 1)
    changed[:, torch.arange(len(changes.gene)), changes.gene] = changes.choice
    return changed


# --- gradients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_gains_are_those_of_autograd_on_the_dense_perceptron(name: str) -> None:
    problem, gradient = PROBLEMS[name], GRADIENTS[name]
    predictor, space = problem.accuracy, problem.space
    genes = space.random(40, 1)
    inputs = features(space, predictor.encoding, genes).requires_grad_()
    hidden = inputs
    for layer in predictor.layers[:-1]:
        hidden = torch.relu(hidden @ torch.from_numpy(layer.weight).T + torch.from_numpy(layer.bias))
    (hidden @ torch.from_numpy(predictor.layers[-1].weight).T).sum().backward()
    changed = neighbours(gradient, genes)
    moved = (
        features(space, predictor.encoding, changed.view(-1, space.G)).view(*changed.shape[:2], -1)
        - inputs.detach()[:, None]
    )
    assert inputs.grad is not None
    expected = (moved * inputs.grad[:, None]).sum(2)
    assert torch.allclose(gradient(genes), expected, atol=2e-7, rtol=1e-4)
    assert float(expected.abs().max()) > 1e-3


@pytest.mark.parametrize("name", SPACES)
def test_costs_of_changes_are_exact(name: str) -> None:
    problem, gradient = PROBLEMS[name], GRADIENTS[name]
    genes = problem.space.random(40, 2)
    changed = neighbours(gradient, genes)
    expected = (
        problem.cost(changed.view(-1, problem.space.G)).view(changed.shape[:2]) - problem.cost(genes)[:, None]
    )
    assert torch.allclose(gradient.costs(genes)[0].double(), expected, rtol=1e-6, atol=1e-6)
    form = problem.space.canonical(changed.view(-1, problem.space.G)).view(changed.shape)
    other = (form != problem.space.canonical(genes)[:, None]).any(2)
    assert torch.equal(gradient.changes.effective(genes), other)


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 400), seed=st.integers(0, 9))
def test_a_gradient_has_the_same_bits_in_every_batch(name: str, n: int, seed: int) -> None:
    gradient, genes = GRADIENTS[name], SPACES[name].random(400, seed)
    assert torch.equal(gradient(genes)[:n], gradient(genes[:n]))
    assert torch.equal(gradient(genes)[-n:], gradient(genes[-n:]))
    assert torch.equal(gradient.costs(genes)[0][:n], gradient.costs(genes[:n])[0])


@pytest.mark.parametrize("name", sorted(SPACES))
def test_compiled_swaps_have_the_bits_of_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient, genes = GRADIENTS[name], SPACES[name].canonical(SPACES[name].random(300, 4))
    compiled = gradient(genes), gradient.costs(genes)[0]
    for swaps in (gradient._gains, gradient._costs[0][0]):
        monkeypatch.setattr(swaps, "compiled", None)
    assert torch.equal(compiled[0], gradient(genes))
    assert torch.equal(compiled[1], gradient.costs(genes)[0])


def test_there_is_no_gradient_where_the_predictor_is_not_ours() -> None:
    problem = PROBLEMS["resnet50d"]
    assert gradient_of(lambda genes: problem.accuracy(genes) / 2, problem.cost) is None


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("name", sorted(SPACES))
def test_a_compiled_first_layer_has_the_bits_of_tensors(name: str, relu: bool) -> None:
    space, layer = SPACES[name], PROBLEMS[name].accuracy._first
    genes = space.random(300, 4)
    compiled = layer(genes, 5, relu)
    tensors = copy.copy(layer)
    tensors.terms = None
    assert torch.equal(compiled, tensors(genes, 5, relu))
    assert (compiled[300:] == 0).all()


# --- the search ---------------------------------------------------------------------------------------------


class Recorder:
    """Calls through, and keeps what went in."""

    def __init__(self, inner: Any):
        self.inner, self.rows = inner, []

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        self.rows.append(genes.clone())
        return self.inner(genes)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def recorded(
    name: str, seeds: list[int], generations: int, moves: Moves = SIX, compiled: bool | None = None
) -> tuple[Joint, Recorder, Recorder]:
    batch = searches(name, seeds, [1.0, 0.7, 0.4, 0.1], small(1, 1))
    accuracy, gradient = Recorder(PROBLEMS[name].accuracy), Recorder(GRADIENTS[name])
    problem = Problem(batch.problem.space, accuracy, batch.problem.cost, batch.problem.cheapest)
    sizes = Sizes(30, 6, 15, 0.1)
    run = Joint(problem, sizes, moves, batch.targets, batch.draws, gradient, generations, compiled=compiled)
    for number in range(1, generations + 1):
        run.generation(number)
    return run, accuracy, gradient


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("seen", [8, memory.SEEN])
@pytest.mark.parametrize("name", SPACES)
def test_archives_hold_the_best_distinct_of_all_that_was_scored(
    name: str, seen: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the table of what was drawn forgets nearly everything at once."""
    monkeypatch.setattr(memory, "SEEN", seen)
    run, accuracy, gradient = recorded(name, [3], 25, compiled=compiled)
    space, cost = PROBLEMS[name].space, PROBLEMS[name].cost
    everything = torch.cat(accuracy.rows)
    assert int(run.scored.sum()) == len(everything)
    computed = sum(len(rows) for rows in gradient.rows)
    if compiled:  # parents of later attempts fill the last tile of each call
        assert 0 < run.gradients.sum() < computed < run.gradients.sum() + len(gradient.rows) * LEAST
    else:
        assert int(run.gradients.sum()) == computed > 0
    distinct = torch.unique(space.canonical(everything), dim=0)
    twice = len(everything) - len(distinct)
    assert twice > 20 if seen == 8 else twice <= len(everything) // 100
    scores, costs = PROBLEMS[name].accuracy(distinct), cost(distinct)
    for k, (limit,) in enumerate(run.limits.tolist()):
        fitting = scores[costs <= limit].sort(descending=True).values
        n = min(len(fitting), run.Q)
        assert torch.equal(run.archive.accuracy[0, k, :n], fitting[:n])
        assert (run.archive.accuracy[0, k, n:] == -torch.inf).all()
        kept = run.archive.genes[0, k, :n]
        assert len(torch.unique(kept, dim=0)) == n
        assert torch.equal(space.canonical(kept), kept)
        assert torch.equal(cost(kept), run.archive.cost[0, k, :n, 0])
        assert torch.equal(PROBLEMS[name].accuracy(kept), run.archive.accuracy[0, k, :n])


SHORT_MEMORY = Moves(archive=6, temperature=1e-2, neighbour_rate=0.9)


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(
    "moves",
    [
        SIX,
        SHORT_MEMORY,
        Moves(gradient_share=1.0, changes=1),
        Moves(gradient_share=0.0),
        Moves(front_share=0.4, share_archive=False),
        Moves(distinct_parents=False, archive=20),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", SPACES)
def test_compiled_code_and_tensor_operations_agree(
    name: str, moves: Moves, limited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit: archives, what was spent, what was drawn. Also with further limits for some targets, and
    where gradients and children are forgotten nearly at once.
    """
    if moves is SHORT_MEMORY:
        monkeypatch.setattr(memory, "SEEN", 16)
        for module in (breeding, gradients):
            monkeypatch.setattr(module, "places_for", lambda parents: 8)
    problem, params = PROBLEMS[name], small(1, 1)
    batch = searches(name, [1, 2, 3], [1.0, 0.7, 0.4, 0.05], params)
    plain = replace(batch.problem, accuracy=problem.accuracy)
    if limited:
        counted = parameters(problem.space)
        low, high = counted.range()
        others = ((counted, low + 0.5 * (high - low)),)
        by_target = [plain, replace(plain, cost=LimitedCost(problem.cost, others))] * 2
        plain = replace(plain, by_target=tuple(by_target))
    costs, _ = plain.constraints(batch.targets)
    gradient = gradient_of(problem.accuracy, *costs)
    both = []
    for compiled in (True, False):
        sizes = Sizes(30, 6, 15, 0.1)
        draws = rng.Draws([1, 2, 3], name)
        run = Joint(plain, sizes, moves, batch.targets, draws, gradient, 12, compiled=compiled)
        for number in range(1, 13):
            run.generation(number)
        both.append([*run.archive, run.scored, run.gradients, run.seen.names])
    assert (both[0][1][:, :, 0] > 0).all()
    assert bool(both[0][5].any()) == (moves.gradient_share > 0)
    for one, other in zip(*both, strict=True):
        assert torch.equal(one, other)


def test_without_sharing_a_target_knows_its_own_children_only() -> None:
    """The loosest target's archive would otherwise take in the tighter targets' children."""
    apart, _, _ = recorded("mobilenet_v3", [3], 1, Moves(share_archive=False, neighbour_rate=0.0, archive=6))
    shared, _, _ = recorded("mobilenet_v3", [3], 1)
    full = [(run.archive.accuracy > -torch.inf).sum(2)[0].tolist() for run in (apart, shared)]
    assert sum(full[0]) <= 60
    assert full[1][0] == 6
    assert all(one <= other for one, other in zip(*full, strict=True))


def test_targets_that_nothing_initial_fits_start_from_the_cheapest() -> None:
    """Fewer children than targets, and tight ones: every answer was scored and is feasible, alone as in
    company.
    """
    problem = PROBLEMS["mobilenet_v3"]
    lengths: dict[str, Any] = {"generations": 1, "warm_generations": 0}
    params = JointParams.model_construct(population=3, **lengths)  # fewer than a sweep may ask for
    lowest = float(problem.cost(problem.cheapest[None]))
    targets = [lowest * factor for factor in (3.0, 2.0, 1.5, 1.02, 1.01, 1.0)]

    def answers(seeds: list[int]) -> list[Any]:
        batch = Searches(problem, params, targets, rng.Draws(seeds, "mobilenet_v3"))
        return list(STRATEGIES["joint"].serve(batch))

    together, alone = answers([4, 5]), answers([5])
    for many, one in zip(together, alone, strict=True):
        assert many.accuracy.isfinite().all()
        assert torch.equal(problem.accuracy(many.genes), many.accuracy)
        assert (problem.cost(many.genes) <= targets[many.target_index]).all()
        assert torch.equal(many.genes[1], one.genes[0])


def test_off_switches_give_other_searches_that_still_answer() -> None:
    answers = []
    for moves in (
        Moves(),
        Moves(gradient_share=0.0),
        Moves(distinct_parents=False),
        Moves(share_archive=False),
        Moves(1.0),
    ):
        run, _, gradient = recorded("resnet50d", [0, 1], 12, moves)
        assert (run.archive.cost[:, :, 0] <= run.limits).all()
        assert bool(gradient.rows) == (moves.gradient_share > 0)
        answers.append(run.best[1])
    for i, one in enumerate(answers):
        assert not any(torch.equal(one, other) for other in answers[:i])


def test_a_row_counts_what_was_spent_for_its_target() -> None:
    outcomes = list(
        STRATEGIES["joint"].serve(searches("mobilenet_v3", [1, 2, 3], [1.0, 0.6, 0.3], small(10, 5)))
    )
    assert [outcome.target_index for outcome in outcomes] == [0, 1, 2]
    assert sum(outcome.evaluations for outcome in outcomes) == SMALL.population * 21
    assert (
        max(outcome.evaluations for outcome in outcomes) - min(outcome.evaluations for outcome in outcomes)
        <= 2
    )
    for outcome in outcomes:
        assert outcome.gradients is not None
        assert (outcome.unique_evaluations <= outcome.evaluations).all()
        assert (outcome.gradients > 0).all()
        assert outcome.trace[-1][:2] == (20, outcome.evaluations)


@pytest.mark.parametrize("name", SPACES)
def test_a_search_among_others_counts_as_alone(name: str) -> None:
    serve = STRATEGIES["joint"].serve
    together = list(serve(searches(name, [5, 9, 2], [0.9, 0.4], small(15, 5))))
    for s, seed in enumerate([5, 9, 2]):
        for one, many in zip(serve(searches(name, [seed], [0.9, 0.4], small(15, 5))), together, strict=True):
            assert one.gradients is not None
            assert many.gradients is not None
            assert one.unique_evaluations[0] == many.unique_evaluations[s]
            assert one.gradients[0] == many.gradients[s]
            assert one.accuracy[0] == many.accuracy[s]


def test_moves_have_the_chances_of_their_gains() -> None:
    """One mother, one change, 40,000 draws: shares against exp(gain / temperature). False alarm: 140 at 5
    sigma, 1e-4 in all.
    """
    name, n, temperature = "mobilenet_v3", 40_000, 2e-3
    run, _, _ = recorded(name, [3], 5, Moves(temperature=temperature, changes=1), compiled=False)
    assert isinstance(run.breed, TensorBreeder)
    gradient, archive = GRADIENTS[name], run.archive
    mother = archive.genes[0, 1, :1]
    limit = float(run.limits[1])
    words = rng.words(rng.keys(rng.slots(rng.Draws([7], "x").stream(rng.JOINT, 0, 1), n), 0), 2)
    place = torch.full((n,), run.Q)
    children = run.breed.moved(
        run.archive,
        mother.expand(n, -1),
        place,
        torch.zeros(n, dtype=torch.int64),
        torch.ones(n, dtype=torch.int64),
        torch.ones(n, dtype=torch.int64),
        words,
    )
    changes, gains = gradient.changes, gradient(mother)[0].double()
    allowed = gradient.changes.effective(mother)[0] & (
        gradient.costs(mother)[0][0] <= limit - archive.cost[0, 1, 0, 0]
    )
    chances = torch.where(allowed, ((gains - gains[allowed].max()) / temperature).exp(), 0)
    chances /= chances.sum()
    shares = torch.stack(
        [
            (children[:, g] == choice).double().mean()
            for g, choice in zip(changes.gene, changes.choice, strict=True)
        ]
    )
    differs = changes.choice != mother[0].index_select(0, changes.gene)
    assert (shares[differs & ~allowed] == 0).all()
    sigma = (chances * (1 - chances) / n).sqrt()
    rounding = 0.025 * chances  # weights step by a sixteenth of a half life: 2.2 % up or down
    assert (abs(shares - chances) <= 5 * sigma + rounding + 1e-5)[allowed].all()
    assert (PROBLEMS[name].cost(children) <= limit).all()
    assert ((children != mother).sum(1) == 1).all()


# --- identity and distinct parents --------------------------------------------------------------------------


def test_identities_of_the_other_strategies_are_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the version of the algorithm: these were computed with the first one, before joint's parameters
    came.
    """
    artefacts = {"cost": "c", "predictor": "p"}

    def identity(strategy: str, **params: Any) -> str:
        group = Group("mobilenet_v3", strategy, (35.0, 30.0), SearchParams(**params).of(strategy))
        return search_id(group, 3, "default", artefacts)

    expected = {
        "independent": "cc108603048c7bfc3bb6",
        "top_down": "5dec5c4298a585720cf7",
        "random": "56d3c3cbe389cad9800d",
    }
    second = {
        "independent": "dc400b9e0cb368365ef2",
        "top_down": "a191d013103004e4c648",
        "random": "ac4496dab359aa1163cc",
    }
    assert {name: identity(name) for name in expected} == second
    monkeypatch.setattr(identities, "ALGORITHM_VERSION", 1)
    assert {name: identity(name) for name in expected} == expected
    assert identity("top_down", generations=7) == "4f940bb68f6990c10d57"
    joint_only: dict[str, Any] = {
        "gradient_share": 0.1,
        "temperature": 0.1,
        "changes": 7,
        "neighbour_rate": 0.9,
    }
    joint_only |= {"archive": 9, "share_archive": False}
    assert identity("top_down", **joint_only) == expected["top_down"]
    names = {
        identity("joint"),
        identity("joint", distinct_parents=False),
        identity("top_down", distinct_parents=True),
    }
    names |= {identity("joint", **{key: value}) for key, value in joint_only.items()}
    assert len(names) == 3 + len(joint_only)
    assert identity("joint") == identity("joint", distinct_parents=True)
    assert identity("top_down") == identity("top_down", distinct_parents=False)
    assert set(SearchParams().model_dump()) == {
        *("population", "generations", "warm_generations", "parent_ratio", "mutation_ratio", "mutate_prob")
    }


@pytest.mark.parametrize("name", SPACES)
def test_distinct_parents_are_the_best_distinct_of_all(name: str) -> None:
    sizes = Sizes(20, 5, 10, 0.1, distinct_parents=True)
    batch = searches(name, [4], [0.8], small(1, 1))
    recorder = Recorder(PROBLEMS[name].accuracy)
    problem = Problem(batch.problem.space, recorder, batch.problem.cost, batch.problem.cheapest)
    state = evolution.initial(problem, sizes, batch.targets[0], batch.draws, 0)
    # the others are scored but no part of the first population
    first = recorder.rows.pop()[: sizes.mutations]
    for number in range(1, 13):
        state = evolution.generation(problem, sizes, state, batch.targets[0], batch.draws, 0, number)
    distinct = torch.unique(problem.space.canonical(torch.cat([first, *recorder.rows])), dim=0)
    assert torch.equal(state.accuracy[0], PROBLEMS[name].accuracy(distinct).sort(descending=True).values[:5])
    assert len(torch.unique(problem.space.canonical(state.parents[0]), dim=0)) == 5


# --- through a sweep ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweeps_rows_prove_themselves_whatever_the_batch(published: Path, tmp_path: Path) -> None:
    data = {**ALL_SPACES, "strategies": ["joint"], "seeds": 4}
    results = sweep_results(data, tmp_path / "one", batch=4)
    assert verify(results).passed
    assert_same(results, sweep_results(data, tmp_path / "other", batch=1))
    rows = results.searches
    assert (rows["gradients"] > 0).all()
    spent = rows.groupby("search_id")["evaluations"].sum()
    k = rows.groupby("search_id")["k"].first()
    assert (spent == 12 * (1 + 6 + 3 * (k - 1))).all()
