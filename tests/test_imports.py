"""The rooms of the house: imports only point downwards, ray and ofa have one door each."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "topdown_ray"

# from the top to the bottom: a module may import those below it only
ORDER = [
    "__main__",
    "cli",
    "cli_status",
    "cli_assets",
    "cli_measure",
    "campaign",
    "subnets",
    "cli_networks",
    "cli_front",
    "supervisor",
    "demo",
    "present",
    "bench",
    "front",
    "nsga2",
    "report",
    "published",
    "provenance",
    "measured",
    "plots",
    "regret",
    "comparisons",
    "layout",
    "verify",
    "status",
    "export",
    "winners",
    "measuring",
    "learning",
    "hosting",
    "evaluations",
    "evaluation",
    "images",
    "nodes",
    "actors",
    "sweep",
    "progress",
    "dispatch",
    "executors",
    "store",
    "parts",
    "failures",
    "storage",
    "tables",
    "stats",
    "runner",
    "sizing",
    "pending",
    "spec",
    "strategies",
    "joint",
    "gradients",
    "evolution",
    "memo",
    "pruning",
    "rng",
    "measure",
    "stopwatch",
    "supernet",
    "weights",
    "catalogue",
    "accuracy",
    "efficiency",
    "latency",
    "layers",
    "terms",
    "assets",
    "download",
    "spaces",
    "compiled",
    "checkpoints",
    "files",
    "tiles",
    "machine",
    "console",
    "scalar",
    "errors",
]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


MODULES = sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")


def test_every_module_has_its_place() -> None:
    assert {path.stem for path in MODULES} == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_point_downwards(path: Path) -> None:
    below = ORDER[ORDER.index(path.stem) + 1 :]
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("topdown_ray.")}
    above = ours - set(below)
    assert not above, f"{path.name} imports from above: {sorted(above)}"


@pytest.mark.parametrize(
    ("package", "doors"),
    [("ray", {"actors", "hosting", "nodes"}), ("ofa", {"supernet", "verify", "bench"}), ("pymoo", {"nsga2"})],
)
def test_heavy_packages_have_few_doors(package: str, doors: set[str]) -> None:
    found = {path.stem for path in MODULES if any(name.split(".")[0] == package for name in imported(path))}
    assert found == doors
