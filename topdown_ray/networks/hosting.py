"""Ray actors that host one object and call it on one item after another; the same in this process, without
Ray.

Actors are never restarted by Ray: an item whose process died goes to a new actor, a bounded number of times;
every wait is bounded; what comes back comes in any order."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

os.environ.setdefault(
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
)  # Ray announces this default with a warning otherwise

import ray
import ray.exceptions

from topdown_ray.cluster import START_TIMEOUT_S, connected
from topdown_ray.errors import StartError, UserError

MAX_LOSSES = 3  # an item whose process died this often ends the run

Item = TypeVar("Item")
Result = TypeVar("Result")
Make = Callable[[], Callable[[Item], Result]]


@dataclass(frozen=True)
class Resources:
    """Where the hosted object runs."""

    address: str = "local"  # none: in this process
    actors: int | None = None  # None: as many as the cluster has CPUs, or GPUs by ``gpus``
    gpus: float = 0.0  # of one actor; a fraction lets several share a GPU

    def check(self) -> None:
        """Raise UserError where the numbers make no sense."""
        if not 0 <= self.gpus <= 64 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise UserError(
                f"--gpus: expected a fraction of a GPU, or a whole number of them, found {self.gpus:g}"
            )
        if self.address == "none" and (self.actors or 1) != 1:
            raise UserError(f"--actors: expected 1 with --address none, found {self.actors}")


@ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)
class HostActor:
    """One process with one hosted object."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]):
        self.hosted = make()
        gc.collect()
        gc.freeze()  # what stands for good is not searched again each time a subnet is let go of

    def ready(self) -> int:
        """Answer once the object stands."""
        return os.getpid()

    def call(self, item: Any) -> Any:
        """The object's answer to an item."""
        return self.hosted(item)


def map_hosted(
    make: Make[Item, Result], items: Sequence[Item], resources: Resources
) -> Iterator[tuple[Item, Result]]:
    """Call what ``make`` gives on every item: (item, result) as they come. Raises what a call raised,
    StartError, UserError.
    """
    resources.check()
    if not items:
        return
    if resources.address == "none":
        hosted = make()
        for item in items:
            yield item, hosted(item)
        return
    with connected(resources.address):
        pool: _Pool[Item, Result] = _Pool(make, items, resources)
        try:
            yield from pool.results()
        finally:
            pool.close()


class _Pool(Generic[Item, Result]):
    """One item in flight an actor, so that a death is blamed on the right item."""

    def __init__(self, make: Make[Item, Result], items: Sequence[Item], resources: Resources):
        total = ray.cluster_resources()
        cpus, gpus = int(total.get("CPU", 0)), float(total.get("GPU", 0))
        if resources.gpus > gpus:
            raise UserError(
                f"--gpus: expected at most {gpus:g}, the GPUs of the cluster, found {resources.gpus:g}"
            )
        most = min(cpus, int(gpus / resources.gpus) if resources.gpus else cpus)
        if (resources.actors or 1) > most:
            raise UserError(
                f"--actors: expected at most {most}, for which the cluster has room, found "
                f"{resources.actors or 1}"
            )
        self._queue: deque[int] = deque(range(len(items)))
        self._items = items
        self._capacity = min(resources.actors or most, len(items))
        self._made = ray.put(make)
        self._remote = HostActor.options(num_gpus=resources.gpus)  # type: ignore[attr-defined]
        self._starting: dict[Any, Any] = {}
        self._running: dict[Any, tuple[Any, int]] = {}
        self._losses: Counter[int] = Counter()
        self._failed_starts = 0
        for _ in range(self._capacity):
            self._start()

    def _start(self) -> None:
        actor = self._remote.remote(self._made)
        self._starting[actor.ready.remote()] = actor

    def results(self) -> Iterator[tuple[Item, Result]]:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._queue or self._running:
            done, _ = ray.wait([*self._running, *self._starting], num_returns=1, timeout=5)
            if not self._running and not done and time.monotonic() > deadline:
                raise StartError(
                    f"no actor was ready within {START_TIMEOUT_S} s; the cluster has "
                    f"{ray.available_resources()} free"
                )
            for reference in done:
                deadline = time.monotonic() + START_TIMEOUT_S
                if reference in self._starting:
                    self._started(reference)
                    continue
                actor, index = self._running.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, UserError) else error from None
                except ray.exceptions.RayError as error:  # its process, its node or its memory is gone
                    self._lost(actor, index, error)
                    continue
                self._next(actor)
                yield self._items[index], result

    def _next(self, actor: Any) -> None:
        if self._queue:
            index = self._queue.popleft()
            self._running[actor.call.remote(self._items[index])] = (actor, index)
        else:
            ray.kill(actor)

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            ray.get(reference)
        except ray.exceptions.RayError as error:
            self._failed_starts += 1
            cause = str(error).strip()
            if "creation task" in cause or self._failed_starts > MAX_LOSSES:
                raise StartError(f"an actor could not start: {cause.splitlines()[-1]}") from error
            self._start()
            return
        self._next(actor)

    def _lost(self, actor: Any, index: int, error: Exception) -> None:
        ray.kill(actor)
        self._losses[index] += 1
        if self._losses[index] >= MAX_LOSSES:
            reason = " ".join(str(error).split())[:300]
            raise StartError(
                f"{self._items[index]}: its process died {MAX_LOSSES} times: {reason}"
            ) from error
        self._queue.appendleft(index)
        self._start()

    def close(self) -> None:
        """Kill all actors."""
        for actor in [*self._starting.values(), *(actor for actor, _ in self._running.values())]:
            ray.kill(actor)
