"""Trackers beside a sweep: opened before it starts, each told of what happens in a thread of its own.

The sweep never waits for a tracker until its end, and then for a bounded time. A tracker that fails is given
up with one line on stderr: the sweep matters more."""

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
LINGER_S = 60.0  # at the end of the sweep


@contextlib.contextmanager
def trackers(tracks: Sequence[Track], sweep: TrackedSweep) -> Iterator[list[Observer]]:
    """The observers of these trackers. Raises UserError where one cannot be opened."""
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
    """An observer that passes events on to a thread, which calls ``log`` about once a second."""
    waiting: queue.SimpleQueue[SweepEvent] = queue.SimpleQueue()
    over, given_up = threading.Event(), threading.Event()

    def loop() -> None:
        while True:
            last = over.wait(EVERY_S)
            events = [waiting.get() for _ in range(waiting.qsize())]
            try:
                if events:
                    log(events)
            except Exception as error:  # whatever it is, the sweep goes on
                given_up.set()
                say(f"{track.option}: given up ({one_line(without_secrets(str(error), track.where))})")
                return
            if last:
                return

    def observe(event: SweepEvent) -> None:
        if given_up.is_set():
            return
        if isinstance(event, ShardDone):  # no tracker needs the rows, which may be large
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
            say(f"{track.option}: given up (it did not take the last values within {LINGER_S:g} s)")
