"""Measured accuracies: against OFA's and torchvision's own code, whatever the order, with broken data, and
without growing.
"""

import gc
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from ofa.imagenet_classification.data_providers.imagenet import ImagenetDataProvider
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3, OFAProxylessNASNets, OFAResNets
from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics
from PIL import Image
from support.buckets import server as server
from support.buckets import uri
from support.commands import assert_one_line, main_in_process, sweep_file
from support.folders import merged_at
from support.tiny import WIDTH, few_digits, make_setup, untrained
from torchvision import transforms

from topdown_ray.errors import UserError
from topdown_ray.networks import evaluate
from topdown_ray.networks.evaluator import EvaluationSetup, EvaluationTask, Evaluator, archs_of, tasks
from topdown_ray.networks.hosting import Resources
from topdown_ray.networks.images import SUB_SEED, Loader, Settings, find_images, normalise
from topdown_ray.networks.supernet import Supernet
from topdown_ray.networks.weights import Description, find_weights
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.proxyless import PROXYLESS
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.resnet50d import RESNET50D
from topdown_ray.spaces.space import Space
from topdown_ray.store.evaluations import INCIDENTAL, Evaluations, load_evaluations
from topdown_ray.store.place import Place
from topdown_ray.store.results import load

HERE = Resources(address="none")
SPACE = RESNET50D  # the fastest of the three


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_digits(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("weights") / "untrained.safetensors", SPACE)


@pytest.fixture(scope="module")
def setup(weights: Path, data: Path) -> EvaluationSetup:
    return make_setup(weights, data)


def small_archs(space: Space, n: int, seed: int = 0) -> list[str]:
    sizes = [int(space.genes[space.resolution].choices[0])]
    return archs_of(space, evaluate.uniform(space, sizes, n, seed))


# --- images -------------------------------------------------------------------------------------------------


def test_validation_images_are_those_of_ofas_transform(setup: EvaluationSetup, data: Path) -> None:
    # its constructor wants a folder of ImageNet's size
    provider = ImagenetDataProvider.__new__(ImagenetDataProvider)
    for resolution in (160, 192, 224):
        theirs = provider.build_valid_transform(resolution)
        images = torch.cat([normalise(batch.images) for batch in Loader(setup.images).validation(resolution)])
        for image, sample in zip(images, setup.images.validation, strict=True):
            with Image.open(data / sample.path) as raw:
                assert torch.equal(image, theirs(raw.convert("RGB")))


def test_the_calibration_images_are_the_ones_that_ofa_draws(setup: EvaluationSetup, data: Path) -> None:
    """``build_sub_train_loader``: a permutation of the training images by ``SUB_SEED``."""
    assert ImagenetDataProvider.SUB_SEED == SUB_SEED
    some = find_images(data, setup.checkpoint.description, Settings(calibration=7))
    generator = torch.Generator()
    generator.manual_seed(ImagenetDataProvider.SUB_SEED)
    files = sorted(str(path.relative_to(data)) for path in (data / "train").rglob("*.png"))
    assert [sample.path for sample in some.calibration] == [
        files[i] for i in torch.randperm(30, generator=generator)[:7]
    ]


def test_training_crops_are_torchvisions_and_fixed(setup: EvaluationSetup, data: Path) -> None:
    description = setup.checkpoint.description
    crop = transforms.RandomResizedCrop(160, scale=(description.resize_scale, 1.0))
    whole = transforms.Compose([crop, transforms.RandomHorizontalFlip(), transforms.ToTensor(), _NORMALISE])
    seen = torch.cat([normalise(batch.images) for batch in Loader(setup.images).calibration(160)])
    for index in (0, 5, 29):
        torch.manual_seed((SUB_SEED * 1_000_003 + index) % 2**63)
        with Image.open(data / setup.images.calibration[index].path) as raw:
            assert torch.equal(seen[index], whole(raw.convert("RGB")))
    loader = Loader(setup.images)
    list(loader.validation(176))
    again = torch.cat([normalise(batch.images) for batch in loader.calibration(160)])
    assert torch.equal(seen, again)


