"""Measure result folders of many small parts: seconds to write, resume, show (status) and load.

python scripts/benchmarks/bench_store.py [--parts 20000] [--at FOLDER_OR_URI]
python scripts/benchmarks/bench_store.py --load 100000 [--at FOLDER]

The first command measures folders with merged parts and with parts that are never merged. The second command
writes this number of searches, each with five targets and anytime curves of sixty points. It prints the peak
memory of processes that import the package, load the folder and report it."""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from topdown_ray.files import digest
from topdown_ray.store import parts
from topdown_ray.store.layout import TABLES
from topdown_ray.store.place import Place
from topdown_ray.store.results import load
from topdown_ray.store.schema import SCHEMA_VERSION, SEARCHES, TRACE
from topdown_ray.sweeps.identities import search_identity
from topdown_ray.sweeps.spec import make_spec
from topdown_ray.sweeps.status import Reader

TARGETS = [400.0, 350.0, 300.0, 250.0, 200.0]
ARTEFACTS = {"cost": "0" * 64, "predictor": "1" * 64}


def shard(spec: Any, identity: str, seed: int) -> tuple[pa.Table, pa.Table]:
    """One search over five targets, with rows of a real one's size."""
    arch = json.dumps(
        {
            "ks": [3 + 2 * (seed >> k & 1) for k in range(20)],
            "e": [4] * 20,
            "d": [2, 3, 4, 2, 3],
            "image_size": 224,
        }
    )
    common = {"run_id": "bench", "search_id": identity, "shard_id": identity, "seed": seed}
    row = {
        **common,
        "space": "mobilenet_v3",
        "strategy": "top_down",
        "k": len(TARGETS),
        "targets": TARGETS,
        "feasible": True,
        "arch": arch,
        "genes": [seed >> k & 1 for k in range(46)],
        "batch_size": 1,
        "search_wall_s": 1.0,
        "started_at": datetime.datetime.now(datetime.UTC),
    }
    rows = [
        {**row, "target_index": k, "target": target, "accuracy": 0.8, "evaluations": 50_000}
        for k, target in enumerate(TARGETS)
    ]
    points = [
        {**common, "target_index": k, "generation": g, "best_accuracy": 0.7 + g / 1e4}
        for k in range(5)
        for g in range(12)
    ]
    return pa.Table.from_pylist(rows, schema=SEARCHES), pa.Table.from_pylist(points, schema=TRACE)


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Run and print the seconds."""
    start = time.perf_counter()
    result = work()
    print(f"  {name}: {time.perf_counter() - start:.2f} s", flush=True)
    return result


def measure(where: str, n: int, merge_at: int) -> None:
    """One folder, written from four threads as the driver does."""
    parts.MERGE_AT = parts.MERGE_AGAIN_AT = merge_at
    data = {
        "name": "bench",
        "spaces": ["mobilenet_v3"],
        "strategies": ["top_down"],
        "cost": "macs",
        "predictor": "embedded",
    }
    spec = make_spec({**data, "targets": [TARGETS], "seeds": n}, "bench")
    (group,) = spec.groups()
    identity_of = search_identity(group, spec.protocol, ARTEFACTS)
    place = Place(where)
    place.prepare(TABLES)
    manifest = {
        "run_id": "bench",
        "schema": SCHEMA_VERSION,
        "spec": spec.model_dump(mode="json"),
        "wall_s": 0.0,
        "status": "running",
    }
    place.write("run.json", json.dumps(manifest).encode())
    shards = [(identity_of(seed), *shard(spec, identity_of(seed), seed)) for seed in range(n)]
    writer = parts.Parts(place)

    def write() -> None:
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda each: writer.write(*each), shards):
                pass

    timed("write all", write)
    files = place.files("searches")
    print(f"  files: {len(files):,}, {sum(entry.size for entry in files.values()) / 1e6:.1f} MB", flush=True)
    shards.clear()
    reader = Reader(place.where)
    status = timed("status", reader.read)
    timed("status again (--watch)", reader.read)
    results = timed("load", lambda: load(place.where))
    resumed = timed("resume", lambda: parts.Parts(place).resume())
    assert status.done == len(resumed.finished) == results.searches["search_id"].nunique() == n


STRATEGIES = ("independent", "bottom_up", "top_down", "joint")
TOGETHER = 500  # searches in a part
PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)"
PROCESSES = {
    "import": "import topdown_ray.report.build",
    "load": "import topdown_ray.report.build; results = topdown_ray.load({folder!r})",
    "report": (
        "from pathlib import Path; from topdown_ray.report.build import write_report; "
        "write_report([{folder!r}], Path({out!r}))"
    ),
}


def several(strategy: str, first: int, n: int) -> tuple[pa.Table, pa.Table]:
    """So many searches of a strategy, each a row a target, in a part."""
    tables = []
    for seed in range(first, first + n):
        rows, points = shard(None, digest([strategy, seed]), seed)
        tables.append((rows, points))
    searches, trace = (pa.concat_tables(part) for part in zip(*tables, strict=True))
    facts = {
        "strategy": strategy,
        "protocol": "default",
        "cost_name": "macs",
        "cost_unit": "1e6 MACs",
        "cost_sha256": "0" * 64,
    }
    facts |= {
        "predictor_name": "embedded",
        "predictor_space": "mobilenet_v3",
        "predictor_sha256": "1" * 64,
        "device": "cpu",
    }
    facts |= {
        "host": "here",
        "shard_id": digest([strategy, first, "shard"]),
        "wall_s": 0.2,
        "batch_size": n,
        "threads": 1,
    }
    for name, value in facts.items():
        at = SEARCHES.get_field_index(name)
        searches = searches.set_column(
            at, SEARCHES.field(at), pa.repeat(pa.scalar(value, SEARCHES.field(at).type), len(searches))
        )
    noise = pa.array(np.random.default_rng(first).normal(0.8, 0.002, len(searches)))
    searches = searches.set_column(SEARCHES.get_field_index("accuracy"), SEARCHES.field("accuracy"), noise)
    searches = searches.set_column(
        SEARCHES.get_field_index("cost"), SEARCHES.field("cost"), searches["target"]
    )
    spent = pa.array(np.tile(np.arange(1, 13) * 4000, len(trace) // 12))
    trace = trace.set_column(TRACE.get_field_index("evaluations"), TRACE.field("evaluations"), spent)
    shard_id = pa.repeat(pa.scalar(facts["shard_id"]), len(trace))
    return searches, trace.set_column(TRACE.get_field_index("shard_id"), TRACE.field("shard_id"), shard_id)


def measure_memory(folder: str, n: int) -> None:
    """Write n searches, then load and report them, each in a process of its own."""
    place = Place(folder)
    place.prepare(TABLES)
    each = n // len(STRATEGIES)
    spec = {
        "name": "bench",
        "spaces": ["mobilenet_v3"],
        "strategies": STRATEGIES,
        "targets": {"mobilenet_v3": [TARGETS]},
    }
    spec |= {"seeds": list(range(each)), "search": {}}
    manifest = {
        "run_id": "bench",
        "schema": SCHEMA_VERSION,
        "spec": spec,
        "wall_s": 0.0,
        "status": "complete",
    }
    place.write("run.json", json.dumps(manifest).encode())
    writer = parts.Parts(place)
    for strategy in STRATEGIES:
        for first in range(0, each, TOGETHER):
            searches, trace = several(strategy, first, min(TOGETHER, each - first))
            writer.write(searches["shard_id"][0].as_py(), searches, trace)
    for name, code in PROCESSES.items():
        start = time.perf_counter()
        source = f"{code.format(folder=place.where, out=place.of('report'))}; {PEAK}"
        peak = subprocess.run(
            [sys.executable, "-c", source], check=True, capture_output=True, text=True
        ).stdout
        print(f"  {name}: {time.perf_counter() - start:.1f} s, peak {float(peak):.0f} MB", flush=True)


def main() -> None:
    """The measurements."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--parts", type=int, default=20_000, help="number of parts (default 20000)")
    options.add_argument("--at", help="folder or URI (default: a temporary folder)")
    options.add_argument(
        "--load", type=int, help="number of searches; measure the memory of loading and reporting them"
    )
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.load:
            measure_memory(chosen.at or folder, chosen.load)
            return
        base = Place(chosen.at or folder)
        for name, merge_at in (("merged", parts.MERGE_AT), ("never merged", sys.maxsize)):
            print(f"{chosen.parts:,} shards, {name}", flush=True)
            measure(base.of(name.replace(" ", "-")), chosen.parts, merge_at)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
