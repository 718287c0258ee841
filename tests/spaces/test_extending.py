"""The examples of docs/guides/extending.md and docs/tutorials/your-space.md run and give what they should."""

import dataclasses
import importlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from support.commands import main_in_process

import topdown_ray
from topdown_ray import plugins
from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.cluster import connected
from topdown_ray.errors import UserError
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.plugged_in import plugin_cost
from topdown_ray.store.results import load
from topdown_ray.strategy_styles import style_of
from topdown_ray.sweeps.verify import verify

TEXT = "\n".join(
    (ROOT / "docs" / page).read_text() for page in ("guides/extending.md", "tutorials/your-space.md")
)


def section(title: str) -> str:
    """The text below this title, up to the next one."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def python_of(title: str) -> list[str]:
    """The Python blocks of a section."""
    return re.findall(r"```python\n(.+?)```", section(title), re.DOTALL)


def run(title: str) -> None:
    """Run the one Python block of a section."""
    (block,) = python_of(title)
    exec(compile(block, "docs/guides/extending.md", "exec"), {"__name__": title})


def test_a_new_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        run("A new strategy")
    finally:
        STRATEGIES.pop("patient", None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 2
    full, warm = 100 * 21, 1 + 2 * 100 * 5
    assert sorted(int(line.split()[-1]) for line in lines[1:]) == [warm, warm, full, full]


def test_a_strategy_with_parameters_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        run("A strategy with parameters of its own")
        assert style_of("patient").label == "patient top-down"
    finally:
        STRATEGIES.pop("patient", None)
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[-1]) for line in lines[1:]] == [20 * 21, 1 + 20 * 3 * 5]


def best_of_tiny(limit: float) -> float:
    """The best accuracy of the small space under a cost, by trying all architectures."""
    accuracies = []
    for depth, resolution in itertools.product(range(3), range(3)):
        for kernels in itertools.product(range(3), repeat=depth + 1):
            pixels = (96 + 32 * resolution) ** 2
            if sum((3 + 2 * k) ** 2 for k in kernels) * pixels / 1e5 <= limit:
                accuracies.append(0.6 + 0.02 * sum(1 + k for k in kernels) + 0.03 * resolution)
    return max(accuracies)


# --- plug-ins -----------------------------------------------------------------------------------------------


def forget() -> None:
    """The modules of plug-ins, as a new process has not imported them."""
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
    plugins._load.cache_clear()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(STRATEGIES)
    yield tmp_path
    for name in set(STRATEGIES) - known:
        del STRATEGIES[name]
    forget()


def write_module(title: str, folder: Path) -> str:
    """Write the section's module into the folder; its program."""
    module, program = python_of(title)
    write(module, folder)
    return program


def write(module: str, folder: Path) -> None:
    """Write a module under the name in its first line."""
    name = re.match(r"# (my_\w+\.py)\n", module)
    assert name
    (folder / name[1]).write_text(module)


def plug_in(title: str, folder: Path) -> None:
    """Write the section's module and run its sweep."""
    exec(compile(write_module(title, folder), "docs/guides/extending.md", "exec"), {"__name__": title})


