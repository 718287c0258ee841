"""Sweeps without Ray: the same tables whatever the batch, the order, the interruptions; rows that prove
themselves.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import yaml
from conftest import ROOT
from support.folders import command_of
from support.sweeping import ALL_SPACES, Faulty, Stopping, assert_same, in_process, run

import topdown_ray
from topdown_ray.algorithms.strategies import STRATEGIES, Outcome, Searches
from topdown_ray.errors import UserError
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.results import load
from topdown_ray.store.schema import SEARCHES, TRACE
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.spec import make_spec
from topdown_ray.sweeps.verify import verify
from topdown_ray.tasks import Attempt, Done, InProcess
from topdown_ray.terminal import interrupt


@pytest.fixture(scope="module")
def everything(published: Path, tmp_path_factory: pytest.TempPathFactory) -> topdown_ray.Results:
    """All spaces and strategies, in batches of 32."""
    return run(ALL_SPACES, tmp_path_factory.mktemp("sweep") / "out", batch=32)


@pytest.mark.parametrize("batch", [1, 7, "auto"])
def test_tables_do_not_depend_on_the_batch(
    batch: int | str, everything: topdown_ray.Results, tmp_path: Path
) -> None:
    assert_same(everything, run(ALL_SPACES, tmp_path / "out", batch=batch))


def test_every_row_is_what_ofa_computes(everything: topdown_ray.Results) -> None:
    verification = verify(everything)
    assert verification.rows == len(everything.searches) == 10 * 4 * (2 + 1 + 2 + 2)
    assert verification.passed, verification
    assert verification.largest("accuracy") < 1e-6


def test_note10_and_notebook_rows_are_what_ofa_computes(published: Path, tmp_path: Path) -> None:
    data = {**ALL_SPACES, "cost": "note10", "targets": [[40, 20]], "protocol": "notebook", "seeds": 3}
    results = run(data, tmp_path / "out")
    assert verify(results).passed
    assert set(results.searches["space"]) == {"mobilenet_v3", "resnet50d", "proxyless"}
    assert set(results.searches["predictor_space"]) == {"mobilenet_v3"}
    assert set(results.searches["protocol"]) == {"notebook"}
    genes = results.searches.groupby("space")["arch"].apply(list)
    assert genes["mobilenet_v3"] != genes["resnet50d"]  # three runs of the same comparison, as the notebook's


@pytest.mark.parametrize(
    ("column", "change"),
    [("accuracy", 1e-4), ("cost", 1.0), ("macs_m", 1.0), ("arch", None), ("target", -1000.0)],
)
def test_verification_finds_a_wrong_number(
    column: str, change: float | None, everything: topdown_ray.Results
) -> None:
    rows = everything.searches.copy()
    if change is None:
        rows.loc[3, "arch"] = (
            rows.loc[200, "arch"] if rows.loc[200, "space"] == rows.loc[3, "space"] else rows.loc[9, "arch"]
        )
    else:
        rows.loc[3, column] += change
    assert not verify(topdown_ray.Results(everything.manifest, rows, everything.trace)).passed


def test_tables_follow_their_schema(everything: topdown_ray.Results) -> None:
    assert list(everything.searches) == SEARCHES.names
    assert list(everything.trace) == TRACE.names
    rows, trace = everything.searches, everything.trace
    assert rows["feasible"].all()
    assert not rows.duplicated(["search_id", "target_index"]).any()
    assert (rows["cost"] <= rows["target"]).all()
    last = trace.groupby(["search_id", "target_index"]).last()
    joined = rows.set_index(["search_id", "target_index"]).join(last, suffixes=("", "_trace"))
    assert (joined["best_accuracy"] == joined["accuracy"]).all()
    assert (joined["evaluations_trace"] == joined["evaluations"]).all()
    assert (trace.groupby(["search_id", "target_index"])["best_accuracy"].diff().dropna() >= 0).all()
    assert everything.manifest["status"] == "complete"


def test_a_stopped_sweep_goes_on_with_another_batch_size(
    everything: topdown_ray.Results, tmp_path: Path
) -> None:
    plan = driver.make_plan(make_spec({**ALL_SPACES, "batch": 4}, "test"))
    folder = ResultFolder(tmp_path / "out")
    folder.open(plan.manifest(), resume=True)
    with pytest.raises(KeyboardInterrupt):
        driver.run(plan, folder, Stopping(in_process(plan).hosted))
    half = load(tmp_path / "out")
    assert len(half.searches["search_id"].unique()) == 4 + 4 + 2
    assert half.manifest["status"] == "incomplete"
    assert_same(everything, run(ALL_SPACES, tmp_path / "out", batch=7))


def test_leftovers_of_a_killed_writer_are_swept_away(everything: topdown_ray.Results, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run(ALL_SPACES, out, batch=32)
    victim = sorted((out / "searches").glob("*.parquet"))[0]
    victim.unlink()  # killed between the two files of a shard: its trace is an orphan
    # and one whose trace was lost
    (out / "trace" / sorted((out / "searches").glob("*.parquet"))[-1].name).unlink()
    (out / "searches" / ".half.parquet.123.tmp").write_bytes(b"PAR1")
    assert len(load(out).searches) < len(first.searches)
    assert_same(everything, run(ALL_SPACES, out, batch=5))
    assert not list(out.rglob("*.tmp"))
    for part in (out / "trace").glob("*.parquet"):
        assert (out / "searches" / part.name).exists()


def test_a_shard_that_raises_once_is_retried(everything: topdown_ray.Results, tmp_path: Path) -> None:
    plan = driver.make_plan(make_spec(ALL_SPACES, "test"))
    folder = ResultFolder(tmp_path / "out")
    folder.open(plan.manifest(), resume=True)
    summary = driver.run(plan, folder, Faulty(in_process(plan).hosted))
    assert summary.progress.losses == 1
    assert not summary.given_up
    assert_same(everything, load(tmp_path / "out"))


def test_a_shard_that_keeps_raising_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    data = {**ALL_SPACES, "spaces": ["mobilenet_v3"], "targets": [[300]], "predictor": "embedded"}
    plan = driver.make_plan(make_spec(data, "test"))
    folder = ResultFolder(tmp_path / "out")
    folder.open(plan.manifest(), resume=True)
    executor = Faulty(in_process(plan).hosted)
    executor.times = 99
    summary = driver.run(plan, folder, executor)
    assert summary.given_up == {executor.bad: "ValueError: boom"}
    assert summary.progress.failures == 10
    assert summary.progress.done == 30
    assert load(tmp_path / "out").manifest["given_up"] == [executor.bad]


def test_a_strategy_that_raises_is_told_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(searches: Searches) -> Iterator[Outcome]:
        raise ValueError(f"boom at {searches.targets}")

    monkeypatch.setitem(STRATEGIES, "top_down", STRATEGIES["top_down"]._replace(serve=serve))
    data = {
        **ALL_SPACES,
        "spaces": ["resnet50d"],
        "strategies": ["top_down"],
        "targets": [[2000]],
        "predictor": "embedded",
    }
    plan = driver.make_plan(make_spec(data, "test"))
    folder = ResultFolder(tmp_path / "out")
    folder.open(plan.manifest(), resume=True)
    summary = driver.run(plan, folder, in_process(plan))
    assert set(summary.given_up.values()) == {"ValueError: boom at (2000.0,)"}
    assert summary.progress.done == 0
    (record, *_) = (tmp_path / "out" / "failures").glob("*.json")
    assert any("in serve" in line for line in json.loads(record.read_text())["traceback"])


@pytest.mark.slow
def test_a_driver_killed_at_any_moment_loses_no_finished_shard(
    everything: topdown_ray.Results, tmp_path: Path
) -> None:
    """SIGKILL twice while it runs, start again each time: the undisturbed tables."""
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump({**ALL_SPACES, "batch": 2}))
    command = command_of(file, out)
    finished = 0
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list((out / "searches").glob("*.parquet"))) < finished + 5 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = finished
        finished = len(list((out / "searches").glob("*.parquet")))
        assert finished >= before + 5
        for part in (out / "searches").glob("*.parquet"):
            pq.read_table(part)  # whole
    assert finished < 80
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert_same(everything, load(out))


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    file.write_text(
        yaml.safe_dump(
            {**ALL_SPACES, "spaces": ["resnet50d"], "targets": [[3000, 1500]], "seeds": 1000, "batch": 2}
        )
    )
    command = command_of(file, out)
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while len(list((out / "searches").glob("[!.]*.parquet"))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    interrupted = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - interrupted < 10
    assert process.returncode == 130
    assert "Run the same command again to continue" in errors
    assert "Traceback" not in errors
    results = load(out)
    assert results.manifest["status"] == "incomplete"
    assert len(results.searches["search_id"].unique()) >= 6


def test_an_interrupt_that_python_drops_still_ends_the_sweep(tmp_path: Path) -> None:
    """An exception that is raised within a destructor is printed and forgotten; SIGINT may come just then."""

    class Dropping(InProcess):
        def submit(self, attempt: Attempt) -> None:
            with contextlib.suppress(KeyboardInterrupt):
                interrupt()
            super().submit(attempt)

    plan = driver.make_plan(make_spec({**ALL_SPACES, "batch": 1}, "test"))
    folder = ResultFolder(tmp_path / "out")
    folder.open(plan.manifest(), resume=True)
    with pytest.raises(KeyboardInterrupt):
        driver.run(plan, folder, Dropping(in_process(plan).hosted))
    assert load(tmp_path / "out").manifest["status"] == "incomplete"


def test_a_search_is_three_lines_and_equals_the_sweeps(everything: topdown_ray.Results) -> None:
    frame = topdown_ray.search(
        space="mobilenet_v3",
        cost="macs",
        targets=[250, 400],
        seeds=[3, 4],
        population=12,
        generations=6,
        warm_generations=3,
    )
    rows = everything.searches
    rows = rows[(rows["space"] == "mobilenet_v3") & (rows["strategy"] == "top_down") & (rows["k"] == 2)]
    expected = rows[rows["seed"].isin([3, 4])]
    for name in ("search_id", "seed", "target", "accuracy", "cost", "arch"):
        assert frame[name].tolist() == expected[name].tolist(), name


def test_other_readers_open_the_parts(everything: topdown_ray.Results, tmp_path: Path) -> None:
    run({**ALL_SPACES, "spaces": ["resnet50d"], "targets": [[3000]], "seeds": 2}, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "searches")
    assert table.num_rows == 8
    assert isinstance(table, pa.Table)
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert set(table["run_id"].to_pylist()) == {manifest["run_id"]}


def test_done_carries_arrow_tables(published: Path) -> None:
    plan = driver.make_plan(
        make_spec({**ALL_SPACES, "spaces": ["resnet50d"], "targets": [[3000]], "seeds": 1}, "test")
    )
    executor = in_process(plan)
    executor.submit(Attempt(next(plan.shards()), executor.idle()[0]))
    (event,) = executor.wait(1)
    assert isinstance(event, Done)
    assert event.result[0].schema.equals(SEARCHES)
    assert event.result[1].schema.equals(TRACE)


@pytest.mark.slow
def test_hashing_of_the_process_changes_nothing(tmp_path: Path) -> None:
    """The same search in processes with different hash seeds: order never hangs on hashing."""
    code = (
        "import topdown_ray as t; print(t.search(cost='macs', predictor='embedded', targets=[300], "
        "population=8,"
    )
    code += " generations=3).drop(columns=['started_at'])"
    code += ".drop(columns=['wall_s', 'search_wall_s', 'cpu_s', 'search_cpu_s']).to_json())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_mutation_alone_and_crossover_alone_work(ratio: float) -> None:
    small = {"population": 8, "generations": 3, "warm_generations": 2, "mutation_ratio": ratio}
    frame = topdown_ray.search(cost="macs", predictor="embedded", targets=[400, 300], **small)
    assert frame["feasible"].all()


@pytest.mark.parametrize("form", ["published", "state_dict", "safetensors"])
def test_own_checkpoints_and_tables_are_verified_too(form: str, published: Path, tmp_path: Path) -> None:
    """OFA's own ResNet50D file by path (it adds base_acc), nested in a state dict, and as safetensors."""
    state = torch.load(published / "ofa_resnet50_acc_predictor.pth", map_location="cpu", weights_only=True)
    path = tmp_path / ("p.safetensors" if form == "safetensors" else "p.pth")
    if form == "safetensors":
        safetensors.torch.save_file(state, path, metadata={"space": "resnet50d"})
    else:
        torch.save({"state_dict": state} if form == "state_dict" else state, path)
    data = {**ALL_SPACES, "spaces": ["resnet50d"], "targets": [[3000]], "seeds": 2, "predictor": str(path)}
    results = run(data, tmp_path / "out")
    assert verify(results).passed
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"expected the predictor that the rows were computed with, SHA-256"):
        verify(results)


