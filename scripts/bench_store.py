"""Result folders of many small parts: seconds to write, resume, look at (status) and load, with merging and without.

python scripts/bench_store.py [--parts 20000] [--at FOLDER_OR_URI]
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from topdown_ray import parts
from topdown_ray.spec import make_spec, search_identity
from topdown_ray.status import Reader
from topdown_ray.storage import Place
from topdown_ray.store import SCHEMA_VERSION, SEARCHES, TRACE, load

TARGETS = [400.0, 350.0, 300.0, 250.0, 200.0]
ARTEFACTS = {"cost": "0" * 64, "predictor": "1" * 64}


def shard(spec: Any, identity: str, seed: int) -> tuple[pa.Table, pa.Table]:
    """One search over five targets, with rows of a real one's size."""
    arch = json.dumps(
        {"ks": [3 + 2 * (seed >> k & 1) for k in range(20)], "e": [4] * 20, "d": [2, 3, 4, 2, 3], "image_size": 224}
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
        {**row, "target_index": k, "target": target, "accuracy": 0.8, "evaluations": 50_000} for k, target in enumerate(TARGETS)
    ]
    points = [
        {**common, "target_index": k, "generation": g, "best_accuracy": 0.7 + g / 1e4} for k in range(5) for g in range(12)
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
    parts.MERGE_AT = merge_at
    data = {"name": "bench", "spaces": ["mobilenet_v3"], "strategies": ["top_down"], "cost": "macs", "predictor": "embedded"}
    spec = make_spec({**data, "targets": [TARGETS], "seeds": n}, "bench")
    (group,) = spec.groups()
    identity_of = search_identity(group, spec.search, spec.protocol, ARTEFACTS)
    place = Place(where)
    place.prepare(parts.TABLES)
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
    assert status.done == len(resumed.search_ids) == results.searches["search_id"].nunique() == n


def main() -> None:
    """The two measurements."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--parts", type=int, default=20_000)
    options.add_argument("--at", help="a folder or URI; default: a temporary folder")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Place(chosen.at or folder)
        for name, merge_at in (("merged", parts.MERGE_AT), ("never merged", sys.maxsize)):
            print(f"{chosen.parts:,} shards, {name}", flush=True)
            measure(base.of(name.replace(" ", "-")), chosen.parts, merge_at)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
