"""Small sweeps, run in this process, and executors that fail."""

from pathlib import Path
from typing import Any

import pandas as pd

import topdown_ray
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.results import load
from topdown_ray.store.schema import INCIDENTAL
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.executors import ShardHost
from topdown_ray.sweeps.spec import make_spec
from topdown_ray.tasks import Event, Failed, InProcess, Lost

ALL_SPACES = {
    "name": "all",
    "spaces": ["mobilenet_v3", "resnet50d", "proxyless"],
    "strategies": ["independent", "bottom_up", "top_down", "prune"],
    "cost": "macs",
    "predictor": "published",
    "targets": {"mobilenet_v3": [[400, 250], [300]], "resnet50d": [[3000, 1500]], "proxyless": [[500, 300]]},
    "seeds": 10,
    "search": {"population": 12, "generations": 6, "warm_generations": 3},
}


def in_process(plan: driver.Plan) -> InProcess:
    """The executor for ``--address none``, which is not warmed up: most tests do not look at times."""
    return InProcess(ShardHost(plan.run_id, plan.setups))


def run(data: dict[str, Any], out: Path, **changes: Any) -> topdown_ray.Results:
    plan = driver.make_plan(make_spec({**data, **changes}, "test"))
    folder = ResultFolder(out)
    folder.open(plan.manifest(), resume=True)
    summary = driver.run(plan, folder, in_process(plan))
    assert not summary.given_up
    return load(out)


def comparable(results: topdown_ray.Results) -> tuple[pd.DataFrame, ...]:
    """The tables without the columns that tell how they were computed."""
    columns = [name for name in INCIDENTAL if name in results.searches]
    others = (results.trace, results.front)
    return results.searches.drop(columns=columns), *(each.drop(columns="shard_id") for each in others)


def assert_same(one: topdown_ray.Results, other: topdown_ray.Results) -> None:
    for mine, theirs in zip(comparable(one), comparable(other), strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


class Stopping(InProcess):
    """Stops as if the process had been killed, after so many shards."""

    shards_left = 3

    def wait(self, timeout_s: float) -> list[Event]:
        if self.shards_left == 0:
            raise KeyboardInterrupt
        self.shards_left -= 1
        return super().wait(timeout_s)


class Faulty(InProcess):
    """One shard raises ``times`` times; another's process is lost once."""

    times = 1
    bad: str | None = None
    lost = False

    def wait(self, timeout_s: float) -> list[Event]:
        attempt = self._queue[0]
        if self.bad in (None, attempt.task.shard_id) and self.times:
            self.bad = attempt.task.shard_id
            self.times -= 1
            self._queue.popleft()
            return [Failed(attempt, "Traceback\nValueError: boom")]
        if not self.lost:
            self.lost = True
            return [Lost(self._queue.popleft(), "killed")]
        return super().wait(timeout_s)
