"""Own predictors: trained on measured rows, read by sweeps, judged on rows that were held out."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch
from ofa.nas.accuracy_predictor import AccuracyPredictor, ResNetArchEncoder
from ofa.tutorial.accuracy_predictor import AccuracyPredictor as TutorialPredictor
from scipy import stats
from support.commands import assert_one_line, main_in_process
from support.sweeping import run

from topdown_ray.networks import evaluate, training
from topdown_ray.networks.evaluator import archs_of
from topdown_ray.networks.training import Training
from topdown_ray.spaces.predictor import encoding, features
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.proxyless import PROXYLESS
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space
from topdown_ray.stats import agreement
from topdown_ray.store.evaluations import EVALUATIONS, read_table, write_table
from topdown_ray.sweeps.verify import verify

QUICK = Training(hidden=64, epochs=150, patience=30)


def labelled(path: Path, space: Space, n: int, image_sizes: list[int] | None = None, name: str = "w") -> Path:
    """A data set whose accuracies are those that the embedded predictor gives: known to be learnable, and
    much alike in all spaces.
    """
    sizes = image_sizes or [int(size) for size in space.genes[space.resolution].choices]
    genes = evaluate.uniform(space, sizes, n, seed=0)
    with torch.inference_mode():
        top1 = load_predictor("embedded", space)(genes).tolist()
    archs = archs_of(space, genes)
    common = {
        "space": space.name,
        "weights_name": name,
        "weights_sha256": name,
        "data_name": "d",
        "data_sha256": "d",
        "n_images": 1,
    }
    rows = [
        {**common, "evaluation_id": f"{i}", "arch": arch, "top1": top1[i]} for i, arch in enumerate(archs)
    ]
    write_table(pa.Table.from_pylist(rows, schema=EVALUATIONS), path)
    return path


@pytest.mark.parametrize("space", list(SPACES.values()), ids=lambda space: space.name)
def test_a_predictor_is_learned_and_serves_a_sweep(space: Space, tmp_path: Path) -> None:
    """600 rows of a smooth function: held-out tau was 0.80 to 0.88 over five seeds and the three spaces."""
    dataset = labelled(tmp_path / "set.parquet", space, 600)
    out = tmp_path / "own.safetensors"
    learned = training.train(dataset, space, out, QUICK)
    assert learned.held_out.n == 120
    assert learned.held_out.kendall > 0.7
    assert 0 < learned.held_out.mae < 0.01
    predictor = load_predictor(str(out), space)
    assert (predictor.sha256, predictor.predictor_space) == (learned.sha256, space.name)
    card = out.with_suffix(".md").read_text()
    assert f"| held out | 120 | {learned.held_out.kendall:.3f} | {learned.held_out.spearman:.3f} |" in card
    assert learned.sha256 in card
    assert "<svg" in out.with_suffix(".svg").read_text()

    lowest = {"mobilenet_v3": 300, "proxyless": 400, "resnet50d": 2000}[space.name]
    sweep = {
        "name": "own",
        "spaces": [space.name],
        "strategies": ["top_down"],
        "cost": "macs",
        "predictor": str(out),
        "targets": [[1.5 * lowest, lowest]],
        "seeds": 2,
        "search": {"population": 20, "generations": 5, "warm_generations": 3},
    }
    results = run(sweep, tmp_path / "run")
    assert set(results.searches["predictor_sha256"]) == {learned.sha256}
    assert set(results.searches["predictor_space"]) == {space.name}
    assert verify(results).passed  # through OFA's encodings; ProxylessNAS's 21st block included


def test_the_held_out_rows_only_judge(tmp_path: Path) -> None:
    """Turning their accuracies round changes the judgement and no bit of the network."""
    dataset = labelled(tmp_path / "a.parquet", PROXYLESS, 100)
    first = training.train(dataset, PROXYLESS, tmp_path / "a.safetensors", QUICK)
    genes, top1, _ = training.read_dataset(dataset, PROXYLESS)
    held = np.random.default_rng(QUICK.seed).permutation(100)[:20]
    table = read_table(dataset)
    turned = top1.copy()
    turned[held] = 1 - turned[held]
    place = table.schema.get_field_index("top1")
    write_table(table.set_column(place, "top1", pa.array(turned)), tmp_path / "b.parquet")
    second = training.train(tmp_path / "b.parquet", PROXYLESS, tmp_path / "b.safetensors", QUICK)
    assert second.held_out.kendall == pytest.approx(-first.held_out.kendall)
    states = [safetensors.torch.load_file(tmp_path / f"{name}.safetensors") for name in "ab"]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    with torch.inference_mode():
        predicted = load_predictor(str(tmp_path / "a.safetensors"), PROXYLESS)(genes).double().numpy()[held]
    assert first.held_out.kendall == pytest.approx(stats.kendalltau(predicted, top1[held]).statistic)
    assert first.held_out.mae == pytest.approx(float(np.abs(predicted - top1[held]).mean()))


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    dataset = labelled(tmp_path / "set.parquet", PROXYLESS, 60)
    made = []
    for name, seed, threads in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        torch.set_num_threads(threads)
        torch.rand(3)
        training.train(
            dataset, PROXYLESS, tmp_path / f"{name}.safetensors", Training(hidden=32, epochs=20, seed=seed)
        )
        made.append((tmp_path / f"{name}.safetensors").read_bytes())
    torch.set_num_threads(1)
    assert made[0] == made[1] != made[2]


def test_a_choice_that_was_never_seen_reads_as_its_neighbour(tmp_path: Path) -> None:
    dataset = labelled(tmp_path / "set.parquet", PROXYLESS, 120, image_sizes=[176, 192])
    out = tmp_path / "own.safetensors"
    training.train(dataset, PROXYLESS, out, QUICK)
    predictor = load_predictor(str(out), PROXYLESS)
    rows = PROXYLESS.random(20, 1)
    at = {}
    for choice, size in enumerate((160, 176, 192, 208, 224)):
        rows[:, PROXYLESS.resolution] = choice
        with torch.inference_mode():
            at[size] = predictor(rows)
    assert torch.equal(at[160], at[176])
    assert torch.equal(at[224], at[192])
    assert torch.equal(at[208], at[192])
    assert not torch.equal(at[176], at[192])
    assert (
        "3 choices are in no training row. The predictor treats each of them as the nearest choice that is "
        "in one: image_size[0] = 160" in (out.with_suffix(".md").read_text())
    )


def test_our_features_are_those_that_ofa_trains_on() -> None:
    """What is learned here could be learned by OFA's own classes from the same rows."""
    encoder = ResNetArchEncoder(image_size_list=[128, 144, 160, 176, 192, 224, 240, 256])
    for name, theirs in (
        ("resnet50d", lambda config: torch.tensor(encoder.arch2feature(config)).float()),
        (
            "mobilenet_v3",
            lambda c: TutorialPredictor.spec2feats(list(c["ks"]), list(c["e"]), c["d"], c["image_size"]),
        ),
    ):
        space = SPACES[name]
        genes = space.canonical(space.random(10, 0))
        ours = features(space, encoding(space, space), genes)
        assert all(
            torch.equal(row, theirs(space.to_config(arch))) for row, arch in zip(ours, genes, strict=True)
        )
    assert (
        sum(
            isinstance(layer, torch.nn.Linear) for layer in AccuracyPredictor(encoder, device="cpu").modules()
        )
        == 4
    )


