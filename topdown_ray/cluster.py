"""The door to Ray: connect to a cluster, leave it in bounded time.

With ``actors``, ``hosting`` and ``nodes``, the only importer of ray.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ.setdefault(
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
)  # Ray announces this default with a warning otherwise

import ray

from topdown_ray.addresses import check_address
from topdown_ray.errors import UserError, one_line
from topdown_ray.terminal import end_on_signals, say

CONNECT_TIMEOUT_S = 10
SHUTDOWN_TIMEOUT_S = 20
START_TIMEOUT_S = 180  # of a process


def connect(address: str) -> None:
    """Connect to Ray: ``local`` starts one on this machine, ``auto`` or HOST:PORT joins a cluster. Raises
    UserError.
    """
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if check_address(address) == "local":
        options.update(address="local", include_dashboard=False)
    else:
        if address != "auto":
            _answers(address)
        options.update(address=address)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = one_line(error, 200)
        raise UserError(
            f"--address {address}: expected a Ray cluster that answers, found none ({reason})"
        ) from error


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to Ray, see :func:`connect`, until the block ends. Signals end the block in order."""
    connect(address)
    try:
        end_on_signals()
        yield
    finally:
        _disconnect()


def _disconnect() -> None:
    """Leave Ray, in bounded time: its own shutdown waits for a raylet that may have stopped."""
    leaving = threading.Thread(target=ray.shutdown, name="ray.shutdown", daemon=True)
    leaving.start()
    leaving.join(SHUTDOWN_TIMEOUT_S)
    if leaving.is_alive():
        say(f"Ray did not shut down within {SHUTDOWN_TIMEOUT_S} s; the command ends without it.")
        atexit.unregister(ray.shutdown)


def _answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    none = f"--address {address}: expected a Ray cluster that answers, found none"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S):
            pass
        # something listens; whether it is Ray, Ray's own check says in bounded time (ray.init would try for
        # minutes)
        check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        subprocess.run(check, check=True, capture_output=True, timeout=CONNECT_TIMEOUT_S)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that IDNA refuses
        raise UserError(f"{none} ({one_line(error)})") from error
    except subprocess.SubprocessError as error:
        raise UserError(
            f"{none} (what listens there is not Ray, or wants another RAY_AUTH_MODE or token)"
        ) from error


def run_tasks(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Plain Ray tasks, one for each tuple of arguments."""
    task = ray.remote(num_cpus=1)(function)
    return list(ray.get([task.remote(*each) for each in arguments]))


def dashboard_url() -> str | None:
    """Where the dashboard of the connected cluster is; None where none runs."""
    url = ray.get_runtime_context().worker.node.address_info.get("webui_url")
    return f"http://{url}" if url else None
