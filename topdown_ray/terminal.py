"""Print lines on stderr without control characters, and end a command cleanly when it receives a signal."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_REPEAT_S = 1.0  # a signal from the terminal and again from the parent process within this time counts once
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_interrupted = [-math.inf]  # when, last


def terminal(**options: Any) -> Console:
    """Return a console that prints no control characters, because those in a name could move the cursor or
    rewrite the screen.

    options: those of rich's Console. Text is never interpreted as markup.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Terminal(Console):
        def render(self, *arguments: Any, **keywords: Any) -> Any:
            for text, style, control in super().render(*arguments, **keywords):
                yield Segment(text if control else visible(text), style, control)

    return Terminal(**{"markup": False, "emoji": False, **options})


def visible(text: str) -> str:
    """Replace every control character of a text except the line end by a visible mark."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def say(text: str) -> None:
    """Print a line on stderr; do nothing if stderr is gone, for example because its terminal was closed."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def interrupt(*_: object) -> None:
    """A signal handler that ends a command as Ctrl-C does."""
    now = time.monotonic()
    if now - _interrupted[-1] > _REPEAT_S:
        _interrupted[:] = [now]
        raise KeyboardInterrupt


def interrupted_since(moment: float) -> bool:
    """Whether the command was told to end after this moment (of ``time.monotonic``).

    Python drops a KeyboardInterrupt that is raised within a destructor or a library's callback. Long loops
    therefore call this function.
    """
    return _interrupted[-1] > moment


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the handlers of the signals that end a command after the block."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _ENDING} if here else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def end_on_signals() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP (a closed terminal) end the command cleanly. A signal that is ignored
    (nohup) stays ignored.

    Ray replaces the handlers when it starts, so this is called again afterwards.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, interrupt)
