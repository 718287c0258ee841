"""The documentation cannot drift: its commands exist, its tour runs, its links lead somewhere, its reference
is up to date.
"""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from conftest import ROOT

import topdown_ray
from topdown_ray.cli.main import app

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCES = re.compile(r"```(?:bash|console)\n(.*?)```", re.DOTALL)


def commands(page: Path) -> list[str]:
    """Every command line of ours: in blocks, and in code within the text."""
    text = page.read_text()
    lines = [line for block in FENCES.findall(text) for line in block.splitlines()]
    inline = re.findall(r"`(topdown-ray [^`\n]+)`", FENCES.sub("", text))
    return [
        line.split(" #")[0].strip() for line in [*lines, *inline] if line.strip().startswith("topdown-ray ")
    ]


ALL = [(page.name, command) for page in PAGES if page.name != "cli.md" for command in commands(page)]


def test_there_are_commands() -> None:
    assert len(ALL) > 40


@pytest.mark.parametrize(("page", "command"), ALL)
def test_every_command_is_understood(page: str, command: str) -> None:
    """Parsed by the program itself, placeholders (DIR, FILE, N) included: all names and options exist and
    have values.
    """
    plain = re.sub(r"\[([^\]]*)\]", r"\1", command).replace("...", "")
    _, *words = shlex.split(plain.replace("\\|", "|"))
    words = ["1" if re.fullmatch(r"[A-Z]", word) else word for word in words]
    alternatives = words[1].split("|") if len(words) > 1 else [""]
    for alternative in alternatives:
        rest = words if len(alternatives) == 1 else [words[0], alternative, *words[2:]]
        group = typer.main.get_command(app)
        while hasattr(group, "commands"):
            name, *rest = rest
            assert name in group.commands, f"{page}: {command}"
            group = group.commands[name]
        if rest:  # else the command is only named
            group.make_context(name, rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_can_be_parsed(page: Path) -> None:
    """Shell blocks by bash, and their commands of Ray by Ray's own parser; YAML blocks by PyYAML."""
    from ray.scripts.scripts import cli

    text = page.read_text()
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
        for line in re.findall(r"(?m)^(?:\S+=\S+ )*ray (.+)$", block):
            name, *rest = shlex.split(line, comments=True)
            group, command = cli, cli.commands[name]
            if hasattr(command, "commands"):
                name, *rest = rest
                group, command = command, command.commands[name]
            assert group.commands[name].make_context(name, rest, resilient_parsing=False)
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        assert yaml.safe_load(block)


def test_the_reference_is_up_to_date(tmp_path: Path) -> None:
    """If it fails: python scripts/make/cli_reference.py"""
    before = (ROOT / "docs" / "reference" / "cli.md").read_text()
    made = tmp_path / "cli.md"
    script = ROOT / "scripts" / "make" / "cli_reference.py"
    subprocess.run([sys.executable, script, "--out", made], check=True)
    assert made.read_text() == before


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.slow
def test_the_tour_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """README's tour, line by line as it stands, from a copy of the sweep files, without published files or a
    network.
    """
    (tour,) = [block for block in FENCES.findall(README.read_text()) if "sweeps/tour.yaml" in block]
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "sweeps").symlink_to(ROOT / "scripts" / "sweeps")
    (tmp_path / "topdown-ray").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m topdown_ray "$@"\n')
    (tmp_path / "topdown-ray").chmod(0o755)
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path),
        "TOPDOWN_RAY_ASSETS": "",
        "TOPDOWN_RAY_OFFLINE": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        ["bash", "-euc", tour], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "12 of 12 searches" in done.stdout
    assert (tmp_path / "results" / "tour" / "report" / "report.html").is_file()
    monkeypatch.chdir(tmp_path)
    exec(compile(python_of("results/tour"), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "top_down" in printed
    assert "sd" in printed


def python_of(what: str) -> str:
    """README's Python block that mentions this."""
    (block,) = [
        block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if what in block
    ]
    return str(block)


@pytest.mark.usefixtures("published")
def test_the_three_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(python_of("topdown_ray.search"), "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 1 + 8 * 3


def test_the_doctest_runs() -> None:
    found = doctest.testmod(topdown_ray)
    assert found.attempted > 2
    assert not found.failed


def test_the_map_of_the_rooms_is_that_of_the_package(tmp_path: Path) -> None:
    """If it fails: python scripts/make/rooms.py"""
    made = tmp_path / "rooms.md"
    script = ROOT / "scripts" / "make" / "rooms.py"
    subprocess.run([sys.executable, script, "--out", made], check=True)
    assert made.read_text() == (ROOT / "docs" / "contributing" / "rooms.md").read_text()


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "reference" / "tables.md").read_text(), re.DOTALL)
    exec(compile(code, "docs/reference/tables.md", "exec"), {})
    assert "mobilenet_v4" in capsys.readouterr().out


def test_the_sweep_over_devices_is_the_one_of_its_page() -> None:
    (block,) = re.findall(
        r"```yaml\n(name: devices.*?)```", (ROOT / "docs" / "guides" / "devices.md").read_text(), re.DOTALL
    )
    assert yaml.safe_load(block) == yaml.safe_load((ROOT / "scripts" / "sweeps" / "devices.yaml").read_text())


def test_the_public_names_are_documented() -> None:
    for name in topdown_ray.__all__:
        if not name.startswith("__"):
            assert (getattr(topdown_ray, name).__doc__ or "").strip(), name
    text = "".join(page.read_text() for page in PAGES)
    assert [
        name
        for name in topdown_ray.__all__
        if not name.startswith("__") and f"topdown_ray.{name}" not in text
    ] == []
