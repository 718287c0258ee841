"""Weights of a supernet: every tensor of it, finite and of its shape, under OFA's present or earlier names;
else one line.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.commands import assert_one_line, main_in_process
from support.fuzzing import FUZZ, JSON, outcome
from support.tiny import CLASSES, WIDTH

from topdown_ray.errors import UserError
from topdown_ray.networks.supernet import Supernet, build
from topdown_ray.networks.weights import Checkpoint, Description, find_weights, save_weights
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.resnet50d import RESNET50D
from topdown_ray.spaces.space import Space

State = dict[str, torch.Tensor]
EVERY_SPACE = pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)


def described(space: Space) -> Description:
    sizes = tuple(int(size) for size in space.genes[space.resolution].choices)
    return Description(space=space.name, width=WIDTH, n_classes=10, image_sizes=sizes, classes=CLASSES)


def complete(space: Space) -> State:
    torch.manual_seed(3)
    return dict(build(space, WIDTH, 10).state_dict())


def checkpoint(path: Path, space: Space, state: State) -> Checkpoint:
    save_weights(path, state, described(space))
    return find_weights(str(path), space)


def complaint(path: Path, space: Space, state: State) -> str:
    with pytest.raises(UserError) as raised:
        Supernet(space, checkpoint(path, space, state))
    line = str(raised.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 700
    return line


@EVERY_SPACE
def test_every_tensor_must_be_there(space: Space, tmp_path: Path) -> None:
    path, state = tmp_path / "w.safetensors", complete(space)
    network = Supernet(space, checkpoint(path, space, state)).network.state_dict()
    assert all(torch.equal(network[name], state[name]) for name in state)

    weights = [name for name in network if "num_batches_tracked" not in name]
    expected = f"expected weights of {space.network}, found "
    for missing in (
        weights[0],
        weights[len(weights) // 2],
        weights[-1],
        next(name for name in weights if "running_var" in name),
    ):
        line = complaint(path, space, {name: value for name, value in state.items() if name != missing})
        assert f"{expected}{len(weights) - 1} of its {len(weights)} tensors, without {missing}" in line
        assert "..." not in line
    only = {weights[-1]: state[weights[-1]]}
    first = ", ".join(weights[:3])
    assert f"{expected}1 of its {len(weights)} tensors, without {first}, ..." in complaint(path, space, only)
    assert f"{expected}0 of its {len(weights)} tensors, without {first}, ..." in complaint(path, space, {})
    counters = {name: value for name, value in state.items() if "num_batches_tracked" in name}
    assert f"{expected}0 of its {len(weights)} tensors" in complaint(path, space, counters)


@EVERY_SPACE
def test_names_of_earlier_versions_of_ofa_are_loaded(space: Space, tmp_path: Path) -> None:
    """``mobile_inverted_conv``, and single for double names of dynamic layers, as OFA's own loader reads
    them; no counters.
    """
    state = complete(space)
    earlier = {
        name.replace(".conv.depth_conv", ".mobile_inverted_conv.depth_conv")
        .replace("bn.bn.", "bn.")
        .replace("conv.conv.weight", "conv.weight")
        .replace("linear.linear.", "linear."): value
        for name, value in state.items()
        if "num_batches_tracked" not in name
    }
    assert sum(name not in state for name in earlier) > 100
    path = tmp_path / "w.safetensors"
    network = Supernet(space, checkpoint(path, space, earlier)).network.state_dict()
    assert all(torch.equal(network[name], state[name]) for name in state if "num_batches_tracked" not in name)
    name = next(name for name in earlier if name not in state)
    del earlier[name]
    assert " of its " in complaint(path, space, earlier)


def test_a_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    state = complete(RESNET50D)
    name = next(name for name in state if name.endswith("bn.bn.weight"))
    line = complaint(
        tmp_path / "w.safetensors",
        RESNET50D,
        {**state, name.replace("bn.bn.", "bn."): torch.zeros_like(state[name])},
    )
    assert "found 1 tensors twice, under two of OFA's names" in line


CHANGES: list[tuple[Callable[[torch.Tensor], torch.Tensor], str]] = [
    (
        lambda value: torch.full_like(value, torch.nan),
        "expected finite floating-point numbers, found NaN, infinity or torch.float32",
    ),
    (lambda value: torch.cat([value[:-1], value[-1:] * torch.inf]), "expected finite floating-point numbers"),
    (lambda value: value.double() * 1e300, "expected finite floating-point numbers"),
    (
        lambda value: value.to(torch.int8),
        "expected finite floating-point numbers, found NaN, infinity or torch.int8",
    ),
    (lambda value: value[:-1], "size mismatch for "),
    (lambda value: value[None], "size mismatch for "),
    (lambda value: value[:0], "size mismatch for "),
]


@pytest.mark.parametrize(("change", "found"), CHANGES)
@pytest.mark.parametrize("name", ["classifier.linear.linear.weight", "blocks.0.conv1.bn.bn.running_var"])
def test_tensors_that_are_no_weights(name: str, change: Any, found: str, tmp_path: Path) -> None:
    state = complete(RESNET50D)
    line = complaint(tmp_path / "w.safetensors", RESNET50D, {**state, name: change(state[name] + 0.1)})
    assert found in line
    assert name in line


def test_a_tensor_of_another_network_is_named(tmp_path: Path) -> None:
    path, state = tmp_path / "w.safetensors", complete(RESNET50D)
    for name in ("unknown.bn.weight", "unknown", "a" * 5000):
        line = complaint(path, RESNET50D, {**state, name: torch.zeros(1)})
        assert "expected weights of ofa_resnet50, found a tensor of another network: " in line
        assert name[:6] in line


@pytest.mark.parametrize(
    ("command", "form"), [("export", "pth"), ("evaluate", "safetensors"), ("sample-dataset", "safetensors")]
)
def test_commands_refuse_incomplete_weights(
    command: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file with one of the tensors, in either form. The weights are checked before the images, of which
    there are none.
    """
    path = tmp_path / f"w.{form}"
    one = dict(list(complete(RESNET50D).items())[:1])
    if form == "safetensors":
        save_weights(path, one, described(RESNET50D))
    else:
        network = build(RESNET50D)
        name, value = next(iter(network.state_dict().items()))
        torch.save({"state_dict": {name: value}}, path)
    arch = json.dumps(RESNET50D.to_config(RESNET50D.canonical(RESNET50D.random(1, 0))[0]))
    digits = tmp_path / "digits"
    common = ["--space", "resnet50d", "--weights", path]
    arguments = {
        "export": ["export", arch, *common, "--format", "torch", "--out", tmp_path / "out"],
        "evaluate": ["evaluate", arch, *common, "--data", digits, "--address", "none"],
        "sample-dataset": [
            "sample-dataset",
            *common,
            "--data",
            digits,
            "--out",
            tmp_path / "out",
            "--address",
            "none",
        ],
    }[command]
    told = main_in_process(arguments, capsys)
    assert_one_line(told, f"{path}: expected weights of ofa_resnet50, found 1 of its ", "tensors, without ")
    assert {file.name for file in tmp_path.iterdir()} == {path.name}


