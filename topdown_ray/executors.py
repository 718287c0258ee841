"""What runs shards, as the driver sees it: submit, wait for events. Here the one that needs no Ray."""

from __future__ import annotations

import traceback
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from topdown_ray.runner import Worker
from topdown_ray.spec import Shard
from topdown_ray.store import to_tables


@dataclass(frozen=True)
class Done:
    """A shard's rows are here."""

    shard: Shard
    searches: pa.Table
    trace: pa.Table


@dataclass(frozen=True)
class Failed:
    """A shard raised."""

    shard: Shard
    traceback: str


@dataclass(frozen=True)
class Lost:
    """The process that ran a shard died."""

    shard: Shard
    reason: str


Event = Done | Failed | Lost


class Executor(Protocol):
    """Runs shards; keeps at most ``capacity`` of them busy."""

    capacity: int
    info: dict[str, Any]  # of a worker: where its supernets' weights come from

    def submit(self, shard: Shard) -> None:
        """Take a shard."""

    def wait(self) -> list[Event]:
        """Block until something happened to a shard."""

    def close(self) -> None:
        """Stop all work."""


class InProcess:
    """Runs shards one after another in this process (``--address none``)."""

    capacity = 1

    def __init__(self, run_id: str, worker: Worker):
        self.run_id = run_id
        self.worker = worker
        self.info = {"weights": worker.weights, "host": worker.host}
        self._queue: deque[Shard] = deque()

    def submit(self, shard: Shard) -> None:
        """Take a shard."""
        self._queue.append(shard)

    def wait(self) -> list[Event]:
        """Run the next shard."""
        shard = self._queue.popleft()
        try:
            return [Done(shard, *to_tables(self.run_id, *self.worker.run(shard)))]
        except Exception:
            return [Failed(shard, traceback.format_exc())]

    def close(self) -> None:
        """Nothing runs between two calls."""
