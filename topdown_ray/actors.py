"""Thin Ray wrappers: actors that each host supernets, predictors and cost tables, and the pool that the driver talks to.

The only importer of ray. The pattern: actors with ``max_restarts=0``, one shard in flight an actor (a death is blamed on the
right shard), a replacement for every dead actor, every wait bounded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray announces this default with a warning otherwise

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from topdown_ray import machine
from topdown_ray.errors import StartError, UserError
from topdown_ray.executors import Done, Event, Failed, Lost
from topdown_ray.latency import Conditions
from topdown_ray.layers import Layer
from topdown_ray.runner import Setup, Worker
from topdown_ray.spaces import Config
from topdown_ray.spec import SearchParams, Shard
from topdown_ray.stopwatch import Stopwatch
from topdown_ray.store import to_tables

CONNECT_TIMEOUT_S = 10
START_TIMEOUT_S = 180
SCALE_UP_TIMEOUT_S = 1800  # of a cluster without CPUs: machines boot and install first
MAX_FAILED_STARTS = 5


@ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)
class SearchActor:
    """One process with one worker."""

    def __init__(self, run_id: str, setups: Mapping[str, Setup], params: SearchParams, device: str):
        self.run_id = run_id
        self.worker = Worker(setups, params, device)

    def ready(self) -> dict[str, Any]:
        """Answer once the worker stands."""
        return {"weights": self.worker.weights, "host": self.worker.host, "pid": os.getpid()}

    def run(self, shard: Shard) -> tuple[pa.Table, pa.Table]:
        """Run a shard: its tables."""
        return to_tables(self.run_id, *self.worker.run(shard))


def connect(address: str) -> None:
    """Connect to Ray: ``local`` starts one on this machine, ``auto`` or HOST:PORT joins a cluster. Raises UserError."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address == "local":
        options.update(address="local", include_dashboard=False)
    else:
        if address != "auto":
            _answers(address)
        options.update(address=address)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--address {address}: expected a Ray cluster that answers, found none ({reason})") from error


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to Ray, see :func:`connect`, until the block ends."""
    connect(address)
    try:
        yield
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--address: expected none, local, auto or HOST:PORT, found {address!r}")
    none = f"--address {address}: expected a Ray cluster that answers, found none"
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S):
            pass
        # something listens; whether it is Ray, Ray's own check says in bounded time (ray.init would try for minutes)
        check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        subprocess.run(check, check=True, capture_output=True, timeout=CONNECT_TIMEOUT_S)
    except OSError as error:
        raise UserError(f"{none} ({error})") from error
    except subprocess.SubprocessError as error:
        raise UserError(f"{none} (what listens there is not Ray, or wants another RAY_AUTH_MODE or token)") from error


def run_tasks(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Plain Ray tasks, one for each tuple of arguments."""
    task = ray.remote(num_cpus=1)(function)
    return list(ray.get([task.remote(*each) for each in arguments]))


class RayPool:
    """An executor over actors on a Ray cluster; use it inside :func:`connected`."""

    def __init__(self, actors: int | None, run_id: str, setups: Mapping[str, Setup], params: SearchParams, device: str = "cpu"):
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus == 0 and actors is None:
            raise UserError("--actors: expected a number, since the cluster has no CPUs yet (it scales from zero), found none")
        if actors is not None and 0 < cpus < actors:
            raise UserError(f"--actors: expected at most {cpus}, the CPUs of the cluster, found {actors}")
        self.capacity = actors or cpus
        self._start_timeout_s = START_TIMEOUT_S if cpus else SCALE_UP_TIMEOUT_S
        self.info: dict[str, Any] = {}
        shared = ray.put(dict(setups))  # once: actors take it from the object store in their constructor
        self._new_actor: Callable[[], Any] = lambda: SearchActor.remote(  # type: ignore[attr-defined]
            run_id, shared, params, device
        )
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, Shard]] = {}
        self._queue: deque[Shard] = deque()
        self._failed_starts = 0
        for _ in range(self.capacity):
            self._start()

    def _start(self) -> None:
        actor = self._new_actor()
        self._starting[actor.ready.remote()] = actor

    def until_ready(self) -> None:
        """Block until all actors stand."""
        while self._starting:
            done, _ = ray.wait(list(self._starting), num_returns=1, timeout=self._start_timeout_s)
            if not done:
                raise StartError(f"no actor was ready within {self._start_timeout_s} s")
            self._started(done[0])

    def submit(self, shard: Shard) -> None:
        """Run a shard on the next free actor."""
        self._queue.append(shard)

    def wait(self) -> list[Event]:
        """Block until something happened to a shard."""
        events: list[Event] = []
        deadline = time.monotonic() + self._start_timeout_s
        while not events:
            while self._idle and self._queue:
                actor, shard = self._idle.pop(), self._queue.popleft()
                self._running[actor.run.remote(shard)] = (actor, shard)
            done, _ = ray.wait([*self._running, *self._starting], num_returns=1, timeout=5)
            for reference in done:
                if reference in self._starting:
                    self._started(reference)
                else:
                    events.append(self._finished(reference))
            if not self._running and not self._idle and time.monotonic() > deadline:
                raise StartError(
                    f"no actor was ready within {self._start_timeout_s} s; the cluster has {ray.available_resources()} free"
                )
        return events

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            self.info = ray.get(reference)
            self._idle.append(actor)
            self._failed_starts = 0
        except ray.exceptions.RayActorError as error:
            self._failed_starts += 1
            cause = str(error).strip()
            if "creation task" in cause or self._failed_starts >= MAX_FAILED_STARTS:
                raise StartError(f"an actor could not start: {cause.splitlines()[-1]}") from error
            self._start()

    def _finished(self, reference: Any) -> Event:
        actor, shard = self._running.pop(reference)
        try:
            searches, trace = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            ray.kill(actor)
            self._start()
            return Lost(shard, " ".join(str(error).split())[:300])
        except ray.exceptions.RayError as error:
            self._idle.append(actor)
            return Failed(shard, str(error))
        self._idle.append(actor)
        return Done(shard, searches, trace)

    def close(self) -> None:
        """Kill all actors."""
        for actor in [*self._idle, *self._starting.values(), *(actor for actor, _ in self._running.values())]:
            ray.kill(actor)


