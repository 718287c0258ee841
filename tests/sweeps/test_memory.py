"""The memory of the process that runs a sweep. It counts bytes of a process of its own, so that other tests
may run at the same time.
"""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from support.commands import SWEEP
from support.sweeping import in_process

from topdown_ray import machine
from topdown_ray.store.folder import ResultFolder
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.executors import ShardHost
from topdown_ray.sweeps.spec import make_spec
from topdown_ray.tasks import Event, InProcess

TENSORS = 3000  # of each shard
FLOATS = 25_000  # of each tensor: 100 kB, which glibc never takes from the system one by one
FREED = TENSORS * FLOATS * 4  # bytes of each shard


class Scattering(InProcess):
    """Frees 300 MB in every shard, and keeps small objects that were allocated in between."""

    seconds = 0.0
    kept: list[bytearray]

    def clock(self) -> float:
        return self.seconds

    def wait(self, timeout_s: float) -> list[Event]:
        events = super().wait(timeout_s)
        self.seconds += 2 * driver.LOOK_EVERY_S
        self.kept, tensors = [], []
        for _ in range(TENSORS):
            tensors.append(torch.ones(FLOATS))
            self.kept.append(bytearray(1000))
        return events


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(out: Path) -> int:
    """How many bytes a sweep of three shards adds to this process."""
    plan = driver.make_plan(make_spec({**SWEEP, "seeds": 3, "batch": 1}, "test"))
    in_process(plan).hosted(next(plan.shards()))  # what is loaded once
    folder = ResultFolder(out)
    folder.open(plan.manifest(), resume=True)
    before = resident()
    driver.run(plan, folder, Scattering(ShardHost(plan.run_id, plan.setups)))
    return resident() - before


@pytest.mark.skipif(machine.c_function("malloc_trim") is None, reason="the C library has no malloc_trim")
def test_a_sweep_returns_the_memory_that_its_searches_have_freed(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(growth, (tmp_path / "out",)) < FREED / 2


def test_a_c_library_without_a_function_is_no_error() -> None:
    assert machine.c_function("no_such_function") is None
