"""Reference fronts: polished, true, reproducible, read by the report; NSGA-II as the yardstick."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support import synthetic
from support.problems import PROBLEMS
from support.sweeping import ALL_SPACES
from support.sweeping import run as sweep_results
from typer.testing import CliRunner

from topdown_ray.algorithms.baselines.nsga2 import nsga2
from topdown_ray.cli.main import app
from topdown_ray.errors import UserError
from topdown_ray.report import comparisons
from topdown_ray.report.comparisons import regret
from topdown_ray.report.tables import prepare
from topdown_ray.spaces.cost import load_cost
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.registry import SPACES
from topdown_ray.sweeps import reference_front

SMALL = reference_front.FrontEffort(seeds=2, children=400, population=40)


@pytest.mark.parametrize("name", ["resnet50d"])
def test_no_two_changes_improve_what_was_polished(name: str) -> None:
    """All single changes and 3,000 random double ones, tried one by one."""
    problem = PROBLEMS[name]
    space, start = problem.space, problem.cheapest
    limit = 2.0 * float(problem.cost(start[None]))
    genes = reference_front.polish(space, problem.accuracy, problem.cost, start, limit)
    score = float(problem.accuracy(genes[None])[0])
    assert float(problem.cost(genes[None])) <= limit
    assert score > float(problem.accuracy(start[None])[0])
    draws = np.random.default_rng(0)
    tried = []
    for g, size in enumerate(space.sizes):
        tried += [[(g, choice)] for choice in range(size)]
    for _ in range(3000):
        pair = draws.choice(space.G, 2, replace=False)
        tried.append([(int(g), int(draws.integers(space.sizes[g]))) for g in pair])
    rows = genes.repeat(len(tried), 1)
    for row, change in zip(rows, tried, strict=True):
        for g, choice in change:
            row[g] = choice
    fits = problem.cost(rows) <= limit
    assert 100 < int(fits.sum()) < len(rows)
    assert float(problem.accuracy(rows)[fits].max()) <= score


def test_a_front_is_true_reproducible_and_never_worse_at_a_looser_target(tmp_path: Path) -> None:
    frame, text = reference_front.make_front("resnet50d", "macs", "embedded", [1200, 3000, 2000], SMALL)
    assert reference_front.make_front("resnet50d", "macs", "embedded", [3000, 2000, 1200], SMALL)[1] == text
    assert frame["target"].tolist() == [3000, 2000, 1200]
    assert (frame["cost"] <= frame["target"]).all()
    assert (frame["accuracy"].diff().dropna() <= 0).all()
    space, problem = SPACES["resnet50d"], PROBLEMS["resnet50d"]
    genes = torch.from_numpy(np.stack([space.from_config(json.loads(arch)) for arch in frame["arch"]]))
    assert problem.accuracy(genes).tolist() == frame["accuracy"].tolist()
    assert problem.cost(genes).tolist() == frame["cost"].tolist()
    path = tmp_path / "front.csv"
    path.write_text(text)
    assert comparisons.read_reference(path)["accuracy"].tolist() == frame["accuracy"].tolist()
    for word in (
        "--targets 3000,2000,1200",
        "--seeds 2",
        "--children 400",
        "cost_sha256 ",
        "predictor_sha256 ",
    ):
        assert word in text


@pytest.mark.parametrize("name", reference_front.shipped())
def test_shipped_fronts_are_what_predictor_and_table_say(name: str, published: Path) -> None:
    text = reference_front.find_front(name).read_text()
    rows = comparisons.read_reference(reference_front.find_front(name))
    space = SPACES[rows["space"].iloc[0]]
    predictor, cost = load_predictor("published", space), load_cost(rows["cost_name"].iloc[0], space)
    assert name == f"{space.name}-{cost.name}"
    assert f"cost_sha256 {cost.sha256}\n" in text
    assert f"predictor_sha256 {predictor.sha256}\n" in text
    genes = torch.from_numpy(np.stack([space.from_config(json.loads(arch)) for arch in rows["arch"]]))
    assert torch.allclose(predictor(genes).double(), torch.tensor(rows["accuracy"]), atol=1e-6)
    assert torch.allclose(cost(genes), torch.tensor(rows["cost"]), rtol=1e-9)
    assert (rows["cost"] <= rows["target"]).all()
    polished = reference_front.polish(space, predictor, cost, genes[-1], float(rows["target"].iloc[-1]))
    assert float(predictor(polished[None])) <= rows["accuracy"].iloc[-1] + 1e-6


def test_three_fronts_are_shipped() -> None:
    assert reference_front.shipped() == ["mobilenet_v3-macs", "mobilenet_v3-note10", "resnet50d-macs"]
    with pytest.raises(
        UserError, match=r"--reference: expected a CSV file or one of mobilenet_v3-macs, .* found nowhere"
    ):
        reference_front.find_front("nowhere")


def test_regret_is_what_the_reference_has_more() -> None:
    """The reference for a target is its best architecture that meets it; other spaces and tables do not
    count.
    """
    results = synthetic.results({"independent": 0.0, "top_down": 0.001}, sets=[(35.0, 30.0)], seeds=12)
    reference = pd.DataFrame(
        {
            "space": ["mobilenet_v3"] * 3 + ["resnet50d"],
            "cost_name": ["note10", "note10", "macs", "note10"],
            "cost": [29.0, 34.5, 20.0, 20.0],
            "accuracy": [0.80, 0.79, 0.99, 0.99],
        }
    )
    frame = regret(prepare([results]), reference).set_index(["strategy", "target"])["regret"]
    rows = results.searches
    for strategy in ("independent", "top_down"):
        own = rows[rows["strategy"] == strategy]
        for target in (35.0, 30.0):
            expected = 0.80 - own.loc[own["target"] == target, "accuracy"].mean()
            assert frame[strategy, target] == pytest.approx(expected, abs=1e-12)
        assert frame[strategy].iloc[-1] == pytest.approx(0.80 - own["accuracy"].mean(), abs=1e-12)
    assert regret(prepare([results]), reference[reference["cost"] > 34.7]).empty
    assert regret(prepare([results]), reference.assign(predictor_sha256="another")).empty


def test_the_command_writes_a_front_and_names_mistakes(tmp_path: Path) -> None:
    out = tmp_path / "front.csv"
    arguments = [
        "front",
        "--space",
        "resnet50d",
        "--cost",
        "macs",
        "--predictor",
        "embedded",
        "--out",
        str(out),
    ]
    small = ["--seeds", "1", "--children", "80", "--population", "20"]
    done = CliRunner().invoke(app, [*arguments, *small, "--targets", "2000"])
    assert done.exit_code == 0, done.output
    assert "*" not in done.output
    assert len(comparisons.read_reference(out)) == 1
    other = [*arguments[:2], "proxyless", *arguments[3:], *small, "--targets", "400"]
    done = CliRunner().invoke(app, other)
    assert re.search(r"^Target 400 x 1e6 MACs: predicted top-1 \*\d\d\.\d+ % at ", done.output)
    mark = "* The accuracies of proxyless come from a predictor that was trained on mobilenet_v3"
    assert mark in " ".join(done.output.split())
    assert comparisons.read_reference(out)["predictor_space"].item() == "mobilenet_v3"
    wrong = CliRunner().invoke(app, [*arguments, "--targets", "2000,x"])
    assert isinstance(wrong.exception, UserError)
    assert "--targets: expected numbers separated by commas, found '2000,x'" in str(wrong.exception)


def test_a_front_takes_in_the_answers_of_earlier_sweeps(tmp_path: Path) -> None:
    data = {
        **ALL_SPACES,
        "spaces": ["resnet50d"],
        "strategies": ["joint"],
        "targets": [[3000, 1500]],
        "predictor": "embedded",
    }
    results = sweep_results(data, tmp_path / "sweep")
    few = reference_front.FrontEffort(seeds=1, children=8, population=4)
    frame, text = reference_front.make_front(
        "resnet50d", "macs", "embedded", [2100, 1500], few, [str(tmp_path / "sweep")]
    )
    for target, accuracy in zip(frame["target"], frame["accuracy"], strict=True):
        assert accuracy >= results.pick(target).accuracy
    assert " --start sweep\n" in text
    with pytest.raises(
        UserError, match=r"--start: .*: expected architectures of this space, predictor and cost, found none"
    ):
        reference_front.make_front("resnet50d", "params", "embedded", [20], few, [str(tmp_path / "sweep")])


def test_nsga2_spends_what_it_is_given_and_answers_truly() -> None:
    problem, spent = PROBLEMS["resnet50d"], []

    def counted(genes: torch.Tensor) -> torch.Tensor:
        spent.append(len(genes))
        return problem.accuracy(genes)

    targets = [3000.0, 2000.0, 1200.0]
    genes, accuracy = nsga2(problem.space, counted, problem.cost, targets, 1000, 50, 3)
    assert sum(spent) == 1000
    assert (problem.cost(genes) <= torch.tensor(targets)).all()
    assert torch.equal(problem.accuracy(genes), accuracy)
    assert (accuracy.diff() <= 0).all()
    again, _ = nsga2(problem.space, problem.accuracy, problem.cost, targets, 1000, 50, 3)
    assert torch.equal(genes, again)