# --- a stopwatch on another node --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NodeKind:
    """Nodes of the same hardware that offer Ray the same resources, and one of them."""

    hardware: Mapping[str, Any]  # see machine.hardware
    cpus: float
    gpus: float
    nodes: int
    node_id: str

    @property
    def label(self) -> str:
        """A name for files and messages."""
        parts = [self.hardware["processor"], f"{self.hardware['cores']}cores", f"{self.cpus:g}cpus", *self.hardware["gpus"]]
        return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def node_kinds() -> list[NodeKind]:
    """The kinds of nodes of the connected cluster, by hardware and resources; nodes without CPUs for Ray are left out."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    probe = ray.remote(num_cpus=0, max_retries=0)(machine.hardware)
    asked = [probe.options(scheduling_strategy=_on(node["NodeID"])).remote() for node in nodes]
    try:
        found = ray.get(asked, timeout=START_TIMEOUT_S)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
        raise StartError(f"expected every node to tell its hardware, found {' '.join(str(error).split())[:200]}") from error
    kinds: dict[str, NodeKind] = {}
    for node, hardware in sorted(zip(nodes, found, strict=True), key=lambda pair: str(pair[0]["NodeID"])):
        kind = NodeKind(hardware, node["Resources"]["CPU"], node["Resources"].get("GPU", 0), 1, node["NodeID"])
        same = kinds.get(kind.label)
        kinds[kind.label] = kind if same is None else dataclasses.replace(same, nodes=same.nodes + 1)
    return [kinds[label] for label in sorted(kinds)]


def _on(node_id: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


@ray.remote(max_restarts=0, max_task_retries=0)
class StopwatchActor:
    """A stopwatch in a process of its own on its node."""

    def __init__(self, space: str, conditions: Conditions):
        self.watch = Stopwatch(space, conditions)

    def call(self, name: str, *arguments: Any) -> Any:
        """A method of the stopwatch."""
        return getattr(self.watch, name)(*arguments)


class RemoteWatch:
    """A stopwatch on a node that is reserved whole, all its CPUs and GPUs, until :meth:`close`: no other work of Ray runs beside it.

    Raises StartError where the node does not become free in time, or its process dies."""

    def __init__(self, kind: NodeKind, space: str, conditions: Conditions):
        self.kind = kind
        self._actor = StopwatchActor.options(  # type: ignore[attr-defined]
            num_cpus=kind.cpus, num_gpus=kind.gpus, scheduling_strategy=_on(kind.node_id)
        ).remote(space, conditions)

    def facts(self) -> dict[str, Any]:
        """As Stopwatch.facts."""
        facts: dict[str, Any] = self._call("facts")
        return facts

    def contention(self) -> float | None:
        """As Stopwatch.contention."""
        ratio: float | None = self._call("contention")
        return ratio

    def hold_layers(self, layers: Sequence[Layer]) -> None:
        """As Stopwatch.hold_layers."""
        self._call("hold_layers", list(layers))

    def hold_subnets(self, configs: Sequence[Config]) -> None:
        """As Stopwatch.hold_subnets."""
        self._call("hold_subnets", list(configs))

    def laps(self, order: Sequence[int]) -> list[float]:
        """As Stopwatch.laps."""
        times: list[float] = self._call("laps", list(order))
        return times

    def close(self) -> None:
        """Give the node back."""
        ray.kill(self._actor)

    def _call(self, name: str, *arguments: Any) -> Any:
        answer = self._actor.call.remote(name, *arguments)
        timeout = START_TIMEOUT_S if name == "facts" else None  # the first call: it waits for the reservation
        try:
            return ray.get(answer, timeout=timeout)
        except ray.exceptions.GetTimeoutError as error:
            raise StartError(f"{self.kind.label}: the node was not free within {START_TIMEOUT_S} s") from error
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None  # as it was raised there
            raise StartError(f"{self.kind.label}: {str(error).strip().splitlines()[-1]}") from error
        except ray.exceptions.RayError as error:
            raise StartError(f"{self.kind.label}: {str(error).strip().splitlines()[-1]}") from error
