"""Sweeps over several devices: their searches against those over each device alone, and what reports say."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.sweeping import Stopping, assert_same, run

import topdown_ray
from topdown_ray.algorithms.archives import neighbours
from topdown_ray.algorithms.joint import Joint
from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.errors import UserError
from topdown_ray.report.build import write_report
from topdown_ray.report.devices import losses, on_devices
from topdown_ray.report.labelling import prepare
from topdown_ray.spaces.cost import any_cost, shipped_tables
from topdown_ray.spaces.registry import SPACES
from topdown_ray.store.folder import ResultFolder
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.executors import ShardHost
from topdown_ray.sweeps.runner import Worker
from topdown_ray.sweeps.spec import make_spec
from topdown_ray.sweeps.verify import verify

COSTS = ["note10", "epyc_1thread", "macs"]
TARGETS = {"note10": [50, 35, 25], "epyc_1thread": [35, 28], "macs": [400, {"macs": 250, "params": 7.0}]}
SWEEP: dict[str, Any] = {
    "name": "devices",
    "spaces": ["mobilenet_v3"],
    "strategies": list(STRATEGIES),
    "cost": COSTS,
    "targets": TARGETS,
    "seeds": 4,
    "search": {"population": 20, "generations": 8, "warm_generations": 3},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> topdown_ray.Results:
    return run(SWEEP, tmp_path_factory.mktemp("devices") / "out")


def test_every_device_has_rows_which_verify(results: topdown_ray.Results) -> None:
    counts = results.searches.groupby(["strategy", "cost_name"])["search_id"].nunique()
    assert len(counts) == len(STRATEGIES) * len(COSTS)
    assert set(counts) == {4}
    assert results.searches["search_id"].nunique() == make_spec(SWEEP, "test").n_searches() == 4 * 3 * 6
    assert results.searches["feasible"].all()
    verification = verify(results, rerun=12)
    assert verification.passed
    assert not verification.missing
    assert next(found for found in verification.checks if found.name == "rerun").rows


def test_strategies_that_search_device_by_device_give_the_rows_of_sweeps_over_one(
    results: topdown_ray.Results, tmp_path: Path
) -> None:
    others = [name for name in STRATEGIES if name != "joint"]
    for cost in COSTS:
        alone = run(SWEEP, tmp_path / cost, cost=cost, targets=TARGETS[cost], strategies=others)
        rows = results.searches[
            (results.searches["cost_name"] == cost) & (results.searches["strategy"] != "joint")
        ]
        columns = [
            "search_id",
            "target_index",
            "arch",
            "accuracy",
            "cost",
            "generations",
            "unique_evaluations",
        ]
        pd.testing.assert_frame_equal(
            alone.searches[columns], rows[columns].reset_index(drop=True), check_exact=True
        )


def test_joint_offers_each_child_to_every_target_of_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best in each archive is the best of all that was scored and that meets its target."""
    kept: list[Joint] = []
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    scored = Joint._scored

    def recorded(self: Joint, *args: Any) -> Any:
        children = scored(self, *args)
        kept[:] = [self]
        seen.append((children.genes[0], children.accuracy[0], children.cost[0]))
        return children

    monkeypatch.setattr(Joint, "_scored", recorded)
    plan = driver.make_plan(make_spec({**SWEEP, "strategies": ["joint"], "seeds": 1}, "test"))
    (shard,) = plan.shards()
    Worker(plan.setups).run(shard)
    genes, accuracy = (torch.cat([part[i] for part in seen]) for i in (0, 1))
    space, k = SPACES["mobilenet_v3"], 0
    for cost in COSTS:
        model, params = any_cost(cost, space), any_cost("params", space)
        for target in TARGETS[cost]:
            limit, most = (target[cost], target["params"]) if isinstance(target, dict) else (target, np.inf)
            fits = (model(genes) <= limit) & (params(genes) <= most)
            assert kept[0].best[1][0, k] == accuracy[fits].max()
            k += 1
    assert k == kept[0].K == 7


