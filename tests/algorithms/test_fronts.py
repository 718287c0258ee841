"""The front of a search against enumeration, and searches against all that they scored."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sweeping import assert_same, run

import topdown_ray
from topdown_ray.algorithms import front as fronts
from topdown_ray.algorithms.front import Front
from topdown_ray.algorithms.joint import Joint
from topdown_ray.algorithms.joint_parameters import JointParams
from topdown_ray.spaces.cost import any_cost
from topdown_ray.spaces.registry import SPACES
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.runner import Worker
from topdown_ray.sweeps.spec import make_spec
from topdown_ray.sweeps.verify import verify

SWEEP: dict[str, Any] = {
    "name": "front",
    "spaces": ["mobilenet_v3"],
    "strategies": ["joint", "top_down"],
    "cost": "note10",
    "targets": [50, 35, 20],
    "seeds": 5,
    "search": {"population": 40, "generations": 12, "warm_generations": 3},
}


def undominated(accuracy: np.ndarray, costs: np.ndarray) -> set[tuple[float, ...]]:
    """The non-dominated (accuracy, costs), by comparing each with all others."""
    kept = set()
    for i in range(len(accuracy)):
        better = (accuracy >= accuracy[i]) & (costs <= costs[i]).all(1)
        strictly = (accuracy > accuracy[i]) | (costs < costs[i]).any(1)
        if not (better & strictly).any():
            kept.add((accuracy[i], *costs[i]))
    return kept


def points_of(accuracy: list[float], costs: list[list[int]], step: int) -> fronts.FrontPoints:
    """The front of rows that are added ``step`` at a time; the genes of a row are its number."""
    n = len(accuracy)
    table = torch.tensor(costs, dtype=torch.float64)
    number = torch.arange(n)
    found = Front([lambda genes, j=j: table[genes[:, 0].long(), j] for j in range(table.shape[1])], 1)
    for i in range(0, n, step):
        genes = number[i : i + step].to(torch.int8)[None, :, None]
        found.add(genes, torch.tensor(accuracy[i : i + step])[None])
        if i % 3 == 0:
            found.sift()
    return found.points(0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data(), n=st.integers(1, 60), J=st.integers(1, 4), step=st.integers(1, 20))
def test_a_front_is_that_of_enumeration(data: st.DataObject, n: int, J: int, step: int) -> None:
    accuracy = data.draw(st.lists(st.sampled_from([0.5, 0.6, 0.7, 0.8, -np.inf]), min_size=n, max_size=n))
    costs = data.draw(st.lists(st.lists(st.integers(1, 5), min_size=J, max_size=J), min_size=n, max_size=n))
    found = points_of(accuracy, costs, step)
    scores, there = torch.tensor(accuracy).double().numpy(), np.isfinite(accuracy)
    wanted = undominated(scores[there], np.array(costs, float)[there])
    rows = list(zip(found.accuracy, *found.costs.T, strict=True))
    assert set(rows) == wanted
    assert len(rows) == len(wanted)
    assert (np.diff(found.costs[:, 0]) >= 0).all()
    # of equal ones the first
    for genes, row in zip(found.genes[:, 0].tolist(), rows, strict=True):
        first = next(i for i in range(n) if (scores[i], *map(float, costs[i])) == row)
        assert genes == first


def test_a_large_front_is_thinned_by_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that was dropped has a cheaper one that is at most epsilon less accurate."""
    monkeypatch.setattr(fronts, "MOST", 40)
    generator = np.random.default_rng(0)
    cost = generator.integers(1, 10_000, 120).astype(float)
    accuracy = (0.7 + 0.1 * np.sqrt(cost / 10_000) + generator.normal(0, 1e-3, 120)).astype(np.float32)
    other = generator.integers(1, 50, 120).astype(float)
    costs = np.stack([cost, other], axis=1)
    found = points_of(accuracy.tolist(), costs.tolist(), 7)
    assert len(found.accuracy) <= 40 < len(undominated(accuracy.astype(float), costs))
    assert found.epsilon > 0
    _assert_covers(found, accuracy, costs)


def _assert_covers(found: fronts.FrontPoints, accuracy: np.ndarray, costs: np.ndarray) -> None:
    most = costs * np.array([1.0, *[1 + found.epsilon] * (costs.shape[1] - 1)])
    for score, limits in zip(accuracy, most, strict=True):
        assert found.accuracy[(found.costs <= limits).all(1)].max(initial=0.0) >= score - found.epsilon


