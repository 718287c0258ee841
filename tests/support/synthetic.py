"""Result folders with known answers: made-up rows in the store's own schema."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.store.results import Results
from topdown_ray.store.schema import SCHEMA_VERSION, SEARCHES, TRACE

SETS = (
    (35.0,),
    (35.0, 30.0),
    (35.0, 30.0, 25.0),
    (60.0, 55.0, 50.0, 45.0, 40.0, 35.0, 30.0, 25.0, 20.0, 15.0),
)
# intercept, slope
SECONDS = {
    "independent": (0.0, 2.0),
    "bottom_up": (1.6, 0.4),
    "top_down": (1.6, 0.4),
    "random": (0.0, 2.0),
}


def frames(
    effects: Mapping[str, float],
    sets: Sequence[Sequence[float]] = SETS,
    seeds: int = 10,
    batch: int = 1,
    sd: float = 0.002,
    stream: int = 0,
    points: int = 4,
    space: str = "mobilenet_v3",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """searches and trace of strategies whose true mean accuracy differs by ``effects`` (fractions); times
    have 5 % noise.

    points: of each anytime curve.
    """
    generator = np.random.default_rng(stream)
    tables = []
    for strategy, targets in itertools.product(effects, sets):
        k = len(targets)
        intercept, slope = SECONDS.get(strategy, (1.0, 1.0))
        shard = np.repeat(np.arange(seeds), k) // batch
        noise = 1 + 0.05 * generator.standard_normal(seeds)[shard]  # one timing a batch
        target = np.tile(np.array(targets), seeds)
        seed = np.repeat(np.arange(seeds), k)
        wall = (intercept + slope * k) * noise
        name = f"{space}-{strategy}-{'-'.join(f'{x:g}' for x in targets)}"
        accuracy = (
            0.75
            + 0.02 * np.log(target / 10)
            + effects[strategy]
            + sd * generator.standard_normal(len(target))
        )
        facts: dict[str, Any] = {
            "run_id": "synthetic",
            "search_id": [f"{hash_of(name)}{x:08x}" for x in seed],
            "shard_id": [f"{hash_of(name, batch)}{x:08x}" for x in shard],
            "space": space,
            "strategy": strategy,
            "protocol": "default",
            "cost_name": "note10",
            "cost_unit": "ms",
            "cost_sha256": "c" * 64,
            "predictor_name": "published",
            "predictor_space": "mobilenet_v3",
            "predictor_sha256": "p" * 64,
            "seed": seed,
            "k": k,
            "targets": [list(targets)] * len(target),
            "target_index": np.tile(np.arange(k), seeds),
            "target": target,
            "feasible": True,
            "accuracy": accuracy,
            "cost": target - 0.1,
            "arch": "{}",
            "macs_m": 300.0,
            "params_m": 8.0,
            "generations": 10,
            "evaluations": np.where(np.tile(np.arange(k), seeds) == 0, 5000, 1000 if slope < 1 else 5000),
            "wall_s": wall / k,
            "search_wall_s": wall,
            "batch_size": batch,
            "device": "cpu",
            "threads": 1,
            "host": "here",
        }
        tables.append(pd.DataFrame(facts))
    searches = pd.concat(tables, ignore_index=True)
    parts = []
    for i in range(points):
        share = (i + 1) / points
        part = searches[["run_id", "search_id", "shard_id", "seed", "target_index"]].assign(
            generation=i,
            evaluations=np.maximum((searches["evaluations"] * share**3).astype(int), 1),
            best_accuracy=searches["accuracy"] - 0.02 * (1 - share),
        )
        parts.append(part)
    return searches, pd.concat(parts, ignore_index=True)


def hash_of(*parts: object) -> str:
    """Twelve digits, as a part of an identity."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def manifest(searches: pd.DataFrame, **changes: Any) -> dict[str, Any]:
    """A run.json for these rows, complete unless ``changes`` say otherwise."""
    rows = searches.assign(_targets=searches["targets"].map(tuple))
    spaces = list(rows["space"].unique())
    spec = {
        "name": "synthetic",
        "spaces": spaces,
        "strategies": list(rows["strategy"].unique()),
        "targets": {space: [list(x) for x in rows["_targets"].unique()] for space in spaces},
        "seeds": sorted(int(seed) for seed in rows["seed"].unique()),
        "search": {"population": 100, "generations": 500},
    }
    return {
        "run_id": "synthetic",
        "schema": SCHEMA_VERSION,
        "algorithm": 1,
        "spec": spec,
        "machine": {"processor": "an abacus"},
        "versions": {"python": "3.11"},
        "created_at": "2020-12-12T00:00:00+00:00",
        "status": "complete",
        "wall_s": 12.0,
        "given_up": [],
        **changes,
    }


def results(effects: Mapping[str, float], **options: Any) -> Results:
    """The rows as :func:`topdown_ray.load` would give them."""
    searches, trace = frames(effects, **options)
    return Results(manifest(searches), searches, trace)


def write(path: Path, searches: pd.DataFrame, trace: pd.DataFrame, **changes: Any) -> Path:
    """Write rows as a result folder."""
    for name, frame, schema in (("searches", searches, SEARCHES), ("trace", trace, TRACE)):
        (path / name).mkdir(parents=True)
        known = pa.Table.from_pandas(
            frame, schema=pa.schema([x for x in schema if x.name in frame]), preserve_index=False
        )
        columns = [known[x.name] if x.name in frame else pa.nulls(len(frame), x.type) for x in schema]
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), path / name / "all.parquet")
    (path / "run.json").write_text(json.dumps(manifest(searches, **changes)))
    return path
