"""Result folders as frames: the same rows as read naively, in little memory; parts that hold other rows are
refused in one line.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import synthetic
from support.commands import assert_one_line, main_in_process
from support.folders import ran

from topdown_ray import load
from topdown_ray.errors import UserError
from topdown_ray.store import parts
from topdown_ray.store.place import Place
from topdown_ray.store.reading import SEARCH_KEYS, TRACE_KEYS
from topdown_ray.store.results import load_columns
from topdown_ray.store.schema import SEARCHES, TRACE


def naive(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables as pandas alone would read them."""
    searches, trace = (
        pa.concat_tables(
            [pq.read_table(path, schema=schema) for path in sorted((folder / table).iterdir())]
        ).to_pandas()
        for table, schema in (("searches", SEARCHES), ("trace", TRACE))
    )
    searches = searches.drop_duplicates(["search_id", "target_index"])
    searches["label"] = searches["label"].fillna(searches["strategy"])  # an older schema has none
    trace = trace.merge(searches[["search_id", "shard_id"]].drop_duplicates(), on=["search_id", "shard_id"])
    trace = trace.drop_duplicates(["search_id", "target_index", "generation"])
    order = searches.assign(order=searches["targets"].map(tuple)).sort_values(
        ["space", "strategy", "label", "k", "order", "seed", "target_index"], kind="stable"
    )
    return (
        order.drop(columns="order").reset_index(drop=True),
        trace.sort_values(["search_id", "target_index", "generation"], kind="stable").reset_index(drop=True),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three parts in no order: searches twice, by another shard; missing values; curves of searches that are
    not there.
    """
    searches, trace = synthetic.frames({"top_down": 0.0, "independent": 0.0, "mine": 0.001}, seeds=6, batch=4)
    searches["genes"] = [[i % 3, 1, 2] for i in range(len(searches))]
    searches["arch"] = [f'{{"a": {i}}}' for i in range(len(searches))]
    searches.loc[::7, "host"] = None
    searches.loc[::5, "params_m"] = np.nan
    searches, trace = searches.sample(frac=1, random_state=1), trace.sample(frac=1, random_state=2)
    path = synthetic.write(tmp_path / "run", searches, trace)
    for table, schema in (("searches", SEARCHES), ("trace", TRACE)):
        rows = pq.read_table(path / table / "all.parquet")
        (path / table / "all.parquet").unlink()
        again = rows.slice(0, 40).to_pylist()
        again = [{**row, "shard_id": "another"} for row in again]
        strangers = [] if table == "searches" else [{**row, "search_id": "unknown"} for row in again]
        for name, part in (("b", rows.slice(0, 200)), ("c", rows.slice(200))):
            pq.write_table(part, path / table / f"{name}.parquet")
        pq.write_table(pa.Table.from_pylist(again + strangers, schema=schema), path / table / "d.parquet")
    return path


def test_frames_equal_what_is_read_naively(folder: Path) -> None:
    results = load(folder)
    for ours, plain in zip((results.searches, results.trace), naive(folder), strict=True):
        assert len(plain) > 100
        pd.testing.assert_frame_equal(ours, plain, check_dtype=False)
        assert all(one == other or one == "str" for one, other in zip(ours.dtypes, plain.dtypes, strict=True))


def test_columns_that_nobody_asked_for_are_not_read(folder: Path) -> None:
    few = load_columns(folder, ["accuracy"], ["best_accuracy"])
    everything = load(folder)
    assert "arch" not in few.searches
    assert "run_id" not in few.trace
    for ours, plain in ((few.searches, everything.searches), (few.trace, everything.trace)):
        pd.testing.assert_frame_equal(ours, plain[list(ours)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of two strategies with fronts, in parts of four searches."""
    out = tmp_path_factory.mktemp("reading") / "out"
    ran(out, strategies=["top_down", "joint"], seeds=8)
    return out


CHOICES: list[tuple[dict[str, Any], Callable[[pd.DataFrame], Any]]] = [
    ({"seed": 3}, lambda rows: rows["seed"] == 3),
    ({"seed": range(2, 6)}, lambda rows: rows["seed"].between(2, 5)),
    ({"label": "joint", "target": [300]}, lambda rows: (rows["label"] == "joint") & (rows["target"] == 300)),
    ({"space": "mobilenet_v3", "seed": np.array([1, 7])}, lambda rows: rows["seed"].isin([1, 7])),
    ({"accuracy": 2.0}, lambda rows: rows["seed"] < 0),
    ({}, lambda rows: rows["seed"] >= 0),
]


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(("where", "kept"), CHOICES)
def test_some_rows_are_those_of_all(
    where: dict[str, Any],
    kept: Callable[[pd.DataFrame], Any],
    merged: bool,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if merged:
        run = Path(shutil.copytree(run, tmp_path / "out"))
        monkeypatch.setattr(parts, "MERGE_AT", 2)
        parts.Parts(Place(run)).resume()
        assert len(list((run / "searches").iterdir())) == 1
    whole, some = load(run), load(run, where=where)
    searches = whole.searches[kept(whole.searches)]
    keys = ["search_id", "target_index"]
    trace = whole.trace.merge(searches[keys], on=keys)
    front = whole.front[whole.front["search_id"].isin(searches["search_id"])]
    for found, expected in ((some.searches, searches), (some.trace, trace), (some.front, front)):
        assert (len(expected) > 0) == (where != {"accuracy": 2.0})
        pd.testing.assert_frame_equal(found, expected.reset_index(drop=True), check_dtype=len(expected) > 0)
    few = load(run, columns=["accuracy", "generation"], where=where)
    assert set(few.searches) == {*SEARCH_KEYS, "accuracy"}
    assert set(few.trace) == set(TRACE_KEYS)
    pd.testing.assert_frame_equal(few.searches, some.searches[list(few.searches)])
    pd.testing.assert_frame_equal(few.trace, some.trace[list(few.trace)])


def test_what_is_not_asked_for_is_not_read(run: Path, tmp_path: Path) -> None:
    """A damaged page costs only who asks for it, and is told in one line."""
    out = Path(shutil.copytree(run, tmp_path / "out"))
    (name,) = (
        path.name
        for path in (out / "searches").iterdir()
        if {("joint", 7)} & {(row["strategy"], row["seed"]) for row in pq.read_table(path).to_pylist()}
    )
    for table, column in (("searches", "arch"), ("trace", "best_accuracy")):
        path = out / table / name
        file, content = pq.ParquetFile(path), bytearray(path.read_bytes())
        at = file.metadata.row_group(0).column(file.schema_arrow.get_field_index(column))
        begins = at.dictionary_page_offset or at.data_page_offset
        content[begins + at.total_compressed_size // 4] ^= 4  # statistics follow
        path.write_bytes(content)
    assert len(load(out, ["accuracy", "generation"]).searches) == len(load(run).searches)
    assert len(load(out, where={"seed": 3}).trace) == len(load(run, where={"seed": 3}).trace)
    for columns, table in ((["arch"], "searches"), (["best_accuracy"], "trace")):
        with pytest.raises(UserError, match=rf"{table}/{name}: expected an undamaged part, found chec"):
            load(out, columns, {"seed": 7})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"columns": ["acuracy"]}, "columns: expected columns of searches or trace, found 'acuracy'"),
        ({"where": {"targets": [400.0]}}, "where: expected a column of searches, found 'targets'"),
        ({"where": {"seed": "first"}}, "where: seed: expected values of type int64, found 'first'"),
        ({"where": {"space": [1, 2]}}, r"where: space: expected values of type string, found \[1, 2\]"),
    ],
)
def test_what_cannot_be_asked_for(asked: dict[str, Any], said: str, run: Path) -> None:
    with pytest.raises(UserError, match=f"^{said}$"):
        load(run, **asked)


