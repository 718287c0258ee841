"""Measured tables at the command line and in sweeps: shipped ones by name, one-line mistakes, the demo
without published artefacts.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.commands import assert_one_line, main_in_process, sweep_file
from support.latencies import made_up
from support.sweeping import run

from topdown_ray.errors import UserError
from topdown_ray.spaces import latency_table
from topdown_ray.spaces.cost import ShippedTable, load_cost, shipped_tables, typical_targets
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.resnet50d import RESNET50D
from topdown_ray.sweeps import demo
from topdown_ray.sweeps.verify import verify

SMALL = {
    "name": "measured",
    "strategies": ["top_down"],
    "predictor": "embedded",
    "seeds": 2,
    "search": {"population": 20, "generations": 8, "warm_generations": 4},
}


def test_every_space_has_a_shipped_table() -> None:
    tables = {(table.name, table.space): table for table in shipped_tables()}
    assert {space for name, space in tables if name == demo.TABLE} == set(SPACES)
    for table in tables.values():
        assert table.unit == "ms"
        assert 0 < table.low < table.high
        assert "1 thread, batch 1, float32, eager" in table.source
        assert latency_table.read(table.path).correction.slope > 0  # they were compared with whole subnets
        assert table.path.stat().st_size < 100_000


def test_a_sweep_on_shipped_tables_proves_itself(tmp_path: Path) -> None:
    """All three spaces; ``verify`` adds the table up over OFA's own description of each subnet."""
    targets = {space: [typical_targets(table.low, table.high)[::4]] for space, table in _shipped().items()}
    results = run({**SMALL, "spaces": list(SPACES), "cost": demo.TABLE, "targets": targets}, tmp_path / "out")
    rows = results.searches
    assert rows["feasible"].all()
    assert set(rows["cost_name"]) == {demo.TABLE}
    assert set(rows["cost_unit"]) == {"ms"}
    for space, of_space in rows.groupby("space"):
        assert set(of_space["cost_sha256"]) == {latency_table.read(_shipped()[str(space)].path).sha256()}
    assert verify(results).passed


def _shipped() -> dict[str, ShippedTable]:
    return {table.space: table for table in shipped_tables() if table.name == demo.TABLE}


def test_a_sweep_on_an_own_table_proves_itself_until_the_table_changes(tmp_path: Path) -> None:
    table, path = made_up(RESNET50D, check={"offset_ms": 1.5, "slope": 1.1}), tmp_path / "box.parquet"
    table.write(path)
    low, high = load_cost(f"{path}+corrected", RESNET50D).range()
    data = {**SMALL, "spaces": ["resnet50d"], "cost": f"{path}+corrected", "targets": [[(low + high) / 2]]}
    results = run(data, tmp_path / "out")
    assert set(results.searches["cost_name"]) == {"table:box+corrected"}
    assert results.manifest["spec"]["cost"] == {"resnet50d": f"{path.resolve()}+corrected"}
    assert verify(results).passed
    made_up(RESNET50D, seed=1, check={"offset_ms": 1.5, "slope": 1.1}).write(path)
    with pytest.raises(UserError, match=r"box.parquet: expected the table that the rows were .*, SHA-256"):
        verify(results)


