"""What the tests share that hand arbitrary bytes and values to a reader: the outcome is a value or one
bounded line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from topdown_ray.errors import UserError

#: Fixed examples, no time limit on one: the machine may be busy.
FUZZ = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

#: Changes of a file's bytes, as :func:`changed` applies them.
CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)
KEEP = st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.05])

#: Values of a JSON document.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=4) | st.lists(inner, max_size=4),
    max_leaves=12,
)


def changed(
    content: bytes, changes: list[tuple[float, int]], keep: float, start: int = 0, end: int | None = None
) -> bytes:
    """The same bytes, cut short, with some overwritten: two thirds of them between ``start`` and ``end``, the
    others anywhere.
    """
    out = bytearray(content)
    end = len(out) if end is None else end
    for i, (place, value) in enumerate(changes):
        out[start + int(place * (end - start)) if i % 3 else int(place * len(out))] = value
    return bytes(out[: round(keep * len(out))])


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or None where it raises a UserError of one bounded line; anything else is a
    failure.
    """
    try:
        return function(*arguments)
    except UserError as error:
        line = str(error)
    assert line
    assert "\n" not in line
    assert len(line) < 1200
    return None