def test_results_of_some_columns_print_what_they_hold(run: Path) -> None:
    assert "expected" not in repr(load(run, ["accuracy"]))


WRONG: dict[str, Any] = {"text": "many", "list": [1.5], "none": None, "part": 0.5}
OF_TABLE = {"searches": SEARCHES.names, "trace": TRACE.names}


@pytest.mark.parametrize("table", OF_TABLE)
def test_values_of_a_wrong_type_are_one_line_or_read(table: str, tmp_path: Path) -> None:
    """Every column with every kind of wrong value: loading and reporting end with rows, or with one UserError
    of one line.
    """
    from topdown_ray.report import tables

    path = synthetic.write(
        tmp_path / "run", *synthetic.frames({"top_down": 0.0}, sets=[(35.0, 30.0)], seeds=2)
    )
    file = path / table / "all.parquet"
    right = pq.read_table(file)
    refused = []

    def complaint(changed: pa.Table) -> str | None:
        pq.write_table(changed.replace_schema_metadata(None), file)
        try:
            tables.prepare([load(path)])
        except UserError as error:
            return str(error)
        return None

    for name in OF_TABLE[table]:
        at = right.schema.get_field_index(name)
        for value in WRONG.values():
            said = complaint(right.set_column(at, name, pa.array([value] * len(right))))
            refused += [said] if said else []
        said = complaint(right.drop_columns([name]))
        assert said is None or name in said
    assert not [said for said in refused if "\n" in said or len(said) > 1000]
    assert len(refused) > len(OF_TABLE[table])


def test_the_commands_say_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = synthetic.write(tmp_path / "run", *synthetic.frames({"top_down": 0.0}, sets=[(35.0,)], seeds=2))
    file = path / "searches" / "all.parquet"
    rows = pq.read_table(file)
    at = rows.schema.get_field_index("seed")
    pq.write_table(rows.set_column(at, "seed", pa.array(["first", "second"])), file)
    assert_one_line(
        main_in_process(["report", path], capsys), "searches/all.parquet", "expected the rows of a part"
    )
    pq.write_table(rows.drop_columns(["strategy"]), file)
    assert_one_line(
        main_in_process(["report", path], capsys),
        "searches/all.parquet",
        "strategy: expected a value in every row",
    )
