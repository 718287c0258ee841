"""What runs shards, as the driver sees it: which workers are free, submit, wait for events. Here the one that
needs no Ray.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from topdown_ray.store.schema import to_tables
from topdown_ray.sweeps.runner import Worker
from topdown_ray.sweeps.spec import Shard


@dataclass(frozen=True)
class Slot:
    """A worker: its number, never used twice, and the kind of device that it computes on."""

    worker: int
    device: str


@dataclass(frozen=True, eq=False)
class Attempt:
    """One of the times that a shard runs, on one worker."""

    shard: Shard
    slot: Slot


@dataclass(frozen=True)
class Done:
    """A shard's rows are here. busy_s: seconds that the worker spent on them."""

    attempt: Attempt
    searches: pa.Table
    trace: pa.Table
    busy_s: float


@dataclass(frozen=True)
class Failed:
    """A shard raised."""

    attempt: Attempt
    traceback: str


@dataclass(frozen=True)
class Lost:
    """The process that ran a shard died."""

    attempt: Attempt
    reason: str


Event = Done | Failed | Lost


class Executor(Protocol):
    """Workers that each run one shard at a time."""

    info: dict[str, Any]  # of a worker: where its supernets' weights come from

    @property
    def devices(self) -> Mapping[str, int]:
        """How many workers of each kind of device there are or will be, those that still start included."""

    @property
    def standing(self) -> Set[int]:
        """The numbers of the workers that have started."""

    def idle(self) -> list[Slot]:
        """The workers that wait for a shard."""

    def clock(self) -> float:
        """Seconds, by the clock that shards take time on."""

    def submit(self, attempt: Attempt) -> None:
        """Start a shard on an idle worker."""

    def wait(self, timeout_s: float) -> list[Event]:
        """Block until something happened to a shard or a worker became idle, or for this long."""

    def cancel(self, attempt: Attempt) -> None:
        """Forget an attempt: if it still runs, its worker, which may hang, is replaced."""

    def close(self) -> None:
        """Stop all work."""


class InProcess:
    """Runs shards one after another in this process (``--address none``)."""

    devices: Mapping[str, int] = {"cpu": 1}
    standing: Set[int] = frozenset({0})

    def __init__(self, run_id: str, worker: Worker):
        self.run_id = run_id
        self.worker = worker
        self.info: dict[str, Any] = {"weights": worker.weights, "host": worker.host}
        self._queue: deque[Attempt] = deque()

    def idle(self) -> list[Slot]:
        """This process, between two shards."""
        return [] if self._queue else [Slot(0, self.worker.device)]

    def clock(self) -> float:
        """The system's."""
        return time.monotonic()

    def submit(self, attempt: Attempt) -> None:
        """Take a shard."""
        self._queue.append(attempt)

    def wait(self, timeout_s: float) -> list[Event]:
        """Run the shard that was submitted."""
        if not self._queue:
            return []
        attempt, started = self._queue.popleft(), time.perf_counter()
        try:
            tables = to_tables(self.run_id, *self.worker.run(attempt.shard))
        except Exception:
            return [Failed(attempt, traceback.format_exc())]
        return [Done(attempt, *tables, time.perf_counter() - started)]

    def cancel(self, attempt: Attempt) -> None:
        """Nothing runs between two calls."""

    def close(self) -> None:
        """Nothing runs between two calls."""