@pytest.mark.ray
def test_a_strategy_as_a_plug_in(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a real Ray with two actors, whose workers import the module by themselves."""
    plug_in("A strategy as a plug-in", here)
    assert "patient" in capsys.readouterr().out
    results = load(here / "results" / "strategy")
    assert set(results.searches["strategy"]) == {"top_down", "my_strategy:patient"}
    assert verify(results, rerun=4).passed
    spent = results.searches.groupby("label")["evaluations"].sum()
    assert spent["patient"] == spent["top_down"] + 4 * 5 * 20


@pytest.mark.ray
@pytest.mark.slow
def test_a_predictor_as_a_plug_in(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with connected("local"):  # once for its three sweeps
        plug_in("A predictor as a plug-in", here)
    assert capsys.readouterr().out.count("mobilenet_v3") == 3
    for name, moves in (("forest", False), ("gelu", True), ("rule", False)):
        results = load(here / "results" / name)
        assert set(results.searches["predictor_name"]) == {f"plugin:my_predictors:{name}"}
        joint = results.searches[results.searches["label"] == "joint"]
        assert (joint["gradients"].sum() > 0) == moves
        found = verify(results, rerun=4)
        assert found.passed
        (rule,) = [check.rule for check in found.checks if check.name == "accuracy"]
        assert rule == "the value recomputed from arch by the plug-in's own function"


def test_a_cost_as_a_plug_in(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plug_in("A cost as a plug-in", here)
    assert "mJ" in capsys.readouterr().out
    results = load(here / "results" / "energy")
    assert (results.searches["cost"] <= results.searches["target"]).all()
    assert verify(results, rerun=4).passed


ENTRY_POINTS = """
[topdown_ray.strategies]
patient = my_strategy:patient
[topdown_ray.costs]
energy = my_cost:energy
[topdown_ray.predictors]
rule = my_predictors:rule
"""


def test_plug_ins_of_an_installed_package(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for title in ("A strategy as a plug-in", "A cost as a plug-in", "A predictor as a plug-in"):
        write_module(title, here)
    about = here / "mine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    importlib.invalidate_caches()
    results = topdown_ray.sweep(
        spaces=["mobilenet_v3"],
        strategies=["patient"],
        cost="energy",
        predictor="rule",
        targets=[7, 5],
        seeds=2,
        search={"population": 20, "generations": 4, "warm_generations": 2},
        out="results/entry_points",
        address="none",
        progress=False,
    )
    rows = results.searches
    assert set(rows["strategy"]) == {"patient"}
    assert set(rows["cost_name"]) == {"plugin:energy"}
    assert set(rows["predictor_name"]) == {"plugin:rule"}
    assert verify(results, rerun=2).passed
    assert main_in_process(["report", "results/entry_points"], capsys).returncode == 0
    wrong = {"cost": "expected .*energy", "predictor": "expected .*rule", "strategies": "expected .*patient"}
    for field, message in wrong.items():
        changed = {field: ["nothing"] if field == "strategies" else "nothing"}
        with pytest.raises(UserError, match=message):
            topdown_ray.sweep("results/entry_points", **changed)


UPLOADED = """
from topdown_ray.algorithms.strategies import strategy

@strategy("uploaded", lambda full, warm: full)
def uploaded(searches):
    \"\"\"An independent search that runs in Ray's copy of the working directory only.\"\"\"
    assert "runtime_resources" in __file__, __file__
    for index in range(len(searches.targets)):
        yield searches.evolve(index, None, searches.params.generations, 0).outcome
"""


@pytest.mark.ray
@pytest.mark.parametrize("way", ["working_dir", "py_modules"])
def test_an_uploaded_module_reaches_the_workers_of_two_nodes(
    way: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is not the one that the driver works in, where workers on the driver's machine look, too."""
    import ray
    from ray.cluster_utils import Cluster

    package = here / "code" / "my_uploaded"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(UPLOADED)
    monkeypatch.syspath_prepend(str(package.parent))
    environment = {way: str(package.parent) if way == "working_dir" else [str(package)]}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1)
        ray.init(nodes.address, runtime_env=environment, log_to_driver=False)
        results = topdown_ray.sweep(
            spaces=["mobilenet_v3"],
            strategies=["independent", "my_uploaded:uploaded"],
            cost="macs",
            predictor="embedded",
            targets=[400, 300],
            seeds=4,
            batch=1,
            search={"population": 20, "generations": 4},
            out="results/uploaded",
            actors=2,
            progress=False,
        )
        assert ray.is_initialized()
    finally:
        ray.shutdown()
        nodes.shutdown()
    found = results.searches.set_index(["seed", "target"]).groupby("label")["arch"]
    assert found.get_group("my_uploaded:uploaded").to_dict() == found.get_group("independent").to_dict()


ODD_SWEEP = {"spaces": ["resnet50d"], "cost": "macs", "predictor": "embedded"}
ODD = """
from topdown_ray.algorithms.strategies import strategy
from topdown_ray.spaces.plugged_in import on_genes

@strategy("none_at_all", lambda full, warm: full)
def none_at_all(searches):
    yield from ()

percent = on_genes(lambda genes: 70 + genes.sum(1).float() / 100)
negative = on_genes(lambda genes: genes.sum(1).float() - 1e6, unit="mJ")
few = on_genes(lambda genes: genes[:1].sum(1).float(), unit="mJ")
broken = on_genes(lambda genes: {}["key"], unit="mJ")
"""


WITH_A_SET = """
class Regressor:
    words = {"one", "two", "three", "four"}

    def __init__(self):
        self.seen = set(self.words)

    def predict(self, features):
        return features[:, :3].sum(1) / 10 + 0.3

regressor = Regressor()
"""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"predictor": "my_odd:percent"},
            "my_odd:percent: expected top-1 accuracies as fractions from 0 to",
        ),
        (
            {"predictor": "my_odd:broken"},
            "my_odd:broken: expected a value for every architecture, found KeyError",
        ),
        ({"cost": "my_odd:negative"}, "cost: my_odd:negative: expected numbers above 0, found -"),
        ({"cost": "my_odd:few"}, "plugin:my_odd:few: expected 128 values for 128 architectures, found 1"),
        ({"cost": "my_nothing:few"}, "cost: my_nothing:few: expected an object at my_nothing:few, found Mod"),
    ],
)
def test_functions_are_tried_before_a_sweep_starts(here: Path, changes: dict[str, str], message: str) -> None:
    (here / "my_odd.py").write_text(ODD)
    fields = {**ODD_SWEEP, "strategies": ["prune"], **changes}
    with pytest.raises(UserError, match=re.escape(message)):
        topdown_ray.sweep(targets=[3000], seeds=1, out="results/odd", address="none", **fields)
    assert not Path("results/odd").exists()


