"""The whole loop on a small, real case: train a supernet, measure subnets over Ray, learn a predictor,
search, measure, export. docs/guides/networks.md shows the same loop with more images and steps.

scikit-learn's digits as images; a narrow ResNet50D supernet of OFA's own class, trained for under a minute at
two of the space's resolutions. Nothing is known beforehand about what its subnets can do: they differ because
they learned unequally well."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from support.commands import main_in_process
from support.tiny import write_digits
from train_tiny_supernet import train

import topdown_ray
from topdown_ray.networks import training
from topdown_ray.networks.evaluator import EvaluationSetup, EvaluationTask, Evaluator
from topdown_ray.networks.images import Loader, Settings, find_images, normalise
from topdown_ray.networks.weights import find_weights
from topdown_ray.spaces import latency_table
from topdown_ray.spaces.cost import load_cost
from topdown_ray.spaces.resnet50d import RESNET50D
from topdown_ray.store.evaluations import read_table
from topdown_ray.sweeps.verify import verify

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

SUBNETS = 64
SIZES = [128, 144]
COMMON = ["--calibration", "60", "--batch", "100"]


class Loop(NamedTuple):
    """The folder of everything, and the data and weights in it."""

    folder: Path
    data: Path
    weights: Path


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """The data, and the supernet as the script trains it, for fewer steps."""
    folder = tmp_path_factory.mktemp("loop")
    write_digits(folder / "digits")
    train(folder / "digits", folder / "tiny.safetensors", RESNET50D, steps=160, batch=16, image_sizes=SIZES)
    for path in (folder / "digits" / "val").glob("*/*.png"):  # every sixth will do
        if int(path.stem) % 6:
            path.unlink()
    return Loop(folder, folder / "digits", folder / "tiny.safetensors")


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    result = main_in_process([*arguments, "--json"], capsys)
    assert result.returncode == 0, result.stderr
    return json.loads([line for line in result.stdout.splitlines() if line.startswith("{")][-1])


def test_the_whole_loop(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data, weights = loop
    dataset, predictor, run = folder / "subnets.parquet", folder / "own.safetensors", folder / "run"
    measured = ["--data", data, "--weights", weights, *COMMON]

    # a data set, over two actors
    facts = command(
        capsys,
        "sample-dataset",
        "--out",
        dataset,
        "--n",
        SUBNETS,
        "--spread",
        "cost",
        *measured,
        "--actors",
        2,
    )
    assert facts["measured"] == SUBNETS
    rows = read_table(dataset).to_pandas()
    assert len(rows) == SUBNETS
    assert set(rows["image_size"]) == set(SIZES)
    # 0.21 when written; equally good subnets would differ by sqrt(0.25 / 89) = 0.053 at most
    assert rows["top1"].std() > 0.08
    assert rows["top1"].max() > 0.5  # of ten classes
    # the same rows in this process, in another order
    checkpoint = find_weights(str(weights), None)
    setup = EvaluationSetup(checkpoint, find_images(data, checkpoint.description, Settings(calibration=60)))
    evaluator = Evaluator(setup)
    for there in rows.iloc[[-1, 0]].to_dict("records"):
        here = evaluator(EvaluationTask(there["evaluation_id"], there["arch"]))
        assert {key: here[key] for key in ("top1", "top5", "n_images")} == {
            key: there[key] for key in ("top1", "top5", "n_images")
        }
        assert setup.identity(there["arch"]) == there["evaluation_id"]
    again = command(capsys, "sample-dataset", "--out", dataset, "--n", SUBNETS, "--spread", "cost", *measured)
    assert (again["measured"], again["rows"]) == (0, SUBNETS)

    # a predictor of its own
    learned = command(capsys, "train-predictor", dataset, "--space", "resnet50d", "--out", predictor)
    assert learned["held_out"]["n"] == round(0.2 * SUBNETS)
    # 0.65 when written; of 13 rows in random order, about one in 34 has more than 0.4
    assert learned["held_out"]["kendall"] > 0.4
    with capsys.disabled():  # the figures of the README
        print(f"\n{facts}\n{learned}")

    # a sweep with it; the loosest target is the cost of a middling subnet
    genes = torch.from_numpy(np.stack(rows["genes"].to_list()))
    # a measured table
    cost = next(
        (name for name, of_space in latency_table.shipped().items() if "resnet50d" in of_space), "macs"
    )
    targets = np.quantile(load_cost(cost, RESNET50D)(genes).numpy(), [0.4, 0.2, 0.1]).round(1).tolist()
    (folder / "sweep.yaml").write_text(
        json.dumps(
            {
                "name": "digits",
                "spaces": ["resnet50d"],
                "strategies": ["top_down", "random"],
                "cost": cost,
                "predictor": str(predictor),
                "targets": [targets],
                "seeds": 1,
                "search": {"population": 40, "generations": 20, "warm_generations": 10},
            }
        )
    )
    command(capsys, "sweep", folder / "sweep.yaml", "--out", run, "--address", "none")
    results = topdown_ray.load(run)
    assert set(results.searches["predictor_sha256"]) == {learned["sha256"]}
    assert verify(results).passed

    # what the winners are worth, over Ray, and again without measuring anything
    outcome = command(capsys, "evaluate", run, *measured, "--actors", 2, "--bad", "skip")
    found = outcome["evaluations"]
    sizes = results.searches.drop_duplicates("arch")["arch"].map(lambda arch: json.loads(arch)["image_size"])
    assert (len(found), outcome["left_out"]) == (sizes.isin(SIZES).sum(), (~sizes.isin(SIZES)).sum())
    assert len(found) >= 3
    answers = results.searches.drop_duplicates("arch").set_index("arch")
    for row in found:
        assert row["predicted"] == answers.loc[row["arch"], "accuracy"]
        assert 0 <= row["top1"] <= row["top5"] <= 1
    best = max(found, key=lambda row: row["predicted"])
    assert best["top1"] > rows["top1"].quantile(0.25)  # the search was not led astray by its predictor
    parts = {path: path.stat().st_mtime_ns for path in (run / "evaluations").iterdir()}
    assert command(capsys, "evaluate", run, *measured, "--bad", "skip") == outcome
    assert {path: path.stat().st_mtime_ns for path in (run / "evaluations").iterdir()} == parts

    # the report lays them side by side
    command(capsys, "report", run)
    page = (run / "report" / "report.html").read_text()
    assert "Predicted against measured" in page
    table = (run / "report" / "tables" / "agreement.csv").read_text().splitlines()
    expected = training.agreement(
        np.array([r["predicted"] for r in found]), np.array([r["top1"] for r in found])
    )
    kendall = float(table[1].split(",")[table[0].split(",").index("kendall")])
    assert kendall == pytest.approx(expected.kendall, nan_ok=True)

    # one is handed over; onnxruntime counts the same right answers
    chosen = ["--target", targets[-1], "--strategy", "top_down", *measured[:4], "--calibration", "60"]
    command(capsys, "export", run, "--out", folder / "onnx", *chosen)
    winner = json.loads((folder / "onnx" / "arch.json").read_text())
    (row,) = [row for row in found if json.loads(row["arch"]) == winner]
    session = onnxruntime.InferenceSession(
        str(folder / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    right = n = 0
    for batch in Loader(setup.images).validation(winner["image_size"]):
        (logits,) = session.run(None, {"images": normalise(batch.images).numpy()})
        right, n = right + int((logits.argmax(axis=1) == batch.labels.numpy()).sum()), n + len(logits)
    assert abs(right / n - row["top1"]) <= 1 / n  # a tie may fall the other way
    readme = (folder / "onnx" / "README.md").read_text()
    assert f"top-1 {100 * row['top1']:.2f} %" in readme
    assert "own.safetensors" in readme
