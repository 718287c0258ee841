"""An MLflow server on loopback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from support.nodes import free_port, kill_node, until_open

#: No jobs in processes of their own, nothing to the makers of MLflow.
QUIET = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Its URI; it keeps everything in this folder."""
    port = free_port()
    options = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    options += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("wb") as log:
        server = psutil.Popen(
            [sys.executable, "-m", "mlflow", "server", *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **QUIET},
            start_new_session=True,
        )
    try:
        until_open(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        kill_node(server)
