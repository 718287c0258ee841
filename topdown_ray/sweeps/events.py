"""What happens in a sweep: one frozen dataclass for each kind of event, and the lines of ``--log-json``.

An :data:`Observer` is a function that is called with each event, in the thread that drives the sweep::

    def observer(event):
        if isinstance(event, Improved):
            print(event.space, event.label, event.target, event.accuracy)

``topdown_ray.sweep(..., on_event=observer)`` takes one, and trackers are observers. The fields of an event,
but those that say otherwise, are the keys of its line of JSON, beside ``time`` (UTC) and ``event``, which is
the event's ``name``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from topdown_ray.errors import UserError
from topdown_ray.sweeps.groups import Shard

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class SweepEvent:
    """What every event has: its name, and its facts."""

    name: ClassVar[str]

    @property
    def facts(self) -> dict[str, Any]:
        """The fields that are keys of the event's line of JSON."""
        names = (field.name for field in dataclasses.fields(self) if field.metadata.get("line", True))
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Connected(SweepEvent):
    """The workers' cluster is there."""

    name: ClassVar[str] = "connected"
    address: str  # as --address
    dashboard: str | None  # the address of Ray's dashboard


@dataclass(frozen=True)
class Started(SweepEvent):
    """The result folder is open, and the first shard is about to start."""

    name: ClassVar[str] = "start"
    out: str  # the result folder, without credentials
    run_id: str  # of the sweep: the same when it is continued
    searches: int  # of the whole sweep
    done: int  # of these, those that have rows already
    damaged: list[str]  # parts of the folder that were moved to damaged/


@dataclass(frozen=True)
class _OfShard(SweepEvent):
    shard_id: str
    space: str
    strategy: str
    label: str  # of the entry of strategies
    searches: int  # of the shard


@dataclass(frozen=True)
class ShardDone(_OfShard):
    """The rows of a shard are in the result folder."""

    name: ClassVar[str] = "shard"
    worker: int
    device: str  # cpu or cuda
    seconds: float  # that the worker spent on it
    done: int  # searches that have rows
    total: int  # searches of the whole sweep
    rate: float  # searches a second, of this run
    #: The shard's rows of the table ``searches``; not part of the line of JSON.
    rows: pa.Table = dataclasses.field(repr=False, compare=False, metadata={"line": False})


@dataclass(frozen=True)
class ShardRetried(_OfShard):
    """A shard raised, and will be tried again."""

    name: ClassVar[str] = "retry"
    worker: int
    error: str  # what it raised, one line


@dataclass(frozen=True)
class ShardLost(_OfShard):
    """The worker of a shard died or was replaced."""

    name: ClassVar[str] = "lost"
    worker: int
    error: str  # why, one line


@dataclass(frozen=True)
class ShardFailed(_OfShard):
    """A shard is given up: it failed too often."""

    name: ClassVar[str] = "failure"
    error: str  # the last one, one line
    command: str  # that runs exactly this shard again


@dataclass(frozen=True)
class Improved(SweepEvent):
    """The best accuracy for a space, strategy and target is better than before.

    When a sweep is continued, the best accuracies of its folder come first, right after :class:`Started`."""

    name: ClassVar[str] = "improved"
    space: str
    predictor_space: str  # that the predictor was trained on
    strategy: str
    label: str  # of the entry of strategies
    cost_name: str
    target: float  # ms, or 1e6 MACs
    limits: str | None  # the target's limits on other costs, as JSON: the column limits of searches
    accuracy: float  # predicted top-1, a fraction
    done: int  # searches that had rows by then


@dataclass(frozen=True)
class Ended(SweepEvent):
    """The sweep has ended."""

    name: ClassVar[str] = "end"
    status: str  # complete, incomplete, interrupted or error
    done: int  # searches that have rows
    total: int
    failed: int  # searches of shards that were given up
    lost: int  # worker processes that died or were replaced
    wall_s: float
    error: str | None  # what ended the sweep, one line


Observer = Callable[[SweepEvent], None]


def ignore(event: SweepEvent) -> None:
    """The observer of a sweep that nobody watches."""


def facts_of(shard: Shard) -> dict[str, Any]:
    """What every event tells of its shard."""
    group = shard.group
    return {
        "shard_id": shard.shard_id,
        "space": group.space,
        "strategy": group.strategy,
        "label": group.label,
        "searches": len(shard.search_ids),
    }


def last_line(text: str) -> str:
    """Of a traceback: what was raised."""
    return text.strip().splitlines()[-1] if text.strip() else ""


def line(event: SweepEvent) -> Mapping[str, Any]:
    """An event as a line of ``--log-json`` has it, now."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return {"time": now, "event": event.name, **event.facts}


@contextlib.contextmanager
def json_lines(where: str | None) -> Iterator[Observer]:
    """An observer that writes lines to a file (appended to), or to stderr for ``-``; None: one that ignores.

    A log that can be written no more is given up with one line on stderr: the sweep matters more. Raises
    UserError for a file that cannot be opened."""
    if where is None:
        yield ignore
        return
    if where == "-":
        stream: TextIO = sys.stderr
    else:
        try:
            stream = Path(where).open("a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise UserError(
                f"--log-json: expected a file to write to or -, found {where} ({error.strerror})"
            ) from error
    working = True

    def observe(event: SweepEvent) -> None:
        nonlocal working
        if not working:
            return
        try:
            stream.write(json.dumps(line(event)) + "\n")
            stream.flush()
        except OSError as error:
            working = False
            if where != "-":
                print(f"--log-json: {where} can no longer be written ({error.strerror})", file=sys.stderr)

    try:
        yield observe
    finally:
        if where != "-":
            with contextlib.suppress(OSError):  # what could not be written before
                stream.close()
