"""Result folders: failure records, damaged parts, full disks, locks, killed drivers, sessions."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_sweep import Faulty

from topdown_ray import sweep
from topdown_ray.spec import make_spec
from topdown_ray.store import ResultFolder, load

SMALL = {
    "name": "small",
    "spaces": ["mobilenet_v3"],
    "strategies": ["top_down", "prune"],
    "cost": "macs",
    "predictor": "embedded",
    "targets": [[400, 300]],
    "seeds": 12,
    "batch": 4,
    "search": {"population": 12, "generations": 4, "warm_generations": 2},
}


def plan_of(**changes: object) -> sweep.Plan:
    return sweep.make_plan(make_spec({**SMALL, **changes}, "test"))


def opened(plan: sweep.Plan, out: Path | str) -> ResultFolder:
    folder = ResultFolder(out)
    folder.open(plan.manifest(), resume=True)
    return folder


def test_a_failed_shard_leaves_a_record_whose_command_reruns_exactly_it(tmp_path: Path) -> None:
    plan, out = plan_of(), tmp_path / "out"
    executor = Faulty(plan.run_id, sweep.in_process(plan).worker)
    executor.times = 99
    summary = sweep.run(plan, opened(plan, out), executor)
    (shard_id,) = summary.given_up
    (file,) = (out / "failures").iterdir()
    record = json.loads(file.read_text())
    assert file.name == f"{shard_id}.json"
    assert record["traceback"] == ["Traceback", "ValueError: boom"]
    done = set(load(out).searches["search_id"])
    assert len(done) == 20
    assert not done.intersection(record["search_ids"])
    (
        out / "searches" / next((out / "searches").glob("*.parquet")).name
    ).unlink()  # pending too, and not to be run by the command

    words = shlex.split(record["command"])
    assert words[0] == "topdown-ray"
    command = [sys.executable, "-m", "topdown_ray", *words[1:], "--address", "none", "--json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["searches"] == json.loads(result.stdout)["done"] == 4
    rows = load(out).searches
    assert set(rows[rows["shard_id"] == shard_id]["search_id"]) == set(record["search_ids"])
    assert rows["search_id"].nunique() == 20
    assert not list((out / "failures").iterdir())
    assert load(out).manifest["status"] == "incomplete"


def test_a_record_goes_once_its_searches_have_rows(tmp_path: Path) -> None:
    plan = plan_of(strategies=["prune"], seeds=3)
    folder = opened(plan, tmp_path / "out")
    (shard,) = plan.shards()
    folder.record_failure(shard, "Traceback\nMemoryError: all of it")
    assert list((tmp_path / "out" / "failures").iterdir())
    summary = sweep.run(plan, folder, sweep.in_process(plan))
    assert summary.progress.done == 3
    assert not list((tmp_path / "out" / "failures").iterdir())


@pytest.mark.parametrize("only", ["nonsense", "0123456789abcdef0123"])
def test_only_names_what_there_is(only: str, tmp_path: Path) -> None:
    from topdown_ray.errors import UserError

    with pytest.raises(UserError, match=rf"--only: expected a search of this sweep or a shard .* found '{only}'"):
        plan_of().only([only], {})
