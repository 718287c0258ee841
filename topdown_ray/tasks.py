"""Tasks for hosted objects: what an executor does, the one without Ray, how often a task is tried.

A worker hosts what ``make(device)`` gives and calls it on one task at a time, so that a death is blamed on
the right task. A task that raises is tried on other workers where there are any, a task whose process died is
tried again, both a bounded number of times; then it is given up, and the others go on."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from topdown_ray.errors import UserError

FAILURES = 3  # a task that raised this often is given up
LOSSES = 5  # a task whose process died this often is given up
LOOK_EVERY_S = 1.0  # for tasks that take too long
HUNG = 10.0  # times the slowest of the others: the worker of a task is replaced
HUNG_FLOOR_S = 600.0  # but not before

Task = TypeVar("Task")
Result = TypeVar("Result")

#: Makes what a worker hosts, on a device of torch.
Make = Callable[[str], Callable[[Task], Result]]


@dataclass(frozen=True)
class Slot:
    """A worker: its number, never used twice, and the kind of device that it computes on."""

    worker: int
    device: str


@dataclass(frozen=True, eq=False)
class Attempt(Generic[Task]):
    """One of the times that a task runs, on one worker."""

    task: Task
    slot: Slot


@dataclass(frozen=True)
class Done(Generic[Task, Result]):
    """A task's result is here. busy_s: seconds that the worker spent on it."""

    attempt: Attempt[Task]
    result: Result
    busy_s: float


@dataclass(frozen=True)
class Failed(Generic[Task]):
    """A task raised. mistake: what it raised, where that is the user's mistake."""

    attempt: Attempt[Task]
    traceback: str
    mistake: UserError | None = None


@dataclass(frozen=True)
class Lost(Generic[Task]):
    """The process that ran a task died."""

    attempt: Attempt[Task]
    reason: str


Event = Done[Task, Result] | Failed[Task] | Lost[Task]


class Executor(Protocol[Task, Result]):
    """Workers that each run one task at a time."""

    @property
    def devices(self) -> Mapping[str, int]:
        """How many workers of each kind of device there are or will be, those that still start included."""

    @property
    def standing(self) -> Set[int]:
        """The numbers of the workers that have started."""

    def idle(self) -> list[Slot]:
        """The workers that wait for a task."""

    def clock(self) -> float:
        """Seconds, by the clock that tasks take time on."""

    def submit(self, attempt: Attempt[Task]) -> None:
        """Start a task on an idle worker."""

    def wait(self, timeout_s: float) -> list[Event[Task, Result]]:
        """Block until something happened to a task or a worker became idle, or for this long."""

    def cancel(self, attempt: Attempt[Task]) -> None:
        """Forget an attempt: if it still runs, its worker, which may hang, is replaced."""

    def close(self) -> None:
        """Stop all work."""


class InProcess(Generic[Task, Result]):
    """Runs tasks one after another in this process (``--address none``)."""

    standing: Set[int] = frozenset({0})

    def __init__(self, hosted: Callable[[Task], Result], device: str = "cpu"):
        self.hosted = hosted
        self.devices: Mapping[str, int] = {device: 1}
        self._slot = Slot(0, device)
        self._queue: deque[Attempt[Task]] = deque()

    def idle(self) -> list[Slot]:
        """This process, between two tasks."""
        return [] if self._queue else [self._slot]

    def clock(self) -> float:
        """The system's."""
        return time.monotonic()

    def submit(self, attempt: Attempt[Task]) -> None:
        """Take a task."""
        self._queue.append(attempt)

    def wait(self, timeout_s: float) -> list[Event[Task, Result]]:
        """Run the task that was submitted."""
        if not self._queue:
            return []
        attempt, started = self._queue.popleft(), time.perf_counter()
        try:
            result = self.hosted(attempt.task)
        except Exception as error:
            mistake = error if isinstance(error, UserError) else None
            return [Failed(attempt, traceback.format_exc(), mistake)]
        return [Done(attempt, result, time.perf_counter() - started)]

    def cancel(self, attempt: Attempt[Task]) -> None:
        """Nothing runs between two calls."""

    def close(self) -> None:
        """Nothing runs between two calls."""


@dataclass(eq=False)
class Tries(Generic[Task]):
    """A task that was taken and has no result yet: where it runs, and what became of it so far."""

    task: Task
    attempts: dict[Attempt[Task], float] = field(default_factory=dict)  # running: when each began
    tried: set[int] = field(default_factory=set)  # workers
    failures: int = 0
    losses: int = 0
    queued: bool = False  # waits for another worker

    def start(self, slot: Slot, now: float) -> Attempt[Task]:
        """Begin an attempt."""
        attempt = Attempt(self.task, slot)
        self.attempts[attempt] = now
        self.tried.add(slot.worker)
        return attempt

    def suits(self, slot: Slot, standing: Set[int]) -> bool:
        """Whether a worker has not tried the task, or there is none that has not."""
        return slot.worker not in self.tried or standing <= self.tried


@dataclass(frozen=True)
class GivenUp(Generic[Task]):
    """A task that finally failed. error: the last traceback, or how its last process was lost."""

    task: Task
    error: str


def run_all(
    executor: Executor[Task, Result], tasks: Iterable[Task]
) -> Iterator[Done[Task, Result] | GivenUp[Task]]:
    """What becomes of each task, in the order in which they end. Raises the first UserError that a task
    raises: a mistake of the user's would be one on every worker.

    Once a task has ended, no other may run for more than a multiple of the longest time: its worker is
    replaced, as if its process had died."""
    new, again = deque(tasks), deque[Tries[Task]]()
    running: dict[Attempt[Task], Tries[Task]] = {}
    longest = float("inf")
    while new or again or running:
        for slot in executor.idle():
            tries = next((each for each in again if each.suits(slot, executor.standing)), None)
            if tries is not None:
                again.remove(tries)
            elif new:
                tries = Tries(new.popleft())
            else:
                continue
            attempt = tries.start(slot, executor.clock())
            running[attempt] = tries
            executor.submit(attempt)
        events = executor.wait(LOOK_EVERY_S)
        now = executor.clock()
        ended = {event.attempt for event in events}
        for attempt, tries in running.items():
            ran_s = now - tries.attempts[attempt]
            if attempt not in ended and ran_s > max(HUNG_FLOOR_S, HUNG * longest):
                executor.cancel(attempt)
                events.append(Lost(attempt, f"took more than {ran_s:.0f} s, many times the others' time"))
        for event in events:
            if (found := running.pop(event.attempt, None)) is None:
                continue
            if isinstance(event, Done):
                longest = max(event.busy_s, longest if longest < float("inf") else 0.0)
                yield event
            elif (error := _after(found, event)) is not None:
                yield GivenUp(found.task, error)
            else:
                again.append(found)


def _after(tries: Tries[Task], event: Failed[Task] | Lost[Task]) -> str | None:
    """Count a failure or a loss. Returns the error where it was the last, raises a mistake of the user's."""
    del tries.attempts[event.attempt]
    if isinstance(event, Lost):
        tries.losses += 1
        return f"its process died {LOSSES} times: {event.reason}" if tries.losses >= LOSSES else None
    if event.mistake is not None:
        raise event.mistake
    tries.failures += 1
    return event.traceback if tries.failures >= FAILURES else None