_NORMALISE = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


def test_kept_images_stay_within_the_bound_and_loaders_change_nothing(weights: Path, data: Path) -> None:
    plain = make_setup(weights, data, memory_mib=0)
    expected = [batch.images for batch in Loader(plain.images).calibration(160)]
    helped = Loader(make_setup(weights, data, memory_mib=4, loaders=1).images)
    for resolution in (160, 176, 160, 192):
        list(helped.validation(resolution))
        assert sum(batch.images.numel() for kept in helped._kept.values() for batch in kept) <= 4 * 2**20
    assert helped._kept
    assert all(torch.equal(a, b.images) for a, b in zip(expected, helped.calibration(160), strict=True))


def test_what_is_wrong_with_a_data_folder(data: Path, tmp_path: Path) -> None:
    description = Description(space="proxyless", n_classes=10, image_sizes=(160,))
    named = Description(space="proxyless", n_classes=10, image_sizes=(160,), classes=tuple("0123456789"))

    def copy() -> Path:
        shutil.rmtree(tmp_path / "digits", ignore_errors=True)
        return Path(shutil.copytree(data, tmp_path / "digits"))

    folder = copy()
    shutil.rmtree(folder / "val")
    with pytest.raises(
        UserError, match=r"val: expected a folder with one folder of images for each class, found none"
    ):
        find_images(folder, description, Settings())
    (folder / "val").mkdir()
    with pytest.raises(UserError, match=r"val: expected one folder of images for each class, found none"):
        find_images(folder, description, Settings())
    for label in "0123456789":
        (folder / "val" / label).mkdir()
    with pytest.raises(UserError, match=r"val: expected images, found 10 class folders without images"):
        find_images(folder, description, Settings())

    folder = copy()
    shutil.rmtree(folder / "val" / "7")
    (folder / "val" / "7").mkdir()
    with pytest.raises(UserError, match=r"val/7: expected images of the class, found none; --bad skip"):
        find_images(folder, description, Settings())
    skipped = find_images(folder, description, Settings(bad="skip"))
    assert skipped.missing_classes == 1
    assert len(skipped.validation) == 18

    shutil.rmtree(folder / "val" / "7")
    with pytest.raises(
        UserError, match=r"expected the same class folders in train and val, found 7 in train only"
    ):
        find_images(folder, description, Settings(bad="skip"))
    shutil.rmtree(folder / "train" / "7")
    for one in (description, named):
        with pytest.raises(
            UserError, match=r"expected 10 class folders, one for each output of the network, found 9"
        ):
            find_images(folder, one, Settings())
    with pytest.raises(UserError, match=r"expected 10 class folders"):
        # which of the outputs is missing, nobody knows
        find_images(folder, description, Settings(bad="skip"))
    skipped = find_images(folder, named, Settings(bad="skip"))
    assert skipped.missing_classes == 1
    assert {sample.label for sample in skipped.validation} == {0, 1, 2, 3, 4, 5, 6, 8, 9}
    assert all(sample.path.split("/")[1] == str(sample.label) for sample in skipped.validation)
    for split in ("train", "val"):
        (folder / split / "8").rename(folder / split / "eight")
    with pytest.raises(UserError, match=r"found 9, 'eight' among them, which the network does not know"):
        find_images(folder, named, Settings(bad="skip"))


def test_the_images_hash_is_of_names_and_contents(setup: EvaluationSetup, data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "elsewhere"))
    assert find_images(folder, setup.checkpoint.description, Settings()).sha256 == setup.images.sha256
    first, second = sorted((folder / "val" / "3").iterdir())[:2]
    before = first.read_bytes()
    first.write_bytes(second.read_bytes())
    assert find_images(folder, setup.checkpoint.description, Settings()).sha256 != setup.images.sha256
    first.write_bytes(before)
    assert find_images(folder, setup.checkpoint.description, Settings()).sha256 == setup.images.sha256


