"""Telling that compiled code is being compiled: the first search on a machine waits for it, later ones read
it from Numba's cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from numba.core import event

MESSAGE = "Compiling the search kernels, once for this machine; this takes some seconds ..."


class _Once(event.Listener):
    """Says it at the first function that is compiled, not at those that are read from the cache."""

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
    """While the block runs, tell once if something has to be compiled."""
    with event.install_listener("numba:compile", _Once(on_step)):
        yield
