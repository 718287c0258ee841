"""Latency tables from outside: numbers that are no latencies, metadata of wrong types, and whatever the
bytes.
"""

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import assert_one_line, main_in_process
from support.fuzzing import CHANGES, FUZZ, JSON, KEEP, changed, outcome

from topdown_ray.errors import UserError
from topdown_ray.spaces import latency_table
from topdown_ray.spaces.cost import MS_TICK, load_cost
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.resnet50d import RESNET50D

SHIPPED = latency_table.shipped()["epyc_1thread"]["mobilenet_v3"]
KEY = b"topdown_ray_latency"


def rewritten(path: Path, **changes: Any) -> Path:
    """The shipped table of MobileNetV3 with some of its description changed."""
    table = pq.read_table(SHIPPED)
    about = json.loads(table.schema.metadata[KEY])
    for name, value in changes.items():
        about[name] = (
            {**about[name], **value} if isinstance(value, dict) and isinstance(about[name], dict) else value
        )
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(about)}), path)
    return path


def complaint(cost: str, path: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_cost(cost, MOBILENET_V3)
    line = str(raised.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert len(line) < 1200
    return line


# --- the correction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "found"),
    [
        ({"slope": 0}, "+corrected: check.slope: expected a number > 0, found 0"),
        ({"slope": -1.5}, "+corrected: check.slope: expected a number > 0, found -1.5"),
        ({"slope": math.nan}, "+corrected: check.slope: expected a number > 0, found nan"),
        ({"slope": math.inf}, "+corrected: check.slope: expected a number > 0, found inf"),
        ({"offset_ms": math.nan}, "+corrected: check.offset_ms: expected a finite number of ms, found nan"),
        ({"offset_ms": -math.inf}, "+corrected: check.offset_ms: expected a finite number of ms, found -inf"),
        ({"offset_ms": -1000.0}, "+corrected: expected a cost above 0 ms for every architecture, found -98"),
        (
            {"offset_ms": 1e7},
            "+corrected: expected layers whose sum is at most 8,388,608 ms, found up to 1e+07 ms",
        ),
        ({"slope": 1e308}, "+corrected: expected layers whose sum is at most 8,388,608 ms, found up to "),
    ],
)
def test_corrections_that_give_no_cost(check: dict[str, Any], found: str, tmp_path: Path) -> None:
    """The table itself is as good as before."""
    path = rewritten(tmp_path / "t.parquet", check=check)
    assert f"{path}{found}" in complaint(f"{path}+corrected", path)
    assert load_cost(str(path), MOBILENET_V3).sha256 == load_cost("epyc_1thread", MOBILENET_V3).sha256


def test_a_refused_table_is_one_line_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rewritten(tmp_path / "t.parquet", check={"slope": -1.0})
    arguments = ["search", "--cost", f"{path}+corrected", "--predictor", "embedded", "--target", 30]
    assert_one_line(
        main_in_process(arguments, capsys),
        f"error: {path}+corrected: check.slope: expected a number > 0, found -1.0",
    )


# --- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("median_ms", 0.0, "median_ms of Layer(kind='conv', size_in=1, size_out=1, "),
        ("median_ms", -1.0, "expected a number of ms > 0, found -1.0"),
        ("low_ms", math.nan, "expected a number of ms > 0, found nan"),
        ("high_ms", math.inf, "expected a number of ms > 0, found inf"),
        ("median_ms", 1e8, "expected layers whose sum is at most 8,388,608 ms, found up to 1e+08 ms"),
        ("count", -1, "expected a whole number >= 0, found -1"),
        ("median_ms", None, "median_ms: expected a value for every layer, found 1 without one"),
        ("kind", None, "kind: expected a value for every layer, found 1 without one"),
        ("size_in", None, "size_in: expected a value for every layer, found 1 without one"),
    ],
)
def test_entries_that_are_no_latencies(column: str, value: Any, found: str, tmp_path: Path) -> None:
    path, table = tmp_path / "t.parquet", pq.read_table(SHIPPED)
    place = table.schema.get_field_index(column)
    values = table[column].to_pylist()
    values[next(i for i, layer in enumerate(table.to_pylist()) if layer["kind"] == "conv")] = value
    pq.write_table(
        table.set_column(
            place, table.schema.field(column), pa.array(values, table.schema.field(column).type)
        ),
        path,
    )
    assert found in complaint(str(path), path)


