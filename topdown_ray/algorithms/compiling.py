"""Print a message while code is being compiled. The first search on a machine waits for this, and later ones
read the code from Numba's cache."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from numba.core import event

MESSAGE = "Compiling search kernels. This can take half a minute. Later runs on this machine reuse them ..."


class _Once(event.Listener):
    """Prints the message at the first function that is compiled, and not for those that are read from the
    cache.
    """

    def __init__(self, on_step: Callable[[str], None]):
        self._on_step, self._said = on_step, False

    def on_start(self, event: event.Event) -> None:
        if not self._said:
            self._said = True
            self._on_step(MESSAGE)

    def on_end(self, event: event.Event) -> None:
        pass


@contextlib.contextmanager
def compiling_told(on_step: Callable[[str], None]) -> Iterator[None]:
    """Print the message once if something has to be compiled while the block runs."""
    with event.install_listener("numba:compile", _Once(on_step)):
        yield
