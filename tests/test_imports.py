"""The rooms of the house and the arrows between them; ray, ofa and torch have their doors."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "topdown_ray"

# an import from one room into another; every room may use the ground floor (the modules beside the rooms)
ARROWS = {
    "cli": {"sweeps", "hardware", "networks", "report", "store", "spaces"},
    "sweeps": {"algorithms", "networks", "store", "spaces"},
    "hardware": {"networks", "spaces"},
    "networks": {"store", "spaces"},
    "report": {"store", "spaces"},
    "algorithms": {"spaces"},
    "store": set(),
    "spaces": set(),
}
LONGEST_CHAIN = 6
RAY = {"cluster", "hardware.nodes", "sweeps.tracking.ray_counters"}
OFA = {"networks.supernet", "networks.ofa_reference", "sweeps.bench.contestants"}


def module(path: Path) -> str:
    """``topdown_ray/spaces/cost.py`` -> ``spaces.cost``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(path: Path) -> set[str]:
    """The full names of all that a file imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


MODULES = {module(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"}


def room(name: str) -> str:
    """Of a module; "" for the ground floor."""
    first = name.partition(".")[0]
    return first if first in ARROWS else ""


def own(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "topdown_ray":
            known = [".".join(parts[1:end]) for end in range(2, len(parts) + 1)]
            found.update(name for name in known if name in MODULES)
    return found


def test_the_arrows_between_rooms_are_these() -> None:
    found = defaultdict(set)
    for name, path in MODULES.items():
        for other in own(path):
            if room(other) and room(other) != room(name):
                found[room(name)].add(room(other))
    found.pop("__main__", None)
    assert not found.pop("", set()) - ({"cli"} if "__main__" in MODULES else set()), (
        "the ground floor imports no room"
    )
    assert dict(found) == {name: arrows for name, arrows in ARROWS.items() if arrows}


def test_the_longest_chain_of_rooms_is_short() -> None:
    def depth(name: str) -> int:
        return 1 + max((depth(below) for below in ARROWS[name]), default=0)

    assert max(depth(name) + 1 for name in ARROWS) <= LONGEST_CHAIN  # and the ground floor


def test_no_module_imports_itself_in_a_circle() -> None:
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert state.get(name) != 1, " -> ".join((*path, name))
        if name not in state:
            state[name] = 1
            for other in sorted(own(MODULES[name])):
                visit(other, (*path, name))
            state[name] = 2

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize(
    ("package", "doors"),
    [
        ("ray", RAY),
        ("ofa", OFA),
        ("pymoo", {"algorithms.baselines.nsga2", "sweeps.bench.front_externals", "sweeps.bench.front_nas"}),
        ("moocore", {"sweeps.bench.front_recorder"}),
        ("ribs", {"sweeps.bench.front_externals"}),
        ("ofa2", {"sweeps.bench.front_nas"}),
    ],
)
def test_foreign_packages_have_their_doors(package: str, doors: set[str]) -> None:
    users = {
        name
        for name, path in MODULES.items()
        if package in {found.partition(".")[0] for found in imported(path)}
    }
    assert users == doors


def test_the_store_needs_neither_torch_nor_numba() -> None:
    reached, ahead = set(), [name for name in MODULES if room(name) == "store"]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += own(MODULES[name])
    for name in reached:
        assert not {found.partition(".")[0] for found in imported(MODULES[name])} & {"torch", "numba"}, name


def test_no_two_classes_share_a_name() -> None:
    homes = defaultdict(list)
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(name)
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_no_test_module_imports_another() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        others = [name for name in imported(path) if name.partition(".")[0].startswith("test_")]
        assert not others, f"{path.name} imports {others}"
