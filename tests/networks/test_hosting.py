"""Hosted objects, in this process and on a real Ray: every task once, processes that die, tasks that raise,
what the cluster has no room for.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from topdown_ray.errors import StartError, UserError
from topdown_ray.networks.hosting import Resources, run_hosted
from topdown_ray.tasks import FAILURES, LOSSES, GivenUp

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

HERE = Resources(address="none")
TWO = Resources(actors=2)


def squaring() -> Callable[[str], Callable[[int], int]]:
    return lambda device: lambda item: item * item


square = squaring()  # not importable by name, so actors get it by value


def results(make: Any, items: Any, resources: Resources) -> dict[int, int | str]:
    """The result of each item, or the last line of the error that it was given up for."""
    found: dict[int, int | str] = {}
    for end in run_hosted(make, items, resources):
        task = end.task if isinstance(end, GivenUp) else end.attempt.task
        assert task not in found
        found[task] = end.error.strip().splitlines()[-1] if isinstance(end, GivenUp) else end.result
    return found


def test_in_this_process_and_on_actors() -> None:
    expected = {item: item * item for item in range(20)}
    assert results(square, range(20), HERE) == expected
    assert list(run_hosted(square, range(3), HERE))[2].attempt.task == 2  # type: ignore[union-attr]
    assert results(square, [], Resources()) == {}
    assert results(square, range(20), TWO) == expected


def test_a_lost_process_is_replaced(tmp_path: Path) -> None:
    marker = tmp_path / "died"

    def fragile(device: str) -> Callable[[int], int]:
        def call(item: int) -> int:
            if item == 7 and not marker.exists():
                marker.write_text("once")
                os.kill(os.getpid(), signal.SIGKILL)
            return item * item

        return call

    assert results(fragile, range(20), TWO) == {item: item * item for item in range(20)}
    assert marker.exists()


def test_a_task_whose_process_always_dies_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    def deadly(device: str) -> Callable[[int], int]:
        def call(item: int) -> int:
            if item == 1:
                with (tmp_path / "deaths").open("a") as file:
                    file.write("x")
                os.kill(os.getpid(), signal.SIGKILL)
            return item

        return call

    found = results(deadly, range(4), TWO)
    assert str(found.pop(1)).startswith(f"its process died or was replaced {LOSSES} times, most recently: ")
    assert found == {0: 0, 2: 2, 3: 3}
    assert (tmp_path / "deaths").read_text() == "x" * LOSSES


@pytest.mark.parametrize("resources", [HERE, TWO], ids=["here", "ray"])
def test_a_task_that_raises_twice_and_then_succeeds(resources: Resources, tmp_path: Path) -> None:
    """On Ray it raises on the first actor that takes it, and goes to the other one."""
    tries, workers = tmp_path / "tries", 1 if resources is HERE else 2

    def once_more(device: str) -> Callable[[int], int]:
        (tmp_path / f"stands.{os.getpid()}").touch()

        def call(item: int) -> int:
            if item == 2:
                while len(list(tmp_path.glob("stands.*"))) < workers:
                    time.sleep(0.05)
                time.sleep(0.5)  # until the pool knows it too
                with tries.open("a") as file:
                    file.write(f"{os.getpid()}\n")
                if len(tries.read_text().split()) <= 2:
                    raise ValueError("boom")
            return item

        return call

    assert results(once_more, range(6), resources) == {item: item for item in range(6)}
    processes = tries.read_text().split()
    assert len(processes) == FAILURES
    assert len(set(processes)) == workers


@pytest.mark.parametrize("resources", [HERE, TWO], ids=["here", "ray"])
def test_a_task_that_always_raises_is_given_up_and_the_others_go_on(
    resources: Resources, tmp_path: Path
) -> None:
    tries = tmp_path / "tries"

    def never(device: str) -> Callable[[int], int]:
        def call(item: int) -> int:
            if item == 2:
                with tries.open("a") as file:
                    file.write("x")
                raise ValueError("boom")
            return item

        return call

    assert results(never, range(5), resources) == {0: 0, 1: 1, 2: "ValueError: boom", 3: 3, 4: 4}
    assert tries.read_text() == "x" * FAILURES


def test_what_goes_wrong_for_all_ends_it_at_once() -> None:
    def strict(device: str) -> Callable[[int], int]:
        def call(item: int) -> int:
            if item == 3:
                raise UserError("item: expected another, found 3")
            return item

        return call

    for resources in (HERE, Resources(actors=1)):
        with pytest.raises(UserError, match="item: expected another, found 3"):
            results(strict, range(6), resources)

    def never(device: str) -> Callable[[int], int]:
        raise UserError("weights: expected some, found none")

    with pytest.raises(StartError, match=r"an actor could not start: .*weights: expected some, found none"):
        results(never, range(3), Resources(actors=1))
    for resources, message in (
        (Resources(actors=10_000), "--actors: expected at most"),
        (Resources(gpus=512), "--gpus: expected a fraction"),
        (Resources(gpus=64), "--gpus: expected at most"),
    ):
        with pytest.raises(UserError, match=message):
            results(square, range(3), resources)
