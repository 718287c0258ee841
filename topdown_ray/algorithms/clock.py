"""Measure the time that a search takes, in wall seconds and in CPU seconds of its thread."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch


class Seconds(NamedTuple):
    """How long something took: wall time, and CPU time of the thread that searches (with a GPU, of the thread
    that feeds it).
    """

    wall: float
    cpu: float


class Laps:
    """A clock that returns the seconds from one call to the next."""

    def __init__(self, device: torch.device):
        self._device = device
        self._last = self._now()

    def __call__(self) -> Seconds:
        """Seconds since the last call, or since the clock was made."""
        before, self._last = self._last, self._now()
        return Seconds(self._last.wall - before.wall, self._last.cpu - before.cpu)

    def _now(self) -> Seconds:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return Seconds(time.perf_counter(), time.thread_time())
