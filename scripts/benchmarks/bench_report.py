"""Measure the report of a large sweep: seconds, CPU seconds and peak memory of ``topdown-ray report``.

python scripts/benchmarks/bench_report.py [--rows 100000] [--at FOLDER]

The sweep is synthetic and is written as the store writes parts. It has three spaces, five strategies, ten
targets, as many seeds as the rows need, twelve points of an anytime curve for each answer, and a front for
each search of ``joint``. If FOLDER contains a sweep, the script reports that sweep."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.files import digest
from topdown_ray.spaces.cost import load_cost
from topdown_ray.spaces.registry import SPACES
from topdown_ray.store import parts
from topdown_ray.store.layout import TABLES
from topdown_ray.store.place import Place
from topdown_ray.store.schema import FRONT, SCHEMA_VERSION, SEARCHES, TRACE

TIGHTEST = {"mobilenet_v3": 200.0, "proxyless": 250.0, "resnet50d": 1000.0}  # target, 1e6 MACs
STRATEGIES = {"independent": 0.0, "bottom_up": 0.0, "top_down": 0.001, "random": -0.01, "joint": 0.002}
K = 10  # targets
POINTS = 12  # of an anytime curve
FRONT_POINTS = 100
ARCHITECTURES = 20_000  # different ones of a space
BATCH = 50  # searches in a part
SPENT = np.arange(1, POINTS + 1) * 400


class Pool:
    """Random architectures of a space, in both forms."""

    def __init__(self, space: str) -> None:
        found = SPACES[space]
        genes = found.canonical(found.random(ARCHITECTURES, seed=1)).numpy()
        self.genes = pa.array(list(genes), pa.list_(pa.int8()))
        self.arch = pa.array(found.texts(genes))
        self.cost_sha256 = load_cost("macs", found).sha256
        self.targets = TIGHTEST[space] * np.linspace(1.9, 1.0, K)


def columns_of(schema: pa.Schema, n: int, values: dict[str, Any]) -> pa.Table:
    """A table of the schema: arrays as they are, single values in every row, nothing elsewhere."""
    columns = []
    for field in schema:
        value = values.get(field.name)
        if isinstance(value, np.ndarray):
            columns.append(pa.array(value, field.type))
        elif isinstance(value, pa.Array | pa.ChunkedArray):
            columns.append(value.cast(field.type))
        else:
            columns.append(pa.repeat(pa.scalar(value, field.type), n))
    return pa.Table.from_arrays(columns, schema=schema)


def shard(pool: Pool, space: str, strategy: str, seeds: range) -> tuple[pa.Table, ...]:
    """The tables of one batch of searches."""
    generator = np.random.default_rng(
        [list(TIGHTEST).index(space), list(STRATEGIES).index(strategy), seeds[0]]
    )
    n = len(seeds) * K
    identities = np.array([digest([space, strategy, seed]) for seed in seeds])
    shard_id = digest([space, strategy, seeds[0], "shard"])
    index, target = np.tile(np.arange(K), len(seeds)), np.tile(pool.targets, len(seeds))
    accuracy = 0.75 + 0.02 * np.log(target / target.min()) + STRATEGIES[strategy]
    accuracy += 0.002 * generator.standard_normal(n)
    chosen = pa.array(generator.integers(0, ARCHITECTURES, n))
    common = {"run_id": "bench", "shard_id": shard_id}
    rows = {
        **common,
        "search_id": np.repeat(identities, K),
        "space": space,
        "strategy": strategy,
        "label": strategy,
        "protocol": "default",
        "cost_name": "macs",
        "cost_unit": "1e6 MACs",
        "cost_sha256": pool.cost_sha256,
        "predictor_name": "embedded",
        "predictor_space": space,
        "predictor_sha256": "1" * 64,
        "seed": np.repeat(np.array(seeds), K),
        "k": K,
        "targets": pool.targets.tolist(),
        "target_index": index,
        "target": target,
        "feasible": True,
        "accuracy": accuracy,
        "cost": target * (1 - 0.01 * generator.random(n)),
        "arch": pool.arch.take(chosen),
        "genes": pool.genes.take(chosen),
        "macs_m": target,
        "params_m": 6 + generator.random(n),
        "generations": 500,
        "evaluations": int(SPENT[-1]),
        "unique_evaluations": generator.integers(3000, 4000, n),
        "gradients": 100 if strategy == "joint" else 0,
        "gradient_rows": 2.0,
        "front_rows": FRONT_POINTS if strategy == "joint" else None,
        "wall_s": 0.05,
        "search_wall_s": 0.5 * (1 + 0.05 * generator.standard_normal()),
        "cpu_s": 0.05,
        "search_cpu_s": 0.5,
        "batch_size": len(seeds),
        "device": "cpu",
        "threads": 1,
        "host": "here",
        "started_at": datetime.datetime.now(datetime.UTC),
    }
    rising = np.sort(generator.random((n, POINTS)), axis=1)
    rising[:, -1] = 1.0
    trace = {
        **common,
        "search_id": np.repeat(identities, K * POINTS),
        "seed": np.repeat(np.array(seeds), K * POINTS),
        "target_index": np.repeat(index, POINTS),
        "generation": np.tile(np.arange(POINTS) * 40, n),
        "evaluations": np.tile(SPENT, n),
        "best_accuracy": (accuracy[:, None] - 0.02 * (1 - rising)).ravel(),
    }
    tables = (columns_of(SEARCHES, n, rows), columns_of(TRACE, n * POINTS, trace))
    if strategy != "joint":
        return tables
    m = len(seeds) * FRONT_POINTS
    chosen = pa.array(generator.integers(0, ARCHITECTURES, m))
    cost = np.sort(generator.uniform(pool.targets.min(), pool.targets.max(), (len(seeds), FRONT_POINTS)))
    accuracies = 0.752 + 0.02 * np.log(cost / pool.targets.min()) - generator.exponential(0.002, cost.shape)
    front = {
        **common,
        "search_id": np.repeat(identities, FRONT_POINTS),
        "place": np.tile(np.arange(FRONT_POINTS), len(seeds)),
        "cost": cost.ravel(),
        "accuracy": np.maximum.accumulate(accuracies, axis=1).ravel(),
        "epsilon": 0.0,
        "arch": pool.arch.take(chosen),
        "macs_m": cost.ravel(),
        "params_m": 6 + generator.random(m),
    }
    return (*tables, columns_of(FRONT, m, front))


def shards(seeds: int) -> Iterator[tuple[pa.Table, ...]]:
    """All batches of the sweep."""
    for space in TIGHTEST:
        pool = Pool(space)
        for strategy in STRATEGIES:
            for first in range(0, seeds, BATCH):
                yield shard(pool, space, strategy, range(first, min(first + BATCH, seeds)))


def write_sweep(folder: str, rows: int) -> None:
    """Make the result folder."""
    seeds = max(1, rows // (len(TIGHTEST) * len(STRATEGIES) * K))
    place = Place(folder)
    place.prepare(TABLES)
    writer = parts.Parts(place)
    for tables in shards(seeds):
        writer.write(tables[0]["shard_id"][0].as_py(), *tables)
    spec = {
        "name": "bench",
        "spaces": list(TIGHTEST),
        "strategies": list(STRATEGIES),
        "targets": {name: [(tight * np.linspace(1.9, 1.0, K)).tolist()] for name, tight in TIGHTEST.items()},
        "cost": dict.fromkeys(TIGHTEST, "macs"),
        "seeds": list(range(seeds)),
        "search": {"population": 100},
    }
    manifest = {
        "run_id": "bench",
        "schema": SCHEMA_VERSION,
        "spec": spec,
        "wall_s": 0.0,
        "status": "complete",
    }
    place.write("run.json", json.dumps(manifest).encode())


def measure(folder: str, out: str) -> None:
    """Report the folder in a process of its own, and print what it took."""
    command = [sys.executable, "-m", "topdown_ray", "report", folder, "--out", out]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(
            f"{' '.join(command)}: expected success, found status {os.waitstatus_to_exitcode(status)}"
        )
    page = (Path(out) / "report.html").stat().st_size
    print(
        f"  report: {seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} CPU s, "
        f"peak {used.ru_maxrss / 1000:.0f} MB, page {page / 1e6:.1f} MB",
        flush=True,
    )


def main() -> None:
    """The measurement."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--rows",
        type=int,
        default=100_000,
        help="number of rows, one for each search and target (default 100000)",
    )
    options.add_argument("--at", help="folder of the sweep (default: a temporary folder)")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.at or f"{temporary}/sweep"
        if not (Path(folder) / "run.json").exists():
            write_sweep(folder, chosen.rows)
        n = sum(pq.read_metadata(path).num_rows for path in (Path(folder) / "searches").glob("*.parquet"))
        print(f"{n:,} rows", flush=True)
        measure(folder, f"{temporary}/report")


if __name__ == "__main__":
    main()
