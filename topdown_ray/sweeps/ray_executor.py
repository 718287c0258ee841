"""Thin Ray wrappers: actors that each host supernets, predictors and cost tables, and the pool that the
driver talks to.

With ``hosting`` and ``nodes``, the only importer of ray. The pattern: actors with ``max_restarts=0``, one
shard in flight an actor (a death is blamed on the right shard), a replacement for every dead actor, every
wait bounded. A replacement that finds no room waits for it: that is what makes a cluster scale, and what
takes a node that comes back into use."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

import pyarrow as pa
import torch

os.environ.setdefault(
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
)  # Ray announces this default with a warning otherwise

import ray
import ray.exceptions

from topdown_ray.cluster import START_TIMEOUT_S
from topdown_ray.errors import StartError, UserError
from topdown_ray.store.schema import to_tables
from topdown_ray.sweeps.executors import Attempt, Done, Event, Failed, Lost, Slot
from topdown_ray.sweeps.runner import Setup, Worker
from topdown_ray.sweeps.spec import Group, SearchParams, Shard

SCALE_UP_TIMEOUT_S = 1800  # of a cluster without CPUs: machines boot and install first
MAX_FAILED_STARTS = 3  # in a row
GROW_EVERY_S = 2.0
EVENTS_AT_ONCE = 32  # tables that the driver takes at a time
DEVICES = {"cpu": "cpu", "cuda": "cuda"}  # kind of actor -> torch device


@ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)
class SearchActor:
    """One process with one worker."""

    def __init__(
        self,
        run_id: str,
        setups: Mapping[str, Setup],
        params: SearchParams,
        groups: Sequence[Group],
        device: str,
    ):
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError(
                f"--gpus: expected a GPU that torch can use on {socket.gethostname()}, found none"
            )
        self.run_id = run_id
        self.worker = Worker(setups, params, device, groups)

    def ready(self) -> dict[str, Any]:
        """Answer once the worker stands."""
        return {"weights": self.worker.weights, "host": self.worker.host, "pid": os.getpid()}

    def run(self, shard: Shard) -> tuple[pa.Table, pa.Table, float]:
        """Run a shard: its tables, and the seconds that it took."""
        started = time.perf_counter()
        return *to_tables(self.run_id, *self.worker.run(shard)), time.perf_counter() - started


class RayPool:
    """An executor over actors on a Ray cluster; use it inside :func:`connected`.

    actors: on CPUs; None: as many as the cluster has CPUs, those of nodes that join later too. gpus: actors
    with a GPU each beside them. More than the cluster has are refused unless it has a node without CPUs, as
    the head of a cluster that scales has. groups: what they will run, which they warm up for. Raises
    UserError."""

    def __init__(
        self,
        actors: int | None,
        run_id: str,
        setups: Mapping[str, Setup],
        params: SearchParams,
        gpus: int = 0,
        groups: Sequence[Group] = (),
    ) -> None:
        have, scales = _resources(), _scales()
        _check_request(actors, gpus, have, scales)
        self._grows = actors is None
        self._gpus = gpus
        self._start_timeout_s = SCALE_UP_TIMEOUT_S if scales else START_TIMEOUT_S
        self.info: dict[str, Any] = {}
        shared = ray.put(dict(setups))  # once: actors take it from the object store in their constructor
        self._arguments = (run_id, shared, params, tuple(groups))
        self._actors: dict[int, Any] = {}  # those that stand
        self._idle: dict[int, Slot] = {}
        self._starting: dict[Any, tuple[Any, Slot]] = {}
        self._running: dict[Any, tuple[Any, Attempt]] = {}
        self._devices: Counter[str] = Counter()
        self._started_so_far = 0
        self._failed_starts = 0
        self._looked = time.monotonic()
        self._alive = time.monotonic()  # when an actor stood last
        for _ in range(gpus):
            self._start("cuda")
        for _ in range(max(have["CPU"] - gpus, 0) if actors is None else actors):
            self._start("cpu")

    def _start(self, device: str) -> None:
        slot = Slot(self._started_so_far, device)
        self._started_so_far += 1
        self._devices[device] += 1
        actor_class: Any = SearchActor
        actor_class = actor_class.options(num_gpus=1) if device == "cuda" else actor_class
        actor = actor_class.remote(*self._arguments, DEVICES[device])
        self._starting[actor.ready.remote()] = (actor, slot)

    @property
    def devices(self) -> Mapping[str, int]:
        """How many actors of each kind of device there are or will be, those that still start included."""
        return self._devices

    @property
    def standing(self) -> Set[int]:
        """The numbers of the actors that have started."""
        return self._actors.keys()

    def idle(self) -> list[Slot]:
        """The actors that wait for a shard."""
        return list(self._idle.values())

    def clock(self) -> float:
        """The system's."""
        return time.monotonic()

    def until_ready(self) -> None:
        """Block until all actors stand."""
        while self._starting:
            done, _ = ray.wait(list(self._starting), num_returns=1, timeout=self._start_timeout_s)
            if not done:
                raise StartError(f"no actor was ready within {self._start_timeout_s} s")
            self._ready(done[0])

    def submit(self, attempt: Attempt) -> None:
        """Run a shard on an idle actor."""
        actor = self._actors[self._idle.pop(attempt.slot.worker).worker]
        self._running[actor.run.remote(attempt.shard)] = (actor, attempt)

    def wait(self, timeout_s: float) -> list[Event]:
        """Block until something happened to a shard or an actor became ready, or for this long."""
        self._grow()
        events: list[Event] = []
        references = [*self._running, *self._starting]
        done, others = ray.wait(references, num_returns=1, timeout=timeout_s) if references else ([], [])
        if done and others:  # whatever else is there already: asking costs time in proportion to all of them
            done += ray.wait(others, num_returns=min(len(others), EVENTS_AT_ONCE), timeout=0)[0]
        for reference in done:
            if reference in self._starting:
                self._ready(reference)
            else:
                events.append(self._ended(reference))
        if self._running or self._idle:
            self._alive = time.monotonic()
        elif time.monotonic() - self._alive > self._start_timeout_s:
            free = ray.available_resources()
            raise StartError(
                f"no actor was ready within {self._start_timeout_s} s; the cluster has {free} free"
            )
        return events

    def _grow(self) -> None:
        """Start an actor on every CPU that has joined."""
        if not self._grows or time.monotonic() - self._looked < GROW_EVERY_S:
            return
        self._looked = time.monotonic()
        for _ in range(_resources()["CPU"] - len(self._actors) - len(self._starting)):
            self._start("cpu")

    def _ready(self, reference: Any) -> None:
        actor, slot = self._starting.pop(reference)
        try:
            self.info = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._failed_starts += 1
            cause = str(error).strip()
            final = any(sign in cause for sign in ("creation task", "low on memory", "out of memory"))
            # with others standing it may be a node that was lost while its actors started: those come again
            if final or (self._failed_starts >= MAX_FAILED_STARTS and not self._actors):
                raise StartError(f"an actor could not start: {cause.splitlines()[-1]}") from error
            self._instead_of(actor, slot.device)
        else:
            self._actors[slot.worker] = actor
            self._idle[slot.worker] = slot
            self._failed_starts = 0

    def _ended(self, reference: Any) -> Event:
        _, attempt = self._running[reference]
        try:
            searches, trace, busy_s = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            event: Event = Failed(attempt, str(error))
        except ray.exceptions.RayError as error:  # the actor died, or its node with the tables on it
            self._replace(reference)
            return Lost(attempt, " ".join(str(error).split())[:300])
        else:
            event = Done(attempt, searches, trace, busy_s)
        del self._running[reference]
        self._idle[attempt.slot.worker] = attempt.slot
        return event

    def _replace(self, reference: Any) -> None:
        actor, attempt = self._running.pop(reference)
        del self._actors[attempt.slot.worker]
        self._instead_of(actor, attempt.slot.device)

    def _instead_of(self, actor: Any, device: str) -> None:
        ray.kill(actor)
        self._devices[device] -= 1
        self._start(device)

    def cancel(self, attempt: Attempt) -> None:
        """Forget an attempt: if it still runs, its actor, which may hang, is replaced."""
        for reference in [
            reference for reference, (_, running) in self._running.items() if running is attempt
        ]:
            self._replace(reference)

    def close(self) -> None:
        """Kill all actors."""
        for actor in [*self._actors.values(), *(actor for actor, _ in self._starting.values())]:
            ray.kill(actor)


def _check_request(actors: int | None, gpus: int, have: Mapping[str, int], scales: bool) -> None:
    if have["CPU"] == 0 and actors is None:
        raise UserError(
            "--actors: expected a number, since the cluster has no CPUs yet (it scales from zero), found none"
        )
    for option, kind, asked in (("--gpus", "GPU", gpus), ("--actors", "CPU", (actors or 0) + gpus)):
        if asked > have[kind] and not scales:
            found = f"{asked}, those with a GPU included" if kind == "CPU" and gpus else asked
            raise UserError(
                f"{option}: expected at most {have[kind]}, the {kind}s of the cluster, found {found}"
            )


def _resources() -> dict[str, int]:
    found = ray.cluster_resources()
    return {kind: int(found.get(kind, 0)) for kind in ("CPU", "GPU")}


def _scales() -> bool:
    """Whether a node of the cluster has no CPUs: the head of a cluster whose workers come when they are asked
    for.
    """
    return any(node["Alive"] and not node["Resources"].get("CPU") for node in ray.nodes())
