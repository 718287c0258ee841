"""Sweeps through a real Ray: the same tables with one actor and with two, actors killed, actors that cannot start."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import ROOT
from test_sweep import ALL_SPACES, assert_same, run

import topdown_ray
from topdown_ray import actors, sweep
from topdown_ray.dispatch import Limits
from topdown_ray.errors import StartError, UserError
from topdown_ray.spec import make_spec
from topdown_ray.store import ResultFolder, load

pytestmark = pytest.mark.ray

LONGER = {
    **ALL_SPACES,
    "spaces": ["mobilenet_v3", "proxyless"],
    "strategies": ["top_down"],
    "targets": [[400, 300]],
    "search": {"population": 100, "generations": 60, "warm_generations": 20},
    "seeds": 24,
    "batch": 3,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with actors.connected("local"):
        yield


@pytest.fixture(scope="module")
def undisturbed(published: Path, tmp_path_factory: pytest.TempPathFactory) -> topdown_ray.Results:
    return run(LONGER, tmp_path_factory.mktemp("sweep") / "out")


def run_on_ray(
    data: dict[str, Any],
    out: Path,
    n: int | None,
    on_progress: Any = lambda progress: None,
    limits: Limits = sweep.LIMITS,
    gpus: int = 0,
) -> sweep.Summary:
    plan = sweep.make_plan(make_spec(data, "test"))
    folder = ResultFolder(out)
    folder.open(plan.manifest(), resume=True)
    pool = actors.RayPool(n, plan.run_id, plan.setups, plan.spec.search, gpus)
    try:
        return sweep.run(plan, folder, pool, on_progress, limits)
    finally:
        pool.close()


@pytest.mark.parametrize("n", [1, 2])
def test_tables_do_not_depend_on_the_actors(n: int, cluster: None, undisturbed: topdown_ray.Results, tmp_path: Path) -> None:
    summary = run_on_ray(LONGER, tmp_path / "out", n)
    assert summary.progress.losses == 0
    results = load(tmp_path / "out")
    assert_same(undisturbed, results)
    assert set(results.searches["threads"]) == {1}
    assert results.manifest["weights"] == {"mobilenet_v3": "random", "proxyless": "random"}


def actor_processes() -> list[int]:
    return [
        child.pid
        for child in psutil.Process().children(recursive=True)
        if child.name().startswith("ray::SearchActor") or "SearchActor" in " ".join(child.cmdline()[:1])
    ]


def test_killed_actors_are_replaced_and_nothing_is_lost(
    cluster: None, undisturbed: topdown_ray.Results, tmp_path: Path
) -> None:
    killed: list[int] = []
    threads: list[threading.Thread] = []

    def kill_sometimes(progress: sweep.Progress) -> None:
        if progress.done in (3, 15, 30):

            def kill() -> None:
                time.sleep(0.05)  # in the middle of a shard
                for pid in actor_processes()[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

            threads.append(threading.Thread(target=kill))
            threads[-1].start()

    summary = run_on_ray(LONGER, tmp_path / "out", 2, kill_sometimes)
    for thread in threads:
        thread.join()
    assert killed
    assert summary.progress.losses >= 1
    assert not summary.given_up
    assert_same(undisturbed, load(tmp_path / "out"))


def test_an_actor_that_cannot_start_ends_the_sweep_with_the_cause(
    cluster: None, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supernet's weights are broken, which only the actor finds."""
    (tmp_path / "ofa_nets").mkdir()
    (tmp_path / "ofa_nets" / "ofa_mbv3_d234_e346_k357_w1.2").write_bytes(b"not a checkpoint")
    plan = sweep.make_plan(make_spec(LONGER, "test"))
    broken = {"env_vars": {"TOPDOWN_RAY_ASSETS": str(tmp_path)}}
    monkeypatch.setattr(actors, "SearchActor", actors.SearchActor.options(runtime_env=broken))
    folder = ResultFolder(tmp_path / "out")
    folder.open(plan.manifest(), resume=True)
    pool = actors.RayPool(1, plan.run_id, plan.setups, plan.spec.search)
    with pytest.raises(StartError, match=r"an actor could not start: .*expected weights of ofa_mbv3"):
        sweep.run(plan, folder, pool)


def test_more_actors_than_cpus_are_refused(cluster: None, published: Path) -> None:
    plan = sweep.make_plan(make_spec(LONGER, "test"))
    with pytest.raises(UserError, match="--actors: expected at most"):
        actors.RayPool(10_000, plan.run_id, plan.setups, plan.spec.search)


def test_the_launchers_cluster_file_is_valid() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}  # takes no searches
    assert config["file_mounts"]["~/topdown_ray"] == "."  # the checkout itself, at this version
