"""What a user may hand over by mistake, or a disk may have broken: one line that names the file, what was
expected, what was found.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from support import synthetic

from topdown_ray.errors import StoreError, UserError
from topdown_ray.files import data
from topdown_ray.networks.training import read_dataset
from topdown_ray.networks.weights import find_weights
from topdown_ray.report.tables import prepare
from topdown_ray.spaces import latency_table
from topdown_ray.spaces.cost import load_cost
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.proxyless import PROXYLESS
from topdown_ray.spaces.resnet50d import RESNET50D
from topdown_ray.store.evaluations import EVALUATIONS, Evaluations, read_table, write_table
from topdown_ray.store.failures import read_failures
from topdown_ray.store.place import Place
from topdown_ray.store.results import load
from topdown_ray.sweeps.spec import make_spec

EMBEDDED = data("embedded_resnet50d.safetensors")


def complaint(function: Callable[..., Any], *arguments: Any) -> str:
    """The line of the UserError that a call raises."""
    with pytest.raises(UserError) as raised:
        function(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- files of tensors ---------------------------------------------------------------------------------------


def test_predictors(tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(EMBEDDED.read_bytes()[:-100])
    assert complaint(load_predictor, str(cut), RESNET50D).startswith(
        f"{cut}: expected a safetensors file, found"
    )

    foreign = tmp_path / "foreign.safetensors"
    state = safetensors.torch.load_file(EMBEDDED)
    safetensors.torch.save_file(state, foreign, metadata={"space": "vit"})
    assert "metadata 'space': expected one of mobilenet_v3, resnet50d, proxyless, found 'vit'" in complaint(
        load_predictor, str(foreign), RESNET50D
    )
    assert complaint(load_predictor, str(EMBEDDED), MOBILENET_V3) == (
        "predictor: expected one for mobilenet_v3, found one for resnet50d"
    )

    a_list = tmp_path / "list.pth"
    torch.save([torch.zeros(2)], a_list)
    assert "expected a state dict of tensors, found list" in complaint(load_predictor, str(a_list), RESNET50D)
    numbers = tmp_path / "numbers.pth"
    torch.save({"a": 1}, numbers)
    assert "a state dict of tensors, found dict" in complaint(load_predictor, str(numbers), RESNET50D)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ({"space": "vit", "image_sizes": [128]}, "space: expected one of"),
        (
            {"space": "resnet50d", "image_sizes": [100]},
            "image_sizes: expected sizes of resnet50d, found [100]",
        ),
        ({"space": "resnet50d", "image_sizes": "all"}, "image_sizes: "),
        (
            {"space": "resnet50d", "image_sizes": [128], "n_classes": 3, "classes": ["a"]},
            "classes: expected 3 names, found 1",
        ),
    ],
)
def test_headers_of_weights(header: dict[str, Any], found: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(
        {"x": torch.zeros(1)}, path, metadata={"topdown_ray_supernet": json.dumps(header)}
    )
    line = complaint(find_weights, str(path), None)
    assert line.startswith((str(path), f"--weights {path}"))
    assert found in line


def test_weights_that_do_not_say_their_space(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"x": torch.zeros(1)}, path)
    assert "expected a file that names its space, or the option --space" in complaint(
        find_weights, str(path), None
    )
    assert find_weights(str(path), RESNET50D).description.space == "resnet50d"
    path.with_suffix(".safetensors").write_bytes(b"no header")
    assert "expected a safetensors file" in complaint(
        find_weights, str(path.with_suffix(".safetensors")), None
    )


# --- result folders -----------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return synthetic.write(tmp_path / "run", *synthetic.frames({"top_down": 0.0}, seeds=2))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "expected JSON"),
        ("[]", "expected a mapping, found list"),
        ('{"run_id": "x", "schema": 1}', "spec: expected a value, found none"),
        (
            '{"run_id": "x", "spec": {}, "wall_s": 1, "schema": 99}',
            "schema: expected a version from 1 to 7, found 99",
        ),
    ],
)
def test_manifests(text: str, found: str, run: Path) -> None:
    (run / "run.json").write_text(text)
    assert complaint(load, run).startswith(f"{run}/run.json: ")
    assert found in complaint(load, run)


def test_parts_that_cannot_be_listed(run: Path) -> None:
    shutil.rmtree(run / "searches")
    (run / "searches").write_text("a file")
    assert complaint(load, run) == f"{run}/searches: expected a folder, found a file"
    (run / "searches").unlink()
    (run / "searches").mkdir()
    assert "expected at least one finished search, found none" in complaint(prepare, [load(run)])


@pytest.mark.parametrize(
    ("text", "found"), [("{", "expected JSON"), ("{}", "search_ids: expected a value, found none")]
)
def test_failure_records(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / ".hidden.json").write_text("{")
    (tmp_path / "failures" / "notes.txt").write_text("not a record")
    assert read_failures(Place(tmp_path)) == {}
    (tmp_path / "failures" / "abc.json").write_text(text)
    line = complaint(read_failures, Place(tmp_path))
    assert line.startswith(f"{tmp_path}/failures/abc.json: ")
    assert found in line


# --- tables -------------------------------------------------------------------------------------------------


def test_latency_tables(tmp_path: Path) -> None:
    good = next(iter(latency_table.shipped().values()))["resnet50d"]
    table = pq.read_table(good)

    def broken(table: pa.Table, name: str = "broken.parquet") -> Path:
        pq.write_table(table, tmp_path / name)
        return tmp_path / name

    path = broken(table.replace_schema_metadata({}))
    assert (
        complaint(latency_table.read, path)
        == f"{path}: expected a latency table of `topdown-ray measure`, found another file"
    )
    about = json.loads(table.schema.metadata[b"topdown_ray_latency"])
    newer = {b"topdown_ray_latency": json.dumps({**about, "schema": 9})}
    assert "expected schema 1 and a space of" in complaint(
        latency_table.read, broken(table.replace_schema_metadata(newer))
    )
    assert "expected the columns" in complaint(latency_table.read, broken(table.drop_columns(["count"])))
    assert "expected every layer of resnet50d once, found no row for" in complaint(
        latency_table.read, broken(table.slice(1))
    )
    twice = pa.concat_tables([table, table.slice(0, 1)])
    assert "found one layer twice" in complaint(latency_table.read, broken(twice))
    assert complaint(load_cost, str(tmp_path / "missing.parquet"), RESNET50D).startswith(
        f"{tmp_path}/missing.parquet: expected a latency table, found no readable file"
    )
    folder = tmp_path / "published"
    folder.mkdir()
    assert complaint(load_cost, str(folder), PROXYLESS).startswith(
        f"{folder}/160_lookup_table.yaml: expected a latency table, found no readable file"
    )


def measured(n: int = 25, **changes: Any) -> pa.Table:
    """Rows of measured accuracies."""
    genes = RESNET50D.canonical(RESNET50D.random(n, 0))
    rows = [
        {
            "evaluation_id": f"{i:020x}",
            "space": "resnet50d",
            "arch": json.dumps(RESNET50D.to_config(row)),
            "top1": i / 100,
            "weights_sha256": "w",
            "data_sha256": "d",
            **changes,
        }
        for i, row in enumerate(genes)
    ]
    return pa.Table.from_pylist(rows, schema=EVALUATIONS)


def test_measured_accuracies(tmp_path: Path) -> None:
    path = tmp_path / "measured.parquet"
    path.write_bytes(b"nothing")
    assert "expected a table of measured accuracies (Parquet), found" in complaint(read_table, path)
    write_table(measured().drop_columns(["top1"]), path)
    assert "found no column top1" in complaint(read_table, path)
    pq.write_table(pa.table({**measured().to_pydict(), "top1": ["good"] * 25}), path)
    assert "expected the columns of measured accuracies, found" in complaint(read_table, path)
    # of another's making: what only informs may lack
    pq.write_table(measured().drop_columns(["host", "top5"]), path)
    assert read_table(path)["host"].null_count == 25
    write_table(measured(top1=80.0), path)
    assert "top1: expected fractions from 0 to 1, found 80 to 80" in complaint(read_dataset, path, RESNET50D)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out.parquet"
    assert (
        complaint(write_table, measured(), out)
        == f"{out}: expected a path that can be written, found File exists"
    )
    assert "expected a folder to write to, found" in complaint(Evaluations(tmp_path, "file").open)
    with pytest.raises(StoreError, match="out: expected free space and permission to write, found: "):
        Place(tmp_path / "file").write("out", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_killed_writers_leftovers_go_with_the_next_start(tmp_path: Path) -> None:
    (tmp_path / ".x.parquet.123.tmp").write_text("half")
    parts = Evaluations(tmp_path.parent, tmp_path.name)
    parts.open()
    assert list(tmp_path.iterdir()) == []
    parts.write(measured().to_pylist())
    pd.testing.assert_frame_equal(parts.read(), measured().to_pandas())


# --- specifications -----------------------------------------------------------------------------------------

SPEC = {
    "name": "x",
    "spaces": ["resnet50d"],
    "strategies": ["top_down"],
    "cost": "macs",
    "targets": [[2000]],
    "seeds": 1,
}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"search": {"parent_ratio": 0.001}},
            "parent_ratio: expected at least one parent in a population of 100, found 0.001",
        ),
        ({"seeds": {"start": -1, "count": 2}}, "seeds: expected start >= 0"),
        ({"targets": [[2000, 1000], [1000, 2000]]}, "targets: expected distinct target sets"),
        ({"cost": 3}, "cost: expected a name or a path, or a list of these, found 3"),
        ({"spaces": "resnet50d"}, "spaces: expected a non-empty list"),
    ],
)
def test_specifications(changes: dict[str, Any], found: str) -> None:
    assert found in complaint(make_spec, {**SPEC, **changes}, "x.yaml")


def test_an_architecture_with_a_wrong_constant() -> None:
    config = PROXYLESS.to_config(PROXYLESS.random(1, 0)[0])
    config["d"][-1] = 2
    assert complaint(PROXYLESS.from_config, config) == "architecture: d[5]: expected 1, found 2"
