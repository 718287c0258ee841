"""Every shell and Python block of the documentation runs, or says why it does not.

The blocks of a page run in order, in one empty folder that has the repository's ``scripts``, with the
published artefacts and without a network. Python blocks of a page share their names, as the cells of a
notebook do. A block whose first line is a comment with a file name (``# my_cost.py``) is saved under that
name. A block of text after a block that ran, in the same section, shows its output: the words of both are
compared, the numbers are not. A comment above a block makes an exception:

    <!-- not run: needs an AWS account -->
    <!-- run by tests/sweeps/test_slurm.py -->
"""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from support.pages import PAGES, blocks, label

from topdown_ray import plugins

OF_A_MACHINE = {"laptop", "Intel", "R", "Xeon", "Processor"}  # words of an output that name a machine
EXECUTABLE = [
    page for page in PAGES if any(b.language in ("bash", "python") and b.mark is None for b in blocks(page))
]


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_every_block_has_a_known_language_and_a_sound_mark(page: Path) -> None:
    """Exceptions state a reason, or a test module that names the page."""
    text = page.read_text()
    assert len(re.findall(r"^<!-- (?:not run|run by)", text, re.MULTILINE)) == sum(
        b.mark is not None for b in blocks(page)
    )
    for block in blocks(page):
        assert block.language in ("bash", "python", "yaml", "text", "toml", "json"), (
            f"{label(page)}:{block.line}"
        )
        if block.mark is not None:
            reason = re.fullmatch(r"not run: \w.{9,}|run by (tests/\S+\.py)", block.mark)
            assert reason, f"{label(page)}:{block.line}: {block.mark}"
            assert reason[1] is None or page.name in (ROOT / reason[1]).read_text(), block.mark


def words(text: str) -> set[str]:
    """The words of an output, without numbers, hashes and times."""
    return {word for word in re.findall(r"\w+", text) if not re.search(r"\d", word)}


@pytest.mark.slow
@pytest.mark.parametrize("page", EXECUTABLE, ids=label)
def test_the_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Path) -> None:
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    programs = tmp_path / ".bin"
    programs.mkdir()
    (programs / "topdown-ray").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m topdown_ray "$@"\n')
    (programs / "topdown-ray").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(
        "PATH", os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    monkeypatch.setenv("TOPDOWN_RAY_ASSETS", str(published))
    monkeypatch.setenv("TOPDOWN_RAY_OFFLINE", "1")
    names: dict[str, object] = {"__name__": "__main__"}
    lines = page.read_text().splitlines()
    printed: str | None = None  # by the block before in this section; None if it did not run
    end = 0  # line at which the block before ends
    for block in blocks(page):
        where = f"{label(page)}:{block.line}"
        same_section = not any(line.startswith("#") for line in lines[end : block.line])
        before, printed = printed if same_section else None, None
        end = block.line + block.code.count("\n")
        if block.mark is not None:
            continue
        if block.language == "bash":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.code], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}"
            printed = done.stdout + done.stderr
        elif block.language == "python":
            if module := re.match(r"# (\w+\.py)\n", block.code):
                (tmp_path / module[1]).write_text(block.code)
            else:
                with contextlib.redirect_stdout(io.StringIO()) as told:
                    exec(compile("\n" * (block.line - 1) + block.code, label(page), "exec"), names)
                printed = told.getvalue()
        elif block.language == "text" and before is not None:
            missing = words(block.code) - words(before) - OF_A_MACHINE
            assert not missing, f"{where}: {missing} not in\n{before}"
    for module_name in [
        m for m, loaded in sys.modules.items() if str(tmp_path) in str(getattr(loaded, "__file__", ""))
    ]:
        del sys.modules[module_name]
    plugins._load.cache_clear()