def test_agreement_of_constants_is_not_a_number() -> None:
    flat = agreement(np.full(5, 0.5), np.linspace(0, 1, 5))
    assert np.isnan(flat.kendall)
    assert flat.n == 5
    assert agreement(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 9.0])).kendall == 1


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = labelled(tmp_path / "set.parquet", PROXYLESS, 30)
    (tmp_path / "text.parquet").write_text("none")
    mixed = read_table(dataset)
    other = read_table(labelled(tmp_path / "other.parquet", PROXYLESS, 30, name="v"))
    write_table(pa.concat_tables([mixed, other]), tmp_path / "mixed.parquet")
    few = labelled(tmp_path / "few.parquet", PROXYLESS, 10)
    out = tmp_path / "p.safetensors"
    for file, options, parts in [
        (dataset, ["--space", "vgg", "--out", out], ["--space: expected one of", "'vgg'"]),
        (
            dataset,
            ["--space", "resnet50d", "--out", out],
            ["expected rows of resnet50d, found rows of proxyless"],
        ),
        (
            dataset,
            ["--space", "proxyless", "--out", tmp_path / "p.pth"],
            ["expected a .safetensors file, found .pth"],
        ),
        (
            dataset,
            ["--space", "proxyless", "--out", out, "--held-out", "1"],
            ["--held-out: expected a share between 0 and 0.9, found 1"],
        ),
        (few, ["--space", "proxyless", "--out", out], ["expected at least 20 rows, found 10"]),
        (
            tmp_path / "mixed.parquet",
            ["--space", "proxyless", "--out", out],
            ["weights_sha256: expected the same value in every row, found 2"],
        ),
        (
            tmp_path / "text.parquet",
            ["--space", "proxyless", "--out", out],
            ["expected a table of measured accuracies"],
        ),
        (tmp_path / "none.parquet", ["--space", "proxyless", "--out", out], ["found no such file"]),
    ]:
        assert_one_line(main_in_process(["train-predictor", file, *options], capsys), *parts)
    assert not out.exists()
    done = main_in_process(
        [
            "train-predictor",
            dataset,
            "--space",
            "proxyless",
            "--out",
            out,
            "--epochs",
            5,
            "--hidden",
            8,
            "--json",
        ],
        capsys,
    )
    assert json.loads(done.stdout)["held_out"]["n"] == 6
    more = labelled(tmp_path / "more.parquet", PROXYLESS, 50)
    told = main_in_process(
        ["train-predictor", more, "--space", "proxyless", "--out", out, "--epochs", 5, "--hidden", 8], capsys
    ).stdout
    assert f"{out}: trained on 50 rows (10 held out), " in told
    assert "on held-out architectures: Kendall's tau " in told
