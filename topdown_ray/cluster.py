"""Connect to a Ray cluster, disconnect in bounded time, and run tasks on a pool of actors.

Only this module, ``nodes`` and ``ray_counters`` import ray. Each actor hosts one object, has
``max_restarts=0``, and runs one task at a time, so that the death of an actor is attributed to the right
task. A dead actor is replaced. A replacement for which the cluster has no room waits; the cluster scales up
because of waiting actors, and a node that comes back is used again. Every wait has a time limit."""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, Generic

# Ray prints a warning about this default unless it is set
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.exceptions
import ray.util.client

from topdown_ray.addresses import CLIENT, check_address
from topdown_ray.errors import StartError, UserError, one_line
from topdown_ray.tasks import Attempt, Done, Event, Failed, Lost, Make, Result, Slot, Task
from topdown_ray.terminal import end_on_signals, say

CONNECT_TIMEOUT_S = 10
SHUTDOWN_TIMEOUT_S = 20
START_TIMEOUT_S = 180  # until an actor's process has started
SCALE_UP_TIMEOUT_S = 1800  # the same on a cluster that scales up, where machines boot and install first
MAX_FAILED_STARTS = 3  # in a row
GROW_EVERY_S = 2.0
EVENTS_AT_ONCE = 32  # results that one call collects
DEVICES = {"cpu": "cpu", "cuda": "cuda"}  # kind of actor -> torch device


def connect(address: str, on_step: Callable[[str], None] = lambda step: None) -> None:
    """Connect to Ray: ``local`` starts it on this machine; ``auto``, HOST:PORT and ray://HOST:PORT (Ray
    Client) join a cluster. on_step: is called with a sentence before each slow step. Raises UserError.
    """
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if check_address(address) == "local":
        options.update(address="local", include_dashboard=False)
        on_step("Starting Ray on this machine ...")
    else:
        if address != "auto":
            _answers(address)
            on_step(f"Connecting to Ray at {address} ...")
        options.update(address=address)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = one_line(error, 200)
        raise UserError(
            f"--address {address}: expected a Ray cluster that answers, found none ({reason})"
        ) from error


@contextlib.contextmanager
def connected(address: str, on_step: Callable[[str], None] = lambda step: None) -> Iterator[None]:
    """Connect to Ray (see :func:`connect`) until the block ends. A signal ends the block cleanly.

    A process that is already connected keeps its connection and its signal handlers, and the address is
    ignored."""
    if ray.is_initialized():
        yield
        return
    connect(address, on_step)
    try:
        end_on_signals()
        yield
    finally:
        _disconnect()


def _disconnect() -> None:
    """Disconnect in bounded time: Ray's own shutdown may wait forever for a raylet that has stopped."""
    leaving = threading.Thread(target=ray.shutdown, name="ray.shutdown", daemon=True)
    leaving.start()
    leaving.join(SHUTDOWN_TIMEOUT_S)
    if leaving.is_alive():
        say(f"Ray did not shut down within {SHUTDOWN_TIMEOUT_S} s. The command ends without waiting for it.")
        atexit.unregister(ray.shutdown)


def _answers(address: str) -> None:
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    none = f"--address {address}: expected a Ray cluster that answers, found none"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S):
            pass
        if address.startswith(CLIENT):
            return  # Ray Client gives up by itself
        # something listens; Ray's own check finds out in bounded time whether it is Ray (ray.init would try
        # for minutes)
        check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        subprocess.run(check, check=True, capture_output=True, timeout=CONNECT_TIMEOUT_S)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that IDNA refuses
        raise UserError(f"{none} ({one_line(error)})") from error
    except subprocess.SubprocessError as error:
        raise UserError(
            f"{none} (the server there is not Ray, or it expects another RAY_AUTH_MODE or token)"
        ) from error


