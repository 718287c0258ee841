"""Training sets: each architecture once, few held-out ones are told, all files or none, and whatever a table
holds.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import assert_one_line, main_in_process
from support.fuzzing import CHANGES, FUZZ, JSON, KEEP, changed, outcome

from topdown_ray.errors import UserError
from topdown_ray.networks import evaluate, training
from topdown_ray.networks.dataset import read_dataset
from topdown_ray.networks.evaluator import archs_of
from topdown_ray.networks.training import Training
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.resnet50d import RESNET50D
from topdown_ray.store.evaluations import EVALUATIONS, read_table, write_table
from topdown_ray.tensors import read_header

SPACE = RESNET50D
QUICK = Training(hidden=16, epochs=20)
ARCHS = archs_of(SPACE, evaluate.uniform(SPACE, [128, 160], 150, seed=0))


def rows_of(archs: list[str], top1: Any, **columns: Any) -> list[dict[str, Any]]:
    """Rows of measured accuracies; each column is one value for all, or a list of them."""
    given = {"space": SPACE.name, "weights_sha256": "w", "data_sha256": "d", "n_images": 100, **columns}
    return [
        {
            "evaluation_id": str(i),
            "arch": arch,
            "top1": float(value),
            **{name: column[i] if isinstance(column, list) else column for name, column in given.items()},
        }
        for i, (arch, value) in enumerate(zip(archs, top1, strict=True))
    ]


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    write_table(pa.Table.from_pylist(rows, schema=EVALUATIONS), path)
    return path


def state(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def values(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(0.2, 0.8, n)


# --- architectures that were measured more than once --------------------------------------------------------


def test_measurements_of_one_architecture_are_averaged_by_their_images(tmp_path: Path) -> None:
    """Two rows of 300 and 100 images: three quarters and one. The learned weights are those of the
    averages.
    """
    archs, first, second = ARCHS[:60], values(60), values(60, 1)
    images = [300] * 60 + [100] * 60
    twice = table(tmp_path / "twice.parquet", rows_of(archs * 2, [*first, *second], n_images=images))
    mean = 0.75 * first + 0.25 * second
    found = read_dataset(twice, SPACE)
    np.testing.assert_allclose(found.top1, mean, rtol=1e-12)
    assert archs_of(SPACE, found.genes) == archs
    assert (len(found.rows), found.in_words) == (120, "120 rows of 60 architectures")
    unknown = table(
        tmp_path / "unknown.parquet", rows_of(archs * 2, [*first, *second], n_images=[None, *images[1:]])
    )
    np.testing.assert_allclose(read_dataset(unknown, SPACE).top1, (first + second) / 2, rtol=1e-12)

    once = table(tmp_path / "once.parquet", rows_of(archs, found.top1))
    learned = training.train(twice, SPACE, tmp_path / "a.safetensors", QUICK)
    training.train(once, SPACE, tmp_path / "b.safetensors", QUICK)
    one, other = state(tmp_path / "a.safetensors"), state(tmp_path / "b.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (learned.rows, learned.architectures, learned.held_out.n) == (120, 60, 12)
    card = (tmp_path / "a.md").read_text()
    assert "120 rows of 60 architectures" in card
    assert "Measurements of the same architecture were averaged" in card


def test_no_row_of_a_held_out_architecture_is_trained_on(tmp_path: Path) -> None:
    """Other accuracies in all rows of held-out architectures, written with other choices in switched-off
    blocks, change no weight.
    """
    archs = ARCHS[:50]
    hidden = [SPACE.from_config(json.loads(arch)) for arch in archs]
    inactive = ~SPACE.active(torch.from_numpy(np.stack(hidden))).numpy()
    again = [
        json.dumps(SPACE.to_config(np.where(off, 1, row))) for row, off in zip(hidden, inactive, strict=True)
    ]
    assert sum(one != other for one, other in zip(archs, again, strict=True)) > 25
    held = np.random.default_rng(QUICK.seed).permutation(50)[:10]
    top1 = np.concatenate([values(50), values(50, 1)])
    other = top1.copy()
    other[[*held, *(held + 50)]] = 1 - other[[*held, *(held + 50)]]
    for name, accuracies in (("a", top1), ("b", other)):
        path = table(tmp_path / f"{name}.parquet", rows_of(archs + again, accuracies))
        assert training.train(path, SPACE, tmp_path / f"{name}.safetensors", QUICK).architectures == 50
    one, changed = state(tmp_path / "a.safetensors"), state(tmp_path / "b.safetensors")
    assert all(torch.equal(one[name], changed[name]) for name in one)


def test_many_rows_of_few_architectures_are_few(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", rows_of(ARCHS[:10] * 20, values(200)))
    with pytest.raises(
        UserError, match=r"expected at least 20 rows of distinct architectures, found 10 in 200 rows"
    ):
        training.train(path, SPACE, tmp_path / "p.safetensors", QUICK)


# --- few judges ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "held", "ranked", "warned"), [(40, 8, False, True), (50, 10, True, True), (150, 30, True, False)]
)
def test_few_held_out_architectures_are_told(
    n: int, held: int, ranked: bool, warned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = table(tmp_path / "t.parquet", rows_of(ARCHS[:n], values(n))), tmp_path / "p.safetensors"
    command = ["train-predictor", path, "--space", SPACE.name, "--out", out, "--epochs", 3, "--hidden", 8]
    told = main_in_process(command, capsys)
    assert told.returncode == 0
    warning = f"{held} held-out architectures are too few to judge a predictor; expected at least 30"
    assert told.stderr == (f"warning: {warning}\n" if warned else "")
    assert ("on held-out architectures: Kendall's tau" in told.stdout) == ranked
    assert ("architectures: no rank correlation, which needs 10 architectures, mean" in told.stdout) == (
        not ranked
    )
    card = out.with_suffix(".md").read_text()
    assert (f"**{warning}.**" in card) == warned
    assert (f"| held out | {held} | too few | too few |" in card) == (not ranked)
    figures = json.loads(main_in_process([*command, "--json"], capsys).stdout, parse_constant=pytest.fail)
    assert (figures["held_out"]["kendall"] is not None) == ranked
    assert figures["held_out"]["n"] == held
    assert (figures["rows"], figures["architectures"]) == (n, n)


# --- what is written ----------------------------------------------------------------------------------------


def test_a_learned_predictor_states_its_activation_and_gives_accuracies_everywhere(tmp_path: Path) -> None:
    """Its training set ends at 0 and 1, beyond which the perceptron goes; the file's values stay within, on
    all that is drawn.
    """
    genes = evaluate.uniform(SPACE, [128, 256], 100, seed=2)
    top1 = (genes.float().mean(1).numpy() > np.median(genes.float().mean(1).numpy())).astype(float)
    path = table(tmp_path / "t.parquet", rows_of(archs_of(SPACE, genes), top1))
    out = tmp_path / "p.safetensors"
    learned = training.train(path, SPACE, out, Training(hidden=64, epochs=60, patience=60))
    assert read_header(out)["activation"] == "relu"
    predictor, some = load_predictor(str(out), SPACE), SPACE.random(5000, 3)
    with torch.inference_mode():
        found = predictor(some)
    assert found.min() == 0
    assert found.max() == 1
    assert ((found > 0) & (found < 1)).any()
    assert learned.held_out.kendall > 0.3


@pytest.mark.parametrize("blocked", [".svg", ".md", ".safetensors"])
def test_all_three_files_or_none(blocked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder stands where one of them belongs: refused before the training, and nothing is left."""
    path, out = (
        table(tmp_path / "t.parquet", rows_of(ARCHS[:30], values(30))),
        tmp_path / "new" / "p.safetensors",
    )
    out.with_suffix(blocked).mkdir(parents=True)
    command = [
        "train-predictor",
        path,
        "--space",
        SPACE.name,
        "--out",
        out,
        "--epochs",
        10**9,
        "--patience",
        10**9,
    ]
    assert_one_line(
        main_in_process(command, capsys),
        f"found {'a folder' if blocked == out.suffix else 'the folder'}",
        f"p{blocked}",
    )
    assert [file.name for file in out.parent.iterdir()] == [f"p{blocked}"]