def test_sums_stay_exact_up_to_the_largest_that_is_accepted(tmp_path: Path) -> None:
    """A table just below 2^53 ticks: costs are exact sums, whatever their order."""
    table = latency_table.read(SHIPPED)
    scale = 0.99 * 2**23 / sum(load_cost("epyc_1thread", MOBILENET_V3).range())
    dataclasses.replace(
        table, **{name: scale * getattr(table, name) for name in ("median_ms", "low_ms", "high_ms")}
    ).write(tmp_path / "t.parquet")
    cost = load_cost(str(tmp_path / "t.parquet"), MOBILENET_V3)
    genes = MOBILENET_V3.random(50, 0)
    for row, found in zip(genes.tolist(), cost(genes).tolist(), strict=True):
        ticks = sum(int(term.values[tuple(row[g] for g in term.genes)]) for term in cost.terms)
        assert found == ticks * MS_TICK


# --- metadata -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"schema": True},
            "expected schema 1 and a space of mobilenet_v3, resnet50d, proxyless, found True and",
        ),
        ({"schema": "x" * 10_000}, "expected schema 1 and a space of"),
        ({"space": ["mobilenet_v3"]}, "found 1 and ['mobilenet_v3']"),
        ({"unit": "s"}, "metadata: unit: expected 'ms', found 's'"),
        ({"conditions": 3}, "metadata: conditions: "),
        (
            {"conditions": {"threads": "one"}},
            "metadata: conditions.threads: expected a valid integer, found 'one'",
        ),
        ({"conditions": {"colour": "red"}}, "metadata: conditions.colour: "),
        ({"facts": None}, "metadata: facts: "),
        ({"facts": {"device": 3}}, "metadata: facts.device: expected a valid string, found 3"),
        ({"facts": {"versions": "none"}}, "metadata: facts.versions: "),
        (
            {"facts": {"noise": {"rounds": 3}}},
            "metadata: facts.noise.half_width_median: expected a value, found none",
        ),
        (
            {"facts": {"seconds": None}},
            "metadata: facts: seconds: expected a number, because noise is given, found none",
        ),
        ({"check": []}, "metadata: check: "),
        ({"check": {"slope": "1"}}, "metadata: check.slope: expected a valid number, found '1'"),
        ({"check": {"bias": None}}, "metadata: check: expected bias in addition to "),
        ({"check": {"slope": 10**400}}, "metadata: check.slope: "),
    ],
)
def test_descriptions_of_wrong_types(changes: dict[str, Any], found: str, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "t.parquet", **changes)
    assert found in complaint(str(path), path)


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"[" * 100_000, b"\xff", b"3", b'{"schema": 1, "space": "mobilenet_v3"}']
)
def test_descriptions_that_are_none(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pq.read_table(SHIPPED).replace_schema_metadata({KEY: text}), path)
    assert complaint(str(path), path).startswith((f"{path}: metadata: ", f"{path}: expected schema 1"))


