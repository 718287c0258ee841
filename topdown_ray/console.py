"""What the commands share at a terminal: their common options, tables, progress displays, an orderly end when told to stop."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from topdown_ray.errors import UserError, brief

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn
    from rich.status import Status
    from rich.table import Table

_REPEAT_S = 1.0  # a signal that comes both from the terminal and from the parent process counts once
_interrupted = [-math.inf]  # when, last


def check_address(address: str) -> str:
    """An address that a command may use. Raises UserError."""
    host, colon, port = address.rpartition(":")
    numeric = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16
    named = bool(host) and host.isascii() and host.isprintable() and not set(host) & set(" /@?#")
    if address not in ("none", "local", "auto") and not (colon and numeric and named):
        raise UserError(f"--address: expected none, local, auto or HOST:PORT, found {brief(address)}")
    return address


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Address = Annotated[str, typer.Option(callback=check_address, help="none (this process, no Ray), local, auto or HOST:PORT.")]


def print_table(table: Table) -> None:
    """A table at its full width: a cut-off number is worse than a long line. Its cells are text, not rich's markup."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    Console(width=max(width, console.width), markup=False, highlight=False, emoji=False).print(table)


@contextlib.contextmanager
def progress_bar(*columns: ProgressColumn) -> Iterator[Progress]:
    """Live progress on stderr once it is started. It disappears if the block fails, so that the error is the only line."""
    from rich.console import Console
    from rich.progress import Progress

    display = Progress(*columns, console=Console(stderr=True))
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
    from rich.console import Console

    with Console(stderr=True).status(text) as status:
        yield status


def say(text: str) -> None:
    """A line on stderr; none where stderr has gone, as a closed terminal's has."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def interrupt(*_: object) -> None:
    """A signal handler that ends a command as Ctrl-C does."""
    now = time.monotonic()
    if now - _interrupted[-1] > _REPEAT_S:
        _interrupted[:] = [now]
        raise KeyboardInterrupt


def end_on_signals() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP (a closed terminal) end the command in order; one that is ignored (nohup) stays so.

    Ray replaces the handlers when it starts, so this is called after that, too.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, interrupt)
