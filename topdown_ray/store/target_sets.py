"""Name target sets in tables, pictures and messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from topdown_ray.files import short_hash


def set_names(sets: Iterable[Sequence[float]], spelled_out: int = 10) -> list[str]:
    """Return the names of target sets, each given loosest first. A name lists the targets, or only their
    number and ends if there are more than ``spelled_out``.

    If different sets would have the same name, a short hash is added."""
    sets = [tuple(map(float, targets)) for targets in sets]
    names = [
        " ".join(f"{target:g}" for target in targets)
        if len(targets) <= spelled_out
        else f"{len(targets)} targets, {targets[0]:g} to {targets[-1]:g}"
        for targets in sets
    ]
    times = Counter(names)
    return [
        name if times[name] == 1 else f"{name} (set {short_hash(repr(targets))[:4]})"
        for name, targets in zip(names, sets, strict=True)
    ]
