"""Format durations in a suitable unit."""

from __future__ import annotations

import math

_UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))


def unit_of(seconds: float) -> tuple[float, str]:
    """Return the unit for a duration of this length, as its number of seconds and its name: milliseconds
    below 1 s, minutes from 120 s on, hours from 120 minutes on.
    """
    if math.isnan(seconds):
        return 1.0, "s"
    return next((unit for unit in _UNITS if seconds >= _least(unit[0])), _UNITS[-1])


def _least(unit: float) -> float:
    return 2 * unit if unit > 1 else unit


def duration(seconds: float) -> str:
    """Return a duration in words, for example ``1.5 min`` or ``312 ms``; "" for NaN."""
    if math.isnan(seconds):
        return ""
    scale, unit = unit_of(seconds)
    return f"{seconds / scale:.3g} {unit}"