def test_what_is_read_can_be_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table that says little, one with the fitted line alone: ``table`` shows what there is."""
    for about in ({"facts": {}, "check": {}}, {"facts": {}, "check": {"slope": 1.1, "offset_ms": 0.5}}):
        table = dataclasses.replace(latency_table.read(SHIPPED), **about)
        table.write(tmp_path / "t.parquet")
        told = main_in_process(["table", tmp_path / "t.parquet"], capsys)
        assert (told.returncode, told.stderr) == (0, "")
        assert "mobilenet_v3, 450 layers" in told.stdout


def test_places_that_hold_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "folder.parquet").mkdir()
    pq.write_table(
        pa.table({"x": np.zeros(2**20)}).replace_schema_metadata({KEY: b"{}"}), tmp_path / "long.parquet"
    )
    for name, found in (
        ("pipe", "found a pipe or device"),
        ("folder", "found a folder"),
        ("long", "of at most 100,000 layers"),
    ):
        path = tmp_path / f"{name}.parquet"
        assert found in complaint(str(path), path)


# --- OFA's form ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def note10(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(
        shutil.copytree(
            published / "note10", tmp_path_factory.mktemp("tables") / "phone", copy_function=shutil.copyfile
        )
    )


@pytest.mark.parametrize("value", [0, 0.0, -1, math.inf, True, "1", None, [1.0], 10**400, {"mean": 1.0}])
def test_entries_of_ofas_form_that_are_no_latencies(value: Any, note10: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(note10, tmp_path / "phone"))
    path = folder / "192_lookup_table.yaml"
    content = yaml.safe_load(path.read_text())
    key = next(key for key in content if key.startswith("Conv-"))
    for entry, where in (({**content[key], "mean": value}, f"{key}: mean: expected"), (value, f"{key}: ")):
        path.write_text(yaml.safe_dump({**content, key: entry}))
        if entry != {"mean": 1.0}:
            assert complaint(str(folder), path).startswith(f"{path}: {where}")


def test_sums_of_ofas_form(note10: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(note10, tmp_path / "phone"))
    path = folder / "192_lookup_table.yaml"
    content = yaml.safe_load(path.read_text())
    content[next(key for key in content if key.startswith("Conv-"))]["mean"] = 1e8
    path.write_text(yaml.safe_dump(content))
    assert "expected layers whose sum is at most 8,388,608 ms, found up to 1e+08 ms" in complaint(
        str(folder), folder
    )


# --- whatever the bytes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def loads_or_complains(cost: str) -> None:
    """The outcome is a cost with finite, positive values or one bounded line."""
    found = outcome(load_cost, cost, MOBILENET_V3)
    if found is not None:
        values = found(MOBILENET_V3.random(5, 0))
        assert ((values > 0) & (values < 2**23)).all()


@settings(FUZZ, max_examples=40)
@given(changes=CHANGES, keep=KEEP)
def test_any_bytes_as_a_table(changes: list[tuple[float, int]], keep: float, scratch: Path) -> None:
    """Most changes are in the footer."""
    good = SHIPPED.read_bytes()
    footer = int.from_bytes(good[-8:-4], "little") + 8
    (scratch / "x.parquet").write_bytes(changed(good, changes, keep, len(good) - footer))
    loads_or_complains(f"{scratch}/x.parquet+corrected")


SECTIONS = st.sampled_from(["schema", "space", "unit", "conditions", "facts", "check"])
FIELDS = st.sampled_from(
    ["device", "threads", "batch", "noise", "versions", "slope", "offset_ms", "bias", "seconds", "other"]
)


@settings(FUZZ, max_examples=40)
@given(section=SECTIONS, value=JSON | st.dictionaries(FIELDS, JSON, max_size=3))
def test_any_description(section: str, value: Any, scratch: Path) -> None:
    rewritten(scratch / "y.parquet", **{section: value})
    loads_or_complains(f"{scratch}/y.parquet+corrected")
    outcome(lambda path: latency_table.read(path).describe(), scratch / "y.parquet")


@settings(FUZZ, max_examples=25)
@given(value=JSON, mean=st.booleans(), changes=CHANGES, keep=KEEP)
def test_any_yaml_of_ofas_form(
    value: Any, mean: bool, changes: list[tuple[float, int]], keep: float, note10: Path
) -> None:
    """One entry, or its mean, is any value; or the text of a table has other bytes. One of five tables, which
    are read in order.
    """
    path = note10 / "160_lookup_table.yaml"
    good = path.read_bytes()
    key = good.partition(b":")[0].decode()
    try:
        text = good.decode().replace(
            good.decode()[: good.index(b"Conv-")],
            f"{key}: {json.dumps({'mean': value} if mean else value)}\n",
        )
        for content in (text.encode(), changed(good, changes, keep, 0, 500)):
            path.write_bytes(content)
            loads_or_complains(str(note10))
    finally:
        path.write_bytes(good)


def test_the_other_spaces_have_no_such_form(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"cost: expected note10, macs, .*, epyc_1thread, module:object, a measured table",
    ):
        load_cost(str(tmp_path), RESNET50D)
