"""The time of a worker's first search is like that of the later ones: what is compiled or built once is so
before it.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from ray import cloudpickle
from support import warmth
from support.commands import sweep_file, topdown_ray
from support.warmth import Recording

import topdown_ray as package
from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.store.results import load
from topdown_ray.sweeps import executors

TARGETS = {"mobilenet_v3": [[400, 300]], "resnet50d": [[2500, 1500]], "proxyless": [[500, 400]]}
AS_NEEDED = {"topdown_ray.algorithms.proposals.offsets"}  # a range for every number of rows that occurs
SEEDS = 3
FRESH = """
import functools, pathlib, sys
from support.warmth import Recording
import topdown_ray
from topdown_ray.sweeps import driver
driver.ShardHost = functools.partial(Recording, pathlib.Path(sys.argv[1]))
topdown_ray.sweep(*sys.argv[2:], address="none", progress=False)
"""


def file_of(folder: Path, spaces: list[str], strategies: list[str]) -> Path:
    return sweep_file(
        folder,
        spaces=spaces,
        strategies=strategies,
        targets={space: TARGETS[space] for space in spaces},
        seeds=SEEDS,
        batch=1,
        search={"generations": 20, "warm_generations": 10},
    )


def assert_nothing_was_built(record: Path, spaces: list[str], strategies: list[str]) -> None:
    shards = [json.loads(line) for line in record.read_text().splitlines()]
    assert [shard[:2] for shard in shards] == [
        [space, strategy] for space in spaces for strategy in strategies for _ in range(SEEDS)
    ]
    for space, strategy, built in shards:
        assert set(built) <= AS_NEEDED, (space, strategy)


@pytest.mark.slow
def test_nothing_is_built_during_the_searches_of_a_fresh_process(tmp_path: Path) -> None:
    """All spaces and strategies. Counted, not timed: seconds tell of neighbours on the machine, too."""
    file, record = file_of(tmp_path, list(TARGETS), list(STRATEGIES)), tmp_path / "record.jsonl"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", FRESH, str(record), str(file), str(tmp_path / "out")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    assert_nothing_was_built(record, list(TARGETS), list(STRATEGIES))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_nothing_is_built_during_the_searches_of_an_actor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces, strategies, record = ["mobilenet_v3"], ["top_down", "joint"], tmp_path / "record.jsonl"
    monkeypatch.setattr(executors, "ShardHost", functools.partial(Recording, record))
    cloudpickle.register_pickle_by_value(warmth)  # the actor cannot import it
    try:
        package.sweep(file_of(tmp_path, spaces, strategies), tmp_path / "out", actors=1, progress=False)
    finally:
        cloudpickle.unregister_pickle_by_value(warmth)
    assert_nothing_was_built(record, spaces, strategies)


@pytest.mark.slow
def test_times_and_what_a_gradient_costs_are_columns(tmp_path: Path) -> None:
    """A gradient takes five matrix products where a row takes two, so less than one row is impossible."""
    file = sweep_file(tmp_path, strategies=["top_down", "joint"])
    assert topdown_ray("sweep", file, "--out", tmp_path / "out", "--address", "none").returncode == 0
    rows = load(tmp_path / "out").searches
    joint = rows["strategy"] == "joint"
    assert rows.loc[~joint, "gradient_rows"].isna().all()
    assert rows.loc[joint, "gradient_rows"].between(1, 100).all()
    assert (rows["cpu_s"] > 0).all()
    assert (rows["cpu_s"] <= rows["wall_s"] * 1.01 + 1e-3).all()  # one thread
    sums = rows.groupby("search_id").agg({"cpu_s": "sum", "search_cpu_s": "first"})
    assert sums["cpu_s"].to_numpy() == pytest.approx(sums["search_cpu_s"].to_numpy())
