"""Architectures for any cost: picks against the rows that they come from, and what the command says."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import assert_one_line, main_in_process
from support.sweeping import run

import topdown_ray
from topdown_ray.errors import UserError
from topdown_ray.spaces.cost import any_cost
from topdown_ray.spaces.registry import SPACES
from topdown_ray.store import picking

SWEEP: dict[str, Any] = {
    "name": "picks",
    "spaces": ["mobilenet_v3"],
    "strategies": ["joint", {"name": "top_down", "label": "downwards"}],
    "cost": ["note10", "epyc_1thread"],
    "targets": {"note10": [50, 35, 20], "epyc_1thread": [35, 28]},
    "seeds": 3,
    "search": {"population": 40, "generations": 12, "warm_generations": 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("picks") / "out"
    run(SWEEP, out)
    return out


def test_a_pick_is_the_most_accurate_that_meets_what_was_asked_for(folder: Path) -> None:
    results, space = topdown_ray.load(folder), SPACES["mobilenet_v3"]
    whole = [*results.front.to_dict("records"), *results.searches.to_dict("records")]
    rows = list(whole)
    for cost, other in (("note10", "epyc_1thread"), ("epyc_1thread", "note10")):
        rows += [  # what was found for the other device serves, too
            {**row, "cost_name": cost, "cost": json.loads(row["costs"])[cost]}
            for row in whole
            if row["cost_name"] == other
        ]
    for cost in ("note10", "epyc_1thread"):
        for at in (27.3, 31.0, 44.4):
            for limits in ({}, {"params": 6.5}, {"macs": 280.0, "params": 7.0}):
                found = results.pick(at, cost=cost, limits=limits)
                most = {"params": math.inf, "macs": math.inf} | limits
                fitting = [
                    row["accuracy"]
                    for row in rows
                    if row["cost_name"] == cost
                    and row["cost"] <= at
                    and row["params_m"] <= most["params"]
                    and row["macs_m"] <= most["macs"]
                ]
                assert found.accuracy == max(fitting)
                genes = torch.from_numpy(space.from_config(found.arch))[None]
                assert float(any_cost(cost, space)(genes)) == found.cost <= at
                assert float(any_cost("params", space)(genes)) == pytest.approx(found.params_m)
    other = results.pick(50, cost="note10", limits={"epyc_1thread": 24.0})
    genes = torch.from_numpy(space.from_config(other.arch))[None]
    assert float(any_cost("epyc_1thread", space)(genes)) <= 24.0


def test_a_pick_says_where_it_comes_from(folder: Path) -> None:
    results = topdown_ray.load(folder)
    found = results.pick(27.3, cost="note10")
    assert (found.label, found.space, found.cost_name) == ("joint", "mobilenet_v3", "note10")
    assert found.source == "front"
    assert found.loosest == 50
    assert found.source == "front"
    assert found.search_id in set(results.searches["search_id"])
    for name in ("downwards", "top_down"):
        answer = results.pick(36, cost="note10", strategy=name)
        assert (answer.label, answer.source, answer.epsilon) == ("downwards", "answer", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": 27.3}, "cost: expected one of note10, epyc_1thread, found none|cost: expected one of"),
        ({"at": 27.3, "cost": "pixel"}, "cost: expected one of .*, found 'pixel'"),
        ({"at": 1.0, "cost": "note10"}, r"at: expected at least \d+\.\d+ ms, the cost of the cheapest"),
        ({"at": "27", "cost": "note10"}, "at: expected a positive number, found '27'"),
        ({"at": math.nan, "cost": "note10"}, "at: expected a positive number, found nan"),
        ({"at": 27.3, "cost": "note10", "strategy": "prune"}, "strategy: expected one of .*, found 'prune'"),
        ({"at": 27.3, "cost": "note10", "limits": {"params": 1}}, "limits: .* found params <= 1"),
        ({"at": 27.3, "cost": "note10", "limits": {"flops": 1}}, "limits: expected macs, params or a cost"),
        ({"at": 27.3, "cost": "note10", "limits": {"params": "6"}}, "limits: params: expected a number"),
        ({"at": 27.3, "cost": "note10", "space": "resnet50d"}, "space: expected one of mobilenet_v3"),
    ],
)
def test_a_mistake_is_one_line_with_the_argument(
    arguments: dict[str, Any], message: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=message) as found:
        topdown_ray.load(folder).pick(**arguments)
    assert "\n" not in str(found.value)


def test_the_command_prints_the_pick(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = topdown_ray.load(folder).pick(27.3, cost="note10", limits={"params": 6.5})
    arguments = ["pick", folder, "--cost", "note10", "--at", 27.3, "--params", 6.5]
    done = main_in_process(arguments, capsys)
    assert done.returncode == 0
    assert f"predicted top-1 {100 * own.accuracy:.2f} %, {own.cost:.2f} ms on note10" in done.stdout
    assert json.dumps(own.arch) in done.stdout.splitlines()
    facts = json.loads(main_in_process([*arguments, "--json"], capsys).stdout)
    assert facts["arch"] == own.arch
    assert facts["accuracy"] == own.accuracy
    beyond = main_in_process(["pick", folder, "--cost", "note10", "--at", 70], capsys)
    assert "above 50, their loosest target under note10." in " ".join(beyond.stdout.split())
    assert_one_line(main_in_process(["pick", folder, "--at", 27.3], capsys), "--cost: expected one of")
    assert_one_line(
        main_in_process([*arguments, "--limit", "params"], capsys), "--limit: expected COST=NUMBER"
    )
    assert_one_line(
        main_in_process([*arguments, "--limit", "flops=3"], capsys), "--limit: expected macs, params"
    )


def test_a_folder_without_rows_has_nothing_to_pick(folder: Path) -> None:
    results = topdown_ray.load(folder)
    empty = topdown_ray.Results(
        results.manifest, results.searches.head(0), results.trace.head(0), results.place
    )
    with pytest.raises(UserError, match="results: expected a search that met its target, found none"):
        empty.pick(30)


def test_a_sweep_without_fronts_picks_among_its_answers(tmp_path: Path) -> None:
    data = {**SWEEP, "strategies": ["top_down"], "cost": "note10", "targets": [50, 35, 20]}
    results = run(data, tmp_path / "out")
    assert results.front.empty
    found = results.pick(36)
    assert found.arch == results.best(35)
    assert picking.pick(results, 49.99).cost <= 49.99
