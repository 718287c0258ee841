"""Track the progress of a sweep or a measurement."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """The progress of a sweep or a measurement, in searches or subnets."""

    total: int
    done: int  # including those of earlier runs
    before: int  # those of earlier runs
    failures: int = 0  # failed permanently
    losses: int = 0  # actors that died or were replaced
    started: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """How many are done per second in this run."""
        return (self.done - self.before) / max(time.monotonic() - self.started, 1e-9)

    @property
    def facts(self) -> dict[str, Any]:
        """The numbers, for machines."""
        numbers = {"done": self.done, "total": self.total, "failed": self.failures, "lost": self.losses}
        return {**numbers, "wall_s": round(time.monotonic() - self.started, 3)}
