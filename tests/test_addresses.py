"""Addresses where no Ray cluster is: one line each, in bounded time, before anything is written."""

import functools
import socket
import time
from pathlib import Path

import pytest
import ray
from commands import assert_one_line, main_in_process, sweep_file

from topdown_ray import actors


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
    monkeypatch.setattr(actors, "CONNECT_TIMEOUT_S", 4)
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        result = main_in_process([*arguments, address], capsys)
    assert_one_line(result, f"--address {address}: expected a Ray cluster that answers, found none")
    assert time.monotonic() - started < 30


def test_auto_without_a_cluster(
    arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    # clusters of other tests are none of its business: neither the one on record nor running processes
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray._private.services, "find_gcs_addresses", functools.cache(set), raising=False)
    result = main_in_process([*arguments, "auto"], capsys)
    assert_one_line(result, "--address auto: expected a Ray cluster that answers, found none")
