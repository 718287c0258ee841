"""Addresses where no Ray cluster is: one line each, in bounded time, before anything is written."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from support.commands import assert_one_line, main_in_process, sweep_file

from topdown_ray import cluster


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    return ["sweep", sweep_file(tmp_path), "--out", tmp_path / "out", "--address"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_where_nothing_answers(
    address: str, arguments: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    assert_one_line(main_in_process([*arguments, address], capsys), "--address")
    assert time.monotonic() - started < 30
    assert not (tmp_path / "out").exists()


def test_where_something_else_answers(
    arguments: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that takes connections and says nothing: the wait is bounded."""
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_S", 4)
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        result = main_in_process([*arguments, address], capsys)
    assert_one_line(result, f"--address {address}: expected a Ray cluster that answers, found none")
    assert time.monotonic() - started < 30


def test_auto_without_a_cluster(arguments: list[object], tmp_path: Path) -> None:
    """In a process namespace of its own, where no process of another test's cluster is seen, and without a
    cluster on record.
    """
    alone = ["unshare", "--pid", "--fork", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a process namespace needs unshare and the right to use it")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    result = subprocess.run(
        [*alone, sys.executable, "-m", "topdown_ray", *map(str, arguments), "auto"],
        env={**environment, "RAY_TMPDIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert_one_line(result, "--address auto: expected a Ray cluster that answers, found none")
    assert not (tmp_path / "out").exists()
