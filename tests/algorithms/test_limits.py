"""Further limits of targets: the proof against enumeration, and searches that honour them."""

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy import stats
from support.commands import main_in_process
from support.pages import blocks
from support.sweeping import assert_same, run

import topdown_ray
from topdown_ray.algorithms import proposals, rng
from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.algorithms.uniform import Counts
from topdown_ray.errors import UserError
from topdown_ray.spaces.cost import CostModel, any_cost
from topdown_ray.spaces.limits import LimitedCost, lowest_under
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.terms import Term
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.spec import make_spec
from topdown_ray.sweeps.verify import verify

ALARM = 1e-7  # chance of a false alarm of the chi-square test
SIZES = (3, 2, 3, 4, 2, 3)
ROWS = torch.tensor(list(itertools.product(*map(range, SIZES))), dtype=torch.int8)
SWEEP: dict[str, Any] = {
    "name": "limits",
    "spaces": ["mobilenet_v3", "resnet50d", "proxyless"],
    "strategies": list(STRATEGIES),
    "cost": "macs",
    "predictor": "embedded",
    "targets": {
        "mobilenet_v3": [[{"macs": 400, "epyc_1thread": 35}, {"macs": 250, "epyc_1thread": 24}]],
        "resnet50d": [[3000, 1500]],
        "proxyless": [[500, {"macs": 300, "params": 4.5}]],
    },
    "limits": {"mobilenet_v3": {"params": 6.0}, "resnet50d": {"params": 16.0}, "proxyless": {"params": 5.5}},
    "seeds": 3,
    "search": {"population": 20, "generations": 8, "warm_generations": 3},
}


def random_cost(seed: int, most: int = 1000) -> CostModel:
    """Terms of 1 to 3 genes that overlap, over 432 rows."""
    generator = np.random.default_rng(seed)
    scopes = [(0,), (1, 0), (2, 4, 1), (5, 2), (4,), (3,)]
    terms = [Term(s, generator.integers(1, most, [SIZES[g] for g in s]).astype(float)) for s in scopes]
    return CostModel(f"test{seed}", "ticks", "", "test", 1.0, tuple(terms), SIZES)


# --- the proof ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_the_lowest_cost_under_limits_is_that_of_enumeration(seed: int) -> None:
    cost, others = random_cost(seed), [random_cost(100 + seed), random_cost(200 + seed)]
    values, spent = cost(ROWS), [other(ROWS) for other in others]
    for quantile in (0.002, 0.02, 0.1, 0.5):
        limits = [(other, float(each.quantile(quantile))) for other, each in zip(others, spent, strict=True)]
        feasible = LimitedCost(cost, tuple(limits)).meets(ROWS)
        found = lowest_under(cost, limits, SPACES["mobilenet_v3"])
        assert found.exact
        if not feasible.any():
            assert found.bound == found.cost == torch.inf
            continue
        assert found.cost == values[feasible].min()
        assert found.bound <= found.cost


