"""Trackers: TensorBoard's event files read back, a real MLflow server on loopback, and what goes wrong."""

import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from support.commands import assert_one_line, main_in_process, sweep_file
from support.folders import opened, plan_of
from support.mlflow_server import mlflow_server
from support.nodes import free_port
from support.sweeping import Stopping, in_process

import topdown_ray
from topdown_ray.errors import UserError
from topdown_ray.store.results import load
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.improvements import observed_by
from topdown_ray.sweeps.tracking.background import trackers
from topdown_ray.sweeps.tracking.facts import TrackedSweep
from topdown_ray.sweeps.tracking.options import read_tracks

LABELS = ("top_down", "plain (n=8)")
CHANGES = {"strategies": ["top_down", {"name": "prune", "label": LABELS[1]}], "seeds": 8, "batch": 4}


def run_tracked(out: Path, *texts: str, stops: bool = False) -> None:
    plan = plan_of(**CHANGES)
    folder, executor = opened(plan, out), in_process(plan)
    with trackers(read_tracks(texts), TrackedSweep(plan.manifest(), str(out))) as observers:
        observe = observed_by(observers, folder.place)
        if stops:
            with pytest.raises(KeyboardInterrupt):
                driver.run(plan, folder, Stopping(executor.hosted), observe=observe)
        else:
            driver.run(plan, folder, executor, observe=observe)


