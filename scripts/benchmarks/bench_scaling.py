"""Measure how time and memory grow with the batch, the population, the targets and the seeds.

    python scripts/benchmarks/bench_scaling.py [--generations 100] [--warm 20]

The searches are top-down on MobileNetV3 and the Note10 table, on one core. Each measurement runs in a process
of its own, so that its peak memory is its own. The script prints a Markdown table. Its last two rows, for
10^4 and 10^5 seeds, are projections from the measured rate."""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

TARGETS = [60, 55, 50, 45, 40, 35, 30, 25, 20, 15]


def plan_of(seeds: int, batch: int, k: int, population: int, generations: int, warm: int) -> Any:
    """A sweep's plan."""
    from topdown_ray.sweeps.driver import make_plan
    from topdown_ray.sweeps.spec import make_spec

    data = {
        "name": "scaling",
        "spaces": ["mobilenet_v3"],
        "strategies": ["top_down"],
        "cost": "note10",
        "targets": [TARGETS[:k]],
        "seeds": seeds,
        "batch": batch,
        "search": {"population": population, "generations": generations, "warm_generations": warm},
    }
    return make_plan(make_spec(data, "scaling"))


def one(
    seeds: int, batch: int, k: int, population: int, generations: int, warm: int, into_folder: bool
) -> tuple[float, float]:
    """(seconds, peak GiB) of a sweep in this process; the first shard warms up outside the clock."""
    from topdown_ray.store.folder import ResultFolder
    from topdown_ray.sweeps import driver

    executor = driver.in_process(plan_of(1, 1, k, population, 2, 1))
    executor.hosted.worker.run(next(plan_of(1, 1, k, population, 2, 1).shards()))
    plan = plan_of(seeds, batch, k, population, generations, warm)
    executor = driver.in_process(plan)
    start = time.perf_counter()
    if into_folder:
        with tempfile.TemporaryDirectory() as folder:
            results = ResultFolder(Path(folder) / "out")
            results.open(plan.manifest(), resume=True)
            driver.run(plan, results, executor)
    else:
        for shard in plan.shards():
            executor.hosted.worker.run(shard)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generations", type=int, default=100, help="default 100")
    parser.add_argument("--warm", type=int, default=20, help="generations after a warm start (default 20)")
    arguments = parser.parse_args()
    budget = (arguments.generations, arguments.warm)

    def measure(
        seeds: int, batch: int, k: int, population: int, into_folder: bool = False
    ) -> tuple[float, float]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(one, (seeds, batch, k, population, *budget, into_folder))

    print(
        f"{budget[0]} generations, {budget[1]} warm\n\n| varied | value | s / search | peak GiB |\n| --- | "
        "---: | ---: | ---: |"
    )
    for batch in (1, 8, 32, 128):
        seconds, peak = measure(batch, batch, 10, 100)
        print(
            f"| batch (population 100, k = 10) | {batch} | {seconds / batch:.4f} | {peak:.2f} |", flush=True
        )
    for population in (50, 100, 200, 400):
        seconds, peak = measure(32, 32, 10, population)
        print(
            f"| population (batch 32, k = 10) | {population} | {seconds / 32:.4f} | {peak:.2f} |", flush=True
        )
    for k in (1, 2, 5, 10):
        seconds, peak = measure(32, 32, k, 100)
        print(f"| targets k (batch 32, population 100) | {k} | {seconds / 32:.4f} | {peak:.2f} |", flush=True)
    rate, peaks = 0.0, []
    for seeds in (100, 1000):
        seconds, peak = measure(seeds, 32, 3, 100, into_folder=True)
        rate = seconds / seeds
        peaks.append(peak)
        print(f"| seeds (a sweep into Parquet, k = 3) | {seeds:,} | {rate:.4f} | {peak:.2f} |", flush=True)
    for seeds in (10_000, 100_000):
        print(
            f"| seeds, projected: {rate * seeds / 3600:.2f} h on one core | {seeds:,} | {rate:.4f} | "
            f"{peaks[-1]:.2f} |"
        )


if __name__ == "__main__":
    main()
