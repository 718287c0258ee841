"""The line that tells of compiling: once, and only where something is compiled."""

import numba

from topdown_ray.algorithms.compiling import MESSAGE, compiling_told


def test_it_is_told_once_and_only_where_something_is_compiled() -> None:
    one_more = numba.njit(lambda x: x + 1)
    said: list[str] = []
    with compiling_told(said.append):
        assert said == []
        assert one_more(1) == 2
        assert one_more(1.5) == 2.5  # another type: compiled, too
    assert said == [MESSAGE]
    with compiling_told(said.append):
        assert one_more(2) == 3
    one_more(True)  # nobody is told outside of a block
    assert said == [MESSAGE]