def test_a_full_disk_leaves_the_earlier_files(tmp_path: Path) -> None:
    """The card cannot be written, since no file may be longer than 4 KiB: a real limit of this process."""
    import resource
    import signal

    path, out = (
        table(tmp_path / "t.parquet", rows_of(ARCHS[:30], values(30))),
        tmp_path / "new" / "p.safetensors",
    )
    training.train(path, SPACE, out, QUICK)
    before = {file.name: file.read_bytes() for file in out.parent.iterdir()}
    assert set(before) == {"p.safetensors", "p.md", "p.svg"}
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for size in (1, 9000):  # neither the checkpoint nor the picture, then the checkpoint alone
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            with pytest.raises(UserError, match="expected a path that can be written, found File too large"):
                training.train(path, SPACE, out, Training(hidden=16, epochs=5, seed=1))
            assert {file.name: file.read_bytes() for file in out.parent.iterdir()} == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


# --- whatever a table holds ---------------------------------------------------------------------------------


def complaint(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        read_dataset(path, SPACE)
    line = str(raised.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 1200
    return line


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"space": [None] + [SPACE.name] * 29}, "space: expected a value in every row, found 1 without one"),
        ({"top1": float("nan")}, "top1: expected fractions from 0 to 1, found nan to nan"),
        ({"top1": 1.02}, "top1: expected fractions from 0 to 1, found 1.02 to 1.02"),
        ({"top1": None}, "top1: expected a value in every row, found 30 without one"),
        ({"top5": -0.5}, "top5: expected fractions from 0 to 1, found -0.5 to -0.5"),
        (
            {"weights_sha256": [None] + ["w"] * 29},
            "weights_sha256: expected the same value in every row, found 2",
        ),
        ({"arch": "{"}, "arch of row 1: expected JSON, found"),
        ({"arch": "[" * 100_000}, "arch of row 1: expected JSON, found"),
        ({"arch": "3"}, "arch of row 1: expected an architecture, found 3"),
        (
            {"arch": '{"d": 1}'},
            "arch of row 1: architecture: expected the keys ['d', 'e', 'image_size', 'w'] of resnet50d, "
            "found ['d']",
        ),
        (
            {"arch": ARCHS[0].replace('"d": [', '"d": [' + "7, " * 10_000)},
            "arch of row 1: architecture: d: expected a list of 5 numbers",
        ),
        (
            {"arch": ARCHS[0].replace("[", "[[[", 1).replace("]", "]]]", 1)},
            "arch of row 1: architecture: d: expected a list of 5",
        ),
    ],
)
def test_rows_that_are_no_measurements(columns: dict[str, Any], found: str, tmp_path: Path) -> None:
    assert found in complaint(
        table(tmp_path / "t.parquet", [{**row, **part} for row, part in spread(columns)])
    )


