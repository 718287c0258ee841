"""Sweeps from Python: the documented examples, a notebook on a running cluster, Ray Client, printed text."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from conftest import ROOT
from support.nodes import free_port, kill_node, start_node, until_open
from support.sweeping import assert_same

import topdown_ray
from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.errors import UserError
from topdown_ray.sweeps.verify import verify

SMALL: dict[str, Any] = {
    "spaces": ["mobilenet_v3"],
    "strategies": ["top_down", "joint"],
    "cost": "macs",
    "predictor": "embedded",
    "targets": [400, 300],
    "seeds": 3,
    "search": {"population": 20, "generations": 10, "warm_generations": 3},
}


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Strategies of other modules are forgotten afterwards."""
    known = set(STRATEGIES)
    yield
    for name in set(STRATEGIES) - known:
        del STRATEGIES[name]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> topdown_ray.Results:
    out = tmp_path_factory.mktemp("python") / "out"
    return topdown_ray.sweep(SMALL, out, address="none", progress=False)


@pytest.mark.ray
def test_the_documented_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second one on a connection of its own, which stays open until it closes it."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "guides" / "python.md").read_text()
    blocks = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/guides/python.md", "exec"), names)
    assert "no gradients" in capsys.readouterr().out
    assert names["done"][0] == "connected"
    assert names["done"][-1] == "end"
    assert set(topdown_ray.load("results/ray").searches["space"]) == {"proxyless"}


