"""One Ray for all tests of a process that want one on this machine: to start it takes seconds."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psutil
import pytest
from conftest import ONE_RAY

_running = ExitStack()


def actor_processes(of: psutil.Process | None = None) -> list[psutil.Process]:
    """The processes of actors among the descendants of a process, by default this one."""
    found = []
    for child in (of or psutil.Process()).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "ray::HostActor" in " ".join(child.cmdline()[:1]):
                found.append(child)
    return found


@pytest.fixture
def local_ray() -> Iterator[None]:
    """A connection to Ray on this machine, which commands in this process use, too."""
    import ray

    from topdown_ray.cluster import connected

    if not ray.is_initialized():
        _running.enter_context(connected("local"))
    yield
    _, left = psutil.wait_procs(actor_processes(), timeout=60)
    assert not left  # the next test starts without actors of this one


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Ray ends before a test that may bring its own."""
    yield
    if nextitem is None or nextitem.path.stem not in ONE_RAY:
        _running.close()
