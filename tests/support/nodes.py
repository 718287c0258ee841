"""Nodes of a Ray cluster that are started as processes of their own."""

import contextlib
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def until_open(port: int, node: psutil.Popen, seconds: float = 120) -> None:
    """Wait until something of a node listens: programs that ask in vain take seconds each."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        assert node.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start_node(tmp_path: Path, environment: Mapping[str, str], *options: str) -> psutil.Popen:
    """`ray start --block`, in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        "--disable-usage-stats",
        *options,
    ]
    with (tmp_path / f"node{len(list(tmp_path.glob('node*')))}.log").open("wb") as log:
        return psutil.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def kill_node(node: psutil.Popen) -> None:
    """SIGKILL to all its processes at once."""
    processes = [*node.children(recursive=True), node]
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    node.wait()
