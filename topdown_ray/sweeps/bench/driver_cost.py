"""Measure the overhead of the driver on Ray for each number of actors (``topdown-ray bench driver``).

The sweep is top-down over three targets on MobileNetV3 under Note10. All actors are ready before the clock
starts. Idle time is dispatch, transport of results, Parquet and, at the end, waiting for the last shard.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from topdown_ray.cluster import connected
from topdown_ray.errors import UserError
from topdown_ray.progress import Progress
from topdown_ray.store.folder import ResultFolder
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.bench.contestants import OnLap, Scale, plan_of
from topdown_ray.sweeps.executors import shard_pool

SHARDS, BATCH = 64, 8
TARGETS = (35.0, 30.0, 25.0)


def costs(
    scale: Scale, only: Sequence[str] = (), on_lap: OnLap = lambda progress, actors: None
) -> pd.DataFrame:
    """Return one row for each number of actors: wall seconds, seconds of a shard, and the share of the time
    in which the actors did not search.

    only: numbers of actors; by default one, and one for each CPU. Raises UserError for anything but a number.
    """
    for number in only:
        if not (number.isascii() and number.isdigit() and int(number) > 0):
            raise UserError(f"--only: expected a number of actors, found {number!r}")
    actors = [int(number) for number in only] or sorted({1, os.cpu_count() or 1})
    progress = Progress(2 * len(actors), 0, 0)
    scale = Scale(**{**vars(scale), "targets": TARGETS})
    rows = []
    with connected("local"):
        for n in actors:
            plan = plan_of(scale, range(SHARDS * BATCH), BATCH)
            pool = shard_pool(n, plan.run_id, plan.setups)
            pool.until_ready()
            try:
                warm_up = plan_of(scale, range(10**6, 10**6 + n * BATCH), BATCH)
                for planned in (warm_up, plan):
                    on_lap(progress, f"{n} actors")
                    with tempfile.TemporaryDirectory() as folder:
                        results = ResultFolder(Path(folder) / "out")
                        results.open(planned.manifest(), resume=True)
                        summary = driver.run(planned, results, pool)
                    progress.done += 1
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