def test_an_own_table_has_its_own_name(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published / "note10", tmp_path / "my_phone")
    data = {
        **ALL_SPACES,
        "spaces": ["mobilenet_v3"],
        "targets": [[30]],
        "seeds": 2,
        "cost": str(tmp_path / "my_phone"),
    }
    results = run(data, tmp_path / "out")
    assert set(results.searches["cost_name"]) == {"table:my_phone"}
    assert verify(results).passed
    file = tmp_path / "my_phone" / "160_lookup_table.yaml"
    file.write_text(file.read_text() + "\n# changed")
    with pytest.raises(UserError, match=r"expected the tables that the rows were computed with, SHA-256"):
        verify(results)


def test_missing_rows_are_found(everything: topdown_ray.Results) -> None:
    rows = everything.searches
    fewer = topdown_ray.Results(
        everything.manifest, rows[rows["search_id"] != rows["search_id"].iloc[0]], everything.trace
    )
    assert verify(fewer).missing == 1
    assert not verify(fewer).passed
    with pytest.raises(UserError, match="found no rows"):
        verify(topdown_ray.Results(everything.manifest, rows.iloc[:0], everything.trace))


def test_the_package_works_outside_its_checkout(tmp_path: Path) -> None:
    """README's three lines, from another folder."""
    code = (
        "import topdown_ray\nframe = topdown_ray.search(cost='macs', predictor='embedded', targets=[300], "
        "seeds=1,"
    )
    code += " population=8, generations=2)\nprint(frame[['seed', 'target', 'accuracy', 'cost', 'arch']])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert '"ks"' in done.stdout
