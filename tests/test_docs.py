"""The documentation cannot drift: its commands exist, its blocks can be parsed, its links lead somewhere, and
its generated pages are up to date. ``test_docs_blocks`` runs the blocks.
"""

import ast
import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from conftest import ROOT
from support.pages import PAGES, blocks, label

import topdown_ray
from topdown_ray.cli.main import app

FENCES = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands(page: Path) -> list[str]:
    """Every command line of ours: in blocks, and in code within the text."""
    text = page.read_text()
    lines = [line for block in FENCES.findall(text) for line in block.splitlines()]
    inline = re.findall(r"`(topdown-ray [^`\n]+)`", FENCES.sub("", text))
    return [
        line.split(" #")[0].strip() for line in [*lines, *inline] if line.strip().startswith("topdown-ray ")
    ]


ALL = [(label(page), command) for page in PAGES if page.name != "cli.md" for command in commands(page)]


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
        while hasattr(group, "commands") and rest:
            name, *rest = rest
            assert name in group.commands, f"{page}: {command}"
            group = group.commands[name]
        if rest:  # else the command is only named
            group.make_context(name, rest)


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_every_block_can_be_parsed(page: Path) -> None:
    """Shell blocks by bash, and their commands of Ray by Ray's own parser; YAML and Python blocks."""
    from ray.scripts.scripts import cli

    for block in blocks(page):
        if block.language == "yaml":
            assert yaml.safe_load(block.code)
        elif block.language == "python":
            ast.parse(block.code)
        elif block.language == "bash":
            subprocess.run(["bash", "-n"], input=block.code, text=True, check=True)
            for line in re.findall(r"(?m)^(?:\S+=\S+ )*ray (.+)$", block.code):
                name, *rest = shlex.split(line, comments=True)
                group, command = cli, cli.commands[name]
                if hasattr(command, "commands"):
                    name, *rest = rest
                    group, command = command, command.commands[name]
                assert group.commands[name].make_context(name, rest, resilient_parsing=False)


GENERATED = {
    "cli_reference": "reference/cli.md",
    "sweep_file_reference": "reference/sweep-file.md",
    "tables_reference": "reference/tables.md",
    "rooms": "contributing/rooms.md",
}


@pytest.mark.parametrize(("script", "page"), GENERATED.items())
def test_the_generated_pages_are_up_to_date(script: str, page: str, tmp_path: Path) -> None:
    """If it fails: python scripts/make/SCRIPT.py"""
    made = tmp_path / "made.md"
    command = [sys.executable, ROOT / "scripts" / "make" / f"{script}.py", "--out", made]
    if script == "rooms":
        command += ["--picture", tmp_path / "made.svg"]
    subprocess.run(command, check=True)
    assert made.read_text() == (ROOT / "docs" / page).read_text()


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_doctest_runs() -> None:
    found = doctest.testmod(topdown_ray)
    assert found.attempted > 2
    assert not found.failed


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