def test_an_image_that_does_not_decode(weights: Path, data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "digits"))
    validation, training = (sorted((folder / split / "4").iterdir())[0] for split in ("val", "train"))
    validation.write_bytes(validation.read_bytes()[:150])  # truncated
    training.write_bytes(b"not an image")
    arch = small_archs(SPACE, 1)
    strict, lenient = make_setup(weights, folder), make_setup(weights, folder, bad="skip")
    with pytest.raises(
        UserError, match=rf"{training.name}: expected an image .*, found .*; --bad skip leaves it out"
    ):
        Evaluator(strict)(tasks(strict, arch)[0][0])
    row = Evaluator(lenient)(tasks(lenient, arch)[0][0])
    assert (row["n_images"], row["n_bad"]) == (19, 1)
    assert (row["calibration_images"], row["calibration_bad"]) == (29, 1)


# --- weights ------------------------------------------------------------------------------------------------


def test_weights_say_what_they_are(
    weights: Path, tmp_path: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"expected a supernet of mobilenet_v3, found one of resnet50d"):
        find_weights(str(weights), MOBILENET_V3)
    with pytest.raises(
        UserError,
        match=r"none.safetensors: expected published, random, or a supernet's weights .* found no such file",
    ):
        find_weights(str(tmp_path / "none.safetensors"), None)
    with pytest.raises(UserError, match=r"expected a header topdown_ray_supernet"):
        find_weights("topdown_ray/data/embedded_mobilenet_v3.safetensors", None)
    with pytest.raises(UserError, match=r"image_sizes: expected sizes of proxyless, found \[150\]"):
        find_weights(str(untrained(tmp_path / "odd.safetensors", PROXYLESS, image_sizes=(150,))), None)
    with pytest.raises(UserError, match=r"classes: expected 9 names, found 10"):
        find_weights(str(untrained(tmp_path / "odd.safetensors", PROXYLESS, n_classes=9)), None)
    (tmp_path / "broken.safetensors").write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"broken.safetensors: expected a safetensors file"):
        find_weights(str(tmp_path / "broken.safetensors"), None)
    narrower = untrained(tmp_path / "other.safetensors", PROXYLESS)
    checkpoint = find_weights(str(narrower), None)
    wider = checkpoint.model_copy(
        update={"description": checkpoint.description.model_copy(update={"width": 0.5})}
    )
    with pytest.raises(UserError, match=r"expected weights of ofa_proxyless"):
        Supernet(PROXYLESS, wider)


def test_random_weights_are_never_a_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPDOWN_RAY_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, message in (
        ("mobilenet_v3", "expected the published weights of ofa_mbv3.*--allow-random-weights"),
        ("resnet50d", "found none, and TOPDOWN_RAY_OFFLINE forbids downloads"),
    ):
        with pytest.raises(UserError, match=message):
            find_weights("published", SPACES[name])
        assert find_weights("published", SPACES[name], allow_random=True).is_random
    with pytest.raises(UserError, match="--allow-random-weights"):
        find_weights("random", PROXYLESS)
    (tmp_path / "ofa_nets").mkdir()
    (tmp_path / "ofa_nets" / "ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0").write_bytes(b"other bytes")
    with pytest.raises(UserError, match="expected SHA-256 3406a4c8"):
        find_weights("published", RESNET50D)