# --- headers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("[" * 100_000, "topdown_ray_supernet: "),
        ("null", "topdown_ray_supernet: "),
        ('{"space": "resnet50d", "image_sizes": [128], "width": NaN}', "width: "),
        ('{"space": "resnet50d", "image_sizes": [128], "width": Infinity}', "width: "),
        ('{"space": "resnet50d", "image_sizes": [128], "n_classes": ' + "9" * 4000 + "}", "n_classes: "),
        (
            '{"space": "resnet50d", "image_sizes": [' + "1," * 10_000 + "1]}",
            "image_sizes: expected sizes of resnet50d, found [1, 1",
        ),
        ('{"space": "' + "x" * 10_000 + '", "image_sizes": [128]}', "space: expected one of"),
        (
            '{"space": "resnet50d", "image_sizes": [128], "colour": "red"}',
            "colour: expected one of the keys space, width",
        ),
        ('{"space": "resnet50d"}', "image_sizes: expected a value, found none"),
    ],
)
def test_headers(header: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, metadata={"topdown_ray_supernet": header})
    with pytest.raises(UserError) as raised:
        find_weights(str(path), None)
    line = str(raised.value)
    assert line.startswith(f"{path}: topdown_ray_supernet: ")
    assert found in line
    assert len(line) < 700


def test_places_that_hold_no_weights(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name, found in (
        ("pipe.safetensors", "found a pipe or device"),
        ("none.pth", "found no such file"),
        (".", "found a folder"),
    ):
        with pytest.raises(UserError, match="expected published, random, or a supernet's weights") as raised:
            find_weights(str(tmp_path / name), RESNET50D)
        assert found in str(raised.value)


KEYS = st.sampled_from([*Description.model_fields, "other"])


@FUZZ
@given(
    header=st.dictionaries(KEYS, JSON | st.sampled_from(["resnet50d", "vit", 0.5, True, [128], ["a"], 10]))
    | JSON
)
def test_any_header(header: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    safetensors.torch.save_file(
        {"x": torch.zeros(1)}, path, metadata={"topdown_ray_supernet": json.dumps(header)}
    )
    found = outcome(find_weights, str(path), None)
    assert found is None or found.description.space in SPACES
