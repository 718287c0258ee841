"""How many actors one driver can feed: the real driver, real plan and real Parquet files, simulated actors.

    python scripts/benchmarks/simulate_driver.py [--actors 1000] [--searches 1000000] [--seconds 0.4]
                                                 [--batch N] [--spread 0.2] [--lost 0.001]
    python scripts/benchmarks/simulate_driver.py --through-ray 2000

The first form: actors that take the given core seconds a search (lognormal spread between shards) and die now
and then, on a clock that jumps over the times in which the driver has nothing to do, so that a driver that is
too slow leaves its actors idle as it would in truth. The second form: as many shards through real Ray actors
that answer at once, for what Ray adds to each shard. Prints JSON."""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from topdown_ray import cluster
from topdown_ray.store.folder import ResultFolder
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.groups import Shard

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.simulated_actors import SimulatedActors, one_search, plan_of, rows_of


def simulate(arguments: argparse.Namespace) -> dict[str, Any]:
    """The real driver over simulated actors."""
    started = time.perf_counter()
    plan = plan_of(arguments.searches, arguments.batch)
    tables = one_search(plan)
    planned_s = time.perf_counter() - started
    actors = SimulatedActors(
        arguments.actors, arguments.seconds, arguments.spread, arguments.lost, arguments.hung, tables
    )
    memory: list[tuple[int, int]] = []

    def watch(progress: driver.Progress) -> None:
        tenth = progress.total // 10
        if not memory or progress.done >= memory[-1][0] + tenth:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory.append((progress.done, pages * resource.getpagesize() // 2**20))

    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        results = ResultFolder(Path(folder) / "out")
        results.open(plan.manifest(), resume=True)
        wall, cpu = time.perf_counter(), time.process_time()
        summary = driver.run(plan, results, actors, watch)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        megabytes = sum(path.stat().st_size for path in Path(folder).rglob("*")) / 2**20
    driver_s = summary.wall_s - actors.waited_s
    return {
        "actors": arguments.actors,
        "searches": summary.progress.done,
        "shards": actors.shards,
        "searches a shard, median": float(np.median(actors.sizes)),
        "shard_s, mean": round(actors.busy_s / actors.shards, 2),
        "lost": summary.progress.losses,
        "simulated wall_s": round(summary.wall_s, 1),
        "actors busy": round(actors.busy_s / summary.wall_s / arguments.actors, 4),
        "driver awake, share of the wall": round(driver_s / summary.wall_s, 4),
        "driver ms a shard": round(1000 * driver_s / actors.shards, 3),
        "driver cpu ms a shard": round(1000 * (cpu - actors.own_cpu_s) / actors.shards, 3),
        "shards a second that it could feed": round(actors.shards / driver_s, 1),
        "actors that it could feed": round(arguments.actors * summary.wall_s / driver_s),
        "real wall_s with the simulation": round(wall, 1),
        "plan and template s": round(planned_s, 2),
        "MiB written": round(megabytes, 1),
        "resident MiB by searches done": memory,
    }


def through_ray(shards: int, batch: int) -> dict[str, Any]:
    """Shards through Ray actors that answer at once with the rows of a batch."""

    plan = plan_of(shards * batch, batch)
    tables = one_search(plan)

    def answer(shard: Shard) -> tuple[pa.Table, ...]:
        return tuple(rows_of(table, shard) for table in tables)

    class Discarding(ResultFolder):
        def write(self, shard_id: str, searches: pa.Table, trace: pa.Table) -> None:
            """Parquet is not what is measured here."""

    with cluster.connected("local"), tempfile.TemporaryDirectory() as folder:
        pool = cluster.Pool(lambda device: answer, {"cpu": 2})
        pool.until_ready()
        results = Discarding(Path(folder) / "out")
        results.open(plan.manifest(), resume=True)
        cpu = time.process_time()
        summary = driver.run(plan, results, pool)
        cpu = time.process_time() - cpu
        pool.close()
    return {
        "shards": shards,
        "searches a shard": batch,
        "shards a second": round(shards / summary.wall_s, 1),
        "driver cpu ms a shard": round(1000 * cpu / shards, 3),
        "actors' busy ms a shard": round(1000 * summary.busy_s / shards, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actors", type=int, default=1000)
    parser.add_argument("--searches", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=0.4, help="core seconds a search")
    parser.add_argument("--spread", type=float, default=0.2, help="of the shards' times, log scale")
    parser.add_argument("--lost", type=float, default=0.001, help="share of shards whose actor dies")
    parser.add_argument("--hung", type=float, default=0.0, help="share of shards whose actor hangs")
    parser.add_argument("--batch", type=lambda text: text if text == "auto" else int(text), default="auto")
    parser.add_argument("--dir", help="where the Parquet files go; default: the system's temporary folder")
    parser.add_argument("--through-ray", type=int, metavar="SHARDS", help="measure Ray's part instead")
    arguments = parser.parse_args()
    if arguments.through_ray:
        found = through_ray(arguments.through_ray, 25 if arguments.batch == "auto" else arguments.batch)
    else:
        found = simulate(arguments)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
