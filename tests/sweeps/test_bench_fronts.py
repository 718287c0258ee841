"""``bench fronts``: the real predictor and tables; what is counted and measured, not who wins."""

import dataclasses
import json
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch

from topdown_ray import stats
from topdown_ray.cli.present.bench import print_bench
from topdown_ray.errors import UserError
from topdown_ray.report import comparisons
from topdown_ray.sweeps.bench import front_contestants, front_recorder, fronts
from topdown_ray.sweeps.bench.front_contestants import CONTESTANTS, DISTINCT, Ours, race_one
from topdown_ray.sweeps.bench.front_recorder import (
    CASES,
    Arena,
    BudgetSpent,
    RecordedGradient,
    RecordingPredictor,
    load_arena,
)
from topdown_ray.sweeps.bench.run import run_into
from topdown_ray.sweeps.reference_front import find_front

pytestmark = pytest.mark.usefixtures("published")
INSTALLED = [name for name, contestant in CONTESTANTS.items() if not contestant.missing]


@pytest.fixture(scope="module")
def arena(published: object) -> Iterator[Arena]:
    with torch.inference_mode():
        yield load_arena("resnet50d-macs")


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_that_of_its_reference_front(case: str) -> None:
    arena = load_arena(case)
    front = comparisons.read_reference(find_front(case))
    assert set(front["cost_sha256"]) == {arena.cost.sha256}
    assert set(front["predictor_sha256"]) == {arena.predictor.sha256}
    assert len(arena.targets) == 10
    assert arena.targets[0] == max(front["target"])
    assert (np.diff(arena.best) <= 0).all()
    assert arena.cheapest_accuracy < arena.best[-1]
    assert (front_recorder.BEYOND, front_recorder.FLOOR) == (comparisons.BEYOND, comparisons.FLOOR)


def test_the_recorder_stops_at_exactly_the_budget_and_keeps_every_row(arena: Arena) -> None:
    genes, recorder = arena.space.random(300, 0), arena.recorder(200)
    assert torch.equal(recorder.accuracy(genes[:120]), arena.predictor(genes[:120]))
    with pytest.raises(BudgetSpent):
        recorder.accuracy(genes[120:])
    assert recorder.rows == recorder.spent == 200
    cost, accuracy = recorder.points()
    assert (cost == arena.cost(genes[:200]).numpy()).all()
    assert (accuracy == arena.predictor(genes[:200]).double().numpy()).all()
    with pytest.raises(BudgetSpent):
        recorder.score(genes[:1])
    recorder.reset(2)
    for _ in range(2):
        recorder.score(genes[:1])  # a row that is asked for twice counts twice
    with pytest.raises(BudgetSpent):
        recorder.score(genes[:1])
    assert len(recorder.points()[0]) == 2


def test_gradients_are_paid_in_rows(arena: Arena) -> None:
    genes, recorder = arena.space.random(300, 0), arena.recorder(100)
    gradient = RecordedGradient(recorder, arena.cost)
    assert gradient(genes[:19]).shape[0] == 19
    assert recorder.spent == 19 * 5
    with pytest.raises(BudgetSpent):
        gradient(genes[:2])
    with pytest.raises(BudgetSpent):
        recorder.accuracy(genes)
    assert (recorder.rows, recorder.gradients, recorder.spent) == (5, 19, 100)


@pytest.mark.parametrize(
    "ours", [Ours("joint"), Ours("top_down"), Ours("independent", DISTINCT)], ids=lambda ours: ours.strategy
)
def test_our_strategies_record_what_their_rows_count(ours: Ours, arena: Arena) -> None:
    recorder, params = arena.recorder(10**6), ours.params(3)
    plain = ours.outcomes(arena, arena.predictor, params, range(7, 8))
    found = ours.outcomes(arena, RecordingPredictor.of(recorder), params, range(7, 8))
    for one, other in zip(plain, found, strict=True):
        assert torch.equal(one.genes, other.genes)  # recording changes nothing
    assert recorder.rows == sum(int(outcome.unique_evaluations) for outcome in found)
    by_target = front_recorder.answers(arena, *recorder.points())
    for outcome in found:
        assert by_target[outcome.target_index] >= float(outcome.accuracy)
    if ours.strategy == "joint":
        gradients = sum(int(outcome.gradients) for outcome in plain if outcome.gradients is not None)
        recorder = arena.recorder(recorder.rows + 5 * gradients)
        short = dataclasses.replace(ours, changes={})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(front_contestants, "sized", lambda *_: 2)
            patch.setattr(front_contestants, "CLOSE", 0.6)  # three generations
            ready = front_contestants.prepared(short, arena, recorder)
        assert not race_one(ready, 7)
        assert recorder.gradients == gradients
        assert recorder.spent == recorder.budget


@pytest.mark.parametrize("strategy", ["joint", "top_down"])
def test_a_length_fits_the_budget(strategy: str, arena: Arena) -> None:
    ours = Ours(strategy)
    generations = front_contestants.sized(ours, arena, 5000)
    assert 0.8 * 5000 < front_contestants.spent_by(ours, arena, generations) <= 5000
    assert front_contestants.sized(ours, arena, 5000) == generations


