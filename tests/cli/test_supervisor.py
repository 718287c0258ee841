"""A sweep through a real Ray whose processes die or are told to stop: one line, a status, an `end` event, a
truthful run.json.

The faults come one after another in one folder, so the last run also shows that nothing was lost.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import ROOT
from support.sweeping import assert_same, run

import topdown_ray
from topdown_ray import cluster
from topdown_ray.cli import supervisor

SWEEP = {
    "name": "faults",
    "spaces": ["mobilenet_v3"],
    "strategies": ["top_down"],
    "cost": "macs",
    "predictor": "embedded",
    "targets": [[400, 300]],
    # long alone, short in a batch: the driver collects results for seconds after the GCS has died, and must
    # not come to the end
    "seeds": 80,
    "batch": 1,
    "search": {"population": 8, "generations": 4000, "warm_generations": 100},
}
# Ray's driver waits a minute for a GCS that comes back, and the GCS fifteen seconds for a raylet; here a
# moment
ENVIRONMENT = {
    **os.environ,
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1",
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
Victim = Callable[[psutil.Process, psutil.Process], psutil.Process]


def named(name: str) -> Victim:
    def find(parent: psutil.Process, child: psutil.Process) -> psutil.Process:
        (found,) = [process for process in child.children() if process.name() == name]
        return found

    return find


class Driver:
    """The command in a process of its own, with its log and folder."""

    def __init__(self, folder: Path, *options: str):
        self.folder, self.log = folder, folder / "log.jsonl"
        (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
        command = [
            sys.executable,
            "-m",
            "topdown_ray",
            "sweep",
            str(folder / "sweep.yaml"),
            "--out",
            str(folder / "out"),
        ]
        command += ["--actors", "1", "--log-json", str(self.log), *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = psutil.Popen(command, cwd=ROOT, env=ENVIRONMENT, **pipes)
        self.before = self.parts()

    def parts(self) -> int:
        return len(list((self.folder / "out" / "searches").glob("[!.]*.parquet")))

    def child(self) -> psutil.Process:
        deadline = time.monotonic() + 120
        while not self.process.children():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self.process.children()[0]

    def until_at_work(self) -> None:
        deadline = time.monotonic() + 300  # Ray and an actor have to start, on a machine that may be busy
        while self.parts() == self.before:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=120)
        return self.process.returncode, errors

    def manifest(self) -> dict[str, object]:
        return dict(json.loads((self.folder / "out" / "run.json").read_text()))

    def last_event(self) -> dict[str, object]:
        return dict(json.loads(self.log.read_text().splitlines()[-1]))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)  # four times Ray
def test_whatever_ends_a_sweep_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    victims: dict[str, Victim] = {
        "raylet": named("raylet"),
        "gcs": named("gcs_server"),
        "the driver": lambda parent, child: child,
    }
    for what, victim in victims.items():
        driver = Driver(tmp_path)
        driver.until_at_work()
        child = driver.child()
        victim(psutil.Process(driver.process.pid), child).kill()
        status, errors = driver.end()
        assert status == 1, (what, errors)
        (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in errors
        assert "run the same command again" in line, what
        assert f"finished shards are in {tmp_path}/out" in line, what
        event, manifest = driver.last_event(), driver.manifest()
        assert (event["event"], event["status"]) == ("end", "error"), what
        assert event["total"] == SWEEP["seeds"]
        assert manifest["status"] == "incomplete", what
        (*_, session) = manifest["sessions"]  # type: ignore[misc]
        assert session["pid"] == child.pid
        assert session["ended_at"]

    (closed := tmp_path / "closed").mkdir()  # all of its searches are still to be done
    driver = Driver(closed)
    driver.until_at_work()
    driver.process.send_signal(signal.SIGHUP)  # a terminal that is closed
    status, errors = driver.end()
    assert status == 130
    assert errors.splitlines()[-1].startswith("Interrupted. Finished shards are in ")
    assert driver.last_event()["status"] == "interrupted"
    assert driver.manifest()["status"] == "incomplete"

    undisturbed = run({**SWEEP, "batch": 80}, tmp_path / "undisturbed")
    for folder in (tmp_path, closed):
        finished: topdown_ray.Results = run({**SWEEP, "batch": 80}, folder / "out")
        assert finished.manifest["status"] == "complete"
        assert_same(undisturbed, finished)


@pytest.mark.ray
@pytest.mark.slow
def test_to_kill_the_parent_is_to_kill_the_sweep(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    child = driver.child()
    driver.process.kill()
    assert driver.end()[0] == -signal.SIGKILL
    deadline = time.monotonic() + 20
    with contextlib.suppress(psutil.NoSuchProcess):
        while child.status() != psutil.STATUS_ZOMBIE:  # dead, and nobody has waited for it yet
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_driver_that_dies_before_the_sweep_begins(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    driver.child().kill()
    assert driver.end() == (
        1,
        "error: the process of the command ended without a result (killed by SIGKILL); "
        "finished work is kept; run the same command again to continue\n",
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_mistake_is_still_one_line_and_its_status(tmp_path: Path) -> None:
    driver = Driver(tmp_path, "--address", "127.0.0.1:1")
    status, errors = driver.end()
    assert status == 2
    assert errors.startswith("error: --address 127.0.0.1:1: expected a Ray cluster that answers")
    assert errors.count("\n") == 1


def test_a_process_with_torch_is_not_forked() -> None:
    supervisor.supervise("local")  # would leave by SystemExit
    assert "torch" in sys.modules


STOPPED = """
import sys, psutil
from topdown_ray import cluster
cluster.SHUTDOWN_TIMEOUT_S = 2
with cluster.connected("local"):
    (raylet,) = [child for child in psutil.Process().children() if child.name() == "raylet"]
    raylet.suspend()
sys.exit(3)
"""


@pytest.mark.slow
@pytest.mark.ray
def test_a_stopped_raylet_does_not_hold_the_command(tmp_path: Path) -> None:
    assert cluster.SHUTDOWN_TIMEOUT_S <= 30
    done = subprocess.run(
        [sys.executable, "-c", STOPPED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 3
    assert done.stderr == "Ray did not shut down within 2 s. The command ends without waiting for it.\n"