def test_the_proof_is_exact_for_real_spaces() -> None:
    """No random architecture under the limits costs less, and the solver's architecture is under them."""
    for name, limit in (("mobilenet_v3", 5.6), ("resnet50d", 12.0), ("proxyless", 4.6)):
        space = SPACES[name]
        cost, params = any_cost("epyc_1thread", space), any_cost("params", space)
        found = lowest_under(cost, [(params, limit)], space)
        assert found.exact
        assert found.genes is not None
        genes = torch.from_numpy(found.genes)[None]
        assert float(cost(genes)[0]) == found.cost
        assert float(params(genes)[0]) <= limit
        drawn = space.random(20_000, 0)
        drawn[:, list(space.indices("depth"))] = 0  # small ones, so that some meet the limit
        meeting = cost(drawn)[params(drawn) <= limit]
        assert len(meeting) > 0
        assert found.cost <= meeting.min()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"limits": {"params": 2.0}},
            r"limits: mobilenet_v3: expected limits that an architecture can meet "
            r"\(each alone: params >= 4.603 x 1e6 parameters\), found params <= 2",
        ),
        (
            {"spaces": ["resnet50d"], "targets": [[320]], "limits": {"epyc_1thread": 25.5}},
            r"expected at least 322.092 x 1e6 MACs, the lowest cost under epyc_1thread <= 25.5, found 320",
        ),
        ({"limits": {"peak_activation": 0.5}}, r"none among 4,096 random ones; this is no proof"),
        ({"limits": {"nothing": 1.0}}, r"limits: expected note10, macs"),
        (
            {"limits": {"macs": 1.0}},
            r"limits: expected costs besides macs, which the targets limit, found macs",
        ),
        ({"limits": {"params": -1}}, r"limits.params: expected a positive number, found -1"),
        ({"limits": 5}, r"limits: expected a mapping of costs to numbers, found 5"),
        (
            {"targets": [[{"params": 5.0}]]},
            r"targets\[0\]\[0\]: expected the sweep's cost macs among the keys, found params",
        ),
        (
            {"targets": [[{"macs": 300, "params": "x"}]]},
            r"targets\[0\]\[0\].params: expected a positive number, found 'x'",
        ),
        ({"targets": [[{"macs": 300, "params": 5.0}], [300]]}, r"targets: expected distinct target sets"),
        (
            {"targets": [[300]], "limits": {"mobilenet_v3": [[{}, {}]]}},
            r"limits: expected a mapping for each target of mobilenet_v3",
        ),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(changes: dict[str, Any], message: str) -> None:
    data = {**SWEEP, "spaces": ["mobilenet_v3"], "targets": [[300]], "limits": None, **changes}
    with pytest.raises(UserError, match=message) as caught:
        driver.make_plan(make_spec(data, "test"))
    assert "\n" not in str(caught.value)


def test_the_guide_shows_a_target_that_cannot_be_met(capsys: pytest.CaptureFixture[str]) -> None:
    """The command of docs/guides/limits.md prints the line below it."""
    page = ROOT / "docs" / "guides" / "limits.md"
    (command,) = (block.code for block in blocks(page) if "limit epyc_1thread=25.5" in block.code)
    (line,) = (block.code for block in blocks(page) if block.code.startswith("error: "))
    assert main_in_process(shlex.split(command)[1:], capsys).stderr == line


def test_limits_that_a_population_cannot_carry_over_are_refused() -> None:
    """bottom_up takes the population of a tighter target as it is; the others prune it, or start afresh."""
    targets = [[{"macs": 500, "params": 5.0}, {"macs": 300, "params": 7.0}]]
    data = {**SWEEP, "spaces": ["mobilenet_v3"], "targets": targets, "limits": None}
    with pytest.raises(
        UserError, match=r"strategies: bottom_up: expected limits .*, found params <= 5 at 500"
    ):
        make_spec({**data, "strategies": ["bottom_up"]}, "test")
    make_spec({**data, "strategies": ["top_down", "joint", "prune", "random", "independent"]}, "test")


# --- searches -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> topdown_ray.Results:
    return run(SWEEP, tmp_path_factory.mktemp("limits") / "out")


def test_every_answer_meets_its_limits_and_states_its_costs(results: topdown_ray.Results) -> None:
    rows = results.searches
    assert set(rows["strategy"]) == set(STRATEGIES)
    assert rows["feasible"].all()
    most = rows["space"].map({"mobilenet_v3": 6.0, "resnet50d": 16.0, "proxyless": 5.5})
    most = most.where((rows["space"] != "proxyless") | (rows["target"] == 500), 4.5)
    assert (rows["params_m"] <= most).all()
    found = verify(results, rerun=30)
    assert found.passed
    assert {"limits", "costs", "feasible"} <= {each.name for each in found.checks}


