"""One file a space: the registry finds them, and nothing else in the package knows their names."""

import importlib
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from topdown_ray.errors import UserError
from topdown_ray.spaces import registry
from topdown_ray.spaces.registry import DEFAULT_SPACE, SPACES, find_space, in_words, names, searched_space

PACKAGE = ROOT / "topdown_ray"
FILES = {name: PACKAGE / "spaces" / f"{name}.py" for name in SPACES}
LIST = PACKAGE / "spaces" / "registry.py"  # one line for each space of the package


def test_every_space_has_a_file_of_its_own() -> None:
    for name, path in FILES.items():
        assert path.is_file()
        assert f'"{name}"' in path.read_text()
        assert SPACES[name].name == name


def test_no_other_module_names_a_space() -> None:
    """Neither by its name nor by its constant, in code, messages or comments."""
    known = re.compile(r"(?<!\w)(" + "|".join([*names(), *map(str.upper, names())]) + r")(?!\w)")
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if known.search(line) and path not in (*FILES.values(), LIST):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found


def test_a_space_knows_no_other_one_but_that_of_its_predictor() -> None:
    for name, path in FILES.items():
        others = {other for other in names() if re.search(rf'"{other}"|{other.upper()}', path.read_text())}
        assert others <= {name, SPACES[name].traits.predictor_space}


def test_the_registry_names_each_space_once() -> None:
    lines = [line for line in LIST.read_text().splitlines() if any(name in line for name in names())]
    assert len(lines) == len(names())


def test_names_are_known_without_torch() -> None:
    code = """
import sys
from topdown_ray.spaces.registry import in_words
print(in_words(), "torch" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout == f"{in_words()} False\n"
    assert in_words() == "mobilenet_v3, resnet50d or proxyless"


def test_the_default_comes_first() -> None:
    assert names()[0] == DEFAULT_SPACE == "mobilenet_v3"
    assert list(SPACES) == list(names())
    assert len(SPACES) == 3


def test_lookups() -> None:
    assert SPACES[DEFAULT_SPACE] is SPACES[DEFAULT_SPACE] is find_space(DEFAULT_SPACE)
    assert "nowhere" not in SPACES
    assert None not in SPACES
    assert SPACES.get("nowhere") is None
    with pytest.raises(KeyError):
        SPACES["nowhere"]
    with pytest.raises(UserError, match="--space: expected one of mobilenet_v3, resnet50d, proxyless, found"):
        find_space("nowhere")


@pytest.mark.parametrize("name", names())
def test_the_notebook_searched_one_space_under_every_name(name: str) -> None:
    assert searched_space(name, "notebook").name == "mobilenet_v3"
    assert searched_space(name, "default") is SPACES[name]


@pytest.mark.parametrize("name", names())
def test_a_space_can_be_sent_to_another_process(name: str) -> None:
    space, sent = SPACES[name], pickle.loads(pickle.dumps(SPACES[name]))
    assert sent is not space
    assert sent.genes == space.genes
    assert sent.traits.encoding is space.traits.encoding
    assert sent.distinct_layers() == space.distinct_layers()


ELSEWHERE = """
import dataclasses
from topdown_ray.spaces.registry import SPACES

MINE = dataclasses.replace(SPACES["resnet50d"], name="mine")
"""


@pytest.fixture
def another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that adds spaces by entry points."""
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    about = tmp_path / "elsewhere-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    lines = ["mine = elsewhere:MINE", "gone = nowhere:GONE", "other = elsewhere:MINE"]
    lines += ["resnet50d = elsewhere:MINE"]
    (about / "entry_points.txt").write_text("\n".join(["[topdown_ray.spaces]", *lines, ""]))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    registry._places.cache_clear()
    yield
    registry._places.cache_clear()
    sys.modules.pop("elsewhere", None)


@pytest.mark.usefixtures("another_package")
def test_another_package_adds_a_space() -> None:
    assert names() == ("mobilenet_v3", "resnet50d", "proxyless", "gone", "mine", "other")
    assert SPACES["mine"].name == "mine"
    assert SPACES["resnet50d"].name == "resnet50d"  # not replaced
    with pytest.raises(UserError, match="spaces: gone: expected an object at nowhere:GONE, found Mod"):
        SPACES["gone"]
    with pytest.raises(UserError, match="spaces: other: expected a space of that name at elsewhere:MINE"):
        SPACES["other"]
