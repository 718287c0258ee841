"""Print the results of ``topdown-ray status``."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from topdown_ray.cli.present.tables import print_json, table_of
from topdown_ray.errors import one_line
from topdown_ray.terminal import terminal

if TYPE_CHECKING:
    from topdown_ray.sweeps.status import GroupStatus, Status


def print_updates(updates: Iterator[Status], live: bool, as_json: bool) -> None:
    """Print every update: as a line of JSON, in one display that changes (live), or one below the other."""
    if as_json:
        for status in updates:
            print_json(dataclasses.asdict(status), flush=True)
    elif live:
        with Live(_rendered(next(updates)), console=terminal(), auto_refresh=False) as display:
            for status in updates:
                display.update(_rendered(status), refresh=True)
    else:
        for status in updates:
            terminal(soft_wrap=True).print(_rendered(status))  # long commands stay on one line


def _rendered(status: Status) -> RenderableType:
    """Format a status for people."""
    lines = [*_head(status), _table(status.groups), _tail(status), *_troubles(status)]
    return Group(*(Text(one_line(line, 5000)) if isinstance(line, str) else line for line in lines))


def _head(status: Status) -> list[str]:
    session = status.session
    where = f" (process {session['pid']} on {session['host']})" if "pid" in session else ""
    return [
        f"Sweep {status.name} ({status.run_id}) in {status.out}: {status.state}",
        f"Session {status.sessions}{where}: from {session.get('started_at')} until "
        f"{session.get('ended_at') or '...'}",
    ]


def _table(groups: tuple[GroupStatus, ...]) -> RenderableType:
    table = table_of(("space", "strategy"), ("done", "total", "%"))
    table.box, table.padding = None, (0, 2, 0, 0)
    for group in groups:
        share = f"{100 * group.done / max(group.total, 1):.1f}"
        table.add_row(group.space, group.label, f"{group.done:,}", f"{group.total:,}", share)
    return table


def _tail(status: Status) -> str:
    tail = f"Finished {status.done:,} of {status.total:,} searches"
    if status.rate is not None:
        tail += f", {status.rate:.2f} per second"
    if status.left_s is not None:
        tail += f", about {_duration(status.left_s)} left"
    if status.failed:
        tail += f", {status.failed:,} failed"
    if status.last_write_s is not None:
        tail += f"; last write {_duration(status.last_write_s)} ago"
    return tail


def _duration(seconds: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=round(seconds))


def _troubles(status: Status) -> list[str]:
    lines = []
    for failure in status.failures:
        lines += [f"failed: shard {failure['shard_id']}: {failure['error']}", failure["command"]]
    lines += [f"unreadable: {problem}" for problem in status.unreadable]
    if status.state != "running" and status.done < status.total:
        lines.append("To compute the missing searches, run the same sweep command again.")
    return lines
