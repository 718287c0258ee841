"""Dispatch shards to workers, and handle retries, lost workers, and shards that take too long.

Work is pulled: a free worker gets the next shard, one at a time. Memory therefore does not grow with the
sweep, and a worker that dies counts against the right shard. A shard that raised goes to a worker that has
not tried it. A shard that takes a multiple of its peers' time is started a second time elsewhere. The first
result counts, and the other worker, which may hang, is replaced. A search's result does not depend on where
it ran, so it does not matter which of the two is first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from topdown_ray.sweeps.groups import Shard
from topdown_ray.sweeps.pending import Pending
from topdown_ray.sweeps.sizing import Speeds, batch_size
from topdown_ray.tasks import FAILURES, LOSSES, Attempt, Slot, Tries


@dataclass(frozen=True)
class Limits:
    """How long and how often a shard may be tried. The peers of a shard are shards of the same strategy in
    the same space on the same device.
    """

    failures: int = FAILURES  # a shard that raised this many times is given up
    losses: int = LOSSES  # a shard whose process died this many times is given up
    overdue: float = 4.0  # multiple of its peers' time after which a shard is also started elsewhere
    overdue_floor_s: float = 15.0  # but not before this many seconds
    # until a peer has finished: multiple of the estimated time after which an idle worker starts a copy
    unmeasured: float = 20.0
    unmeasured_floor_s: float = 120.0  # but not before this many seconds
    # multiple of the overdue time after which the worker is replaced, even if no other worker is free
    hung: float = 3.0


Flight = Tries[Shard]  # a shard that was taken from the pending ones and has no rows yet


class Dispatch:
    """The shards in flight. batch: number of searches in a shard, or None to derive it from the measured
    speed.
    """

    def __init__(self, pending: Pending, batch: int | None, limits: Limits):
        self.speeds = Speeds()
        self._pending = pending
        self._batch = batch
        self._limits = limits
        self._flights: dict[str, Flight] = {}
        self._again: deque[Flight] = deque()

    @property
    def finished(self) -> bool:
        """Whether nothing runs, waits or is pending."""
        return not self._flights and self._pending.group is None

    @property
    def waiting(self) -> bool:
        """Whether there is work for a free worker."""
        return bool(self._again) or self._pending.group is not None

    def next(
        self, slot: Slot, workers: Mapping[str, int], standing: Set[int], now: float
    ) -> Attempt[Shard] | None:
        """Return what a free worker does next: a shard to try again that it has not tried, else a new one,
        else None.
        """
        for flight in self._again:
            if flight.suits(slot, standing):
                self._again.remove(flight)
                flight.queued = False
                return flight.start(slot, now)
        group = self._pending.group
        if group is None:
            return None
        size = self._batch
        if size is None:
            each, left = self._pending.evaluations_of(group), self._pending.evaluations
            size = batch_size(self.speeds, slot.device, group, each, left, workers)
        flight = Flight(self._pending.take(size))
        self._flights[flight.task.shard_id] = flight
        return flight.start(slot, now)

    def started(self, attempt: Attempt[Shard]) -> float:
        """Return when a running attempt began."""
        return self._flights[attempt.task.shard_id].attempts[attempt]

    def running(self, attempt: Attempt[Shard]) -> bool:
        """Whether an attempt still counts, which it does not if another attempt at the same shard was
        first.
        """
        flight = self._flights.get(attempt.task.shard_id)
        return flight is not None and attempt in flight.attempts

    def done(self, attempt: Attempt[Shard], busy_s: float) -> list[Attempt[Shard]]:
        """Record that a shard has rows. Return the attempts at it that still run, which are to be
        cancelled.
        """
        shard = attempt.task
        evaluations = len(shard.seeds) * self._pending.evaluations_of(shard.group)
        self.speeds.record(attempt.slot.device, shard.group, evaluations, busy_s)
        flight = self._flights.pop(shard.shard_id)
        if flight.queued:
            self._again.remove(flight)
        return [other for other in flight.attempts if other is not attempt]

    def failed(self, attempt: Attempt[Shard]) -> bool:
        """Record that a shard raised. Return whether it is given up."""
        flight = self._flights[attempt.task.shard_id]
        flight.failures += 1
        return self._ended(flight, attempt, flight.failures >= self._limits.failures)

    def lost(self, attempt: Attempt[Shard]) -> bool:
        """Record that a shard's worker died or was replaced. Return whether the shard is given up."""
        flight = self._flights[attempt.task.shard_id]
        flight.losses += 1
        return self._ended(flight, attempt, flight.losses >= self._limits.losses)

    def _ended(self, flight: Flight, attempt: Attempt[Shard], exhausted: bool) -> bool:
        del flight.attempts[attempt]
        if flight.attempts:
            return False  # its copy may still succeed
        if exhausted:
            del self._flights[flight.task.shard_id]
            if flight.queued:
                self._again.remove(flight)
            return True
        if not flight.queued:
            flight.queued = True
            self._again.append(flight)
        return False

    def hung(self, now: float) -> Iterator[Attempt[Shard]]:
        """Queue overdue shards for another worker. Yield the attempts that hang, whose workers are to be
        replaced.
        """
        youngest = min(self._limits.overdue_floor_s, self._limits.unmeasured_floor_s)
        for flight in list(self._flights.values()):
            if now - min(flight.attempts.values(), default=now) <= youngest:
                continue
            allowed, measured = self._allowed_s(flight)
            for attempt, started in list(flight.attempts.items()):
                if measured and now - started > allowed * self._limits.hung:
                    yield attempt
                elif now - started > allowed and len(flight.attempts) == 1 and not flight.queued:
                    flight.queued = True
                    self._again.append(flight)

    def _allowed_s(self, flight: Flight) -> tuple[float, bool]:
        """Return the seconds after which a shard is overdue, and whether they are known from its peers. A
        guess never replaces a worker.
        """
        shard, limits = flight.task, self._limits
        evaluations = len(shard.seeds) * self._pending.evaluations_of(shard.group)
        devices = [attempt.slot.device for attempt in flight.attempts]
        measured = [
            peer for device in devices if (peer := self.speeds.of_peers(device, shard.group)) is not None
        ]
        if measured:
            return max(limits.overdue_floor_s, limits.overdue * max(measured) * evaluations), True
        if self._pending.group is not None or not devices:
            return math.inf, False
        guess = max(self.speeds.of(device, shard.group) for device in devices)
        return max(limits.unmeasured_floor_s, limits.unmeasured * guess * evaluations), False