def test_a_published_file_is_loaded_as_ofa_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In OFA's form, {"state_dict": ...}; the numbers are drawn, since the published ones are not at hand."""
    lists = {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
    torch.manual_seed(5)
    theirs = OFAProxylessNASNets(dropout_rate=0, width_mult=1.3, **lists).eval()
    (tmp_path / "ofa_nets").mkdir()
    torch.save(
        {"state_dict": theirs.state_dict()}, tmp_path / "ofa_nets" / "ofa_proxyless_d234_e346_k357_w1.3"
    )
    monkeypatch.setenv("TOPDOWN_RAY_ASSETS", str(tmp_path))
    checkpoint = find_weights("published", PROXYLESS)
    assert checkpoint.name == "published:ofa_proxyless_d234_e346_k357_w1.3"
    config = json.loads(small_archs(PROXYLESS, 1)[0])
    theirs.set_active_subnet(ks=config["ks"], e=config["e"], d=config["d"])
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(
            Supernet(PROXYLESS, checkpoint).materialise(config)(images),
            theirs.get_active_subnet().eval()(images),
        )


# --- measuring ----------------------------------------------------------------------------------------------

_NETWORKS = {
    "mobilenet_v3": lambda lists: OFAMobileNetV3(
        n_classes=10, dropout_rate=0, width_mult=1.2 * WIDTH, **lists
    ),
    "proxyless": lambda lists: OFAProxylessNASNets(
        n_classes=10, dropout_rate=0, width_mult=1.3 * WIDTH, **lists
    ),
    "resnet50d": lambda _: OFAResNets(
        n_classes=10,
        depth_list=[0, 1, 2],
        expand_ratio_list=[0.2, 0.25, 0.35],
        width_mult_list=[WIDTH * ratio for ratio in (0.65, 0.8, 1.0)],
    ),
}


@pytest.mark.parametrize("space", [MOBILENET_V3, PROXYLESS, RESNET50D], ids=lambda space: space.name)
def test_accuracy_is_what_ofas_own_code_measures(space: Space, data: Path, tmp_path: Path) -> None:
    """The network, the subnet and the recalibration are OFA's; images by torchvision; right answers counted
    one by one.
    """
    path = untrained(tmp_path / "w.safetensors", space, resize_scale=0.5, flip=False)
    setup = make_setup(path, data)
    (task,), _ = tasks(setup, small_archs(space, 1, seed=3))
    row = Evaluator(setup)(task)

    network = _NETWORKS[space.name](
        {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
    )
    network.load_state_dict(dict(setup.checkpoint.state()))
    config = json.loads(task.arch)
    network.set_active_subnet(**{key: value for key, value in config.items() if key != "image_size"})
    subnet = network.get_active_subnet().eval()
    size = config["image_size"]
    calibration = torch.cat([normalise(batch.images) for batch in Loader(setup.images).calibration(size)])
    set_running_statistics(subnet, [(calibration, None)])
    steps = [
        transforms.Resize(math.ceil(size / 0.875)),
        transforms.CenterCrop(size),
        transforms.ToTensor(),
        _NORMALISE,
    ]
    right = right5 = n = 0
    logits = []
    for label in range(10):
        for file in sorted((data / "val" / str(label)).iterdir()):
            with Image.open(file) as raw, torch.no_grad():
                output = subnet(transforms.Compose(steps)(raw.convert("RGB"))[None])[0]
            logits.append(output)
            right += int(output.argmax() == label)
            right5 += int(label in output.topk(5).indices)
            n += 1
    assert torch.stack(logits).std(dim=0).min() > 0
    assert (row["n_images"], row["top1"], row["top5"]) == (n, right / n, right5 / n)
    assert row["macs_m"] < 60  # of the narrow network that was measured


def test_a_row_does_not_depend_on_order_or_company(setup: EvaluationSetup, tmp_path: Path) -> None:
    archs = archs_of(SPACE, evaluate.uniform(SPACE, [128, 144], 4, 0))
    todo, _ = tasks(setup, archs)
    evaluator = Evaluator(setup)
    forward = {task.arch: evaluator(task) for task in todo}
    backward = {task.arch: Evaluator(setup)(task) for task in reversed(todo[:2])}
    for arch, row in backward.items():
        assert {k: v for k, v in row.items() if k not in INCIDENTAL} == {
            k: v for k, v in forward[arch].items() if k not in INCIDENTAL
        }


def test_resume_is_by_identity(setup: EvaluationSetup, weights: Path, data: Path, tmp_path: Path) -> None:
    todo, _ = tasks(setup, small_archs(SPACE, 4))
    rows = Evaluations(tmp_path, "parts")
    rows.open()
    evaluate.evaluate_tasks(setup, todo[:2], rows, HERE)
    progress = evaluate.evaluate_tasks(setup, todo, rows, HERE)
    assert (progress.before, progress.done) == (2, 4)
    assert len(rows.read()) == 4
    assert evaluate.evaluate_tasks(setup, todo, rows, HERE).before == 4
    others = [
        make_setup(untrained(tmp_path / "b.safetensors", SPACE, origin="other"), data),
        make_setup(weights, data, calibration=5),
        make_setup(weights, data, seed=1),
        make_setup(weights, few_digits(tmp_path / "more", val=3)),
    ]
    identities = {tasks(other, [todo[0].arch])[0][0].evaluation_id for other in [setup, *others]}
    assert len(identities) == 5


def test_an_interrupt_keeps_what_was_measured(setup: EvaluationSetup, tmp_path: Path) -> None:
    todo, _ = tasks(setup, small_archs(SPACE, 3))
    rows = Evaluations(tmp_path, "parts")
    rows.open()

    def stop(progress: evaluate.Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate_tasks(setup, todo, rows, HERE, stop)
    assert len(rows.read()) == 2


def failing_on(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every evaluation of this architecture raises."""
    real = Evaluator.__call__

    def call(self: Evaluator, task: EvaluationTask) -> Any:
        if task.arch == arch:
            raise ValueError("boom")
        return real(self, task)

    monkeypatch.setattr(Evaluator, "__call__", call)


def test_what_finally_fails_is_recorded_and_the_others_are_measured(
    setup: EvaluationSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo, _ = tasks(setup, small_archs(SPACE, 3))
    rows = Evaluations(tmp_path / "run")
    rows.open()
    with monkeypatch.context() as patch:
        failing_on(todo[1].arch, patch)
        progress = evaluate.evaluate_tasks(setup, todo, rows, HERE)
    assert progress.given_up == {todo[1].evaluation_id: "ValueError: boom"}
    assert (progress.done, progress.failures) == (2, 1)
    assert set(rows.read()["evaluation_id"]) == {todo[0].evaluation_id, todo[2].evaluation_id}
    record = tmp_path / "run" / "evaluations" / "failures" / f"{todo[1].evaluation_id}.json"
    assert json.loads(record.read_text())["arch"] == todo[1].arch
    assert "in call" in "".join(json.loads(record.read_text())["traceback"])
    again = Evaluations(tmp_path / "run")
    again.open()
    assert evaluate.evaluate_tasks(setup, todo, again, HERE).done == 3
    assert not record.exists()


def test_older_parts_are_read_and_damaged_ones_are_measured_again(
    setup: EvaluationSetup, tmp_path: Path
) -> None:
    todo, _ = tasks(setup, small_archs(SPACE, 3))
    rows = Evaluations(tmp_path)
    rows.open()
    for task in todo:
        evaluate.evaluate_tasks(setup, [task], rows, HERE)
    expected = rows.read()
    older, damaged, _ = sorted((tmp_path / "evaluations").iterdir())
    older.rename(older.with_name(f"{older.name.partition('.')[0]}.parquet"))  # a name without checksum
    pd.testing.assert_frame_equal(rows.read(), expected)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.raises(UserError, match=rf"{damaged.name}: expected an undamaged part, found"):
        rows.read()
    again = Evaluations(tmp_path)
    again.open()
    assert len(again.damaged) == 1
    assert (tmp_path / "evaluations" / "damaged" / "evaluations" / damaged.name).exists()
    assert evaluate.evaluate_tasks(setup, todo, again, HERE).before == 2
    columns = [name for name in expected.columns if name not in INCIDENTAL]
    pd.testing.assert_frame_equal(again.read()[columns], expected[columns])


def test_many_parts_of_evaluations_are_merged(
    setup: EvaluationSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged_at(monkeypatch, 3)
    (task,), _ = tasks(setup, small_archs(SPACE, 1))
    row = Evaluator(setup)(task)
    rows = Evaluations(tmp_path)
    rows.open()
    for i in range(10):
        rows.write([{**row, "evaluation_id": str(i)}])
    assert len(list((tmp_path / "evaluations").iterdir())) < 3
    assert rows.read()["evaluation_id"].tolist() == [str(i) for i in range(10)]
    again = Evaluations(tmp_path)
    again.open()
    assert len(again.read()) == 10


def test_a_dataset_goes_on_and_refuses_other_weights(
    setup: EvaluationSetup, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set.parquet"
    genes = evaluate.uniform(SPACE, [128], 5, seed=2)
    first, _ = evaluate.sample_dataset(setup, genes[:3], out, HERE)
    assert first["arch"].tolist() == archs_of(SPACE, genes[:3])
    rows, progress = evaluate.sample_dataset(setup, genes, out, HERE)
    assert (progress.before, progress.done, len(rows)) == (3, 5, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["set.parquet"]
    fewer, _ = evaluate.sample_dataset(setup, genes[:1], out, HERE)
    assert len(fewer) == 5  # what the file held stays
    other = make_setup(untrained(tmp_path / "b.safetensors", SPACE, origin="other"), data)
    with pytest.raises(
        UserError, match="expected a new file, or measurements of the same weights and images"
    ):
        evaluate.sample_dataset(other, genes, out, HERE)


def test_architectures_along_the_cost_range() -> None:
    from topdown_ray.spaces.cost import macs

    for space in SPACES.values():
        cost = macs(space)
        sizes = [int(size) for size in space.genes[space.resolution].choices]
        genes = evaluate.along_cost(space, sizes, 50, 0, cost)
        plain = evaluate.uniform(space, sizes, 50, 0)
        for drawn in (genes, plain):
            assert len(torch.unique(drawn, dim=0)) == 50
            assert torch.equal(space.canonical(drawn), drawn)
        spread, usual = cost(genes).sort().values, cost(plain)
        assert spread[-1] - spread[0] > 1.5 * (usual.max() - usual.min())
        gaps = spread.diff()
        # no hole; uniform draws leave none either, but see the ends
        assert gaps.max() < 4 * (spread[-1] - spread[0]) / 49
        assert torch.equal(genes, evaluate.along_cost(space, sizes, 50, 0, cost))
    only = evaluate.uniform(PROXYLESS, [176, 208], 40, 1)
    assert {PROXYLESS.to_config(row)["image_size"] for row in only} == {176, 208}


@pytest.mark.slow
def test_memory_is_released_between_subnets(setup: EvaluationSetup) -> None:
    """scripts/benchmarks/bench_memory.py does it for 1,000 subnets."""
    todo, _ = tasks(make_setup_small(setup), small_archs(SPACE, 24))
    evaluator = Evaluator(make_setup_small(setup))
    for task in todo[:10]:
        evaluator(task)
    before, modules = psutil.Process().memory_info().rss, count_modules()
    for task in todo[10:]:
        evaluator(task)
    assert count_modules() == modules  # no subnet is left
    assert psutil.Process().memory_info().rss - before < 30 * 2**20


def make_setup_small(setup: EvaluationSetup) -> EvaluationSetup:
    images = setup.images
    few = Settings(calibration=2)
    smaller = {"validation": images.validation[:2], "calibration": images.calibration[:2], "settings": few}
    return EvaluationSetup(setup.checkpoint, images.__class__(**{**images.__dict__, **smaller}))


def count_modules() -> int:
    return sum(issubclass(type(each), torch.nn.Module) for each in gc.get_objects())


# --- the commands -------------------------------------------------------------------------------------------


def test_evaluate_one_architecture(
    weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (arch,) = small_archs(SPACE, 1)
    common = ["--data", data, "--weights", weights, "--address", "none"]
    result = main_in_process(["evaluate", arch, *common, "--json"], capsys)
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(result.stdout)["evaluations"]
    assert row["arch"] == arch
    assert row["n_images"] == 20
    assert row["top1"] <= row["top5"]
    (tmp_path / "arch.json").write_text(arch)
    result = main_in_process(["evaluate", tmp_path / "arch.json", *common], capsys)
    assert f"top-1 {100 * row['top1']:.2f} %" in result.stdout


def test_evaluate_a_sweep_in_a_bucket(
    server: str, weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows lie beside the sweep's, are found again, and are handed over with what is exported."""
    out = uri(server, "run")
    file = sweep_file(tmp_path, spaces=["resnet50d"], targets=[[2000, 1500]], seeds=1)
    done = main_in_process(["sweep", file, "--out", out, "--address", "none"], capsys)
    assert done.returncode == 0, done.stderr
    measured = ["--data", data, "--weights", weights, "--address", "none", "--json"]
    first = main_in_process(["evaluate", out, *measured], capsys)
    assert first.returncode == 0, first.stderr
    rows = json.loads(first.stdout)["evaluations"]
    assert {row["arch"] for row in rows} == set(load(out).searches["arch"])
    names = list(Place(out).files("evaluations"))
    assert all(re.fullmatch(r"[0-9a-f]{20}\.[0-9a-f]{8}\.parquet", name) for name in names)
    again = main_in_process(["evaluate", out, *measured], capsys)
    assert json.loads(again.stdout)["evaluations"] == rows
    assert list(Place(out).files("evaluations")) == names
    assert set(load_evaluations(out)["arch"]) == {row["arch"] for row in rows}
    place, broken = Place(out), f"evaluations/{names[0]}"
    place.write(broken, place.read(broken)[:-1])
    mended = main_in_process(["evaluate", out, *measured], capsys)
    assert "damaged, will be computed again" in mended.stderr
    assert json.loads(mended.stdout)["evaluations"] == rows


def test_what_a_predictor_of_another_space_predicted_is_marked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep_file(tmp_path, spaces=["proxyless"], targets=[[400]], seeds=1, predictor="embedded")
    run = tmp_path / "run"
    assert main_in_process(["sweep", file, "--out", run, "--address", "none"], capsys).returncode == 0
    own_weights = untrained(tmp_path / "proxyless.safetensors", PROXYLESS)
    measured = ["--data", data, "--weights", own_weights, "--address", "none"]
    printed = main_in_process(["evaluate", run, *measured], capsys).stdout
    assert re.search(r", predicted \*\d\d\.\d\d %", printed)
    mark = "* The accuracies of proxyless come from a predictor that was trained on mobilenet_v3"
    assert mark in " ".join(printed.split())
    assert set(load_evaluations(run)["predictor_space"]) == {"mobilenet_v3"}
    assert main_in_process(["report", run], capsys).returncode == 0
    page = (run / "report" / "report.html").read_text()
    section = page.partition("Predicted against measured</h2>")[2].partition("<h2")[0]
    assert "proxyless*" in section
    assert "* The accuracies of proxyless come from a predictor" in section


def test_a_failure_is_named_and_the_status_is_1(
    weights: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, other = small_archs(SPACE, 2)
    common = ["--data", data, "--weights", weights, "--address", "none"]
    failing_on(one, monkeypatch)
    result = main_in_process(["evaluate", one, *common], capsys)
    assert result.returncode == 1
    line = result.stderr.strip().splitlines()[-1]  # before it, how far it came
    assert re.fullmatch(r"evaluation [0-9a-f]{20} failed: ValueError: boom", line)
    genes = torch.stack([torch.from_numpy(SPACE.from_config(json.loads(arch))) for arch in (one, other)])
    monkeypatch.setattr(evaluate, "uniform", lambda *arguments: genes)
    out = tmp_path / "set.parquet"
    command = ["sample-dataset", "--out", out, "--n", 2, *common]
    result = main_in_process(command, capsys)
    assert result.returncode == 1
    assert "failed: ValueError: boom; its architecture and traceback are in failures/" in result.stderr
    assert "1 subnets of" in result.stdout
    assert len(list((tmp_path / ".set.parquet.parts" / "failures").iterdir())) == 1
    monkeypatch.undo()
    monkeypatch.setattr(evaluate, "uniform", lambda *arguments: genes)
    result = main_in_process(command, capsys)
    assert result.returncode == 0, result.stderr
    assert "2 subnets of" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["set.parquet"]


def test_mistakes(weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (arch,) = small_archs(SPACE, 1)
    fewer = untrained(tmp_path / "fewer.safetensors", SPACE, image_sizes=(144,))
    tall = untrained(tmp_path / "tall.safetensors", SPACE, n_classes=1000, classes=())
    common = ["--data", data, "--weights", weights, "--address", "none"]
    for arguments, parts in [
        (
            ["evaluate", arch, "--data", data, "--address", "none"],
            ["ofa_resnet50", "expected an intact local file, found none"],
        ),
        (["evaluate", arch, *common, "--bad", "maybe"], ["--bad: expected error or skip, found 'maybe'"]),
        (["evaluate", arch, *common, "--which", "some"], ["--which: expected best or all"]),
        (["evaluate", arch, *common, "--target", "3"], ["--target: expected a result folder to choose from"]),
        (["evaluate", arch, *common, "--space", "proxyless"], ["architecture: expected the keys"]),
        (["evaluate", arch, *common, "--actors", "2"], ["--actors: expected 1 with --address none"]),
        (
            ["evaluate", arch, *common, "--gpus", "1.5"],
            ["--gpus: expected a fraction of a GPU, or a whole number"],
        ),
        (["evaluate", arch, *common, "--calibration", "0"], ["--calibration: expected at least 1, found 0"]),
        (["evaluate", tmp_path / "none", *common], ["expected a result folder, a JSON file or JSON text"]),
        (["evaluate", arch, "--data", tmp_path, "--weights", weights], ["train: expected a folder"]),
        (["evaluate", arch, "--data", data, "--weights", tall], ["expected 1000 class folders", "found 10"]),
        (
            ["evaluate", arch, "--data", data, "--weights", fewer],
            ["image_size: expected one of [144]", "found 128"],
        ),
        (
            ["sample-dataset", "--out", tmp_path, *common],
            ["--out: expected a file that can be written, found a folder"],
        ),
        (
            ["sample-dataset", "--out", tmp_path / "x.parquet", *common, "--spread", "odd"],
            ["--spread: expected uniform or cost"],
        ),
        (
            ["sample-dataset", "--out", tmp_path / "x.parquet", "--data", data, "--weights", "random"],
            ["use --space"],
        ),
    ]:
        assert_one_line(main_in_process(arguments, capsys), *parts)
    left = main_in_process(
        ["evaluate", arch, "--data", data, "--weights", fewer, "--address", "none", "--bad", "skip"], capsys
    )
    assert left.returncode == 0
    assert not (tmp_path / "x.parquet").exists()
    if not torch.cuda.is_available():
        result = main_in_process(["evaluate", arch, *common, "--gpus", "0.5"], capsys)
        assert_one_line(result, "--gpus: expected 0, since there is no GPU here, found 0.5")
