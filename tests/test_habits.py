"""The files around the package are what the tools that read them expect: the workflow, the forms for issues,
pre-commit, the citation, pyproject.toml, and the pages for contributors.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from topdown_ray import __version__

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
HOOKS = ROOT / ".pre-commit-config.yaml"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


# --- files that other programs read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.github-workflows", WORKFLOW),
        ("vendor.github-issue-forms", FORMS / "bug.yml"),
        ("vendor.github-issue-forms", FORMS / "feature.yml"),
        ("vendor.github-issue-config", FORMS / "config.yml"),
        ("vendor.citation-file-format", ROOT / "CITATION.cff"),
    ],
)
def test_files_follow_the_schemas_of_their_readers(schema: str, path: Path) -> None:
    """The schemas come with the validator: nothing is fetched."""
    options = ["--builtin-schema", schema, "--force-filetype", "yaml"]
    done = run(sys.executable, "-m", "check_jsonschema", *options, path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_validator_refuses_a_citation_without_authors(tmp_path: Path) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    del citation["authors"]
    (tmp_path / "CITATION.cff").write_text(yaml.safe_dump(citation))
    options = ["--builtin-schema", "vendor.citation-file-format", "--force-filetype", "yaml"]
    done = run(sys.executable, "-m", "check_jsonschema", *options, tmp_path / "CITATION.cff")
    assert done.returncode == 1
    assert "authors" in done.stdout + done.stderr


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == __version__ == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert f"\n## {citation['version']}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_workflow_runs_what_ci_runs_with_few_rights_and_bounds() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1]["run"] == "bash .ci/run"
    assert 0 < job["timeout-minutes"] <= 360
    for step in job["steps"]:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", "a/b@" + 40 * "0")), step
    least = PROJECT["requires-python"].removeprefix(">=")
    assert job["container"]["image"] == f"python:{least}-bookworm"


def test_pyproject_is_valid_and_its_classifiers_exist() -> None:
    done = run(
        sys.executable,
        "-m",
        "validate_pyproject",
        "pyproject.toml",
        NO_NETWORK="1",
        VALIDATE_PYPROJECT_NO_NETWORK="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {lowest}" in PROJECT["classifiers"]


def test_the_extra_all_is_all_but_those_for_developers() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    named = re.fullmatch(r"topdown-ray\[([\w,-]+)\]", everything)
    assert named
    assert set(named[1].split(",")) == set(extras) - {"all", "docs", "test"}


# --- pre-commit ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_hooks_find_what_the_linters_find(tmp_path: Path) -> None:
    """pre-commit itself, in a repository with one bad file, with the tools of this environment."""
    assert run(sys.executable, "-m", "pre_commit", "validate-config", HOOKS).returncode == 0
    shutil.copy(HOOKS, tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    package = tmp_path / "topdown_ray"
    package.mkdir()
    (package / "bad.py").write_text('"""A module."""\nimport os\nx: int = "1"\ny = [ 1 ]\n')
    for command in (["init", "--quiet"], ["add", "topdown_ray", "pyproject.toml", HOOKS.name]):
        assert run("git", *command, cwd=tmp_path).returncode == 0
    found = {}
    for hook in ("ruff-check", "ruff-format", "mypy"):
        done = run(
            sys.executable,
            *("-m", "pre_commit", "run", hook, "--all-files"),
            cwd=tmp_path,
            PRE_COMMIT_HOME=str(tmp_path / "cache"),
        )
        assert done.returncode == 1, done.stdout + done.stderr
        found[hook] = done.stdout
    assert "F401" in found["ruff-check"]
    assert "1 file reformatted" in found["ruff-format"]
    assert "Incompatible types in assignment" in found["mypy"]
    assert (package / "bad.py").read_text().endswith("y = [1]\n")


def test_hooks_run_the_linters_of_the_test_script() -> None:
    entries = [hook["entry"] for repo in yaml.safe_load(HOOKS.read_text())["repos"] for hook in repo["hooks"]]
    script = (ROOT / "scripts" / "test.sh").read_text()
    for entry in entries:
        assert entry.removesuffix(" --force-exclude") in script, entry


# --- pages for contributors ---------------------------------------------------------------------------------


def test_the_picture_of_the_rooms_is_that_of_the_package(tmp_path: Path) -> None:
    """If it fails: python scripts/make/rooms.py"""
    made = tmp_path / "rooms.svg"
    done = run(sys.executable, "scripts/make/rooms.py", "--picture", made, "--out", tmp_path / "rooms.md")
    assert done.returncode == 0, done.stderr
    assert made.read_text() == (ROOT / "docs" / "figures" / "rooms.svg").read_text()


def test_the_picture_shows_the_arrows_that_are_allowed() -> None:
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text())
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARROWS"
    ]
    allowed: dict[str, set[str]] = ast.literal_eval(value)
    picture = (ROOT / "docs" / "figures" / "rooms.svg").read_text()
    shown = re.findall(r"<title>(\w+) imports (\w+)</title>", picture)
    assert sorted(shown) == sorted((room, other) for room, others in allowed.items() for other in others)


NAMED = re.compile(r"`(?:python |bash )?((?:topdown_ray|tests|scripts|docs|\.ci)/[\w./*-]+)")
CONTRIBUTING = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "contributing").rglob("*.md"))]


@pytest.mark.parametrize("page", CONTRIBUTING, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    """But placeholders in capitals and patterns. In one cell of a table, a bare file name belongs to a folder
    that the cell names.
    """
    for line in page.read_text().splitlines():
        for cell in line.split(" | "):
            named = NAMED.findall(cell)
            folders = {(ROOT / name).parent for name in named}
            for name in named:
                if not re.search(r"[A-Z]{3,}|\*", name):
                    assert (ROOT / name).exists(), f"{page.name}: {name}"
            for name in re.findall(r"`(\w+\.py)`", cell):
                assert any((folder / name).exists() for folder in folders), f"{page.name}: {name}"


def test_every_decision_record_is_listed() -> None:
    folder = ROOT / "docs" / "contributing" / "decisions"
    index, site = (folder.parent / "decisions.md").read_text(), (ROOT / "mkdocs.yml").read_text()
    records = sorted(folder.glob("*.md"))
    assert len(records) >= 7
    for record in records:
        assert f"(decisions/{record.name})" in index
        assert f"contributing/decisions/{record.name}" in site
        parts = ("**Question.**", "## Options", "## Figures", "## Choice", "## Consequences")
        text = record.read_text()
        assert [part for part in parts if part not in text] == [], record.name
