"""Exports: OFA's own loader builds them, onnxruntime agrees with torch, and the page says what they are."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from ofa.imagenet_classification.networks import get_net_by_name
from support.architectures import an_arch
from support.commands import assert_one_line, main_in_process
from support.sweeping import run
from support.tiny import few_digits, make_setup, untrained

from topdown_ray.errors import UserError
from topdown_ray.networks import export
from topdown_ray.networks.evaluator import Evaluator
from topdown_ray.networks.images import Loader, normalise
from topdown_ray.networks.weights import find_weights
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.resnet50d import RESNET50D
from topdown_ray.spaces.space import Space


def loaded(folder: Path) -> torch.nn.Module:
    """As the exported page says."""
    config = json.loads((folder / "net.config").read_text())
    network = get_net_by_name(config["name"]).build_from_config(config)
    network.load_state_dict(torch.load(folder / "init", map_location="cpu", weights_only=True)["state_dict"])
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize("space", list(SPACES.values()), ids=lambda space: space.name)
def test_onnx_and_torch(space: Space, tmp_path: Path) -> None:
    setup = make_setup(untrained(tmp_path / "w.safetensors", space), few_digits(tmp_path / "digits"))
    checkpoint, config = setup.checkpoint, an_arch(space)
    expected = Evaluator(setup).subnet(config)[0].to(memory_format=torch.contiguous_format)
    images = normalise(next(Loader(setup.images).validation(config["image_size"])).images[::4])
    with torch.no_grad():
        logits = expected(images)
    assert logits.std(dim=0).min() > 1e-2  # the network tells its images apart

    made = export.export(checkpoint, config, "torch", tmp_path / "torch", {}, setup)
    assert made.calibrated
    found = loaded(tmp_path / "torch")
    assert all(
        torch.equal(found.state_dict()[name], tensor) for name, tensor in expected.state_dict().items()
    )
    with torch.no_grad():
        assert torch.equal(found(images), logits)
    assert json.loads((tmp_path / "torch" / "run.config").read_text()) == {"image_size": config["image_size"]}

    made = export.export(checkpoint, config, "onnx", tmp_path / "onnx", {"accuracy": "good"}, setup)
    assert made.files == ["README.md", "arch.json", "model.onnx", "net.config", "run.config"]
    session = onnxruntime.InferenceSession(
        str(tmp_path / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    for batch in (1, 5):
        (found,) = session.run(None, {"images": images[:batch].numpy()})
        atol = export.TOLERANCE * max(1.0, float(logits.abs().max()))  # as the export itself is judged
        np.testing.assert_allclose(found, logits[:batch].numpy(), atol=atol, rtol=0)
    page = (tmp_path / "onnx" / "README.md").read_text()
    assert "| accuracy | good |" in page
    assert "not recalibrated" not in page
    assert checkpoint.sha256 in page


@pytest.mark.slow
def test_a_model_that_differs_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = find_weights(str(untrained(tmp_path / "w.safetensors", RESNET50D)), None)
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(UserError, match="expected onnxruntime's outputs within 0 of torch's, found"):
        export.export(checkpoint, an_arch(RESNET50D), "onnx", tmp_path / "onnx", {})
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = {
        "name": "small",
        "spaces": ["mobilenet_v3"],
        "strategies": ["top_down", "prune"],
        "cost": "macs",
        "predictor": "embedded",
        "targets": [[400, 300]],
        "seeds": 2,
        "search": {"population": 20, "generations": 5, "warm_generations": 3},
    }
    rows = run(sweep, tmp_path / "run").searches
    weights = untrained(tmp_path / "w.safetensors", MOBILENET_V3)
    common = ["export", tmp_path / "run", "--weights", weights]
    for arguments, part in [
        ([*common, "--out", tmp_path / "x"], "--target: expected one of 400, 300, found none"),
        ([*common, "--out", tmp_path / "x", "--target", "20"], "--target: expected one of"),
        ([*common, "--out", tmp_path / "x", "--target", "300", "--seed", "9"], "--seed: expected one of"),
        (
            [*common, "--out", tmp_path / "x", "--target", "300", "--seed", "worst"],
            "--seed: expected best or a whole number",
        ),
        (
            [*common, "--out", tmp_path / "x", "--target", "300", "--format", "tflite"],
            "--format: expected onnx, torch or config",
        ),
        (
            [*common, "--out", tmp_path / "run", "--target", "300"],
            "expected a new or empty folder, found files in it",
        ),
        (
            ["export", tmp_path / "run", "--out", tmp_path / "x", "--target", "300"],
            "--weights: expected the published weights",
        ),
    ]:
        assert_one_line(main_in_process(arguments, capsys), part)
    assert not (tmp_path / "x").exists()
    best = rows[rows["target"] == 300].nlargest(1, "accuracy").iloc[0]
    done = main_in_process(
        [*common[:2], "--out", tmp_path / "c", "--target", "300", "--format", "config", "--json"], capsys
    )
    assert json.loads(done.stdout)["files"] == ["README.md", "arch.json", "net.config", "run.config"]
    assert json.loads((tmp_path / "c" / "arch.json").read_text()) == json.loads(best["arch"])
    built = json.loads((tmp_path / "c" / "net.config").read_text())
    assert sum(
        p.numel() for p in get_net_by_name(built["name"]).build_from_config(built).parameters()
    ) / 1e6 == pytest.approx(best["params_m"])
    page = (tmp_path / "c" / "README.md").read_text()
    assert f"{100 * best['accuracy']:.2f} % (embedded:" in page
    assert f"search {best['search_id']} of sweep {best['run_id']}" in page
    done = main_in_process(
        [*common, "--out", tmp_path / "t", "--target", "300", "--seed", "1", "--format", "torch"], capsys
    )
    assert "Batch normalisation is not recalibrated" in done.stdout
    assert "**Batch normalisation is not recalibrated.**" in (tmp_path / "t" / "README.md").read_text()
    assert loaded(tmp_path / "t")(torch.zeros(1, 3, 160, 160)).shape == (1, 10)