def test_a_table_that_the_rows_do_not_follow_fails(tmp_path: Path) -> None:
    table, path = made_up(MOBILENET_V3), tmp_path / "box.parquet"
    table.write(path)
    cost = load_cost(str(path), MOBILENET_V3)
    data = {**SMALL, "spaces": ["mobilenet_v3"], "cost": str(path), "targets": [[sum(cost.range()) / 2]]}
    results = run(data, tmp_path / "out")
    results.searches["cost"] *= 0.99
    assert not verify(results).passed


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["measure", "--out", "x.parquet"], ["--space: expected a value", "found none"]),
        (
            ["measure", "--space", "vgg", "--out", "x.parquet"],
            ["--space: expected one of mobilenet_v3", "'vgg'"],
        ),
        (
            ["measure", "--space", "resnet50d", "--out", "x.yaml"],
            ["--out: expected a .parquet file, found x.yaml"],
        ),
        (
            ["measure", "--space", "resnet50d", "--out", "no/such/x.parquet"],
            ["--out: expected a file in an existing folder"],
        ),
        (
            ["measure", "--space", "resnet50d", "--out", "x.parquet", "--device", "cuda:99"],
            ["--device", "'cuda:99'"],
        ),
        (
            ["measure", "--space", "resnet50d", "--out", "x.parquet", "--dtype", "int3"],
            ["--dtype: expected one of", "'int3'"],
        ),
        (
            ["measure", "--check", "none.parquet"],
            ["none.parquet: expected a latency table, found no readable file"],
        ),
        (["measure", "--check", "none.parquet", "--space", "resnet50d"], ["--check: expected no --space"]),
        (["table", "pixel9"], ["pixel9: expected a .parquet file or one of", "found neither"]),
        (["table", demo.TABLE, "--space", "vgg"], ["--space: expected one of", "'vgg'"]),
        (
            ["table", demo.TABLE, "--space", "resnet50d", "--export-yaml", "y"],
            ["expected a space for which OFA publishes"],
        ),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_line(main_in_process(list(arguments), capsys), *parts)
    assert not list(tmp_path.iterdir())


def test_a_sweep_names_what_is_wrong_with_its_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep_file(tmp_path, cost=f"{demo.TABLE}s")
    result = main_in_process(["sweep", file, "--out", tmp_path / "out", "--address", "none"], capsys)
    assert_one_line(result, "cost: expected note10, macs", demo.TABLE, f"found '{demo.TABLE}s'")
    file = sweep_file(tmp_path, cost=demo.TABLE, targets=[[0.001]])
    assert_one_line(
        main_in_process(["sweep", file, "--out", tmp_path / "out", "--address", "none"], capsys), "ms"
    )
    assert not (tmp_path / "out").exists()


def test_a_shipped_table_is_shown_and_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = main_in_process(["table", demo.TABLE, "--space", "proxyless", "--json"], capsys)
    facts = json.loads(result.stdout)
    assert facts["space"] == "proxyless"
    assert facts["sha256"] == latency_table.read(_shipped()["proxyless"].path).sha256()
    assert "whole subnets" in main_in_process(["table", demo.TABLE], capsys).stdout
    main_in_process(["table", demo.TABLE, "--export-yaml", tmp_path / "yaml"], capsys)
    assert len(list((tmp_path / "yaml").iterdir())) == 5


def test_the_demo_has_milliseconds_without_published_artefacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPDOWN_RAY_ASSETS", str(tmp_path))
    monkeypatch.setenv("TOPDOWN_RAY_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec, used = demo.demo_spec()
    assert set(spec.cost.values()) == {demo.TABLE}
    assert set(spec.predictor.values()) == {"embedded"}
    assert "\n" not in used
    assert demo.TABLE in used
    for space, targets in spec.targets.items():
        assert min(targets[0]) > load_cost(demo.TABLE, SPACES[space]).cheapest()[0]


def test_the_demo_takes_the_published_ones_where_they_are(published: Path) -> None:
    spec, used = demo.demo_spec()
    assert spec.cost["mobilenet_v3"] == "note10"
    assert used.startswith("Using the published predictors")


def test_a_partial_file_of_other_conditions_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.parquet"
    shutil.copy(_shipped()["proxyless"].path, out)
    Path(f"{out}.partial").write_text(json.dumps({"identity": {"space": "resnet50d"}}) + "\n")
    arguments: list[Any] = ["measure", "--space", "proxyless", "--out", out, "--minutes", 0.01]
    result = main_in_process(arguments, capsys)
    assert result.returncode == 2
    assert (
        "t.parquet.partial: expected an unfinished measurement with space proxyless, found resnet50d"
        in result.stderr
    )
