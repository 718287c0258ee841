"""Sweeps on a real Ray."""

from pathlib import Path
from typing import Any

from support.sweeping import ALL_SPACES
from topdown_ray.store.folder import ResultFolder
from topdown_ray.sweeps import driver, executors
from topdown_ray.sweeps.dispatch import Limits
from topdown_ray.sweeps.events import Observer, ignore
from topdown_ray.sweeps.spec import make_spec

LONGER = {
    **ALL_SPACES,
    "spaces": ["mobilenet_v3", "proxyless"],
    "strategies": ["top_down"],
    "targets": [[400, 300]],
    "search": {"population": 100, "generations": 60, "warm_generations": 20},
    "seeds": 24,
    "batch": 3,
}


def run_on_ray(
    data: dict[str, Any],
    out: Path,
    n: int | None,
    on_progress: Any = lambda progress: None,
    limits: Limits = driver.LIMITS,
    gpus: int = 0,
    observe: Observer = ignore,
) -> driver.SweepSummary:
    plan = driver.make_plan(make_spec(data, "test"))
    folder = ResultFolder(out)
    folder.open(plan.manifest(), resume=True)
    pool = executors.shard_pool(n, plan.run_id, plan.setups, gpus)
    try:
        return driver.run(plan, folder, pool, on_progress, limits, observe)
    finally:
        pool.close()