def test_targets_are_neighbours_on_their_own_device_only() -> None:
    plan = driver.make_plan(make_spec({**SWEEP, "strategies": ["joint"], "seeds": 1}, "test"))
    (group,) = plan.spec.groups()
    problem = plan.setups["mobilenet_v3"].problem(group, "cpu")
    found = neighbours([problem.at(k).cost for k in range(7)]).tolist()
    assert found == [[0, 0, 1, 3, 3, 5, 5], [0, 1, 2, 3, 4, 5, 6], [1, 2, 2, 4, 4, 6, 6]]


def test_rows_do_not_depend_on_the_batch(results: topdown_ray.Results, tmp_path: Path) -> None:
    assert_same(results, run(SWEEP, tmp_path / "one", batch=1))


def test_a_sweep_that_was_stopped_resumes_to_the_same_rows(
    results: topdown_ray.Results, tmp_path: Path
) -> None:
    plan = driver.make_plan(make_spec({**SWEEP, "batch": 1}, "test"))
    folder = ResultFolder(tmp_path / "out")
    folder.open(plan.manifest(), resume=True)
    with pytest.raises(KeyboardInterrupt):
        driver.run(plan, folder, Stopping(ShardHost(plan.run_id, plan.setups)))
    assert 0 < topdown_ray.load(tmp_path / "out").searches["search_id"].nunique() < 72
    assert_same(results, run(SWEEP, tmp_path / "out", batch=3))


def test_only_runs_a_search_on_all_its_devices(results: topdown_ray.Results) -> None:
    rows = results.searches[results.searches["strategy"] == "joint"]
    plan = driver.make_plan(make_spec(SWEEP, "test")).only([rows["search_id"].iloc[-1]], {})
    (shard,) = plan.shards()
    assert plan.n_searches() == len(shard.search_ids) == 3
    of_seed = rows[rows["seed"] == rows["seed"].iloc[-1]]
    assert set(shard.search_ids) == set(of_seed["search_id"])


def test_a_moved_table_leaves_all_identities_as_they_are(tmp_path: Path) -> None:
    (own,) = [table.path for table in shipped_tables() if table.space == "mobilenet_v3"]
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = str(shutil.copy(own, tmp_path / name / own.name))
        data = {**SWEEP, "cost": ["note10", path], "targets": {"note10": [50, 35], path: [35, 28]}}
        plan = driver.make_plan(make_spec(data, "test"))
        found.append((plan.run_id, [shard.search_ids for shard in plan.shards()]))
        again = driver.make_plan(make_spec(plan.manifest()["spec"], "run.json"))
        assert again.run_id == plan.run_id
    assert found[0] == found[1]


def test_losses_between_devices_are_those_of_enumeration(results: topdown_ray.Results) -> None:
    frame = losses(on_devices(prepare([results])))
    assert len(frame) == len(STRATEGIES) * 9
    space = SPACES["mobilenet_v3"]
    rows = results.searches
    genes = torch.tensor([list(value) for value in rows["genes"]], dtype=torch.int8)
    for on, loosest in (("note10", 50), ("epyc_1thread", 35), ("macs", 400)):
        cost = any_cost(on, space)(genes).numpy()
        best = np.array([rows["accuracy"][cost <= each].max() for each in cost])
        lost = best - rows["accuracy"].to_numpy()
        inside = (cost >= rows.loc[rows["cost_name"] == on, "cost"].min()) & (cost <= loosest)
        for row in frame[frame["run_on"] == on].to_dict("records"):
            own = (rows["strategy"] == row["strategy"]) & (rows["cost_name"] == row["found_for"]) & inside
            assert row["n"] == own.sum()
            wanted = lost[own].mean() if own.any() else np.nan
            assert row["loss"] == pytest.approx(wanted, abs=1e-12, nan_ok=True)


def test_the_report_shows_all_devices_in_one_picture(tmp_path: Path) -> None:
    run(SWEEP, tmp_path / "out", strategies=["joint"])
    report = write_report([tmp_path / "out"])
    assert "of answers for one device (row) on another (column)" in report.path.read_text()
    picture = (report.path.parent / "figures" / "devices_mobilenet_v3_joint.svg").read_text()
    assert all(f">{cost}<" in picture for cost in COSTS)
    assert report.missing == 0