def test_a_progress_bar_that_the_environment_switches_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """tqdm reads TQDM_DISABLE as it is imported: in a process of its own with it, in this one without."""
    code = "import sys, topdown_ray; topdown_ray.sweep(sys.argv[1], sys.argv[2], address='none')"
    file = tmp_path / "sweep.yaml"
    file.write_text(str({**SMALL, "strategies": ["prune"], "seeds": 1}))
    done = subprocess.run(
        [sys.executable, "-c", code, file, tmp_path / "quiet"],
        env={**os.environ, "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "searches: 100%" not in done.stderr
    topdown_ray.sweep(str(file), str(tmp_path / "shown"), address="none")
    assert "searches: 100%" in capsys.readouterr().err


def test_every_way_to_say_a_sweep_is_the_same_sweep(results: topdown_ray.Results, tmp_path: Path) -> None:
    read = topdown_ray.SweepSpec.model_validate({"name": "sweep", **SMALL})
    file = tmp_path / "sweep.yaml"
    file.write_text(str({**SMALL, "seeds": 1}))
    for n, arguments in enumerate([{"spec": read}, {"spec": file, "seeds": 3}, SMALL]):
        out = tmp_path / f"out{n}"
        assert_same(results, topdown_ray.sweep(out=out, address="none", progress=False, **arguments))


def test_numbers_of_numpy_ranges_and_paths_are_plain(results: topdown_ray.Results, tmp_path: Path) -> None:
    given = {**SMALL, "targets": np.array([400, 300]), "seeds": np.int64(3), "name": "sweep"}
    found = topdown_ray.sweep(given, tmp_path / "out", address="none", progress=False)
    assert_same(results, found)
    other = topdown_ray.sweep(
        found.manifest["spec"],
        tmp_path / "other",
        address="none",
        progress=False,
        targets=range(300, 401, 100),
    )
    assert_same(results, other)


def test_results_print_themselves(results: topdown_ray.Results) -> None:
    head = " ".join(line.strip() for line in repr(results).splitlines()[:2])
    of = "mobilenet_v3, 1e6 MACs, 2 targets, 400 to 300"
    assert head == f"Sweep sweep (complete), 6 searches of {of}: predicted top-1 in %, mean ± sd (searches)"
    assert all(len(line) <= 80 for line in repr(results).splitlines())
    joint = results.searches.query("label == 'joint' and target == 400")["accuracy"]
    assert f"{100 * joint.mean():.2f} ± {100 * joint.std():.2f} (3)" in repr(results)
    assert "<table" in results._repr_html_()
    best = results.best(400)
    row = results.searches.query("target == 400").nlargest(1, "accuracy").iloc[0]
    assert str(best["ks"]) in row["arch"]
    assert results.best(400, "mobilenet_v3", "joint") == best


def test_results_without_rows_print_themselves_too(results: topdown_ray.Results) -> None:
    none = topdown_ray.Results(results.manifest, results.searches[:0], results.trace[:0])
    assert repr(none).startswith("Sweep sweep (complete), 0 searches: ")
    assert "0 searches" in none._repr_html_()


def test_a_space_with_another_spaces_predictor_is_marked(tmp_path: Path) -> None:
    changes = {"spaces": ["proxyless"], "strategies": ["prune"], "address": "none", "progress": False}
    found = topdown_ray.sweep(SMALL, tmp_path / "out", **changes)
    for text in (repr(found), found._repr_html_()):
        assert "proxyless*" in text
        mark = "* The accuracies of proxyless come from a predictor that was trained on mobilenet_v3"
        assert mark in " ".join(text.split())
    assert topdown_ray.summary(found).accuracy["setting"].tolist() == ["proxyless* on macs"] * 2


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda r: r.best(), "target: expected one of 400, 300, found none"),
        (lambda r: r.best(25), "target: expected one of 400, 300, found 25"),
        (lambda r: r.best(400, strategy="x"), "strategy: expected one of joint, top_down, found 'x'"),
        (
            lambda r: topdown_ray.sweep(SMALL, strategys=[]),
            "sweep: strategys: expected one of the keys",
        ),
        (lambda r: topdown_ray.sweep("none.yaml"), "none.yaml: expected a sweep file"),
        (
            lambda r: topdown_ray.sweep(SMALL, address="here"),
            "address: expected none, local, auto, ",
        ),
        (lambda r: topdown_ray.sweep(SMALL, address=None), "address: expected local, auto, none, "),
        (lambda r: topdown_ray.sweep(SMALL, live=True), "live: expected a notebook, found "),
        (lambda r: topdown_ray.sweep(5), "spec: expected a SweepSpec, a mapping or a path, found 5"),
        (
            lambda r: topdown_ray.sweep(SMALL, address="none", actors=3),
            "actors: expected 1 with address='none'",
        ),
        (lambda r: topdown_ray.search(space="x"), "search: space: expected one of mobilenet_v3"),
        (lambda r: topdown_ray.SweepSpec(name="x"), "sweep: spaces: expected a value, found none"),
        (lambda r: topdown_ray.search(targets=[-1]), "search: targets: expected positive numbers, found -1"),
        (
            lambda r: topdown_ray.search(strategy="x"),
            "search: strategy: expected one of ",
        ),
        (lambda r: topdown_ray.search(generations=-1), "search: generations: expected a number greater "),
    ],
)
def test_a_mistake_is_one_line(results: topdown_ray.Results, call: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        call(results)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a cluster with two CPUs."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        yield nodes.address
    finally:
        nodes.shutdown()


THROUGH_CLIENT = """
import sys, topdown_ray
topdown_ray.sweep(sys.argv[1], sys.argv[2], address=sys.argv[3], actors=2, progress=False)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_through_ray_client(results: topdown_ray.Results, tmp_path: Path) -> None:
    file, out, port, client = tmp_path / "sweep.yaml", tmp_path / "out", free_port(), free_port()
    file.write_text(str(SMALL))
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}  # what a node and a driver have to agree on
    options = [f"--port={port}", f"--ray-client-server-port={client}", "--num-cpus=2"]
    node = start_node(tmp_path, environment, "--head", "--include-dashboard=false", *options)
    command = [sys.executable, "-c", THROUGH_CLIENT, str(file), str(out), f"ray://127.0.0.1:{client}"]
    try:
        until_open(client, node)
        for _ in range(20):  # the server answers some time after the node
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if "expected a Ray cluster that answers, found none" not in done.stderr:
                break
            time.sleep(1)
    finally:
        kill_node(node)
    assert done.returncode == 0, done.stderr
    assert_same(results, topdown_ray.load(out))


NOTEBOOK = (
    """
import ray
import topdown_ray

ray.init(address="{address}", log_to_driver=False)
""",
    """
events = []
results = topdown_ray.sweep(
    spaces=["mobilenet_v3"],
    strategies=["top_down", "joint", {{"name": "beside:patient", "label": "patient"}}],
    cost="macs",
    predictor="embedded",
    targets=[400, 300],
    seeds=4,
    budget={{"evaluations": 1000}},
    search={{"population": 20}},
    out="results/notebook",
    actors=2,
    on_event=events.append,
    live=True,
)
assert events[-1].status == "complete"
assert ray.is_initialized()
results
""",
    "results.best(target=300)",
)
BESIDE = '''
from topdown_ray.algorithms.strategies import strategy


@strategy("patient", later=lambda full, warm: 1 + warm)
def patient(searches):
    """As top_down."""
    answer = None
    for index in range(len(searches.targets)):
        if answer is None:
            served = searches.evolve(index, None, searches.params.generations, 0)
        else:
            warm = searches.params.warm_generations
            served = searches.evolve(index, searches.pruned(index, answer), warm, 1)
        answer = served.outcome.genes
        yield served.outcome
'''


@pytest.mark.ray
@pytest.mark.slow
def test_a_notebook_compares_strategies_on_a_running_cluster(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At equal budgets, one of them from a file beside the notebook."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.py").write_text(BESIDE)
    cells = [nbformat.v4.new_code_cell(cell.format(address=cluster)) for cell in NOTEBOOK]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    *_, shown, best = notebook.cells
    live, printed = (output.data["text/html"] for output in shown.outputs)  # one output that was updated
    assert all(label in printed for label in ("top_down", "joint", "patient", "(4)"))
    assert re.search(
        '<progress value="12" max="12"></progress> Finished 12 of 12 searches, .* per second, complete', live
    )
    assert "image_size" in best.outputs[-1].data["text/plain"]
    found = topdown_ray.load(tmp_path / "results" / "notebook")
    cells = re.findall("<td>(.*?)</td>", live)
    for (label, target), accuracy in found.searches.groupby(["label", "target"])["accuracy"].max().items():
        row = cells.index(label)  # behind it the limits, none, and a column for each target, loosest first
        assert cells[row + 1 + [None, 400, 300].index(target)] == f"{100 * accuracy:.2f}"
    spent = found.searches.groupby(["label", "seed"])["evaluations"].sum()
    assert spent.between(1000 - 2 * 20, 1000).all()
    same = [found.searches.query(f"label == '{label}'")["arch"].tolist() for label in ("patient", "top_down")]
    assert same[0] == same[1]  # the same algorithm under another name
    assert verify(found).passed