def test_a_strategy_without_an_outcome_for_each_target_fails(here: Path) -> None:
    (here / "my_odd.py").write_text(ODD)
    fields = {**ODD_SWEEP, "strategies": ["my_odd:none_at_all"]}
    with pytest.warns(RuntimeWarning, match="expected one outcome for each of 2 targets, found outcomes for"):
        topdown_ray.sweep(
            targets=[3000, 2000], seeds=1, out="results/none", address="none", progress=False, **fields
        )


def test_an_identity_is_the_same_in_every_process(here: Path) -> None:
    """Also of a set, whose order is another one in each."""
    (here / "my_set.py").write_text(WITH_A_SET)
    code = "from topdown_ray import plugins; print(plugins.find('predictors', 'my_set:regressor').sha256)"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_a_worker_with_another_function_refuses(here: Path) -> None:
    plug_in("A cost as a plug-in", here)
    cost = plugin_cost("my_cost:energy", MOBILENET_V3)
    assert cost is not None
    cost.check_here("costs")
    with pytest.raises(UserError, match="cost: my_cost:energy: expected the plug-in of the driver"):
        dataclasses.replace(cost, sha256="x").check_here("costs")


def test_a_changed_plug_in_is_another_sweep(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plug_in("A cost as a plug-in", here)
    source = (here / "my_cost.py").read_text()
    (here / "my_cost.py").write_text(source.replace("1e5", "1.1e5"))
    forget()
    capsys.readouterr()
    again = ["sweep", "results/energy", "--out", "results/energy", "--address", "none"]
    done = main_in_process(again, capsys)
    assert done.returncode == 2
    assert done.stderr.startswith("error: results/energy: expected an empty folder or sweep ")
    assert done.stderr.endswith("; they differ in the cost plugin:my_cost:energy\n")
    with pytest.raises(UserError, match="expected an object at my_cost:nothing, found AttributeError"):
        topdown_ray.sweep("results/energy", cost="my_cost:nothing", address="none")


def test_a_new_space(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The space is small enough to know the answers: all that is possible at each target is found."""
    (module,) = python_of("Define the space")
    write(module, here)
    names: dict[str, object] = {"__name__": "tutorial"}
    for block in python_of("Try it in Python"):
        exec(compile(block, "docs/tutorials/your-space.md", "exec"), names)
    *_, frame = (value for value in names.values() if isinstance(value, pd.DataFrame))
    assert frame["target"].tolist() == [30, 10, 30, 10]
    assert frame["accuracy"].tolist() == pytest.approx([best_of_tiny(limit) for limit in (30, 10, 30, 10)])
    assert "117 architectures" in section("Define the space")
    assert len({tuple(row) for row in canonical_rows_of_tiny(names["tiny"])}) == 117


def canonical_rows_of_tiny(tiny: Any) -> list[list[int]]:
    """All rows of genes of the space, in canonical form."""
    rows = np.array(list(itertools.product(range(3), repeat=tiny.G)), dtype=np.int8)
    return np.asarray(tiny.canonical(torch.from_numpy(rows))).tolist()


def test_a_space_as_a_plug_in(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (module,) = python_of("Define the space")
    write(module, here)
    sweep = re.search(r"<<'END'\n(.*?)\nEND", section("Run a sweep"), re.DOTALL)
    assert sweep
    (here / "tiny.yaml").write_text(sweep[1])
    done = main_in_process(["sweep", "tiny.yaml", "--out", "results/tiny", "--address", "none"], capsys)
    assert done.returncode == 0, done.stderr
    results = load(here / "results" / "tiny")
    assert results.searches["macs_m"].isna().all()
    for target, rows in results.searches.groupby("target"):
        assert rows["accuracy"].max() == pytest.approx(best_of_tiny(float(str(target))), abs=1e-6)
    assert set(results.best(30)) == {"ks", "d", "image_size"}
    assert verify(results, rerun=4).passed
    printed = main_in_process(["verify", here / "results" / "tiny"], capsys).stdout
    assert "Recomputed by the functions of plug-ins instead of OFA's: accuracy, cost" in printed
    assert "nan" not in printed
    described = main_in_process(["describe", here / "results" / "tiny"], capsys)
    assert described.returncode == 0
    assert described.stdout.startswith("my_space:tiny: {")
    assert "The space has no OFA network, so its layers, MACs and parameters are unknown." in described.stdout
