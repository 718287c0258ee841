"""Drive a sweep: run the searches that have no rows yet, with bounded work in flight and bounded retries.

Continuing a sweep needs nothing else, so it does not matter how the searches were batched before, or where
they ran.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import math
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topdown_ray import machine
from topdown_ray.errors import StoreError, UserError
from topdown_ray.progress import Progress
from topdown_ray.spaces.cost import AnyCost, full_name
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.identities import Identities
from topdown_ray.store.manifest import read_manifest
from topdown_ray.store.place import Place
from topdown_ray.store.schema import SCHEMA_VERSION
from topdown_ray.sweeps.artefacts import Costs, find_costs
from topdown_ray.sweeps.calibration import calibrated
from topdown_ray.sweeps.dispatch import Dispatch, Limits
from topdown_ray.sweeps.events import (
    Ended,
    Observer,
    ShardDone,
    ShardFailed,
    ShardLost,
    ShardRetried,
    Started,
    facts_of,
    ignore,
    last_line,
)
from topdown_ray.sweeps.executors import ShardExecutor, ShardHost, Tables
from topdown_ray.sweeps.groups import Shard
from topdown_ray.sweeps.identities import ALGORITHM_VERSION, plugin_hashes, sweep_identity
from topdown_ray.sweeps.pending import NONE, Pending, evaluations_of
from topdown_ray.sweeps.runner import Setup, resolve
from topdown_ray.sweeps.spec import SweepSpec, make_spec
from topdown_ray.tasks import Attempt, Done, Event, InProcess, Lost
from topdown_ray.terminal import interrupted_since

LARGEST_BATCH = 32  # largest batch of shards that are listed in advance
LARGEST_SHARD = 4096  # largest shard that a sweep file may ask for
WRITERS = 4  # threads that write parts
UNWRITTEN = 16  # largest number of finished shards that wait to be written
LIMITS = Limits()
LOOK_EVERY_S = 1.0  # time between two checks for shards that take too long
SHOWN_WITHIN_S = 0.5  # a result is shown before the next shard if writing it takes no longer than this
NAMES = ("published", "embedded")  # predictor names that are not paths


@dataclass(frozen=True)
class SweepSummary:
    """The result of a sweep."""

    progress: Progress
    wall_s: float
    given_up: dict[str, str]  # shard id -> the last line of its last error
    busy_s: float  # seconds that workers spent on shards that count


@dataclass(frozen=True)
class Plan:
    """A validated sweep with its artefacts: what will run, before anything is written or started."""

    spec: SweepSpec
    setups: dict[str, Setup]
    chosen: frozenset[str] | None = None  # only these searches
    # K and N if the seeds are the K-th of N parts of a larger sweep's, see SweepSpec.part
    part: tuple[int, int] | None = None

    @property
    def run_id(self) -> str:
        """The identity of the whole sweep, see :func:`topdown_ray.sweeps.identities.sweep_identity`."""
        return sweep_identity(self.spec, {space: setup.artefacts for space, setup in self.setups.items()})

    def evaluations(self) -> int:
        """Predictor evaluations of the whole sweep, if no search of it had run yet."""
        return len(self.spec.seeds) * sum(evaluations_of(group) for group in self.spec.groups())

    def only(self, names: Collection[str], failed: Mapping[str, Sequence[str]]) -> Plan:
        """Return this plan for these searches alone, in one batch for each group. names: search ids, or
        shards of ``failed`` (shard id -> its searches), which run again in exactly the batch that failed.
        Raises UserError for a name that is neither.
        """
        unknown = {name for name in names if name not in failed}
        chosen = {identity for name in names for identity in failed.get(name, ())}
        if unknown:
            for shard in self.shards():
                parts = len(shard.group.each)
                for i in range(0, len(shard.search_ids), parts):
                    together = shard.search_ids[i : i + parts]  # one search on all its devices
                    if not unknown.isdisjoint(together):
                        unknown.difference_update(together)
                        chosen.update(together)
        for name in sorted(unknown):
            raise UserError(
                f"--only: expected a search of this sweep or a shard recorded in failures/, found {name!r}"
            )
        spec = self.spec.model_copy(update={"batch": max(1, min(LARGEST_SHARD, len(chosen)))})
        return dataclasses.replace(self, spec=spec, chosen=frozenset(chosen))

    def n_searches(self) -> int:
        """Return the number of searches of this plan."""
        return self.spec.n_searches() if self.chosen is None else len(self.chosen)

    def pending(self, finished: Identities = NONE) -> Pending:
        """Return the searches that have no rows yet."""
        artefacts = {space: setup.artefacts for space, setup in self.setups.items()}
        return Pending(self.spec, artefacts, finished, self.chosen)

    def shards(self) -> Iterator[Shard]:
        """Yield the whole sweep in shards of one size, made one at a time."""
        pending = self.pending()
        while pending.group is not None:
            yield pending.take(LARGEST_BATCH if self.spec.batch == "auto" else self.spec.batch)

    def _spec_with_full_paths(self) -> dict[str, Any]:
        spec = self.spec.model_dump(mode="json")
        for space, cost in spec["cost"].items():
            if isinstance(cost, str):
                spec["cost"][space] = full_name(cost)
                continue
            spec["cost"][space] = [full_name(name) for name in cost]
            for values in filter(None, (spec["targets"], spec.get("limits"))):
                values[space] = {full_name(name): values[space][name] for name in cost}
        spec["predictor"] = {
            space: str(Path(value).resolve()) if value not in NAMES and Path(value).exists() else value
            for space, value in spec["predictor"].items()
        }
        return spec

    def manifest(self) -> dict[str, Any]:
        """Return the content of run.json at the start of the sweep."""
        return {
            "run_id": self.run_id,
            "schema": SCHEMA_VERSION,
            "algorithm": ALGORITHM_VERSION,
            "spec": self._spec_with_full_paths(),
            "artefacts": {
                space: {
                    "predictor": {
                        "name": setup.predictor.name,
                        "space": setup.predictor.predictor_space,
                        "sha256": setup.predictor.sha256,
                    },
                    **{name: _facts(cost) for name, cost in setup.named_costs.items()},
                    **(
                        {"space": {"name": setup.genes_space.name, "sha256": setup.artefacts["space"]}}
                        if "space" in setup.artefacts
                        else {}
                    ),
                }
                for space, setup in self.setups.items()
            },
            **({"strategies": plugged_in} if (plugged_in := plugin_hashes(self.spec)) else {}),
            "versions": {
                "python": platform.python_version(),
                **{
                    name: importlib.metadata.version(name)
                    for name in ("topdown-ray", "torch", "ray", "ofa", "numpy", "pyarrow")
                },
            },
            "machine": {
                "platform": platform.platform(),
                "processor": machine.processor(),
                "cpus": os.cpu_count(),
            },
            **({"part": list(self.part)} if self.part else {}),
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "status": "running",
            "wall_s": 0.0,
        }


def _facts(cost: AnyCost) -> dict[str, str]:
    return {"name": cost.name, "unit": cost.unit, "sha256": cost.sha256}


def make_plan(
    spec: SweepSpec,
    folder: str | Path | None = None,
    on_step: Callable[[str], None] = lambda step: None,
    costs: Costs | None = None,
) -> Plan:
    """Find all artefacts, check all targets, and calibrate a budget in seconds, unless ``folder`` already has
    the sweep with its calibration. on_step: is called before steps that take long. costs: the costs, if they
    were already found. Raises UserError.
    """
    costs = find_costs(spec) if costs is None else costs
    setups = {space: resolve(spec, space, costs[space]) for space in spec.spaces}
    return Plan(calibrated(_as_recorded(spec, folder), setups, on_step), setups)


def _as_recorded(spec: SweepSpec, folder: str | Path | None) -> SweepSpec:
    """Return the specification with the calibration in run.json of this sweep."""
    if spec.budget is None or spec.budget.seconds is None or folder is None:
        return spec
    if not Place(folder).exists("run.json"):
        return spec
    recorded = read_manifest(folder)["spec"].get("budget") or {}
    if recorded.get("seconds") != spec.budget.seconds:
        return spec
    return make_spec({**spec.model_dump(mode="json"), "budget": recorded}, str(folder))


def in_process(plan: Plan) -> InProcess[Shard, Tables]:
    """Return the executor for ``--address none``."""
    return InProcess(ShardHost(plan.run_id, plan.setups, list(plan.spec.groups())))


class _Writer:
    """Writes finished shards while the driver's loop continues, so that no worker waits for a disk or a
    bucket. Only a few are held at a time.
    """

    def __init__(self, folder: ResultFolder):
        self._folder = folder
        self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")
        self._writing: deque[tuple[Future[None], Done[Shard, Tables]]] = deque()

    def put(self, done: Done[Shard, Tables]) -> None:
        """Write a shard. Blocks while too many are being written."""
        waiting = [future for future, _ in self._writing if not future.done()]
        if len(waiting) >= UNWRITTEN:
            futures.wait(waiting, return_when=futures.FIRST_COMPLETED)
        shard = done.attempt.task
        future = self._threads.submit(self._folder.write, shard.shard_id, *done.result)
        self._writing.append((future, done))

    def written(self, within_s: float | None = 0.0) -> Iterator[Done[Shard, Tables]]:
        """Yield the shards written since the last call. within_s: how long to wait for those that are being
        written; None: until all are written. Raises StoreError.
        """
        if within_s != 0.0:
            futures.wait([future for future, _ in self._writing], within_s)
        for entry in list(self._writing):
            future, done = entry
            if future.done():
                self._writing.remove(entry)
                future.result()
                yield done

    def close(self) -> None:
        """Block until nothing is being written."""
        self._threads.shutdown()


@dataclass
class _Run:
    """One run of the driver's loop over the pending searches."""

    folder: ResultFolder
    executor: ShardExecutor
    dispatch: Dispatch
    progress: Progress
    on_progress: Callable[[Progress], None]
    observe: Observer
    given_up: dict[str, str] = field(default_factory=dict)
    busy_s: float = 0.0

    def loop(self, writer: _Writer) -> None:
        """Give shards to free workers and take their results until nothing is left."""
        executor, dispatch, looked = self.executor, self.dispatch, -math.inf
        began = time.monotonic()
        while True:
            if interrupted_since(began):
                raise KeyboardInterrupt
            now = executor.clock()
            if now - looked > LOOK_EVERY_S:
                for attempt in dispatch.hung(now):
                    executor.cancel(attempt)
                    self._lost(
                        Lost(
                            attempt,
                            f"took more than {now - dispatch.started(attempt):.0f} s, many times longer than "
                            "similar shards",
                        )
                    )
                # searches in this process leave freed tensors between the rows that wait to be merged, and
                # the C library would keep that memory
                machine.return_freed_memory()
                looked = now
            for slot in executor.idle():
                if not dispatch.waiting:
                    break
                found = dispatch.next(slot, executor.devices, executor.standing, now)
                if found is not None:
                    executor.submit(found)
            self._count(writer.written())
            if dispatch.finished:
                break
            for event in executor.wait(LOOK_EVERY_S):
                self._take(event, writer)
            if len(executor.idle()) == sum(executor.devices.values()):
                # every worker (or this process, if it is the only one) has just returned a result, which is
                # shown before the next shards begin, because they may take long
                self._count(writer.written(SHOWN_WITHIN_S))
        self._count(writer.written(None))

    def _count(self, written: Iterator[Done[Shard, Tables]]) -> None:
        progress = self.progress
        for done in written:
            shard, slot = done.attempt.task, done.attempt.slot
            progress.done += len(shard.search_ids)
            self.on_progress(progress)
            self.observe(
                ShardDone(
                    **facts_of(shard),
                    worker=slot.worker,
                    device=slot.device,
                    seconds=round(done.busy_s, 3),
                    done=progress.done,
                    total=progress.total,
                    rate=round(progress.rate, 3),
                    rows=done.result[0],
                )
            )

    def _take(self, event: Event[Shard, Tables], writer: _Writer) -> None:
        if not self.dispatch.running(event.attempt):
            return  # another attempt finished at the same moment and was first
        if isinstance(event, Done):
            for slower in self.dispatch.done(event.attempt, event.busy_s):
                self.executor.cancel(slower)
                self.progress.losses += 1
                facts = facts_of(slower.task)
                self.observe(ShardLost(**facts, worker=slower.slot.worker, error="was slower than its copy"))
            self.busy_s += event.busy_s
            writer.put(event)
        elif isinstance(event, Lost):
            self._lost(event)
        else:
            self._failed(ShardRetried, event.attempt, event.traceback, self.dispatch.failed(event.attempt))

    def _lost(self, event: Lost[Shard]) -> None:
        self.progress.losses += 1
        self._failed(ShardLost, event.attempt, event.reason, self.dispatch.lost(event.attempt))

    def _failed(
        self, kind: type[ShardRetried | ShardLost], attempt: Attempt[Shard], reason: str, given_up: bool
    ) -> None:
        facts = {**facts_of(attempt.task), "error": last_line(reason)}
        if kind is ShardLost or not given_up:
            self.observe(kind(**facts, worker=attempt.slot.worker))
        if given_up:
            command = self.folder.record_failure(attempt.task, reason)
            self.given_up[attempt.task.shard_id] = last_line(reason)
            self.progress.failures += len(attempt.task.search_ids)
            self.observe(ShardFailed(**facts, command=command))
        self.on_progress(self.progress)


