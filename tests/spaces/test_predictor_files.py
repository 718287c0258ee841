"""Predictor files: read where they are known to be perceptrons with ReLU that give accuracies; else one line
names file and fault.
"""

import itertools
import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ofa.nas.accuracy_predictor import AccuracyPredictor
from support.commands import assert_one_line, main_in_process
from support.fuzzing import CHANGES, FUZZ, JSON, KEEP, changed, outcome
from support.oracles import RESNET_ENCODER
from torch import nn

from topdown_ray.errors import UserError
from topdown_ray.files import data
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.resnet50d import RESNET50D
from topdown_ray.tensors import read_header, read_safetensors, read_torch


def complaint(path: Path, space: Any = MOBILENET_V3) -> str:
    """The line that loading a predictor ends with."""
    with pytest.raises(UserError) as raised:
        load_predictor(str(path), space)
    line = str(raised.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 1000
    return line


def perceptron(*widths: int, activation: Any = nn.ReLU, scale: float = 0.05, seed: int = 0) -> nn.Sequential:
    """A network of the form of ``ofa.tutorial``'s predictor, with accuracies about one half."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for ins, outs in itertools.pairwise(widths):
        layers += [nn.Linear(ins, outs), activation()]
    network = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        network[-1].weight.mul_(scale)  # type: ignore[operator]
        network[-1].bias.fill_(0.5)  # type: ignore[operator]
    return network


def save(path: Path, state: Any, **metadata: str) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(
            {name: value.detach().contiguous() for name, value in state.items()}, path, metadata=metadata
        )
    else:
        torch.save(state, path)
    return path


# --- the activation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.ReLU])
def test_an_activation_that_nobody_states_is_not_guessed(activation: Any, tmp_path: Path) -> None:
    state = perceptron(128, 64, 1, activation=activation).state_dict()
    for name in ("p.pth", "p.safetensors"):
        line = complaint(save(tmp_path / name, state))
        assert "expected a predictor whose layers are known to have ReLU between them" in line
        assert "['0.bias', '0.weight', '2.bias', '2.weight'] without this metadata" in line
    line = complaint(save(tmp_path / "p.safetensors", state, activation="sigmoid"))
    assert "metadata 'activation': expected relu, found 'sigmoid'" in line
    # the space alone says nothing of the activation
    save(tmp_path / "p.safetensors", state, space="mobilenet_v3")
    assert "without this metadata" in complaint(tmp_path / "p.safetensors")


def test_a_stated_relu_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    network = perceptron(128, 64, 32, 1)
    path = save(tmp_path / "p.safetensors", network.state_dict(), activation="relu")
    predictor, genes = load_predictor(str(path), MOBILENET_V3), MOBILENET_V3.random(300, 1)
    from topdown_ray.spaces.predictor import features

    with torch.inference_mode():
        expected = network(features(MOBILENET_V3, predictor.encoding, genes)).view(-1)
    torch.testing.assert_close(predictor(genes), expected, rtol=0, atol=1e-6)


def test_ofas_layouts_are_known_by_their_names_and_shapes(tmp_path: Path) -> None:
    """Both classes have no other activation than ReLU; the second may have other numbers of layers and
    units.
    """
    tutorial = perceptron(128, 400, 400, 400, 1).state_dict()
    for name in ("a.pth", "a.safetensors"):
        assert (
            load_predictor(str(save(tmp_path / name, tutorial)), MOBILENET_V3).predictor_space
            == "mobilenet_v3"
        )
    torch.manual_seed(0)
    for hidden, layers in ((400, 3), (50, 2)):
        network = AccuracyPredictor(RESNET_ENCODER, hidden_size=hidden, n_layers=layers, device="cpu")
        network.base_acc.fill_(0.5)
        state = network.state_dict()
        state[f"layers.{layers}.weight"] *= 0.05
        predictor, genes = (
            load_predictor(str(save(tmp_path / "b.pth", {"state_dict": state})), RESNET50D),
            RESNET50D.random(50, 1),
        )
        with torch.inference_mode():
            expected = network.predict_acc([RESNET50D.to_config(row) for row in genes])
        torch.testing.assert_close(predictor(genes), expected, rtol=0, atol=1e-6)
    narrow = perceptron(128, 200, 400, 400, 1).state_dict()
    assert "without this metadata" in complaint(save(tmp_path / "narrow.pth", narrow))
    # ofa.nas orders MobileNetV3's features otherwise than ofa.tutorial, and tensors do not tell its order of
    # image sizes
    first = {"layers.0.0.weight": torch.zeros(400, 128)}
    assert "without this metadata" in complaint(save(tmp_path / "nas.pth", {**state_of_nas(), **first}))


def state_of_nas() -> dict[str, torch.Tensor]:
    return AccuracyPredictor(RESNET_ENCODER, device="cpu").state_dict()


@pytest.mark.parametrize("metadata", [{"normalisation": "{}"}, {"distilled_from": "0" * 64}])
def test_what_earlier_versions_wrote_is_known(metadata: dict[str, str], tmp_path: Path) -> None:
    state = perceptron(82, 16, 1).state_dict()
    path = save(tmp_path / "p.safetensors", state, space="resnet50d", **metadata)
    assert load_predictor(str(path), RESNET50D).predictor_space == "resnet50d"
    assert "without this metadata" in complaint(save(path, state, **metadata), RESNET50D)


def test_tensors_of_other_layers_are_refused(tmp_path: Path) -> None:
    """A batch normalisation between the layers, an embedding, whole numbers."""
    state = perceptron(128, 16, 1).state_dict()
    for extra, found in (
        (
            {"1.running_mean": torch.zeros(16)},
            "expected the weights and biases of linear layers, found '1.running_mean'",
        ),
        ({"9.bias": torch.zeros(1)}, "expected the weights and biases of linear layers, found '9.bias'"),
        (
            {"1.weight": torch.zeros(16), "1.bias": torch.zeros(16)},
            "1: expected a matrix and a bias, found (16,) and (16,)",
        ),
        (
            {"0.weight": torch.zeros(16, 128, dtype=torch.int8)},
            "'0.weight': expected floating-point numbers, found torch.int8",
        ),
        ({"0.weight": torch.zeros(0, 128)}, "0: expected a matrix and a bias, found (0, 128)"),
        (
            {"0.weight": torch.zeros(()), "0.bias": torch.zeros(())},
            "0: expected a matrix and a bias, found () and ()",
        ),
    ):
        assert found in complaint(save(tmp_path / "p.safetensors", {**state, **extra}, activation="relu"))


# --- values that are no accuracies --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "found"),
    [
        (torch.tensor([float("nan")]), "base_acc: expected one finite number, found [nan]"),
        (torch.tensor([float("inf")]), "base_acc: expected one finite number, found [inf]"),
        (torch.tensor([1e300], dtype=torch.float64), "base_acc: expected one finite number, found [inf]"),
        (torch.zeros(2), "base_acc: expected one finite number, found [0.0, 0.0]"),
        (torch.zeros(0), "base_acc: expected one finite number, found []"),
        (torch.zeros(10**6), "base_acc: expected one finite number, found [0.0, 0.0, 0.0]"),
        (
            torch.tensor([50.0]),
            "expected a predictor of top-1 accuracies as fractions from 0 to 1, found 49.9",
        ),
    ],
)
def test_base_acc(base: torch.Tensor, found: str, published: Path, tmp_path: Path) -> None:
    state = torch.load(published / "ofa_resnet50_acc_predictor.pth", map_location="cpu", weights_only=True)
    assert found in complaint(save(tmp_path / "p.pth", {**state, "base_acc": base}), RESNET50D)


def test_values_outside_of_0_to_1_are_refused(published: Path, tmp_path: Path) -> None:
    """A predictor in percent, one that is slightly too high, one below zero; the published values themselves
    pass.
    """
    state = torch.load(published / "acc_predictor.pth", map_location="cpu", weights_only=True)
    for change, found in (
        (lambda bias: bias + 49.2, "found 49."),
        (lambda bias: bias + 0.22, "to 1.0"),
        (lambda bias: bias - 1, "found -0."),
    ):
        changed = {**state, "6.bias": change(state["6.bias"])}
        line = complaint(save(tmp_path / "p.pth", changed))
        assert "expected a predictor of top-1 accuracies as fractions from 0 to 1" in line
        assert found in line
        assert "on 1024 architectures of mobilenet_v3" in line
    for space in SPACES.values():
        for name in ("published", "embedded"):
            top1 = load_predictor(name, space)(space.random(2000, 5))
            assert 0 < top1.min() < top1.max() < 1


def test_no_sum_can_leave_float32(tmp_path: Path) -> None:
    """Finite weights whose products are not, although a random architecture need not meet them: NaN would win
    a search.
    """
    for scale, rows in ((1e30, 1), (3e38, 3)):
        network = perceptron(128, 16, 16, 1)
        with torch.no_grad():
            for layer in (network[0], network[2]):
                layer.weight[:rows] = scale  # type: ignore[index,union-attr]
        line = complaint(save(tmp_path / "p.safetensors", network.state_dict(), activation="relu"))
        assert "expected layers whose sums fit into float32, found sums up to " in line


# --- files that are no checkpoints --------------------------------------------------------------------------


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # both are said to be in beta, or on their way out
    CSR = torch.eye(3).to_sparse_csr()
    QUANTISED = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({0: torch.zeros(1)}, "expected the names of tensors as keys, found 0"),
        ({"state_dict": {0: torch.zeros(1)}}, "expected the names of tensors as keys, found 0"),
        ({"state_dict": {"state_dict": {"a": torch.zeros(1)}}}, "found dict with dict under 'state_dict'"),
        ({}, "expected two or more linear layers"),
        ({"a" * 10_000: 1}, "expected a state dict of tensors, found dict with int under 'aaa"),
        (
            {"a": torch.eye(3).to_sparse()},
            "'a': expected a dense tensor of real numbers, found a tensor of layout torch.sparse_coo",
        ),
        ({"a": CSR}, "found a tensor of layout torch.sparse_csr"),
        ({"a": torch.zeros(2, 2, dtype=torch.complex64)}, "found a complex tensor or a part of one"),
        ({"a": torch.zeros(2, 2, device="meta")}, "found a tensor without values (meta)"),
        ({"a": QUANTISED}, "found a quantised tensor"),
        ({"a": torch.zeros(1).expand(10**13)}, "found values that share their memory"),
        (
            {"0.weight": torch.full((4, 128), torch.nan), "2.weight": torch.zeros(1, 4)},
            "0: expected finite numbers, found NaN",
        ),
    ],
)
def test_states_that_are_no_weights(state: Any, found: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(state, tmp_path / "p.pth")
    assert found in complaint(tmp_path / "p.pth")  # and nothing warns of what is refused


def test_parameters_are_tensors(tmp_path: Path) -> None:
    """A file of ``dict(module.named_parameters())``: its tensors want gradients."""
    network = perceptron(128, 400, 400, 400, 1)
    path = save(tmp_path / "p.pth", dict(network.named_parameters()))
    assert load_predictor(str(path), MOBILENET_V3)(MOBILENET_V3.random(3, 0)).shape == (3,)


def test_places_that_hold_no_file(tmp_path: Path) -> None:
    """None of them hangs, a pipe without a writer least of all."""
    os.mkfifo(tmp_path / "pipe.pth")
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "loop.pth").symlink_to(tmp_path / "loop.pth")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "empty.safetensors").touch()
    for name, found in (
        ("pipe.pth", "found a pipe or device"),
        ("pipe.safetensors", "found a pipe or device"),
        ("zero.pth", "found a pipe or device"),
        ("folder.safetensors", "found a folder"),
        ("loop.pth", "expected a predictor checkpoint"),
        ("none.pth", "found no such file"),
        ("empty.pth", "expected a torch checkpoint of tensors, found EOFError"),
        ("empty.safetensors", "expected a safetensors file, found"),
    ):
        assert found in complaint(tmp_path / name)
    for name in ("a" * 5000 + ".pth", "nul\0.pth"):
        with pytest.raises(UserError, match="expected a predictor checkpoint") as raised:
            load_predictor(name, MOBILENET_V3)
        assert len(str(raised.value)) < 500


def test_headers_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    for header in (
        b"[" * 100_000,
        b'{"__metadata__":' + b'{"a":' * 1000 + b"1" + b"}" * 1001,
        b'{"__metadata__": {"space": 3}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}',
        b'{"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}',
        b"\xff\xfe{}",
        b"null",
    ):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        assert "expected a safetensors file, found" in complaint(path)
    for length in (0, 2**63, 2**64 - 1, 10**9):
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        assert "expected a safetensors file, found" in complaint(path)


def test_a_refused_predictor_is_one_line_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "p.pth", perceptron(128, 64, 1, activation=nn.Sigmoid).state_dict())
    told = main_in_process(["search", "--cost", "macs", "--target", 300, "--predictor", path], capsys)
    assert_one_line(
        told, f"error: {path}: expected a predictor whose layers are known to have ReLU between them"
    )


# --- whatever the bytes -------------------------------------------------------------------------------------


def reads_or_complains(path: Path) -> None:
    """The outcome is a predictor of accuracies or one bounded line."""
    predictor = outcome(load_predictor, str(path), RESNET50D)
    if predictor is not None:
        top1 = predictor(RESNET50D.random(5, 0))
        assert ((top1 >= 0) & (top1 <= 1)).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    state = AccuracyPredictor(RESNET_ENCODER, hidden_size=4, n_layers=1, device="cpu").state_dict()
    state["base_acc"] += 0.5
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save(folder / "good.safetensors", state, space="resnet50d", activation="relu")
    return folder


@FUZZ
@given(changes=CHANGES, keep=KEEP, name=st.sampled_from(["zip.pth", "legacy.pth"]))
def test_any_bytes_as_a_torch_checkpoint(
    changes: list[tuple[float, int]], keep: float, name: str, folder: Path
) -> None:
    (folder / "x.pth").write_bytes(changed((folder / name).read_bytes(), changes, keep, 0, 1000))
    reads_or_complains(folder / "x.pth")


@FUZZ
@given(changes=CHANGES, keep=KEEP)
def test_any_bytes_as_safetensors(changes: list[tuple[float, int]], keep: float, folder: Path) -> None:
    (folder / "x.safetensors").write_bytes(
        changed((folder / "good.safetensors").read_bytes(), changes, keep, 0, 450)
    )
    reads_or_complains(folder / "x.safetensors")


TENSORS = st.builds(
    lambda shape, kind, value: torch.full(shape, value).to(kind),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64]),
    st.sampled_from([0.0, 0.1, -1e30, float("nan"), float("inf")]),
)
KEYS = st.sampled_from(
    ["0.weight", "0.bias", "2.weight", "base_acc", "layers.0.0.weight", "state_dict", ".weight", "²٣.weight"]
)
VALUES = st.recursive(
    TENSORS | st.none() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: (
        st.dictionaries(KEYS | st.integers() | st.text(max_size=5), inner, max_size=4)
        | st.lists(inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(FUZZ, max_examples=40)
@given(state=VALUES)
def test_any_state(state: Any, folder: Path) -> None:
    torch.save(state, folder / "y.pth")
    reads_or_complains(folder / "y.pth")


@FUZZ
@given(
    header=st.dictionaries(
        st.sampled_from(["__metadata__", "0.weight", "0.bias", "2.weight"]), JSON, max_size=4
    )
)
def test_any_header_of_safetensors(header: dict[str, Any], folder: Path) -> None:
    text = json.dumps(header).encode()
    path = folder / "z.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    reads_or_complains(path)
    outcome(read_header, path)
    outcome(read_safetensors, path)
    assert outcome(read_torch, path, "a checkpoint") is None


def test_the_shipped_files_are_as_they_were() -> None:
    """Their hashes are part of every search's identity: no header was added to them."""
    for name in ("mobilenet_v3", "resnet50d"):
        path = data(f"embedded_{name}.safetensors")
        assert set(read_header(path)) == {"space", "distilled_from"}
        assert (
            json.loads(path.with_suffix(".json").read_text())["sha256"]
            == load_predictor("embedded", SPACES[name]).sha256
        )
