"""``topdown-ray bench driver``: what the driver costs through Ray, by the number of actors.

Top-down over three targets, MobileNetV3 under Note10. All actors stand before the clock starts. What is not
busy is dispatch, transport of results, Parquet and, at the end, waiting for the last shard."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from topdown_ray.cluster import connected
from topdown_ray.store.folder import ResultFolder
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.bench import Scale, plan_of
from topdown_ray.sweeps.executors import shard_pool

SHARDS, BATCH = 64, 8
TARGETS = (35.0, 30.0, 25.0)


def costs(
    scale: Scale, actors: Sequence[int], on_lap: Callable[[str, int], None] = lambda name, repeat: None
) -> pd.DataFrame:
    """A row a number of actors: wall seconds, seconds of a shard, the share of time in which actors did not
    search.
    """
    scale = Scale(**{**vars(scale), "targets": TARGETS})
    rows = []
    with connected("local"):
        for n in actors:
            plan = plan_of(scale, range(SHARDS * BATCH), BATCH)
            pool = shard_pool(n, plan.run_id, plan.setups, plan.spec.search)
            pool.until_ready()
            try:
                for repeat, planned in enumerate(
                    (plan_of(scale, range(10**6, 10**6 + n * BATCH), BATCH), plan)
                ):
                    on_lap(f"{n} actors", repeat)
                    with tempfile.TemporaryDirectory() as folder:
                        results = ResultFolder(Path(folder) / "out")
                        results.open(planned.manifest(), resume=True)
                        summary = driver.run(planned, results, pool)
            finally:
                pool.close()
            rows.append(
                {
                    "actors": n,
                    "shards": SHARDS,
                    "wall_s": summary.wall_s,
                    "shard_s": summary.busy_s / SHARDS,
                    "not_busy": 1 - summary.busy_s / n / summary.wall_s,
                }
            )
    frame = pd.DataFrame(rows)
    return frame.assign(faster_than_first=frame["wall_s"].iloc[0] / frame["wall_s"])
