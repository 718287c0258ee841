"""The tutorial docs/tutorials/cluster.md, from start to end: the blocks of the page with fewer seeds, in one
shell, each as soon as the text lets the reader run it.

The shell has its own processes, network and /tmp/ray. So `ray stop` ends no other Ray of this machine, the
ports of the page are free, and all processes of the test end with the shell.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT

import topdown_ray

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PAGE = ROOT / "docs" / "tutorials" / "cluster.md"
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
SEEDS = 300  # the page has more, because a reader is slower
ALONE = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]


class Shell:
    """A shell that stays, as the reader's does; a command that fails ends it."""

    def __init__(self, folder: Path) -> None:
        (folder / ".ray").mkdir()
        program = folder / ".bin" / "topdown-ray"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m topdown_ray "$@"\n')
        program.chmod(0o755)
        path = [str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
        self._output = folder / "shell.log"
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

    def in_another_terminal(self, block: str, output: Path) -> None:
        """Start a block, and do not wait for its end. output: a file for what it prints."""
        self._send(f"( {block} ) > {output} 2>&1 &\n")

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
        text = log.read_text() if log.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def workers() -> set[object]:
        return {event["worker"] for event in events("shard")}

    def contains(file: Path, word: str) -> bool:
        return file.exists() and word in file.read_text()  # a background job opens its file later

    def second_node_works() -> bool:
        if contains(tmp_path / "second.log", "timed out during startup"):
            shell.run(next(block for block in BLOCKS if "--block" in block))  # a busy machine: once more
        return len(workers()) == 2

    # what the reader waits for before the block that contains a word
    before: dict[str, Callable[[], bool]] = {
        "--watch": (out / "run.json").exists,
        "--block": lambda: bool(workers()),
        "pkill": second_node_works,
        "grep": lambda: bool(events("lost")),
    }
    watched = tmp_path / "another_terminal.log"
    told = ""
    for block in [re.sub("seeds: 2000", f"seeds: {SEEDS}", block) for block in BLOCKS]:
        for word, what in before.items():
            if word in block:
                shell.wait_until(what)
        if "--watch" in block:
            shell.in_another_terminal(block, watched)
        else:
            told = shell.run(block)
        if "kill -9 $sweep" in block:
            shell.wait_until(partial(contains, watched, "killed"))
            assert 0 < len(topdown_ray.load(out).searches) < 3 * SEEDS
            assert not events("end")
    results = topdown_ray.load(out)
    assert results.manifest["status"] == "complete"
    assert len(results.manifest["sessions"]) == 2
    (end,) = events("end")
    assert (end["status"], end["done"]) == ("complete", SEEDS)
    assert results.searches.groupby("seed").size().to_dict() == dict.fromkeys(range(SEEDS), 3)
    assert "Stopped all" in told  # by `ray stop`
