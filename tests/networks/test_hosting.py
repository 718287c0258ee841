"""Hosted objects on a real Ray: every item once, processes that die, errors that travel, what the cluster has
no room for.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from topdown_ray.cluster import connected
from topdown_ray.errors import StartError, UserError
from topdown_ray.networks import hosting
from topdown_ray.networks.hosting import Resources, map_hosted

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def one_cluster() -> Iterator[None]:
    """Ray starts once for all."""
    with connected("local"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosting, "connected", lambda address: contextlib.nullcontext())
        yield


def square() -> Callable[[int], int]:
    return lambda item: item * item


def test_in_this_process_and_on_actors(tmp_path: Path) -> None:
    expected = [(item, item * item) for item in range(20)]
    assert list(map_hosted(square, range(20), Resources(address="none"))) == expected
    assert list(map_hosted(square, [], Resources())) == []

    marker = tmp_path / "died"

    def fragile() -> Callable[[int], int]:
        def call(item: int) -> int:
            if item == 7 and not marker.exists():
                marker.write_text("once")
                os.kill(os.getpid(), signal.SIGKILL)
            return item * item

        return call

    assert sorted(map_hosted(fragile, range(20), Resources(actors=2))) == expected
    assert marker.exists()


def test_what_goes_wrong_is_told() -> None:
    def strict() -> Callable[[int], int]:
        def call(item: int) -> int:
            if item == 3:
                raise UserError("item: expected another, found 3")
            return item

        return call

    seen = []
    with pytest.raises(UserError, match="item: expected another, found 3"):
        seen.extend(map_hosted(strict, range(6), Resources(actors=1)))

    def never() -> Callable[[int], int]:
        raise UserError("weights: expected some, found none")

    with pytest.raises(StartError, match=r"an actor could not start: .*weights: expected some, found none"):
        list(map_hosted(never, range(3), Resources(actors=1)))
    for resources, message in (
        (Resources(actors=10_000), "--actors: expected at most"),
        (Resources(gpus=512), "--gpus: expected a fraction"),
        (Resources(gpus=64), "--gpus: expected at most"),
    ):
        with pytest.raises(UserError, match=message):
            list(map_hosted(square, range(3), resources))

    def deadly() -> Callable[[int], int]:
        return lambda item: os.kill(os.getpid(), signal.SIGKILL) or 0

    with pytest.raises(StartError, match="process died 3 times"):
        list(map_hosted(deadly, [1], Resources(actors=1)))