def test_fronts_that_no_loss_of_accuracy_thins_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two costs that fall as the other rises, with accuracies that differ in one row in all."""
    monkeypatch.setattr(fronts, "MOST", 10)
    cost = np.arange(1, 121, dtype=float)
    costs, accuracy = np.stack([cost, 1000 - cost], axis=1), np.full(120, 0.5, dtype=np.float32)
    found = points_of(accuracy.tolist(), costs.astype(int).tolist(), 120)
    assert 1 <= len(found.accuracy) <= 10
    _assert_covers(found, accuracy, costs)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> topdown_ray.Results:
    return run(SWEEP, tmp_path_factory.mktemp("front") / "out")


def test_the_table_holds_what_nothing_scored_dominates(monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[tuple[torch.Tensor, torch.Tensor]] = []
    own = Joint._scored

    def recorded(self: Joint, *args: Any) -> Any:
        children = own(self, *args)
        scored.append((children.genes, children.accuracy))
        return children

    monkeypatch.setattr(Joint, "_scored", recorded)
    plan = driver.make_plan(make_spec({**SWEEP, "strategies": ["joint"]}, "test"))
    (shard,) = plan.shards()
    rows = Worker(plan.setups).run(shard)
    space = SPACES["mobilenet_v3"]
    note10, params = any_cost("note10", space), any_cost("params", space)
    for s, columns in enumerate(rows.front):
        genes = torch.cat([part[0][s] for part in scored])
        accuracy = torch.cat([part[1][s] for part in scored])
        genes, accuracy = genes[accuracy > 0], accuracy[accuracy > 0]
        costs = torch.stack([note10(genes), params(genes)], dim=1).numpy()
        wanted = {(*row[:2], round(row[2], 6)) for row in undominated(accuracy.double().numpy(), costs)}
        params_m = [round(float(value), 6) for value in columns["params_m"]]
        assert set(zip(columns["accuracy"], columns["cost"], params_m, strict=True)) == wanted
        again = torch.from_numpy(np.stack([space.from_config(json.loads(text)) for text in columns["arch"]]))
        assert np.array_equal(note10(again).numpy(), columns["cost"])
        assert columns["search_id"][0] == shard.search_ids[s]
        assert set(columns["epsilon"]) == {0.0}
    assert len(rows.front) == 5


def test_fronts_do_not_depend_on_the_batch(results: topdown_ray.Results, tmp_path: Path) -> None:
    alone = run(SWEEP, tmp_path / "alone", batch=1)
    assert len(results.front) > 300
    assert_same(results, alone)


def test_a_long_search_sifts_as_it_goes(
    results: topdown_ray.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fronts, "_HELD", 64)
    assert_same(results, run(SWEEP, tmp_path / "often"))


def test_a_search_that_ran_out_of_patience_adds_nothing_more(tmp_path: Path) -> None:
    """Whether or not others of its batch go on."""
    data = {**SWEEP, "strategies": ["joint"], "search": {**SWEEP["search"], "patience": 2}, "seeds": 8}
    together = run(data, tmp_path / "together")
    assert together.searches["generations"].nunique() > 1
    assert_same(together, run(data, tmp_path / "alone", batch=1))


def test_only_joint_keeps_fronts(results: topdown_ray.Results) -> None:
    assert set(results.front["label"]) == {"joint"}
    rows = results.searches.drop_duplicates("search_id").set_index("search_id")
    sizes = results.front.groupby("search_id").size()
    assert rows.loc[sizes.index, "front_rows"].eq(sizes).all()
    assert rows.loc[rows["strategy"] == "top_down", "front_rows"].eq(0).all()


def test_the_best_of_a_front_are_the_answers(results: topdown_ray.Results) -> None:
    """For each target of the search, the front's best architecture is the search's answer."""
    answers = results.searches[results.searches["strategy"] == "joint"]
    for row in answers.to_dict("records"):
        own = results.front[results.front["search_id"] == row["search_id"]]
        assert own.loc[own["cost"] <= row["target"], "accuracy"].max() == row["accuracy"]


# --- a share of the children for the front ------------------------------------------------------------------


def test_a_share_of_the_children_serves_the_front_below_the_tightest_target(tmp_path: Path) -> None:
    search = {"population": 40, "generations": 40}
    data = {**SWEEP, "strategies": ["joint"], "targets": [[50, {"note10": 30, "params": 7.0}]]}
    data["search"] = search
    plain = run(data, tmp_path / "plain")
    data["search"] = {**search, "front_share": 0.3}
    served = run(data, tmp_path / "served")
    one = run(data, tmp_path / "one", seeds=1)  # to verify a front of hundreds takes long
    assert verify(one, rerun=1).passed
    assert one.front["arch"].tolist() == served.front.query("seed == 0")["arch"].tolist()
    assert served.searches["feasible"].all()
    assert set(plain.searches["search_id"]).isdisjoint(served.searches["search_id"])
    assert_same(served, run(data, tmp_path / "alone", batch=1))
    means = []
    for front in (plain.front, served.front):
        best = front[front["cost"] <= 18].groupby("seed")["accuracy"].max()
        means.append(best.reindex(range(5), fill_value=0.7).mean())  # 0.7: none, and less than any
    assert means[1] > means[0]


def test_without_such_a_share_identities_are_what_they_were() -> None:
    assert "front_share" not in JointParams().identity()["moves"]
    assert JointParams(front_share=0.2).identity()["moves"]["front_share"] == 0.2


def test_patience_is_part_of_a_searchs_identity() -> None:
    assert JointParams(patience=3).identity() != JointParams().identity()


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_that_the_search_starts_from_is_in_the_front(seed: int, tmp_path: Path) -> None:
    """Archives that no initial architecture fits start from the cheapest one."""
    targets = [60, 55, 50, 45, 40, 35, 30, 25, 20, 15]
    search = {"population": 4, "generations": 1, "warm_generations": 0}
    results = run(
        {**SWEEP, "strategies": ["joint"]}, tmp_path / "out", targets=targets, search=search, seeds=[seed]
    )
    for row in results.searches.to_dict("records"):
        fitting = results.front[results.front["cost"] <= row["cost"]]
        assert fitting["accuracy"].max() >= row["accuracy"]
    assert verify(results, rerun=3).passed


def test_gradients_of_the_fronts_share_count_for_the_targets_that_children_are_drawn_for(
    tmp_path: Path,
) -> None:
    search = {"population": 40, "generations": 30, "warm_generations": 0, "front_share": 0.9}
    results = run(SWEEP, tmp_path / "out", search=search, targets=[50, 20])
    assert results.searches["gradients"].gt(0).sum() == 10
    assert verify(results).passed


def test_texts_are_those_of_json() -> None:
    for space in SPACES.values():
        genes = space.canonical(space.random(200, 5)).numpy()
        assert space.texts(genes) == [json.dumps(space.to_config(row)) for row in genes]
