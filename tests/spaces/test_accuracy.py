"""Predictors against OFA's own; bits that do not depend on the batch; broken checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from ofa.tutorial.accuracy_predictor import AccuracyPredictor
from support.oracles import RESNET_ENCODER, resnet_predictor, tutorial_spec

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.networks import ofa_reference
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.predictor import features
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.proxyless import PROXYLESS
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.resnet50d import RESNET50D
from topdown_ray.spaces.space import Space


def test_mobilenet_features_are_ofas_own(published: Path) -> None:
    genes = MOBILENET_V3.random(1000, 0)
    specs = [tutorial_spec(MOBILENET_V3.to_config(row)) for row in genes]
    expected = torch.stack(
        [AccuracyPredictor.spec2feats(spec["ks"], spec["e"], spec["d"], spec["r"][0]) for spec in specs]
    )
    assert torch.equal(
        features(MOBILENET_V3, load_predictor("published", MOBILENET_V3).encoding, genes), expected
    )


def test_resnet_features_are_ofas_own(published: Path) -> None:
    genes = RESNET50D.random(1000, 0)
    expected = np.array([RESNET_ENCODER.arch2feature(RESNET50D.to_config(row)) for row in genes])
    found = features(RESNET50D, load_predictor("published", RESNET50D).encoding, genes)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_mobilenet_accuracy_is_ofas_own(published: Path) -> None:
    predictor, _ = ofa_reference.tutorial_models()
    genes = MOBILENET_V3.random(1000, 1)
    expected = predictor.predict_accuracy([tutorial_spec(MOBILENET_V3.to_config(row)) for row in genes])[:, 0]
    torch.testing.assert_close(load_predictor("published", MOBILENET_V3)(genes), expected, rtol=0, atol=1e-6)


def test_resnet_accuracy_is_ofas_own(published: Path) -> None:
    """Also shows that leaving its denormal weights out changes nothing."""
    oracle = resnet_predictor(published / "ofa_resnet50_acc_predictor.pth")
    genes = RESNET50D.random(1000, 1)
    with torch.inference_mode():
        expected = oracle.predict_acc([RESNET50D.to_config(row) for row in genes])
    torch.testing.assert_close(load_predictor("published", RESNET50D)(genes), expected, rtol=0, atol=1e-6)


def test_proxyless_is_read_by_mobilenets_predictor_without_its_last_block(published: Path) -> None:
    oracle, _ = ofa_reference.tutorial_models()
    genes = PROXYLESS.random(200, 2)
    specs = [tutorial_spec(PROXYLESS.to_config(row)) for row in genes]
    cut = [{**spec, "ks": spec["ks"][:20], "e": spec["e"][:20], "d": spec["d"][:5]} for spec in specs]
    predictor = load_predictor("published", PROXYLESS)
    assert predictor.predictor_space == "mobilenet_v3"
    torch.testing.assert_close(predictor(genes), oracle.predict_accuracy(cut)[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["published", "embedded"])
@pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)
def test_bits_do_not_depend_on_the_batch_nor_on_inactive_genes(
    space: Space, kind: str, published: Path
) -> None:
    predictor, genes = load_predictor(kind, space), space.random(700, 3)
    whole = predictor(genes)
    for size in (1, 7, 50, 333):
        assert torch.equal(torch.cat([predictor(part) for part in genes[:340].split(size)]), whole[:340])
    assert torch.equal(predictor(space.canonical(genes)), whole)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.pth: expected a predictor checkpoint .*, found no such file"):
        load_predictor(str(tmp_path / "none.pth"), MOBILENET_V3)


def test_a_truncated_checkpoint_is_named(published: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pth").write_bytes((published / "acc_predictor.pth").read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"cut.pth: expected a torch checkpoint of tensors, found"):
        load_predictor(str(tmp_path / "cut.pth"), MOBILENET_V3)


def test_a_checkpoint_of_another_space_is_named(published: Path) -> None:
    with pytest.raises(UserError, match=r"expected 128 inputs \(a predictor of mobilenet_v3\), found 82"):
        load_predictor(str(published / "ofa_resnet50_acc_predictor.pth"), MOBILENET_V3)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"0.weight": torch.zeros(4, 128), "2.weight": torch.zeros(1, 5)}, "2: expected 4 inputs, found 5"),
        ({"0.weight": torch.zeros(4, 128), "2.weight": torch.zeros(2, 4)}, "end in one output"),
        (
            {"0.weight": torch.full((4, 128), float("nan")), "2.weight": torch.zeros(1, 4)},
            "expected finite numbers",
        ),
        ({"0.weight": torch.zeros(4), "2.weight": torch.zeros(1, 4)}, "expected a matrix"),
    ],
)
def test_wrong_shapes_are_named(tmp_path: Path, state: dict[str, torch.Tensor], message: str) -> None:
    safetensors.torch.save_file(state, tmp_path / "p.safetensors")
    with pytest.raises(UserError, match=message):
        load_predictor(str(tmp_path / "p.safetensors"), MOBILENET_V3)


def test_checkpoints_load_tensors_only(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "owned",)

    torch.save({"0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="expected a torch checkpoint"):
        load_predictor(str(tmp_path / "evil.pth"), MOBILENET_V3)
    assert not (tmp_path / "owned").exists()


def test_a_changed_published_file_is_refused(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray((published / "acc_predictor.pth").read_bytes())
    data[-1] ^= 1
    (tmp_path / "acc_predictor.pth").write_bytes(data)
    monkeypatch.setenv("TOPDOWN_RAY_ASSETS", str(tmp_path))
    expected = assets.ASSETS["acc_predictor.pth"].sha256
    with pytest.raises(UserError, match=f"acc_predictor.pth: expected SHA-256 {expected}, found"):
        load_predictor("published", MOBILENET_V3)


def test_offline_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPDOWN_RAY_ASSETS", str(tmp_path))
    monkeypatch.setenv("TOPDOWN_RAY_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(
        UserError, match=r"acc_predictor.pth: expected an intact .*, and TOPDOWN_RAY_OFFLINE forbids"
    ):
        load_predictor("published", MOBILENET_V3)


PREDICTED = [space for space in SPACES.values() if space.traits.published.predictor]


@pytest.mark.parametrize("space", PREDICTED, ids=lambda space: space.name)
def test_the_ranges_that_spaces_state_are_those_of_random_architectures(
    published: Path, space: Space
) -> None:
    stated = {"published": space.traits.published.predictor_range, "embedded": space.traits.embedded_range}
    for predictor, extent in stated.items():
        top1 = load_predictor(predictor, space)(space.random(5_000, 0))
        assert extent == pytest.approx((float(top1.min()), float(top1.max())), abs=6e-5)
