"""What happens in a sweep, for machines: one JSON object a line, as it happens (``--log-json``).

Every line has ``time`` (UTC) and ``event``; the other keys are those of :data:`EVENTS`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from topdown_ray.errors import UserError
from topdown_ray.sweeps.groups import Shard

_SHARD = ("shard_id", "space", "strategy", "label", "searches")

#: The events and their keys.
EVENTS = {
    "connected": ("address", "dashboard"),
    "start": ("out", "run_id", "searches", "done", "damaged"),
    "shard": (*_SHARD, "worker", "device", "seconds", "done", "total", "rate"),
    "retry": (*_SHARD, "worker", "error"),  # it raised and is tried again
    "lost": (*_SHARD, "worker", "error"),  # its worker died or was replaced
    "failure": (*_SHARD, "error", "command"),  # it is given up
    "end": ("status", "done", "total", "failed", "lost", "wall_s", "error"),
}

Observer = Callable[[str, Mapping[str, Any]], None]


def ignore(event: str, facts: Mapping[str, Any]) -> None:
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

    def observe(event: str, facts: Mapping[str, Any]) -> None:
        nonlocal working
        if not working:
            return
        wrong = set(facts).symmetric_difference(EVENTS[event])
        assert not wrong, f"{event}: {sorted(wrong)}"
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        try:
            stream.write(json.dumps({"time": now, "event": event, **facts}) + "\n")
            stream.flush()
        except OSError as error:
            working = False
            if where != "-":
                print(f"--log-json: {where} cannot be written any more ({error.strerror})", file=sys.stderr)

    try:
        yield observe
    finally:
        if where != "-":
            with contextlib.suppress(OSError):  # what could not be written before
                stream.close()