def spread(columns: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    rows = rows_of(ARCHS[:30], values(30))
    return [
        (row, {k: v[i] if isinstance(v, list) else v for k, v in columns.items()})
        for i, row in enumerate(rows)
    ]


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    good = pq.read_table(table(tmp_path / "good", rows_of(ARCHS[:30], values(30))))
    pq.write_table(good.replace_schema_metadata({"topdown_ray_evaluations": "2"}), tmp_path / "newer")
    pq.write_table(good.append_column("top1", good["top1"]), tmp_path / "twice")
    for name, found in (
        ("pipe", "expected a table of measured accuracies (Parquet), found a pipe or device"),
        ("empty", "expected a table of measured accuracies (Parquet), found"),
        ("none", "expected a table of measured accuracies (Parquet), found no such file"),
        ("newer", "topdown_ray_evaluations: expected version 1, found '2'"),
        ("twice", "expected distinct columns, found top1 more than once"),
    ):
        assert found in complaint(tmp_path / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    table(folder / "good.parquet", rows_of(ARCHS[:25], values(25)))
    return folder


@FUZZ
@given(changes=CHANGES, keep=KEEP)
def test_any_bytes_as_a_table(changes: list[tuple[float, int]], keep: float, folder: Path) -> None:
    """Most changes are in the footer."""
    good = (folder / "good.parquet").read_bytes()
    footer = int.from_bytes(good[-8:-4], "little") + 8
    (folder / "x.parquet").write_bytes(changed(good, changes, keep, len(good) - footer))
    outcome(read_dataset, folder / "x.parquet", SPACE)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
)


@settings(FUZZ, max_examples=40)
@given(name=st.sampled_from(EVALUATIONS.names), value=SCALARS, arch=JSON, many=st.booleans())
def test_any_values_in_a_table(name: str, value: Any, arch: Any, many: bool, folder: Path) -> None:
    """One column holds another value in one row or in all, or the architectures are any JSON."""
    good = read_table(folder / "good.parquet")
    column = [value] * len(good) if many else [value] + [None] * (len(good) - 1)
    place = good.schema.get_field_index(name)
    pq.write_table(good.set_column(place, name, pa.array(column)), folder / "y.parquet")
    outcome(read_dataset, folder / "y.parquet", SPACE)
    place = good.schema.get_field_index("arch")
    pq.write_table(
        good.set_column(place, "arch", pa.array([json.dumps(arch)] * len(good))), folder / "y.parquet"
    )
    assert outcome(read_dataset, folder / "y.parquet", SPACE) is None
