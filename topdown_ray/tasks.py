"""Define how executors run tasks, run them in this process without Ray, and decide when to retry one.

A worker hosts the object that ``make(device)`` returns and calls it on one task at a time, so that its death
is attributed to the right task. A task that raises an exception is tried on other workers if there are any,
and a task whose process died is tried again. After a fixed number of attempts it is given up, and the other
tasks continue."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from topdown_ray.errors import UserError

FAILURES = 3  # give up a task that raised this often
LOSSES = 5  # give up a task whose process died this often
LOOK_EVERY_S = 1.0  # how often to look for tasks that take too long
HUNG = 10.0  # replace the worker of a task that takes this many times as long as the slowest of the others
HUNG_FLOOR_S = 600.0  # but not before this time

Task = TypeVar("Task")
Result = TypeVar("Result")

#: Makes the object that a worker hosts, on a device of torch.
Make = Callable[[str], Callable[[Task], Result]]


@dataclass(frozen=True)
class Slot:
    """A worker: its number, which is never used twice, and the kind of device that it computes on."""

    worker: int
    device: str


@dataclass(frozen=True, eq=False)
class Attempt(Generic[Task]):
    """One attempt to run a task on one worker."""

    task: Task
    slot: Slot


@dataclass(frozen=True)
class Done(Generic[Task, Result]):
    """A task has ended with a result. busy_s: seconds that the worker spent on it."""

    attempt: Attempt[Task]
    result: Result
    busy_s: float


@dataclass(frozen=True)
class Failed(Generic[Task]):
    """A task raised an exception. mistake: the exception, if it is a UserError."""

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
        """The number of workers for each kind of device, including those that are starting."""

    @property
    def standing(self) -> Set[int]:
        """The numbers of the workers that have started."""

    def idle(self) -> list[Slot]:
        """The workers that wait for a task."""

    def clock(self) -> float:
        """Seconds by the clock that measures how long tasks run."""

    def submit(self, attempt: Attempt[Task]) -> None:
        """Start a task on an idle worker."""

    def wait(self, timeout_s: float) -> list[Event[Task, Result]]:
        """Block until a task ends or a worker becomes idle, at most for this long."""

    def cancel(self, attempt: Attempt[Task]) -> None:
        """Forget an attempt. If it still runs, its worker is replaced, because it may hang."""

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
    """A task without a result yet: where it runs, and how its attempts have ended so far."""

    task: Task
    attempts: dict[Attempt[Task], float] = field(default_factory=dict)  # running ones, with their start
    tried: set[int] = field(default_factory=set)  # the workers that have tried it
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
        """Whether this worker has not tried the task yet, or all workers have."""
        return slot.worker not in self.tried or standing <= self.tried


@dataclass(frozen=True)
class GivenUp(Generic[Task]):
    """A task that failed permanently. error: the last traceback, or how its last process was lost."""

    task: Task
    error: str


def run_all(
    executor: Executor[Task, Result], tasks: Iterable[Task]
) -> Iterator[Done[Task, Result] | GivenUp[Task]]:
    """Yield the outcome of each task, in the order in which they end. Raises the first UserError of a task,
    because a user's mistake would fail on every worker.

    When some tasks have ended, another one may run at most a multiple of the longest time so far. Then its
    worker is replaced, as if its process had died."""
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
                events.append(
                    Lost(attempt, f"it ran for more than {ran_s:.0f} s, many times as long as the others")
                )
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
    """Count a failure or a loss. Returns the error if the task is given up, and raises a user's mistake."""
    del tries.attempts[event.attempt]
    if isinstance(event, Lost):
        tries.losses += 1
        error = f"its process died or was replaced {LOSSES} times, most recently: {event.reason}"
        return error if tries.losses >= LOSSES else None
    if event.mistake is not None:
        raise event.mistake
    tries.failures += 1
    return event.traceback if tries.failures >= FAILURES else None