def best_of(out: Path) -> dict[str, float]:
    rows = load(out).searches
    labels = dict(zip(LABELS, ("top_down", "plain _28n_3d8_29"), strict=True))
    best = rows.groupby(["label", "target"])["accuracy"].max()
    return {
        f"best/mobilenet_v3/{labels[label]}/macs/{target:g}": accuracy
        for (label, target), accuracy in best.items()
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


def test_tensorboard_reads_what_a_sweep_wrote_also_when_it_went_on(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, board = tmp_path / "out", tmp_path / "board"
    run_tracked(out, f"tensorboard:{board}", stops=True)
    done = load(out).searches["search_id"].nunique()
    run_tracked(out, f"tensorboard:{board}")
    files = sorted(board.iterdir(), key=lambda file: file.stat().st_mtime)
    assert len(files) == 2  # one of each run, beside each other
    first, second = (EventAccumulator(str(file)).Reload() for file in files)
    whole = EventAccumulator(str(board)).Reload()
    for name, accuracy in best_of(out).items():
        points = whole.Scalars(name)
        assert points[-1].value == pytest.approx(accuracy, abs=1e-6)
    assert first.Scalars("searches_done")[-1].value == done
    assert [point.step for point in second.Scalars("searches_done")][-1] == 16
    text = {
        name: whole.Tensors(f"{name}/text_summary")[-1].tensor_proto.string_val[0].decode()
        for name in ("run_id", "parameters", "results")
    }
    assert text["run_id"] == load(out).manifest["run_id"]
    assert "| search.population | 12 |" in text["parameters"]
    assert "| seeds | 8 |" in text["parameters"]
    assert text["results"].count("\n") == 1 + 4  # two labels of two targets


def test_mlflow_has_one_run_of_a_sweep_that_went_on(server: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    client, out = MlflowClient(tracking_uri=server), tmp_path / "out"
    run_tracked(out, f"mlflow:{server}", stops=True)

    def run_of() -> Any:
        experiment = client.get_experiment_by_name("topdown_ray")
        run_id = load(out).manifest["run_id"]
        (found,) = client.search_runs([experiment.experiment_id], f"tags.`topdown_ray.run_id` = '{run_id}'")
        return found

    stopped = run_of()
    assert stopped.info.status == "KILLED"
    assert 0 < stopped.data.metrics["searches_done"] < 16
    run_tracked(out, f"mlflow:{server}")
    run = run_of()
    assert (run.info.run_id, run.info.status) == (stopped.info.run_id, "FINISHED")
    assert run.info.run_name == "small"
    assert run.data.tags["topdown_ray.out"] == str(out)
    assert run.data.params["search.population"] == "12"
    assert run.data.params["targets.mobilenet_v3"] == "[[400.0, 300.0]]"
    metrics = run.data.metrics
    assert {name: metrics[name] for name in metrics if name.startswith("best/")} == pytest.approx(
        best_of(out)
    )
    assert (metrics["searches_done"], metrics["searches_failed"], metrics["workers_lost"]) == (16, 0, 0)
    assert metrics["searches_per_second"] > 0
    assert {point.step for point in client.get_metric_history(run.info.run_id, "searches_done")} >= {16}

    names = [file.path for file in client.list_artifacts(run.info.run_id)]
    assert sorted(names) == ["results.csv", "run.json"]
    folder = client.download_artifacts(run.info.run_id, "", str(tmp_path))
    rows = list(csv.DictReader(io.StringIO(Path(folder, "results.csv").read_text())))
    searches = load(out).searches
    assert len(rows) == 4
    for row in rows:
        of_row = searches[(searches["label"] == row["label"]) & (searches["target"] == float(row["target"]))]
        assert int(row["searches"]) == len(of_row) == 8
        statistics = [float(row[f"{name}_accuracy"]) for name in ("mean", "sd")]
        assert statistics == pytest.approx([of_row["accuracy"].mean(), of_row["accuracy"].std()], rel=1e-6)
        best = of_row.sort_values(["accuracy", "cost", "seed"], ascending=[False, True, True]).iloc[0]
        assert (row["arch"], float(row["cost"])) == (best["arch"], pytest.approx(best["cost"]))
    assert json.loads(Path(folder, "run.json").read_text()) == load(out).manifest


def test_a_tracker_that_fails_does_not_end_the_sweep(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody deletes the experiment between the first look and the first value."""
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "deleted")
    client, plan, out = MlflowClient(tracking_uri=server), plan_of(**CHANGES), tmp_path / "out"
    experiment, folder = client.create_experiment("deleted"), opened(plan, out)
    with trackers(read_tracks([f"mlflow:{server}"]), TrackedSweep(plan.manifest(), str(out))) as observers:
        client.delete_experiment(experiment)
        driver.run(plan, folder, in_process(plan), observe=observed_by(observers, folder.place))
    assert load(out).manifest["status"] == "complete"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--track mlflow: logging stopped (")


def test_no_server_at_the_start_is_one_line_within_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, began = tmp_path / "out", time.monotonic()
    where = f"mlflow:http://user:hush@127.0.0.1:{free_port()}"
    arguments = ["sweep", sweep_file(tmp_path), "--out", out, "--address", "none", "--track", where]
    result = main_in_process(arguments, capsys)
    assert_one_line(result, "--track mlflow: expected a server that answers, found none at http://127.0.0.1:")
    assert "hush" not in result.stderr
    assert time.monotonic() - began < 30
    assert not out.exists()


def test_both_trackers_of_a_command(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board, out = tmp_path / "board", tmp_path / "out"
    arguments = ["sweep", sweep_file(tmp_path, seeds=1), "--out", out, "--address", "none"]
    arguments += ["--track", f"tensorboard:{board}", "--track", f"mlflow:{server}", "--json"]
    result = main_in_process(arguments, capsys)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["done"] == 1  # MLflow prints nothing beside it
    assert len(list(board.iterdir())) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("wandb", "--track: expected tensorboard:DIR, mlflow:URI or mlflow, found 'wandb'"),
        ("tensorboard", "--track: expected tensorboard:DIR, mlflow:URI or mlflow, found 'tensorboard'"),
        ("mlflow", "--track mlflow: expected mlflow:http://HOST:PORT or MLFLOW_TRACKING_URI, found neither"),
        ("mlflow:localhost:5000", "--track mlflow: expected the URI of a server, such as http://HOST:PORT"),
        ("mlflow:ftp://h", "--track mlflow: expected a server that answers, found none at ftp://h"),
        (
            "mlfow:http://u:pw@h",
            "--track: expected tensorboard:DIR, mlflow:URI or mlflow, found 'mlfow:http://h'",
        ),
        ("tensorboard:s3://b/x", "--track tensorboard: expected a local folder, found s3://b/x"),
        ("tensorboard:FILE", "--track tensorboard: expected a folder to write to, found "),
    ],
)
def test_mistakes(
    text: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    file, out = sweep_file(tmp_path), tmp_path / "out"
    text = text.replace("FILE", str(file))
    arguments = ["sweep", file, "--out", out, "--address", "none", "--track", text]
    assert_one_line(main_in_process(arguments, capsys), line)
    with pytest.raises(UserError) as caught:
        topdown_ray.sweep(file, out, address="none", progress=False, track=text)
    assert str(caught.value).startswith(line.removeprefix("--"))
    assert not out.exists()


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_missing_package_is_told_at_once(kind: str) -> None:
    """In a process that cannot import it, before torch."""
    code = f"""
import sys
sys.modules["{kind}"] = None
sys.argv = ["topdown-ray", "sweep", "nowhere.yaml", "--out", "x", "--track", "{kind}:x"]
from topdown_ray.cli.main import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    package = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny"}[kind]
    advice = f'expected the package {package} (pip install "topdown-ray[{kind}]"), found none'
    assert_one_line(done, f"--track {kind}: {advice}")