def test_limits_cost_accuracy_where_they_bind(results: topdown_ray.Results, tmp_path: Path) -> None:
    """And without them answers break them: the test above is not idle."""
    free = run(
        {
            **SWEEP,
            "targets": {"mobilenet_v3": [[400, 250]], "resnet50d": [[3000, 1500]], "proxyless": [[500, 300]]},
            "limits": None,
            "strategies": ["joint"],
        },
        tmp_path / "out",
    )
    rows, bound = free.searches, results.searches[results.searches["strategy"] == "joint"]
    assert rows["limits"].isna().all()
    assert (rows.loc[rows["space"] == "resnet50d", "params_m"] > 16).any()
    loose = [
        frame[(frame["space"] == "resnet50d") & (frame["target"] == 3000)]["accuracy"].mean()
        for frame in (rows, bound)
    ]
    assert loose[0] > loose[1] + 0.001


def test_limits_that_never_bind_change_nothing_but_the_identity(tmp_path: Path) -> None:
    data = {
        **SWEEP,
        "targets": {"mobilenet_v3": [[400, 250]], "resnet50d": [[3000, 1500]], "proxyless": [[500, 300]]},
    }
    one = run({**data, "limits": {"params": 1000.0}}, tmp_path / "one").searches
    other = run({**data, "limits": None}, tmp_path / "other").searches
    keys = ["space", "strategy", "seed", "target"]
    columns = ["arch", "accuracy", "cost", "evaluations", "unique_evaluations", "gradients"]
    mine, theirs = (frame.set_index(keys).sort_index()[columns] for frame in (one, other))
    assert mine.equals(theirs)
    assert set(one["search_id"]).isdisjoint(other["search_id"])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_search_is_the_same_alone_and_in_tensor_operations(
    strategy: str, results: topdown_ray.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {**SWEEP, "strategies": [strategy]}
    together = run(data, tmp_path / "batch")
    assert_same(together, run(data, tmp_path / "alone", batch=1))
    monkeypatch.setattr(proposals, "compiled_cost", lambda problem, device: None)
    assert_same(together, run(data, tmp_path / "tensors"))


def test_a_limit_on_a_cost_that_is_no_sum(tmp_path: Path) -> None:
    data = {**SWEEP, "spaces": ["resnet50d"], "targets": [[3000, 1500]], "limits": {"peak_activation": 4.0}}
    found = run(data, tmp_path / "out")
    assert found.searches["feasible"].all()
    assert verify(found, rerun=6).passed


def test_uniform_draws_under_a_limit_are_uniform() -> None:
    cost, other = random_cost(1), random_cost(2)
    limit, most = float(cost(ROWS).quantile(0.4)), float(other(ROWS).quantile(0.4))
    limited = LimitedCost(cost, ((other, most),))
    feasible = limited(ROWS) <= limit
    slots = rng.slots(rng.Draws([7], "x").stream(rng.UNIFORM, 0, 0), 50 * int(feasible.sum()))
    drawn, success = Counts(cost, limit).draw(slots, limited.meets)
    assert success.all()
    numbers = np.ravel_multi_index(tuple(drawn.long().T.numpy()), SIZES)
    seen = torch.from_numpy(np.bincount(numbers, minlength=len(ROWS)))
    assert (seen[~feasible] == 0).all()
    assert stats.chisquare(seen[feasible]).pvalue > ALARM


def test_search_takes_limits(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["search", "--space", "resnet50d", "--cost", "macs", "--predictor", "embedded"]
    small = ["--strategy", "joint", "--target", "2000", "--generations", "5", "--population", "20"]
    done = main_in_process([*arguments, *small, "--limit", "params=12"], capsys)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^ +2000 +\S+ 1e6 MACs +\S+ +\S+ +(\S+)", done.stdout, re.MULTILINE)
    assert found
    assert float(found[1]) <= 12
    for text, message in (
        ("params", "--limit: expected COST=NUMBER"),
        ("params=x", "--limit: expected COST=NUMBER"),
    ):
        wrong = main_in_process([*arguments, *small, "--limit", text], capsys)
        assert wrong.returncode == 2
        assert message in wrong.stderr
