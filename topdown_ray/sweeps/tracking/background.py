"""Run trackers next to a sweep: open them before it starts, and pass the events to each one in its own
thread.

The sweep never waits for a tracker before its end, and then only for a bounded time. If a tracker fails, its
logging stops with one line on stderr, and the sweep continues.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from topdown_ray.addresses import without_secrets
from topdown_ray.errors import one_line
from topdown_ray.sweeps.events import Observer, ShardDone, SweepEvent
from topdown_ray.sweeps.tracking.facts import Log, TrackedSweep
from topdown_ray.sweeps.tracking.options import Track
from topdown_ray.terminal import say

EVERY_S = 1.0
LINGER_S = 60.0  # longest wait for a tracker at the end of the sweep


@contextlib.contextmanager
def trackers(tracks: Sequence[Track], sweep: TrackedSweep) -> Iterator[list[Observer]]:
    """Open these trackers and yield their observers. Raises UserError if one cannot be opened."""
    with contextlib.ExitStack() as stack:
        opened = [(track, stack.enter_context(_open(track, sweep))) for track in tracks]
        yield [stack.enter_context(_in_background(track, log)) for track, log in opened]


def _open(track: Track, sweep: TrackedSweep) -> AbstractContextManager[Log]:
    if track.kind == "tensorboard":
        from topdown_ray.sweeps.tracking.tensorboard import tensorboard_folder

        return tensorboard_folder(track, sweep)
    from topdown_ray.sweeps.tracking.mlflow import mlflow_run

    return mlflow_run(track, sweep)


@contextlib.contextmanager
def _in_background(track: Track, log: Log) -> Iterator[Observer]:
    """Return an observer that passes events on to a thread, which calls ``log`` about once a second."""
    waiting: queue.SimpleQueue[SweepEvent] = queue.SimpleQueue()
    over, given_up = threading.Event(), threading.Event()

    def loop() -> None:
        while True:
            last = over.wait(EVERY_S)
            events = [waiting.get() for _ in range(waiting.qsize())]
            try:
                if events:
                    log(events)
            except Exception as error:  # a tracker must not stop the sweep
                given_up.set()
                say(f"{track.option}: logging stopped ({one_line(without_secrets(str(error), track.where))})")
                return
            if last:
                return

    def observe(event: SweepEvent) -> None:
        if given_up.is_set():
            return
        if isinstance(event, ShardDone):  # trackers do not need the rows, which may be large
            event = dataclasses.replace(event, rows=event.rows.schema.empty_table())
        waiting.put(event)

    thread = threading.Thread(target=loop, name=f"track {track.kind}", daemon=True)
    thread.start()
    try:
        yield observe
    finally:
        over.set()
        thread.join(LINGER_S)
        if thread.is_alive():
            say(f"{track.option}: logging stopped (it did not accept the last values within {LINGER_S:g} s)")
