"""Sweeps through a real Ray: the same tables with one actor and with two, actors killed, actors that cannot
start.
"""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.on_ray import LONGER, run_on_ray
from support.one_ray import actor_processes
from support.sweeping import assert_same, run

import topdown_ray
from topdown_ray.errors import StartError, UserError
from topdown_ray.store.results import load
from topdown_ray.sweeps import driver, executors
from topdown_ray.sweeps.events import ShardFailed, ShardRetried, SweepEvent
from topdown_ray.sweeps.spec import make_spec

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def undisturbed(published: Path, tmp_path_factory: pytest.TempPathFactory) -> topdown_ray.Results:
    return run(LONGER, tmp_path_factory.mktemp("sweep") / "out")


@pytest.mark.parametrize("n", [1, 2])
def test_tables_do_not_depend_on_the_actors(n: int, undisturbed: topdown_ray.Results, tmp_path: Path) -> None:
    summary = run_on_ray(LONGER, tmp_path / "out", n)
    assert summary.progress.losses == 0
    results = load(tmp_path / "out")
    assert_same(undisturbed, results)
    assert set(results.searches["threads"]) == {1}


@pytest.mark.slow
def test_killed_actors_are_replaced_and_nothing_is_lost(
    undisturbed: topdown_ray.Results, tmp_path: Path
) -> None:
    killed: list[psutil.Process] = []
    threads: list[threading.Thread] = []

    def kill_sometimes(progress: driver.Progress) -> None:
        if progress.done in (3, 15, 30):

            def kill() -> None:
                time.sleep(0.05)  # in the middle of a shard
                for process in actor_processes()[:1]:
                    process.kill()
                    killed.append(process)

            threads.append(threading.Thread(target=kill))
            threads[-1].start()

    summary = run_on_ray(LONGER, tmp_path / "out", 2, kill_sometimes)
    for thread in threads:
        thread.join()
    assert killed
    assert summary.progress.losses >= 1
    assert not summary.given_up
    assert_same(undisturbed, load(tmp_path / "out"))


@pytest.mark.slow
def test_a_shard_that_raises_is_tried_on_other_actors_and_then_recorded(
    undisturbed: topdown_ray.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One search raises wherever it runs, another one on the first actor only."""
    first, at_work = tmp_path / "first", tmp_path / "at_work"
    at_work.mkdir()

    class Raising(executors.ShardHost):
        def __call__(self, shard: Any) -> Any:
            (at_work / str(os.getpid())).touch()
            if 7 in shard.seeds:
                # an actor that starts late would leave all tries to the other one
                deadline = time.monotonic() + 60
                while len(list(at_work.iterdir())) < 2 and time.monotonic() < deadline:
                    time.sleep(0.01)
                raise ValueError(f"boom on {os.getpid()}")
            if 13 in shard.seeds:
                if not first.exists():
                    first.write_text(str(os.getpid()))
                if first.read_text() == str(os.getpid()):
                    raise ValueError("boom here only")
            return super().__call__(shard)

    monkeypatch.setattr(executors, "ShardHost", Raising)
    tried: dict[str, list[str]] = {}

    def observe(event: SweepEvent) -> None:
        if isinstance(event, ShardRetried | ShardFailed):
            tried.setdefault(event.shard_id, []).append(event.error)

    summary = run_on_ray({**LONGER, "spaces": ["mobilenet_v3"]}, tmp_path / "out", 2, observe=observe)
    (shard_id,) = summary.given_up
    assert summary.progress.failures == 3
    assert summary.progress.done == 21
    assert len(set(tried[shard_id])) == 2  # both actors had a try
    record = json.loads((tmp_path / "out" / "failures" / f"{shard_id}.json").read_text())
    assert 7 in record["seeds"]
    assert "in run" in "".join(record["traceback"])
    assert load(tmp_path / "out").manifest["status"] == "incomplete"
    monkeypatch.undo()
    run_on_ray({**LONGER, "spaces": ["mobilenet_v3"]}, tmp_path / "out", 2)
    expected = undisturbed.searches[undisturbed.searches["space"] == "mobilenet_v3"]
    found = load(tmp_path / "out").searches
    assert len(found) == 48
    for column in ("search_id", "seed", "target", "accuracy", "arch"):
        assert list(found[column]) == list(expected[column])
    assert not list((tmp_path / "out" / "failures").iterdir())


@pytest.mark.parametrize("cause", ["memory", "device"])
def test_an_actor_that_cannot_start_ends_the_sweep_with_the_cause(
    cause: str, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Starved(executors.ShardHost):
        def __init__(self, *arguments: Any):
            import torch

            self.hoard = torch.zeros(2**50)  # more than there is
            super().__init__(*arguments)

    class Misplaced(executors.ShardHost):
        def __init__(self, *arguments: Any):
            raise UserError("device: expected one that torch knows, found none")

    host, message = {
        "memory": (Starved, "can't allocate memory"),
        "device": (Misplaced, "expected one that torch knows"),
    }[cause]
    monkeypatch.setattr(executors, "ShardHost", host)
    started = time.monotonic()
    with pytest.raises(StartError, match=f"an actor could not start: .*{message}"):
        run_on_ray(LONGER, tmp_path / "out", 1)
    assert time.monotonic() - started < 60


def test_more_actors_than_cpus_are_refused(published: Path) -> None:
    plan = driver.make_plan(make_spec(LONGER, "test"))
    with pytest.raises(UserError, match="--actors: expected at most"):
        executors.shard_pool(10_000, plan.run_id, plan.setups)
