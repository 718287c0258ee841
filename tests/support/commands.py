"""Commands of ours, as the tests run them, and a small sweep for them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

SWEEP = {
    "name": "small",
    "spaces": ["mobilenet_v3"],
    "strategies": ["top_down"],
    "cost": "macs",
    "predictor": "embedded",
    "targets": [[400, 300]],
    "seeds": 2,
    "search": {"population": 20, "generations": 5, "warm_generations": 3},
}


def topdown_ray(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "topdown_ray", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=200,
        check=False,
    )


def sweep_file(folder: Path, **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(
        yaml.safe_dump({key: value for key, value in {**SWEEP, **changes}.items() if value is not None})
    )
    return path


def assert_one_line(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def main_in_process(
    arguments: list[object], capsys: pytest.CaptureFixture[str]
) -> subprocess.CompletedProcess[str]:
    """The same as a process of its own, without its three seconds of start."""
    from topdown_ray.cli import main

    before = sys.argv
    sys.argv = ["topdown-ray", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stopped:
            main.main()
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return subprocess.CompletedProcess(arguments, int(stopped.value.code or 0), captured.out, captured.err)
