"""The driver: pending = the spec's searches - those that have rows; bounded work in flight; bounded retries.

"Resume" is nothing but that difference, so it does not matter how the searches were batched before, or where they ran.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import itertools
import math
import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from topdown_ray import latency, machine
from topdown_ray.executors import Done, Executor, InProcess, Lost
from topdown_ray.runner import Setup, Worker, resolve
from topdown_ray.spec import ALGORITHM_VERSION, Shard, SweepSpec, digest, make_spec, search_id
from topdown_ray.store import SCHEMA_VERSION, ResultFolder, read_manifest, to_tables
from topdown_ray.strategies import evaluations

MAX_FAILURES = 3  # a shard that raised this often is given up
MAX_LOSSES = 5  # a shard whose process died this often is given up
LARGEST_BATCH = 32
NAMES = ("published", "embedded")  # of predictors: not paths


@dataclass
class Progress:
    """How far a sweep is."""

    total: int
    done: int  # searches with rows, those of earlier runs included
    before: int  # of these, those of earlier runs
    failures: int = 0  # searches given up
    losses: int = 0  # worker processes that died
    started: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Searches a second in this run."""
        return (self.done - self.before) / max(time.monotonic() - self.started, 1e-9)


@dataclass(frozen=True)
class Summary:
    """What a sweep came to."""

    progress: Progress
    wall_s: float
    given_up: dict[str, str]  # shard id -> the last error


@dataclass(frozen=True)
class Plan:
    """A validated sweep with its artefacts: what will run, before anything is written or started."""

    spec: SweepSpec
    setups: dict[str, Setup]

    @property
    def run_id(self) -> str:
        """The identity of the whole sweep: what decides its results, not its name, its batching or where files lie."""
        artefacts = {space: setup.artefacts for space, setup in self.setups.items()}
        return digest(
            [ALGORITHM_VERSION, self.spec.model_dump(exclude={"name", "batch", "cost", "predictor"}, mode="json"), artefacts]
        )

    def evaluations(self) -> int:
        """Predictor evaluations of the whole sweep, if no search of it had run yet."""
        sizes, budget, seeds = self.spec.search.sizes(), self.spec.search.budget(), len(self.spec.seeds)
        return seeds * sum(evaluations(group.strategy, sizes, budget, len(group.targets)) for group in self.spec.groups())

    def shards(self, finished: set[str], workers: int) -> Iterator[Shard]:
        """The pending searches, batched for this many workers; made one at a time, so that a long sweep needs no memory."""
        for group in self.spec.groups():
            auto = min(LARGEST_BATCH, math.ceil(len(self.spec.seeds) / workers))
            size = auto if self.spec.batch == "auto" else self.spec.batch
            artefacts = self.setups[group.space].artefacts
            named = (
                (seed, search_id(group, seed, self.spec.search, self.spec.protocol, artefacts)) for seed in self.spec.seeds
            )
            pending = ((seed, identity) for seed, identity in named if identity not in finished)
            while part := tuple(itertools.islice(pending, size)):
                seeds, identities = zip(*part, strict=True)
                yield Shard(group, seeds, identities)

    def _spec_with_full_paths(self) -> dict[str, Any]:
        spec = self.spec.model_dump(mode="json")
        spec["cost"] = {space: latency.full_name(value) for space, value in spec["cost"].items()}
        spec["predictor"] = {
            space: str(Path(value).resolve()) if value not in NAMES and Path(value).exists() else value
            for space, value in spec["predictor"].items()
        }
        return spec

    def manifest(self) -> dict[str, Any]:
        """The content of run.json at the start of the sweep."""
        return {
            "run_id": self.run_id,
            "schema": SCHEMA_VERSION,
            "algorithm": ALGORITHM_VERSION,
            "spec": self._spec_with_full_paths(),
            "artefacts": {
                space: {
                    "cost": {"name": setup.cost.name, "unit": setup.cost.unit, "sha256": setup.cost.sha256},
                    "predictor": {
                        "name": setup.predictor.name,
                        "space": setup.predictor.predictor_space,
                        "sha256": setup.predictor.sha256,
                    },
                }
                for space, setup in self.setups.items()
            },
            "versions": {
                "python": platform.python_version(),
                **{
                    name: importlib.metadata.version(name)
                    for name in ("topdown-ray", "torch", "ray", "ofa", "numpy", "pyarrow")
                },
            },
            "machine": {"platform": platform.platform(), "processor": machine.processor(), "cpus": os.cpu_count()},
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "status": "running",
            "wall_s": 0.0,
        }