def test_a_strategy_with_rows_of_one_device_only_is_reported(tmp_path: Path) -> None:
    plan = driver.make_plan(make_spec({**SWEEP, "strategies": ["prune", "top_down"], "seeds": 1}, "test"))
    folder = ResultFolder(tmp_path / "out")
    folder.open(plan.manifest(), resume=True)
    stopping = Stopping(ShardHost(plan.run_id, plan.setups))
    stopping.shards_left = 4
    with pytest.raises(KeyboardInterrupt):
        driver.run(plan, folder, stopping)
    rows = topdown_ray.load(tmp_path / "out").searches
    assert rows.groupby("strategy")["cost_name"].nunique().to_dict() == {"prune": 3, "top_down": 1}
    report = write_report([tmp_path / "out"])
    assert report.missing == 2
    assert "no answer" in report.path.read_text()


def test_best_names_the_device(results: topdown_ray.Results) -> None:
    with pytest.raises(UserError, match=r"cost: expected one of .*, found none"):
        results.best(35)
    config = results.best(35, cost="note10", strategy="joint")
    rows = results.searches[(results.searches["cost_name"] == "note10") & (results.searches["target"] == 35)]
    assert float(rows[rows["strategy"] == "joint"]["accuracy"].max()) > 0
    assert set(config) == {"ks", "e", "d", "image_size"}
    assert "epyc_1thread" in repr(results)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"targets": [50, 35]},
            "targets: mobilenet_v3: expected a mapping with the targets of each of note10, epyc_1thread",
        ),
        ({"targets": {"note10": [50]}}, "targets: mobilenet_v3: expected a mapping .*, found note10"),
        (
            {"targets": {**TARGETS, "macs": [[400], [300]]}},
            "targets: mobilenet_v3: expected the same number of target",
        ),
        ({"cost": ["note10", "note10"]}, "cost: expected distinct costs, found note10 twice"),
        ({"cost": ["note10", 3]}, "cost: expected a name or a path, or a list of these, found 3"),
        ({"cost": []}, "cost: expected a name or a path, or a list of these, found "),
        ({"targets": {**TARGETS, "note10": [50, -1]}}, "targets.note10: expected positive numbers, found -1"),
        ({"limits": {"macs": 300}}, "limits: expected costs besides macs"),
    ],
)
def test_a_mistake_is_one_line_with_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        make_spec({**SWEEP, **changes}, "sweep.yaml")
    assert "\n" not in str(found.value)


def test_targets_below_a_devices_cheapest_cost_are_refused() -> None:
    spec = make_spec({**SWEEP, "targets": {**TARGETS, "epyc_1thread": [35, 2]}}, "test")
    with pytest.raises(UserError, match="under epyc_1thread, found 2"):
        driver.make_plan(spec)


def test_a_list_of_one_cost_is_that_cost() -> None:
    mapped = make_spec({**SWEEP, "cost": ["note10"], "targets": {"note10": [50, 35]}}, "test")
    assert mapped == make_spec({**SWEEP, "cost": "note10", "targets": [50, 35]}, "test")
    one = make_spec({**SWEEP, "cost": ["note10"], "targets": [50, 35]}, "test")
    assert one == make_spec({**SWEEP, "cost": "note10", "targets": [50, 35]}, "test")


def test_each_space_may_have_its_own_devices(tmp_path: Path) -> None:
    data = {
        **SWEEP,
        "spaces": ["mobilenet_v3", "resnet50d"],
        "strategies": ["joint"],
        "cost": {"mobilenet_v3": COSTS, "resnet50d": "macs"},
        "targets": {"mobilenet_v3": TARGETS, "resnet50d": [3000, 1500]},
        "seeds": 2,
    }
    results = run(data, tmp_path / "out")
    assert results.searches.groupby("space")["cost_name"].nunique().to_dict() == {
        "mobilenet_v3": 3,
        "resnet50d": 1,
    }
    assert verify(results).passed
