"""The names of target sets, wherever results are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from topdown_ray.files import short_hash


def set_names(sets: Iterable[Sequence[float]], spelled_out: int = 10) -> list[str]:
    """The names of target sets, each given loosest first: the targets, or of a set with more than
    ``spelled_out`` targets only their number and ends.

    Different sets of one name are told apart by a short hash."""
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
