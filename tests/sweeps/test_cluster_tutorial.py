"""The tutorial docs/tutorials/cluster.md, followed to its end: its blocks as they stand, in one shell, each as soon
as the text would have the reader run it.

The shell has processes, a network and a /tmp/ray of its own, so that `ray stop` ends no other Ray of this machine
and that the page's ports are free. All its processes end with it.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT

import topdown_ray

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PAGE = ROOT / "docs" / "tutorials" / "cluster.md"
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
ALONE = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]


class Shell:
    """A shell that stays, as the reader's does; a command that fails ends it."""

    def __init__(self, folder: Path) -> None:
        (folder / ".ray").mkdir()
        (folder / ".bin").mkdir()
        (folder / ".bin" / "topdown-ray").write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -m topdown_ray "$@"\n'
        )
        (folder / ".bin" / "topdown-ray").chmod(0o755)
        path = [str(folder / ".bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        self._folder, self._output = folder, folder / "shell.log"
        with self._output.open("wb") as log:
            self._process = subprocess.Popen(
                [*ALONE, "bash", "-euo", "pipefail"],
                cwd=folder,
                env={
                    **os.environ,
                    "HOME": str(folder),  # where Ray keeps the token
                    "PATH": os.pathsep.join(path),
                    "PYTHONPATH": str(ROOT),
                    "RAY_USAGE_STATS_ENABLED": "0",
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self._n = 0
        self.run(f"mkdir -p /tmp/ray && mount --bind {folder / '.ray'} /tmp/ray && ip link set lo up")

    def run(self, block: str) -> str:
        """Run a block to its end. Returns what the shell printed meanwhile."""
        self._n += 1
        before = len(self.told)
        self._send(f"{block}\necho '(end of block {self._n})'\n")
        self.wait_until(lambda: f"(end of block {self._n})\n" in self.told[before:])
        return self.told[before:]

    def in_another_terminal(self, block: str) -> Path:
        """Start a block that runs on. Returns the file of its output."""
        output = self._folder / "another_terminal.log"
        self._send(f"( {block} ) > {output} 2>&1 &\n")
        return output

    @property
    def told(self) -> str:
        return self._output.read_text()

    def wait_until(self, what: Callable[[], bool], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert self._process.poll() is None, self.told[-5000:]
            assert time.monotonic() < deadline, self.told[-5000:]
            time.sleep(0.05)

    def _send(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def close(self) -> None:
        """End the shell and, with it, all processes that it has started."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """The test skips, saying so, where a shell cannot have processes and a network of its own."""
    own = subprocess.run([*ALONE, "ip", "link"], capture_output=True, text=True, check=False)
    if own.returncode:
        pytest.skip(f"a shell cannot have processes and a network of its own: {own.stderr.strip()}")
    opened = Shell(tmp_path)
    try:
        yield opened
    finally:
        opened.close()


def test_the_tutorial_is_followed_to_its_end(shell: Shell, tmp_path: Path) -> None:
    out, log = tmp_path / "results" / "cluster", tmp_path / "events.jsonl"

    def events(name: str) -> list[dict[str, object]]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def workers() -> set[object]:
        return {event["worker"] for event in events("shard")}

    # what the reader waits for before a block, by a word of the block
    before: dict[str, Callable[[], bool]] = {
        "--watch": lambda: (out / "run.json").exists(),
        "kill $second": lambda: len(workers()) == 2,  # the new node works
        "grep": lambda: bool(events("lost")),
    }
    told, watched = "", tmp_path / "missing"
    for block in BLOCKS:
        for word, what in before.items():
            if word in block:
                shell.wait_until(what)
        if "--watch" in block:
            watched = shell.in_another_terminal(block)
        else:
            told = shell.run(block)
        if "kill -9" in block:
            shell.wait_until(lambda: "killed" in watched.read_text())
            assert 0 < len(topdown_ray.load(out).searches) < 600
            assert not events("end")
    results = topdown_ray.load(out)
    assert results.manifest["status"] == "complete"
    assert len(results.manifest["sessions"]) == 2
    (end,) = events("end")
    assert (end["status"], end["done"]) == ("complete", 200)
    assert results.searches.groupby("seed").size().to_dict() == dict.fromkeys(range(200), 3)
    assert "Stopped all" in told  # by `ray stop`
