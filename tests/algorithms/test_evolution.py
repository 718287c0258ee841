"""The lock-step search: feasible, bounded, elitist, and the same for a search alone as for one among many."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.problems import PROBLEMS, SMALL, searches, small

from topdown_ray.algorithms import evolution, joint, proposals, pruning, rng
from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.pruning import prune
from topdown_ray.algorithms.strategies import STRATEGIES, Searches
from topdown_ray.spaces.cost import load_cost
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.registry import SPACES


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", SPACES)
def test_answers_are_feasible_true_and_counted(name: str, strategy: str) -> None:
    batch = searches(name, [0, 1, 2], [1.0, 0.6, 0.3], small(12, 4))
    outcomes = list(STRATEGIES[strategy].serve(batch))
    assert sorted(outcome.target_index for outcome in outcomes) == [0, 1, 2]
    for outcome in outcomes:
        assert (batch.problem.cost(outcome.genes) <= batch.targets[outcome.target_index]).all()
        assert torch.equal(batch.problem.accuracy(outcome.genes), outcome.accuracy)
        curve = torch.stack([best for _, _, best in outcome.trace])
        assert (curve.diff(dim=0) >= 0).all()
        assert torch.equal(curve[-1], outcome.accuracy)
    assert sum(outcome.evaluations for outcome in outcomes) == STRATEGIES[strategy].evaluations(
        batch.params, 3
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", SPACES)
def test_a_search_among_others_equals_the_search_alone(name: str, strategy: str) -> None:
    serve, params = STRATEGIES[strategy].serve, small(10, 4)
    together = list(serve(searches(name, [5, 9, 2, 7], [0.9, 0.4], params)))
    for s, seed in enumerate([5, 9, 2, 7]):
        for one, many in zip(serve(searches(name, [seed], [0.9, 0.4], params)), together, strict=True):
            assert torch.equal(one.genes[0], many.genes[s])
            assert one.accuracy[0] == many.accuracy[s]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_compiled_code_and_tensor_operations_agree(
    name: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit, however many attempts the tensor operations draw at once."""
    # at the tightest target some draws fail, and some children
    monkeypatch.setattr(proposals, "MAX_INITIAL_REDRAWS", 64)
    monkeypatch.setattr(proposals, "MAX_REDRAWS", 8)

    def answers() -> list[tuple[list[int], list[float], list[int]]]:
        served = STRATEGIES[strategy].serve(searches(name, [1, 2], [0.5, 0.2, 0.01], small(8, 3)))
        return [(x.genes.tolist(), x.accuracy.tolist(), x.unique_evaluations.tolist()) for x in served]

    expected = answers()
    monkeypatch.setattr(proposals, "compiled_cost", lambda problem, device: None)
    monkeypatch.setattr(pruning, "flat_cost", lambda cost, device: None)
    monkeypatch.setattr(joint, "can_compile", lambda costs, device: False)
    assert answers() == expected
    monkeypatch.setattr(proposals, "_ROWS_A_ROUND", 1)
    monkeypatch.setattr(proposals, "_MOST_ROWS_A_ROUND", 1)
    assert answers() == expected


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_tightest_possible_target_is_met_within_bounds(
    name: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one architecture fits: every redraw fails, pruning goes all the way down to the resolution,
    nothing hangs.
    """
    monkeypatch.setattr(proposals, "MAX_INITIAL_REDRAWS", 64)
    monkeypatch.setattr(proposals, "MAX_REDRAWS", 32)
    for outcome in STRATEGIES[strategy].serve(searches(name, [0, 1], [0.5, 0.0], small(3, 2))):
        if outcome.target_index == 1:
            canonical = PROBLEMS[name].space.canonical(outcome.genes)
            assert torch.equal(canonical, PROBLEMS[name].cheapest.expand(2, -1))


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_child_is_feasible(name: str, data: st.DataObject) -> None:
    batch = searches(name, [data.draw(st.integers(0, 2**40))], [data.draw(st.floats(0.05, 1.5))], small(1, 1))
    limit, problem = batch.targets[0], batch.problem
    state = evolution.initial(problem, SMALL, limit, batch.draws, 0)
    for number in (1, 2, 3):
        before = state
        state = evolution.generation(problem, SMALL, state, limit, batch.draws, 0, number)
        assert (problem.cost(state.parents.view(-1, problem.space.G)) <= limit).all()
        assert (state.accuracy >= before.accuracy).all()  # rank by rank: the best survive
        assert state.best_accuracy >= state.accuracy[:, 0]


def scored_children(
    accuracy: Callable[[torch.Tensor], torch.Tensor], seen: list[int]
) -> Callable[[torch.Tensor], torch.Tensor]:
    def count(genes: torch.Tensor) -> torch.Tensor:
        seen.append(len(genes))
        return accuracy(genes)

    return count


def test_the_predictor_is_called_once_a_generation_for_all_children() -> None:
    batch = searches("mobilenet_v3", [0, 1, 2], [0.8], small(6, 1))
    seen: list[int] = []
    plain = PROBLEMS["mobilenet_v3"]
    problem = Problem(plain.space, scored_children(plain.accuracy, seen), plain.cost, plain.cheapest)
    list(STRATEGIES["independent"].serve(Searches(problem, batch.params, batch.targets, batch.draws)))
    assert len(seen) == 7
    assert max(seen) <= 3 * SMALL.population


def test_mutation_redraws_each_group_with_its_probability() -> None:
    """A gene of n choices changes with probability p (1 - 1/n). False alarm: 30 comparisons at 5 sigma, 2e-5
    in all.
    """
    space, n = SPACES["resnet50d"], 40_000
    mothers = torch.zeros(n, space.G, dtype=torch.int8)
    keys = rng.keys(rng.slots(rng.Draws([3], "x").stream(rng.MUTATION, 0, 1), n), 0)
    mutate = proposals.Mutation(space, 0.1, torch.device("cpu"))
    children = mutate(mothers, rng.words(keys, len(space.mutation_groups)))
    for g, size in enumerate(space.sizes):
        p = (0.5 if g == space.resolution else 0.1) * (1 - 1 / size)
        changed = float((children[:, g] != 0).double().mean())
        assert abs(changed - p) < 5 * (p * (1 - p) / n) ** 0.5


def test_kernel_and_expand_ratio_of_a_block_are_redrawn_together() -> None:
    """Given that a kernel changed, the expand ratio was redrawn: all three choices equally likely. False
    alarm: 1e-6 a cell.
    """
    space, n = SPACES["mobilenet_v3"], 60_000
    mothers = torch.zeros(n, space.G, dtype=torch.int8)
    keys = rng.keys(rng.slots(rng.Draws([4], "x").stream(rng.MUTATION, 0, 1), n), 0)
    mutate = proposals.Mutation(space, 0.1, torch.device("cpu"))
    children = mutate(mothers, rng.words(keys, len(space.mutation_groups)))
    kernel, expand = children[:, space.indices("kernel")], children[:, space.indices("expand")]
    chosen = expand[kernel > 0].double()
    for choice in range(3):
        share = float((chosen == choice).double().mean())
        assert abs(share - 1 / 3) < 5 * (2 / 9 / len(chosen)) ** 0.5


def test_crossover_takes_every_gene_from_either_parent_evenly() -> None:
    """False alarm: 46 genes at 5 sigma, 3e-5 in all."""
    space, n = SPACES["mobilenet_v3"], 20_000
    mothers, fathers = torch.zeros(n, space.G, dtype=torch.int8), torch.ones(n, space.G, dtype=torch.int8)
    keys = rng.keys(rng.slots(rng.Draws([5], "x").stream(rng.CROSSOVER, 0, 1), n), 0)
    children = proposals.crossed(mothers, fathers, rng.words(keys, 2)).double()
    assert ((children.mean(0) - 0.5).abs() < 5 * 0.5 / n**0.5).all()


@pytest.mark.parametrize("name", SPACES)
def test_pruning_lowers_until_it_fits_and_no_further(name: str) -> None:
    problem = PROBLEMS[name]
    genes = problem.space.random(200, 8)
    limit = float(problem.cost(genes).quantile(0.2))
    slots = rng.slots(rng.Draws([1], name).stream(rng.PRUNING, 0, 0), 200)
    lowered = prune(problem.space, problem.cost, genes, limit, slots, problem.cheapest)
    assert (problem.cost(lowered) <= limit).all()
    assert (lowered <= genes).all()
    fitted = problem.cost(genes) <= limit
    assert torch.equal(lowered[fitted], genes[fitted])
    assert (lowered[~fitted] != genes[~fitted]).any(dim=1).all()
    resolution = problem.space.resolution
    # the resolution comes last: all else is at its minimum
    above = lowered[:, resolution] != genes[:, resolution]
    kinds = [kind for kinds in problem.space.prune_kinds for kind in kinds]
    assert (lowered[above][:, problem.space.indices(*kinds)] == 0).all()


def test_lock_step_search_equals_published_predictions(published: Path) -> None:
    """The notebook's first result: 35 ms on Note10 (its seed 1: 83.24 % at 34.63 ms)."""
    space = SPACES["mobilenet_v3"]
    cost = load_cost("note10", space)
    case = Problem(space, load_predictor("published", space), cost, torch.from_numpy(cost.cheapest()[1]))
    with torch.inference_mode():
        batch = Searches(case, EvolutionParams(), [35.0], rng.Draws(range(4), space.name))
        (outcome,) = STRATEGIES["top_down"].serve(batch)
    assert ((outcome.accuracy > 0.826) & (outcome.accuracy < 0.839)).all()
    assert (cost(outcome.genes) <= 35).all()