def run(
    plan: Plan,
    folder: ResultFolder,
    executor: ShardExecutor,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    limits: Limits = LIMITS,
    observe: Observer = ignore,
) -> SweepSummary:
    """Run what is pending into an opened folder. A shard that keeps failing is given up, and the others
    continue.
    """
    finished = folder.finished()
    before = len(finished if plan.chosen is None else finished & plan.chosen)
    progress = Progress(plan.n_searches(), before, before)
    others = len(finished) - before  # finished, but not chosen
    batch = None if plan.spec.batch == "auto" else plan.spec.batch
    dispatch = Dispatch(plan.pending(finished), batch, limits)
    state = _Run(folder, executor, dispatch, progress, on_progress, observe)
    writer = _Writer(folder)
    started = executor.clock()
    on_progress(progress)
    try:
        observe(Started(folder.place.name, plan.run_id, progress.total, progress.done, folder.damaged))
        state.loop(writer)
    except BaseException as error:
        folder.stop_merging()
        writer.close()
        with contextlib.suppress(
            StoreError
        ):  # the user has to read the error that ended the sweep, not this one
            state._count(writer.written())
        with contextlib.suppress(StoreError, UserError):
            _finish(folder, executor, state, executor.clock() - started, complete=False)
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "error"
        observe(Ended(**progress.facts, status=status, error=last_line(str(error)) or None))
        raise
    writer.close()
    wall_s, there = executor.clock() - started, others + progress.done
    try:
        _finish(folder, executor, state, wall_s, there == plan.spec.n_searches(), count=True)
    except (StoreError, UserError) as error:
        observe(Ended(**progress.facts, status="error", error=last_line(str(error))))
        raise
    status = "complete" if progress.done == progress.total else "incomplete"
    observe(Ended(**progress.facts, status=status, error=None))
    return SweepSummary(progress, wall_s, state.given_up, state.busy_s)


def _finish(
    folder: ResultFolder,
    executor: ShardExecutor,
    state: _Run,
    wall_s: float,
    complete: bool,
    count: bool = False,
) -> None:
    facts = {"given_up": sorted(state.given_up)}
    folder.end(complete, {"wall_s": wall_s, "busy_s": state.busy_s}, facts, count)