def run_tasks(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Run a function as plain Ray tasks, one for each tuple of arguments."""
    task = ray.remote(num_cpus=1)(function)
    return list(ray.get([task.remote(*each) for each in arguments]))


def dashboard_url() -> str | None:
    """Return the address of the connected cluster's dashboard, or None if there is none or the connection is
    through Ray Client.
    """
    if ray.util.client.ray.is_connected():
        return None
    url = ray.get_runtime_context().worker.node.address_info.get("webui_url")
    return f"http://{url}" if url else None


def resources() -> dict[str, int]:
    """Return the numbers of CPUs and GPUs of the connected cluster."""
    found = ray.cluster_resources()
    return {kind: int(found.get(kind, 0)) for kind in ("CPU", "GPU")}


def scales() -> bool:
    """Whether a node of the cluster has no CPUs, as is usual for the head node of a cluster that adds nodes
    on demand.
    """
    return any(node["Alive"] and not node["Resources"].get("CPU") for node in ray.nodes())


@ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)
class HostActor:
    """One process with one hosted object."""

    def __init__(self, make: Make[Any, Any], device: str):
        self.hosted = make(device)
        gc.collect()
        gc.freeze()  # objects that live as long as the process need not be scanned again and again

    def ready(self) -> None:
        """Return when the object exists."""

    def run(self, task: Any) -> tuple[Any, float]:
        """Return the object's answer to a task, and the seconds that it took."""
        started = time.perf_counter()
        return self.hosted(task), time.perf_counter() - started


class Pool(Generic[Task, Result]):
    """An executor over actors on a Ray cluster; use it inside :func:`connected`.

    actors: the number of actors for each kind of device, see ``DEVICES``. gpus: the number of GPUs for each
    actor on GPUs; a fraction lets several share one. grows: start an actor on every CPU that joins the
    cluster."""

    def __init__(
        self,
        make: Make[Task, Result],
        actors: Mapping[str, int],
        gpus: float = 1.0,
        grows: bool = False,
    ) -> None:
        self._grows = grows
        self._gpus = gpus
        self._start_timeout_s = SCALE_UP_TIMEOUT_S if scales() else START_TIMEOUT_S
        self._make = ray.put(make)  # stored once: actors read it in their constructor
        self._actors: dict[int, Any] = {}  # those that have started
        self._idle: dict[int, Slot] = {}
        self._starting: dict[Any, tuple[Any, Slot]] = {}
        self._running: dict[Any, tuple[Any, Attempt[Task]]] = {}
        self._devices: Counter[str] = Counter()
        self._started_so_far = 0
        self._failed_starts = 0
        self._looked = time.monotonic()
        self._alive = time.monotonic()  # when there was last an actor that had started
        for device, number in actors.items():
            for _ in range(number):
                self._start(device)

    def _start(self, device: str) -> None:
        slot = Slot(self._started_so_far, device)
        self._started_so_far += 1
        self._devices[device] += 1
        actor_class: Any = HostActor
        if device == "cuda":
            actor_class = actor_class.options(num_gpus=self._gpus)
        actor = actor_class.remote(self._make, DEVICES[device])
        self._starting[actor.ready.remote()] = (actor, slot)

    @property
    def devices(self) -> Mapping[str, int]:
        """The number of actors for each kind of device, including those that are starting."""
        return self._devices

    @property
    def standing(self) -> Set[int]:
        """The numbers of the actors that have started."""
        return self._actors.keys()

    def idle(self) -> list[Slot]:
        """The actors that wait for a task."""
        return list(self._idle.values())

    def clock(self) -> float:
        """The system's."""
        return time.monotonic()

    def until_ready(self) -> None:
        """Block until all actors have started."""
        while self._starting:
            done, _ = ray.wait(list(self._starting), num_returns=1, timeout=self._start_timeout_s)
            if not done:
                raise StartError(f"no actor was ready within {self._start_timeout_s} s")
            self._ready(done[0])

    def submit(self, attempt: Attempt[Task]) -> None:
        """Run a task on an idle actor."""
        actor = self._actors[self._idle.pop(attempt.slot.worker).worker]
        self._running[actor.run.remote(attempt.task)] = (actor, attempt)

    def wait(self, timeout_s: float) -> list[Event[Task, Result]]:
        """Block until a task ends or an actor becomes ready, at most for this long."""
        self._grow()
        events: list[Event[Task, Result]] = []
        references = [*self._running, *self._starting]
        done, others = ray.wait(references, num_returns=1, timeout=timeout_s) if references else ([], [])
        if done and others:  # collect other finished results too: each call takes time in proportion to all
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
                f"cluster: expected an actor to start within {self._start_timeout_s} s, found none; "
                f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs are free; wait until other "
                "jobs have ended or ask for fewer actors, and run the same command again"
            )
        return events

    def _grow(self) -> None:
        """Start an actor on every CPU that has joined."""
        if not self._grows or time.monotonic() - self._looked < GROW_EVERY_S:
            return
        self._looked = time.monotonic()
        for _ in range(resources()["CPU"] - len(self._actors) - len(self._starting)):
            self._start("cpu")

    def _ready(self, reference: Any) -> None:
        actor, slot = self._starting.pop(reference)
        try:
            ray.get(reference)
        except ray.exceptions.RayError as error:
            self._failed_starts += 1
            cause = str(error).strip()
            final = any(sign in cause for sign in ("creation task", "low on memory", "out of memory"))
            # while other actors run, a node may have been lost while its actors started: these are retried
            if final or (self._failed_starts >= MAX_FAILED_STARTS and not self._actors):
                raise StartError(f"an actor could not start: {cause.splitlines()[-1]}") from error
            self._instead_of(actor, slot.device)
        else:
            self._actors[slot.worker] = actor
            self._idle[slot.worker] = slot
            self._failed_starts = 0

    def _ended(self, reference: Any) -> Event[Task, Result]:
        _, attempt = self._running[reference]
        try:
            result, busy_s = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            mistake = error.cause if isinstance(error.cause, UserError) else None
            event: Event[Task, Result] = Failed(attempt, str(error), mistake)
        except ray.exceptions.RayError as error:  # the actor died, or its node with the result on it
            self._replace(reference)
            return Lost(attempt, " ".join(str(error).split())[:300])
        else:
            event = Done(attempt, result, busy_s)
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

    def cancel(self, attempt: Attempt[Task]) -> None:
        """Forget an attempt. If it still runs, its actor is replaced, because it may hang."""
        for reference in [
            reference for reference, (_, running) in self._running.items() if running is attempt
        ]:
            self._replace(reference)

    def close(self) -> None:
        """Kill all actors."""
        for actor in [*self._actors.values(), *(actor for actor, _ in self._starting.values())]:
            ray.kill(actor)
