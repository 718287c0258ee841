"""Several real nodes: killed without grace, joining late, hanging, with a GPU; started by Ray's own test
cluster and by `ray start`.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import ROOT
from support.nodes import free_port, kill_node, start_node, until_open
from support.on_ray import LONGER, run_on_ray
from support.one_ray import actor_processes
from support.sweeping import assert_same, run

import topdown_ray
from topdown_ray import cluster as pools
from topdown_ray.cluster import connected
from topdown_ray.errors import StartError, UserError
from topdown_ray.progress import Progress
from topdown_ray.store.results import load
from topdown_ray.sweeps import executors
from topdown_ray.sweeps.dispatch import Limits

pytestmark = pytest.mark.ray

HEALTH = {  # a dead node is noticed in seconds, not in Ray's usual fifteen
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 5,
}


@pytest.fixture(scope="module")
def undisturbed(published: Path, tmp_path_factory: pytest.TempPathFactory) -> topdown_ray.Results:
    return run(LONGER, tmp_path_factory.mktemp("sweep") / "out")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that takes no searches, and two nodes of one CPU."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH},
    )
    nodes.add_node(num_cpus=1)
    nodes.add_node(num_cpus=1)
    try:
        with connected(nodes.address):
            yield nodes
    finally:
        nodes.shutdown()


class Meanwhile:
    """A progress callback that acts when so many searches are done: in a thread of its own, in the middle of
    other shards.

    here: actions of this thread, for what must not run in another (Ray's nodes set signal handlers as they
    start)."""

    def __init__(
        self, actions: dict[int, Callable[[], object]], here: dict[int, Callable[[], object]] | None = None
    ):
        self.actions, self.here = actions, here or {}
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def __call__(self, progress: Progress) -> None:
        for done in [done for done in self.here if progress.done >= done]:
            self.here.pop(done)()
        for done in [done for done in self.actions if progress.done >= done]:
            self.threads.append(threading.Thread(target=self._run, args=(self.actions.pop(done),)))
            self.threads[-1].start()

    def _run(self, action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException as error:
            self.errors.append(error)

    def join(self) -> None:
        for thread in self.threads:
            thread.join()
        assert not self.actions
        assert not self.here
        assert not self.errors


@pytest.mark.slow
def test_nodes_die_and_join_in_mid_sweep(
    cluster: Any, undisturbed: topdown_ray.Results, tmp_path: Path
) -> None:
    """The node of half the actors dies, then the other one right after a third has joined, which then does
    all the work.
    """
    first, second = cluster.worker_nodes
    kills: dict[int, Callable[[], object]] = {
        6: lambda: cluster.remove_node(first, allow_graceful=False),
        15: lambda: cluster.remove_node(second, allow_graceful=False),
    }
    meanwhile = Meanwhile(kills, here={15: lambda: cluster.add_node(num_cpus=1)})
    summary = run_on_ray(LONGER, tmp_path / "out", None, meanwhile)
    meanwhile.join()
    assert summary.progress.losses >= 2
    assert not summary.given_up
    assert_same(undisturbed, load(tmp_path / "out"))


@pytest.mark.slow
def test_what_hangs_is_done_elsewhere(cluster: Any, undisturbed: topdown_ray.Results, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    stopped: list[psutil.Process] = []

    def stop_one() -> None:
        while len(actor_processes()) < 2:
            time.sleep(0.05)
        stopped.append(actor_processes()[0])
        stopped[0].suspend()

    meanwhile = Meanwhile({9: stop_one})
    try:
        limits = Limits(overdue_floor_s=3.0, hung=100.0)
        summary = run_on_ray(LONGER, tmp_path / "out", 2, meanwhile, limits)
        meanwhile.join()
    finally:
        for process in stopped:
            if process.is_running():
                process.kill()
    assert summary.progress.losses == 1
    assert not summary.given_up
    assert_same(undisturbed, load(tmp_path / "out"))


@pytest.mark.slow
def test_nodes_with_and_without_a_gpu_both_get_work(
    cluster: Any, undisturbed: topdown_ray.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that only says it has a GPU: the actor that asks for it starts there, and says that torch finds
    none.
    """
    import ray
    import torch

    with pytest.raises(UserError, match="--gpus: expected at most 0"):
        executors.check_request(1, 1, pools.resources(), scales=False)
    cluster.add_node(num_cpus=1, num_gpus=1)
    cluster.wait_for_nodes()
    if not torch.cuda.is_available():
        with pytest.raises(
            StartError, match=r"an actor could not start: .*--gpus: expected a GPU that torch can use"
        ):
            run_on_ray(LONGER, tmp_path / "none", 1, gpus=1)
    monkeypatch.setitem(pools.DEVICES, "cuda", "cpu")  # the same bits: what is tested is who gets work
    work: dict[str, int] = {}
    done = pools.Pool._ended

    def counted(pool: Any, reference: Any) -> Any:
        event = done(pool, reference)
        work[event.attempt.slot.device] = work.get(event.attempt.slot.device, 0) + 1
        return event

    monkeypatch.setattr(pools.Pool, "_ended", counted)
    run_on_ray(LONGER, tmp_path / "out", 1, gpus=1)
    assert work["cuda"] >= 3
    assert work["cpu"] >= 3
    assert ray.is_initialized()
    assert_same(undisturbed, load(tmp_path / "out"))


# nodes and drivers that are started separately have to agree on the mode and on the token
AUTHENTICATION = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def wait_until(what: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_separately_started_nodes_and_the_command_line(
    undisturbed: topdown_ray.Results, tmp_path: Path
) -> None:
    """SIGTERM in mid-sweep, the same command again, a node killed without grace, a node that joins late."""
    import ray

    ray.shutdown()
    file, out, port = tmp_path / "sweep.yaml", tmp_path / "out", free_port()
    file.write_text(yaml.safe_dump(LONGER))
    head = start_node(
        tmp_path,
        AUTHENTICATION,
        "--head",
        "--num-cpus=0",
        f"--port={port}",
        "--include-dashboard=false",
        f"--system-config={json.dumps(HEALTH)}",
    )
    nodes = [head]
    command = [
        sys.executable,
        "-m",
        "topdown_ray",
        "sweep",
        str(file),
        "--out",
        str(out),
        "--address",
        f"127.0.0.1:{port}",
    ]

    def driver(*options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=AUTHENTICATION,
        )

    def parts() -> int:
        return len(list((out / "searches").glob("[!.]*.parquet")))

    try:
        health = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "health-check",
            "--address",
            f"127.0.0.1:{port}",
        ]
        until_open(port, head)
        deadline = time.monotonic() + 60
        while subprocess.run(health, capture_output=True, check=False, env=AUTHENTICATION).returncode:
            assert time.monotonic() < deadline
        nodes.append(start_node(tmp_path, AUTHENTICATION, f"--address=127.0.0.1:{port}", "--num-cpus=1"))

        process = driver("--actors", "1")  # before the node has joined: a head without CPUs promises some
        wait_until(lambda: parts() >= 2, process)
        process.send_signal(signal.SIGTERM)
        ended = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - ended < 15
        assert process.returncode == 130
        assert "Run the same command again to continue" in errors
        assert "Traceback" not in errors
        before = parts()
        assert before >= 2

        process = driver()
        wait_until(lambda: parts() >= before + 2, process)
        kill_node(nodes.pop())
        nodes.append(start_node(tmp_path, AUTHENTICATION, f"--address=127.0.0.1:{port}", "--num-cpus=1"))
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    finally:
        for node in nodes:
            kill_node(node)
    assert_same(undisturbed, load(out))