def make_plan(spec: SweepSpec) -> Plan:
    """Find all artefacts and check all targets. Raises UserError."""
    return Plan(spec, {space: resolve(spec, space) for space in spec.spaces})


def search(
    space: str = "mobilenet_v3",
    cost: str = "note10",
    targets: Sequence[float] = (35, 30, 25),
    strategy: str = "top_down",
    seeds: int | Sequence[int] = 1,
    predictor: str = "published",
    **params: Any,
) -> pd.DataFrame:
    """Search in this process, without Ray: one row a search and target, as in a sweep's table ``searches``.

    targets: ms for a latency table, 1e6 MACs for ``macs``. seeds: how many, or which. params: the hyper-parameters of
    :class:`topdown_ray.spec.SearchParams`. Raises UserError.
    """
    data = {
        "name": "search",
        "spaces": [space],
        "strategies": [strategy],
        "cost": cost,
        "predictor": predictor,
        "targets": [list(targets)],
        "seeds": seeds if isinstance(seeds, int) else list(seeds),
        "search": params,
    }
    plan = make_plan(make_spec(data, "search"))
    worker = Worker(plan.setups, plan.spec.search)
    tables = [to_tables(plan.run_id, *worker.run(shard))[0] for shard in plan.shards(set(), 1)]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return frame


def in_process(plan: Plan) -> InProcess:
    """The executor for ``--address none``."""
    return InProcess(plan.run_id, Worker(plan.setups, plan.spec.search))


def run(
    plan: Plan, folder: ResultFolder, executor: Executor, on_progress: Callable[[Progress], None] = lambda progress: None
) -> Summary:
    """Run what is pending into an opened folder. A shard that keeps failing is given up; the others go on."""
    finished = folder.finished()
    progress = Progress(plan.spec.n_searches(), len(finished), len(finished))
    fresh = plan.shards(finished, executor.capacity)
    again: deque[Shard] = deque()
    in_flight = 0
    failures: Counter[str] = Counter()
    losses: Counter[str] = Counter()
    given_up: dict[str, str] = {}
    started = time.perf_counter()
    on_progress(progress)
    try:
        while True:
            while in_flight < executor.capacity and (shard := again.popleft() if again else next(fresh, None)):
                executor.submit(shard)
                in_flight += 1
            if not in_flight:
                break
            for event in executor.wait():
                in_flight -= 1
                shard_id = event.shard.shard_id
                if isinstance(event, Done):
                    folder.write(shard_id, event.searches, event.trace)
                    progress.done += len(event.shard.seeds)
                elif isinstance(event, Lost):
                    progress.losses += 1
                    losses[shard_id] += 1
                    _retry(event.shard, event.reason, losses[shard_id] < MAX_LOSSES, again, given_up, progress)
                else:
                    failures[shard_id] += 1
                    _retry(event.shard, event.traceback, failures[shard_id] < MAX_FAILURES, again, given_up, progress)
                on_progress(progress)
    finally:
        wall_s = time.perf_counter() - started
        manifest = read_manifest(folder.path)
        complete = progress.done == progress.total
        folder.write_manifest(
            {
                **manifest,
                "weights": executor.info.get("weights", {}),
                "status": "complete" if complete else "incomplete",
                "wall_s": manifest["wall_s"] + wall_s,
                "given_up": sorted(given_up),
            }
        )
    return Summary(progress, wall_s, given_up)


def _retry(shard: Shard, reason: str, retry: bool, again: deque[Shard], given_up: dict[str, str], progress: Progress) -> None:
    if retry:
        again.append(shard)
    else:
        given_up[shard.shard_id] = reason
        progress.failures += len(shard.seeds)
