"""Searches and sweeps as one calls them, from Python or from the command line."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from topdown_ray.errors import UserError
from topdown_ray.progress import Progress
from topdown_ray.spaces.registry import DEFAULT_SPACE
from topdown_ray.store.failures import failed_searches
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.schema import to_tables
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.driver import Plan, SweepSummary, make_plan
from topdown_ray.sweeps.events import Observer, json_lines
from topdown_ray.sweeps.executors import ShardExecutor, shard_pool
from topdown_ray.sweeps.runner import Worker
from topdown_ray.sweeps.spec import make_spec, read_spec

#: Follows a sweep into its opened folder: entered before the first shard, told of every step.
Follow = Callable[[ResultFolder], AbstractContextManager[Callable[[Progress], None]]]


@dataclass(frozen=True)
class Workers:
    """Where a sweep runs, and on how many actors."""

    address: str = "local"  # none: in this process, without Ray
    actors: int | None = None  # None: all CPUs of the cluster
    gpus: int = 0


class Forecast(NamedTuple):
    """How much work a sweep is."""

    searches: int
    evaluations: int  # of the predictor
    shards: int | None  # None: of some seconds each
    actors: int


def search(
    space: str = DEFAULT_SPACE,
    cost: str = "note10",
    targets: Sequence[float] = (35, 30, 25),
    strategy: str = "top_down",
    seeds: int | Sequence[int] = 1,
    predictor: str = "published",
    **params: Any,
) -> pd.DataFrame:
    """Search in this process, without Ray: one row a search and target, as in a sweep's table ``searches``.

    targets: ms for a latency table, 1e6 MACs for ``macs``. seeds: how many, or which. params: the
    hyper-parameters of :class:`topdown_ray.sweeps.spec.SearchParams`. Raises UserError."""
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
    worker = Worker(plan.setups, plan.spec.search, groups=plan.spec.groups())
    tables = [to_tables(plan.run_id, *worker.run(shard))[0] for shard in plan.shards()]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return frame


def plan_sweep(file: str, out: str, only: Sequence[str] = ()) -> Plan:
    """The plan of a sweep file, or of the sweep that a result folder holds; only: see :meth:`Plan.only`, with
    the failed shards of ``out``. Raises UserError.
    """
    plan = make_plan(read_spec(file))
    return plan.only(only, failed_searches(out)) if only else plan


def forecast(plan: Plan, actors: int | None = None) -> Forecast:
    """How much work a plan is, if no search of it had run yet."""
    spec = plan.spec
    shards = None
    if spec.batch != "auto":
        shards = sum(1 for _ in spec.groups()) * math.ceil(len(spec.seeds) / spec.batch)
    return Forecast(spec.n_searches(), plan.evaluations(), shards, actors or os.cpu_count() or 1)


@contextlib.contextmanager
def unfollowed(folder: ResultFolder) -> Iterator[Callable[[Progress], None]]:
    """Nobody follows the sweep."""
    yield lambda progress: None


def run_sweep(
    plan: Plan,
    out: str,
    workers: Workers,
    resume: bool = True,
    log: str | None = None,
    follow: Follow = unfollowed,
    on_dashboard: Callable[[str], None] = lambda url: None,
) -> SweepSummary:
    """Open the folder, start the workers, and run what has no rows yet.

    log: a file for the events as JSON lines, or ``-`` for stderr. on_dashboard: is told where Ray's dashboard
    is, if it has one. Raises UserError, StartError and StoreError."""
    folder = ResultFolder(out)
    folder.check(plan.manifest(), resume)
    with json_lines(log) as observe, _executor(plan, workers) as executor:
        announce(workers.address, _dashboard(workers.address), observe, on_dashboard)
        folder.open(plan.manifest(), resume)
        with follow(folder) as on_progress:
            return driver.run(plan, folder, executor, on_progress, observe=observe)


def announce(
    address: str, dashboard: str | None, observe: Observer, on_dashboard: Callable[[str], None]
) -> None:
    """Tell that the workers' cluster is there, and where its dashboard is."""
    observe("connected", {"address": address, "dashboard": dashboard})
    if dashboard:
        on_dashboard(dashboard)


@contextlib.contextmanager
def _executor(plan: Plan, workers: Workers) -> Iterator[ShardExecutor]:
    if workers.address == "none":
        if workers.actors not in (None, 1):
            raise UserError(f"--actors: expected 1 with --address none, found {workers.actors}")
        if workers.gpus:
            raise UserError(f"--gpus: expected 0 with --address none, found {workers.gpus}")
        yield driver.in_process(plan)
        return
    if workers.actors == 0 and workers.gpus == 0:
        raise UserError("--actors: expected at least 1, or --gpus, found 0")
    from topdown_ray.cluster import connected

    with connected(workers.address):
        pool = shard_pool(
            workers.actors, plan.run_id, plan.setups, plan.spec.search, workers.gpus, list(plan.spec.groups())
        )
        try:
            yield pool
        finally:
            pool.close()


def _dashboard(address: str) -> str | None:
    if address == "none":
        return None
    from topdown_ray.cluster import dashboard_url

    return dashboard_url()