def test_moocores_hypervolume_is_ours() -> None:
    generator = np.random.default_rng(0)
    cost, accuracy = generator.uniform(10, 80, 500), generator.uniform(0.7, 0.84, 500)
    counted = cost <= 60
    ours = stats.hypervolume(
        np.zeros(int(counted.sum()), int),
        cost[counted],
        accuracy[counted],
        1.1 * 60,
        comparisons.FLOOR,
    )
    assert front_recorder.hypervolume(cost, accuracy, 60.0) == pytest.approx(100 * ours[0], rel=1e-12)
    assert front_recorder.hypervolume(cost + 100, accuracy, 60.0) == 0


def test_a_target_that_nothing_meets_counts_with_the_cheapest(arena: Arena) -> None:
    recorder = arena.recorder(10)
    assert front_recorder.measures(arena, recorder)["unmet"] == 10
    found = front_recorder.answers(arena, np.array([2000.0]), np.array([0.81]))
    assert (found == np.where(np.array(arena.targets) >= 2000, 0.81, arena.cheapest_accuracy)).all()


@pytest.mark.parametrize("name", INSTALLED)
def test_a_contestant_depends_on_its_seed_only(name: str, arena: Arena) -> None:
    def points(*seeds: int) -> list[bytes]:
        recorder = arena.recorder(1000)
        prepared, found = CONTESTANTS[name].prepare(arena, recorder), []
        for seed in seeds:
            recorder.reset(1000)
            race_one(prepared, seed)
            assert 500 < recorder.spent <= 1000
            cost, accuracy = recorder.points()
            assert len(cost) == recorder.rows
            if name in ("nsga2", "sms-emoa", "map-elites"):
                assert (cost <= arena.targets[0]).all()
            found.append(cost.tobytes() + accuracy.tobytes())
        return found

    np.random.seed(3)  # noqa: NPY002 - what some packages draw from
    first, second = points(3, 4)
    assert points(4) == [second]
    assert first != second


@pytest.mark.slow
def test_a_quick_race_gives_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    pieces = fronts.Pieces(("resnet50d-macs",), (1000,), 2, 5)
    laps: list[int] = []
    rows = fronts.race_fronts(
        pieces, ["independent", "nsga2"], lambda progress, name: laps.append(progress.done)
    )
    names = ["independent", "independent, distinct", "nsga2"]
    assert list(rows["contestant"]) == [name for name in names for _ in range(2)]
    assert list(rows["seed"]) == 3 * [5, 6]
    assert laps[-1] == 6
    assert (rows[["hypervolume", "regret", "cpu_s", "evaluations_per_second"]] > 0).all(axis=None)
    assert rows["spent"].between(500, 1000).all()
    assert np.stack(rows["regrets"]).mean(axis=1) == pytest.approx(rows["regret"].to_numpy())
    with pytest.raises(UserError, match=r"expected every run once, found .*nsga2"):
        fronts.joined([rows, rows[rows["contestant"] == "nsga2"]])
    # in this process, and alone: the same but for the time
    alone_pieces = dataclasses.replace(pieces, first_seed=6, seeds=1)
    (alone,) = fronts.run_contestant("resnet50d-macs", "nsga2", alone_pieces)
    there = rows.iloc[-1]
    for name in ("contestant", "seed", "hypervolume", "regret", "rows", "spent", "cut"):
        assert alone[name] == there[name]

    frame = fronts.summary(rows)
    assert list(frame["seeds"]) == [2, 2, 2]
    assert frame["best_regret"].sum() >= 1
    assert frame["hypervolume"].iloc[-1] == pytest.approx(rows["hypervolume"][4:].mean())
    print_bench("fronts", frame, as_json=False)
    text = capsys.readouterr().out
    assert "resnet50d-macs, 1,000 predictor rows, 2 seeds" in " ".join(text.split())
    assert " *" in text
    print_bench("fronts", frame, as_json=True)
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_intervals_come_with_enough_seeds() -> None:
    row = {"case": "c", "budget": 1, "contestant": "a", "unmet": 0, "spent": 10.0, "cpu_s": 2.0}
    rows = pd.DataFrame([{**row, "hypervolume": h, "regret": -h} for h in range(6)])
    (summary,) = fronts.summary(rows).to_dict("records")
    assert summary["hypervolume_low"] < 2.5 < summary["hypervolume_high"]
    assert summary["evaluations_per_second"] == 5


def test_what_cannot_be_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"--only: expected a prefix of one of joint; .*, found 'theirs'"):
        fronts.race_fronts(fronts.QUICK, ["theirs"])
    with pytest.raises(UserError, match=r"--case: expected one of mobilenet_v3-note10, .*, found 'ms'"):
        fronts.race_fronts(dataclasses.replace(fronts.QUICK, cases=("ms",)))
    with pytest.raises(UserError, match="bench: expected one of race, floor, driver, fronts, found 'fast'"):
        run_into("fast", None, True, (), None, lambda progress, name: None)
    monkeypatch.setattr(front_contestants.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"map-elites: expected the package ribs, found none; see scripts/"):
        fronts.race_fronts(fronts.QUICK, ["map"])
    missing: list[str] = []
    with pytest.raises(UserError, match="fronts: expected the package moocore"):
        fronts.race_fronts(fronts.QUICK, on_missing=missing.append)
    assert len(missing) == 7
    assert missing[3].startswith("ofa2: expected the package pymoo and ofa2, found none: left out")
