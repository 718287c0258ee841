"""Export a subnet as ONNX, in OFA's own form for torch, or as its configuration alone, with a README that
describes it.

``torch`` writes the three files of OFA's published specialised networks (``ofa.model_zoo.ofa_specialized``):
``net.config``, from which ``get_net_by_name(name).build_from_config`` builds the network, ``run.config`` with
the image size, and ``init`` with the state dict. ``onnx`` is compared with torch by onnxruntime before the
export ends.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from topdown_ray.errors import UserError
from topdown_ray.networks.architectures import Filters, config_of, exact, is_run, read_arch, winners
from topdown_ray.networks.evaluator import EvaluationSetup, Evaluator, canonical
from topdown_ray.networks.supernet import Supernet
from topdown_ray.networks.weights import Checkpoint
from topdown_ray.spaces.space import Config, Space
from topdown_ray.spaces.tiles import one_thread
from topdown_ray.store.evaluations import load_evaluations

TOLERANCE = (
    1e-4  # of an output, between onnxruntime and torch; relative to the largest output where that is above 1
)


@dataclass(frozen=True)
class Exported:
    """The files of an exported subnet."""

    path: Path
    files: list[str]
    onnx_difference: float | None  # largest absolute difference of an output between onnxruntime and torch
    calibrated: bool


def export(
    checkpoint: Checkpoint,
    config: Config,
    form: str,
    out: Path,
    facts: Mapping[str, Any],
    setup: EvaluationSetup | None = None,
) -> Exported:
    """Write a subnet into a new folder. An export that fails leaves nothing behind.

    facts: lines of its README, name to value. setup: images to recalibrate batch normalisation with, as
    ``evaluate`` does; without them the statistics are those of the supernet, and the README says so. Raises
    UserError.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"--out {out}: expected a new or empty folder, found "
            f"{'files in it' if out.is_dir() else 'a file'}"
        )
    for package in ("onnx", "onnxscript", "onnxruntime") if form == "onnx" else ():
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"--format onnx: expected the package {package}, found none; pip install "
                "'topdown-ray[export]'"
            )
    if form != "config" and int(config["image_size"]) not in checkpoint.description.image_sizes:
        known = list(checkpoint.description.image_sizes)
        raise UserError(
            f"image_size: expected one of {known}, at which {checkpoint.name} was trained, found "
            f"{config['image_size']}"
        )
    calibrated = setup is not None and form != "config"
    with torch.no_grad(), one_thread():
        if calibrated and setup is not None:
            subnet: Any = Evaluator(setup).subnet(config)[0].to(memory_format=torch.contiguous_format)
        else:
            subnet = Supernet(checkpoint.space, checkpoint).materialise(config)
    subnet.eval()
    difference = None
    files: dict[str, bytes] = {
        "net.config": f"{json.dumps(subnet.config, indent=4)}\n".encode(),
        "run.config": f"{json.dumps({'image_size': config['image_size']})}\n".encode(),
        "arch.json": f"{json.dumps(config)}\n".encode(),
    }
    if form == "torch":
        state = io.BytesIO()
        torch.save({"state_dict": subnet.state_dict()}, state)
        files["init"] = state.getvalue()
    if form == "onnx":
        files["model.onnx"], difference = _onnx(subnet, int(config["image_size"]))
    files["README.md"] = _page(checkpoint, config, form, facts, calibrated, difference).encode()
    _write(out, files)
    return Exported(out, sorted(path.name for path in out.iterdir()), difference, calibrated)


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder of files, either all of them or none. Raises UserError."""
    temporary = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        temporary.chmod(0o755)
        temporary.replace(out)
    except OSError as error:
        raise UserError(
            f"--out {out}: expected a folder to write to, found {error.strerror or error}"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _onnx(subnet: nn.Module, resolution: int) -> tuple[bytes, float]:
    """Return the model for a batch of any size, and the largest difference from torch on batches of 1 and
    3.
    """
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(2, 3, resolution, resolution, generator=generator)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the exporter logs each of its passes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of the exporter about its own code
            program = torch.onnx.export(
                subnet,
                (example,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    finally:
        logging.disable(before)
    assert program is not None  # the exporter returns a program if it writes no file
    model: bytes = program.model_proto.SerializeToString()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    difference, largest = 0.0, 1.0
    for batch in (1, 3):
        images = torch.randn(batch, 3, resolution, resolution, generator=generator)
        with torch.no_grad():
            expected = subnet(images).numpy()
        (found,) = session.run(None, {"images": images.numpy()})
        if found.shape != expected.shape:
            raise UserError(
                f"--format onnx: expected outputs of shape {expected.shape}, as in torch, found {found.shape}"
            )
        difference = max(difference, float(np.abs(found - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
    if not difference <= TOLERANCE * largest:
        raise UserError(
            f"--format onnx: expected onnxruntime's outputs within {TOLERANCE * largest:.2g} of torch's, "
            f"found {difference:.2e}"
        )
    return model, difference


_HOW = {
    "onnx": "`model.onnx`: input `images` float32 (batch, 3, {r}, {r}), output `logits` (batch, {classes}). "
    "On batches of 1 and 3 images, the outputs of onnxruntime differ from those of torch by at most "
    "{difference:.1e}.",
    "torch": """```python
import json, torch
from ofa.imagenet_classification.networks import get_net_by_name

config = json.load(open("net.config"))
network = get_net_by_name(config["name"]).build_from_config(config)
network.load_state_dict(torch.load("init", map_location="cpu")["state_dict"])
network.eval()
```""",
    "config": (
        "`net.config` holds the layers for OFA's `get_net_by_name(name).build_from_config`. The folder "
        "contains no weights."
    ),
}


def _page(
    checkpoint: Checkpoint,
    config: Config,
    form: str,
    facts: Mapping[str, Any],
    calibrated: bool,
    difference: float | None,
) -> str:
    description = checkpoint.description
    lines = [f"# A subnet of {checkpoint.space.network}", "", "| | |", "|---|---|"]
    rows = {
        **facts,
        "space": checkpoint.space.name,
        "image size": f"{config['image_size']} x {config['image_size']} pixels",
        "classes": description.n_classes,
        "weights": "none" if form == "config" else f"{checkpoint.name}, SHA-256 {checkpoint.sha256}",
    }
    if description.width != 1:
        rows["supernet"] = f"{description.width:g} times as wide as the published one"
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    how = (
        _HOW[form].format(r=config["image_size"], classes=description.n_classes, difference=difference)
        if form == "onnx"
        else _HOW[form]
    )
    lines += ["", how, ""]
    if form != "config":
        resize = (
            f"Resize the shorter side of an RGB image to {config['image_size']} / 0.875 pixels, rounded up. "
            f"Crop the middle {config['image_size']} x {config['image_size']} pixels, scale their values to "
            "the range from 0 to 1, and normalise them with mean "
        )
        lines += [resize + "(0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225).", ""]
        if checkpoint.is_random:
            lines += ["**The weights are random, so the outputs of this network are meaningless.**", ""]
        elif not calibrated:
            lines += [
                "**Batch normalisation is not recalibrated.** Its statistics are those of the whole "
                "supernet, but accuracies are predicted and measured for recalibrated subnets. Export with "
                "`--data`, or recalibrate before use.",
                "",
            ]
    lines += ["Architecture: `arch.json`.", ""]
    return "\n".join(lines)


def choose(source: str, filters: Filters) -> tuple[Space, Config, dict[str, Any]]:
    """Return the chosen architecture, its space, and the facts for its README. Raises UserError.

    Of a result folder: the most accurate row that the filters leave, of one target.
    """
    if not is_run(source):
        return *read_arch(source, filters), {}
    rows = winners(source, filters, "all")
    for column, option in (("space", "space"), ("cost_name", "cost"), ("target", "target")):
        if rows[column].nunique() > 1:
            found = ", ".join(exact(x) if isinstance(x, float) else str(x) for x in rows[column].unique())
            raise UserError(f"--{option}: expected one of {found}, found none")
    row: dict[Any, Any] = dict(rows.nlargest(1, "accuracy").iloc[0])
    own = row["predictor_space"] == row["genes_space"]
    predictor = row["predictor_name"] + ("" if own else f", a predictor of {row['predictor_space']}")
    facts = {
        "predicted top-1": f"{100 * row['accuracy']:.2f} % ({predictor}, SHA-256 {row['predictor_sha256']})",
        "cost": f"{row['cost']:.4g} {row['cost_unit']} ({row['cost_name']}), target {row['target']:g}",
        "MACs, parameters": f"{row['macs_m']:.1f} and {row['params_m']:.2f} x 1e6, of the published width",
        "origin": (
            f"strategy {row['strategy']}, seed {row['seed']}, search {row['search_id']} of sweep "
            f"{row['run_id']}"
        ),
    }
    return *config_of(row), facts


def measured_facts(source: str, space: Space, config: Config, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what was measured of this architecture with these weights, if the source is a result folder with
    such measurements.
    """
    if not is_run(source):
        return {}
    rows = load_evaluations(source)
    rows = rows[(rows["arch"] == canonical(space, config)) & (rows["weights_sha256"] == checkpoint.sha256)]
    found = [
        f"top-1 {100 * row['top1']:.2f} %, top-5 {100 * row['top5']:.2f} % on {row['n_images']} images of "
        f"{row['data_name']}"
        for row in rows.to_dict("records")
    ]
    return {"measured": "; ".join(found)} if found else {}
