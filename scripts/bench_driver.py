"""What the driver costs through Ray: wall time on one and two actors, and the share of it in which actors did
not search.

    python scripts/bench_driver.py [--shards 64] [--batch 8] [--generations 250] [--warm 50] [--actors 1 2]

Top-down over three targets, MobileNetV3 under Note10. All actors stand before the clock starts. What is not
busy is dispatch, transport of results, Parquet and, at the end, waiting for the last shard. Prints JSON."""

import argparse
import json
import tempfile
from pathlib import Path

from topdown_ray import cluster
from topdown_ray.store.folder import ResultFolder
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.executors import shard_pool
from topdown_ray.sweeps.spec import make_spec


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--generations", type=int, default=250)
    parser.add_argument("--warm", type=int, default=50)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()

    def plan_of(shards: int, start: int) -> driver.Plan:
        data = {
            "name": "driver",
            "spaces": ["mobilenet_v3"],
            "strategies": ["top_down"],
            "cost": "note10",
            "targets": [[35, 30, 25]],
            "seeds": {"start": start, "count": shards * arguments.batch},
            "batch": arguments.batch,
            "search": {"generations": arguments.generations, "warm_generations": arguments.warm},
        }
        return driver.make_plan(make_spec(data, "driver"))

    walls = {}
    with cluster.connected("local"):
        for n in arguments.actors:
            plan = plan_of(arguments.shards, 0)
            pool = shard_pool(n, plan.run_id, plan.setups, plan.spec.search)
            pool.until_ready()
            for warm_up, planned in ((True, plan_of(n, 10**6)), (False, plan)):
                with tempfile.TemporaryDirectory() as folder:
                    results = ResultFolder(Path(folder) / "out")
                    results.open(planned.manifest(), resume=True)
                    summary = driver.run(planned, results, pool)
                if not warm_up:
                    walls[n] = summary.wall_s
                    facts = {
                        "actors": n,
                        "shards": arguments.shards,
                        "wall_s": round(summary.wall_s, 2),
                        "shard_s": round(summary.busy_s / arguments.shards, 3),
                        "not busy": round(1 - summary.busy_s / n / summary.wall_s, 4),
                        "faster than the first": round(walls[arguments.actors[0]] / summary.wall_s, 3),
                    }
                    print(json.dumps(facts), flush=True)
            pool.close()


if __name__ == "__main__":
    main()
