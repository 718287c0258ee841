"""What the commands share at a terminal: their common options, tables, progress displays, an orderly end when
told to stop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from topdown_ray.addresses import check_address
from topdown_ray.terminal import terminal

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn
    from rich.status import Status
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Address = Annotated[
    str, typer.Option(callback=check_address, help="none (this process, no Ray), local, auto or HOST:PORT.")
]


def print_table(table: Table) -> None:
    """A table at its full width: a cut-off number is worse than a long line."""
    console = terminal(highlight=False)
    width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    terminal(highlight=False, width=max(width, console.width)).print(table)


@contextlib.contextmanager
def progress_bar(*columns: ProgressColumn) -> Iterator[Progress]:
    """Live progress on stderr once it is started. It disappears if the block fails, so that the error is the
    only line.
    """
    from rich.progress import Progress

    display = Progress(*columns, console=terminal(stderr=True))
    try:
        yield display
    except Exception:
        display.live.transient = True
        display.live.stop()  # display.stop would end with an empty line
        raise
    finally:
        if display.live.is_started:
            display.stop()


@contextlib.contextmanager
def status_line(text: str) -> Iterator[Status]:
    """One live line on stderr, at a terminal only, that is gone when the block ends."""
    with terminal(stderr=True).status(text) as status:
        yield status
