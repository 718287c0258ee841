"""Define the events of a sweep, one frozen dataclass for each kind, and write the lines of ``--log-json``.

An observer is a function that is called with each event, in the thread that drives the sweep. Pass it to
`topdown_ray.sweep` as `on_event`:

    def observer(event):
        if isinstance(event, topdown_ray.events.Improved):
            print(event.space, event.label, event.target, event.accuracy)

Trackers are observers, too. `sweep --log-json` writes each event as a line of JSON with the keys `time`
(UTC), `event` (the event's `name`) and the fields of the event, except for `ShardDone.rows`.
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
    """The base of all events."""

    name: ClassVar[str]
    """Name of the event in lines of JSON."""

    @property
    def facts(self) -> dict[str, Any]:
        """The fields of the event that are keys of its line of JSON."""
        names = (field.name for field in dataclasses.fields(self) if field.metadata.get("line", True))
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Connected(SweepEvent):
    """The sweep has connected to Ray, or will run in this process (`address` is `none`)."""

    name: ClassVar[str] = "connected"
    address: str
    """The address, as in `--address`."""
    dashboard: str | None
    """The address of Ray's dashboard, if there is one."""


@dataclass(frozen=True)
class Started(SweepEvent):
    """The result folder is open, and the first shard is about to start."""

    name: ClassVar[str] = "start"
    out: str
    """The result folder, without credentials."""
    run_id: str
    """The identity of the sweep, which stays the same when you continue it."""
    searches: int
    """Number of searches of the sweep, or of those that `--only` names."""
    done: int
    """Number of these searches that already have rows."""
    damaged: list[str]
    """Parts of the folder that were moved to `damaged/`."""


@dataclass(frozen=True)
class ShardEvent(SweepEvent):
    """The base of the events of a shard."""

    shard_id: str
    """The identity of the shard."""
    space: str
    """The design space of its searches."""
    strategy: str
    """The strategy of its searches."""
    label: str
    """The label of the entry of `strategies`."""
    searches: int
    """Number of searches of the shard."""


@dataclass(frozen=True)
class ShardDone(ShardEvent):
    """The rows of a shard are in the result folder."""

    name: ClassVar[str] = "shard"
    worker: int
    """The number that identifies the actor that ran the shard."""
    device: str
    """Device of the actor: `cpu` or `cuda`."""
    seconds: float
    """Seconds that the actor spent on the shard."""
    done: int
    """Number of searches that have rows."""
    total: int
    """Number of searches of the sweep, or of those that `--only` names."""
    rate: float
    """Searches per second in this run."""
    rows: pa.Table = dataclasses.field(repr=False, compare=False, metadata={"line": False})
    """The rows of the shard in the table `searches`. They are not part of the line of JSON."""


@dataclass(frozen=True)
class ShardRetried(ShardEvent):
    """A shard raised an exception and will be tried again."""

    name: ClassVar[str] = "retry"
    worker: int
    """The number that identifies the actor that ran the shard."""
    error: str
    """The exception, in one line."""


@dataclass(frozen=True)
class ShardLost(ShardEvent):
    """The actor of a shard died or was replaced."""

    name: ClassVar[str] = "lost"
    worker: int
    """The number that identifies the actor."""
    error: str
    """The reason, in one line."""


@dataclass(frozen=True)
class ShardFailed(ShardEvent):
    """A shard failed permanently: it will not be tried again in this run."""

    name: ClassVar[str] = "failure"
    error: str
    """The last exception, in one line."""
    command: str
    """The command that runs exactly this shard again."""


@dataclass(frozen=True)
class Improved(SweepEvent):
    """The best accuracy for a space, strategy and target is better than before.

    When you continue a sweep, the best accuracies of its folder come first, right after `Started`."""

    name: ClassVar[str] = "improved"
    space: str
    """The design space."""
    predictor_space: str
    """The space that the predictor was trained on."""
    strategy: str
    """The strategy."""
    label: str
    """The label of the entry of `strategies`."""
    cost_name: str
    """The name of the cost."""
    target: float
    """The target, in the unit of the cost."""
    limits: str | None
    """The limits of the target on other costs, as JSON, as in the column `limits` of `searches`."""
    accuracy: float
    """Predicted top-1 accuracy, a fraction."""
    done: int
    """Number of searches that had rows by then."""


@dataclass(frozen=True)
class Ended(SweepEvent):
    """The sweep has ended, successfully or not."""

    name: ClassVar[str] = "end"
    status: str
    """`complete`, `incomplete`, `interrupted` or `error`."""
    done: int
    """Number of searches that have rows."""
    total: int
    """Number of searches of the sweep, or of those that `--only` names."""
    failed: int
    """Number of searches of shards that failed permanently."""
    lost: int
    """Number of actors that died or were replaced."""
    wall_s: float
    """Wall time of this run, in seconds."""
    error: str | None
    """The error that ended the sweep, in one line."""


Observer = Callable[[SweepEvent], None]
"""A function that is called with each event, in the thread that drives the sweep."""


def ignore(event: SweepEvent) -> None:
    """Ignore an event."""


def facts_of(shard: Shard) -> dict[str, Any]:
    """Return the fields of :class:`ShardEvent` for a shard."""
    group = shard.group
    return {
        "shard_id": shard.shard_id,
        "space": group.space,
        "strategy": group.strategy,
        "label": group.label,
        "searches": len(shard.search_ids),
    }


def last_line(text: str) -> str:
    """Return the last line of a traceback, which names the exception."""
    return text.strip().splitlines()[-1] if text.strip() else ""


def line(event: SweepEvent) -> Mapping[str, Any]:
    """Return an event with the current time, as in a line of ``--log-json``."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return {"time": now, "event": event.name, **event.facts}


@contextlib.contextmanager
def json_lines(where: str | None) -> Iterator[Observer]:
    """Yield an observer that appends lines of JSON to a file, or writes them to stderr for ``-``. None gives
    an observer that ignores events.

    If the log cannot be written any more, the sweep prints one line on stderr and continues without it.
    Raises UserError for a file that cannot be opened.
    """
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
                problem = f"{where} can no longer be written ({error.strerror})"
                print(f"--log-json: {problem}; the sweep continues without it", file=sys.stderr)

    try:
        yield observe
    finally:
        if where != "-":
            with contextlib.suppress(OSError):  # what could not be written before
                stream.close()
