"""The command ``compare``: what it prints, its exit statuses; and two real sweeps."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from support.commands import assert_one_line, main_in_process
from support.compared import WIDE, changed, made, row_of, written
from support.sweeping import run

import topdown_ray
from topdown_ray.report.compare import compare, regressions

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("compared")
    return written(made(), root / "a"), written(made(-0.001, stream=1), root / "b")


def command(capsys: Captured, *arguments: object) -> subprocess.CompletedProcess[str]:
    return main_in_process(["compare", *arguments], capsys)


def test_the_command_prints_what_changed(folders: tuple[Path, Path], capsys: Captured) -> None:
    result = command(capsys, *folders)
    assert (result.returncode, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    row = row_of(compare(*map(topdown_ray.load, folders)))
    (line,) = [
        line for line in result.stdout.split("targets 35 ms")[0].splitlines() if line.startswith(" top_down")
    ]
    shown = [f"{100 * row[name]:.2f}" for name in ("before", "after")]
    assert line.split()[:5] == ["top_down", "10", *shown, f"{100 * row['difference']:+.2f}"]
    assert "\n   30 " not in result.stdout
    each = command(capsys, *folders, "--per-target").stdout
    assert sum(line.strip().startswith(("40 ", "30 ", "20 ", "35 ")) for line in each.splitlines()) == 8


def test_json_and_csv_hold_the_rows(folders: tuple[Path, Path], tmp_path: Path, capsys: Captured) -> None:
    result = command(capsys, *folders, "--json", "--csv", tmp_path / "new" / "rows.csv")
    facts = json.loads(result.stdout)
    expected = compare(*map(topdown_ray.load, folders)).rows
    assert set(facts) == {"rows", "only_before", "only_after"}
    assert facts["rows"][0]["target"] is None
    assert [row["difference"] for row in facts["rows"]] == pytest.approx(list(expected["difference"]))
    again = pd.read_csv(io.StringIO((tmp_path / "new" / "rows.csv").read_text()))
    assert list(again.columns) == list(expected.columns)
    assert again["low"].to_numpy() == pytest.approx(expected["low"].to_numpy())


def test_the_check(folders: tuple[Path, Path], tmp_path: Path, capsys: Captured) -> None:
    assert command(capsys, *folders, "--fail-below", "-1").returncode == 0
    assert command(capsys, folders[0], folders[0], "--fail-below", "0").returncode == 0
    worse = command(capsys, *folders, "--fail-below", "-0.05", "--json")
    assert worse.returncode == 1
    assert json.loads(worse.stdout)["rows"]
    (line,) = worse.stderr.splitlines()
    assert line.startswith(
        "compare: B is worse than A: expected differences of at least -0.05 percentage points, and every "
    )
    assert f"mobilenet_v3 on note10, {WIDE}, top_down: -0." in line
    fewer = written(made(effects={"top_down": 0.0}), tmp_path / "fewer")
    result = command(capsys, folders[0], fewer, "--fail-below", "-5")
    assert result.returncode == 1
    assert "random: missing" in result.stderr
    assert f"Only in A: mobilenet_v3 on note10, targets {WIDE}: random" in result.stdout
    assert command(capsys, folders[0], fewer).returncode == 0


def test_one_seed_and_no_shared_seed_as_shown(tmp_path: Path, capsys: Captured) -> None:
    one = written(made(seeds=1, effects={"top_down": 0.0}), tmp_path / "one")
    other = written(made(seeds=1, first_seed=7, effects={"top_down": 0.0}), tmp_path / "other")
    (line, _) = [line for line in command(capsys, one, one).stdout.splitlines() if "top_down" in line]
    assert line.split() == ["top_down", "1", *line.split()[2:4], "0.00", "-", "1", "1.000", "1.00", "1.00"]
    (line, _) = [line for line in command(capsys, one, other).stdout.splitlines() if "top_down" in line]
    assert line.split()[1] == "1/1"
    assert line.split()[5:8] == ["-", "-", "-"]


def test_mistakes_are_one_line(folders: tuple[Path, Path], tmp_path: Path, capsys: Captured) -> None:
    for number in ("nan", "inf", "-inf"):
        result = command(capsys, *folders, "--fail-below", number)
        assert_one_line(result, "--fail-below: expected a finite number of percentage points", number)
    assert_one_line(command(capsys, *folders, "--fail-below", "much"), "--fail-below")
    assert_one_line(command(capsys, folders[0]), "B")
    assert_one_line(command(capsys, tmp_path / "none", folders[1]), "none: expected a sweep's result folder")
    begun = written(made(), tmp_path / "begun")
    shutil.rmtree(begun / "searches")
    assert_one_line(command(capsys, folders[0], begun), "begun: expected at least one finished search")
    assert_one_line(
        command(capsys, *folders, "--csv", tmp_path), "--csv: expected a file that can be written"
    )
    table = written(changed(made(), cost_sha256="9" * 64), tmp_path / "table")
    assert_one_line(command(capsys, folders[0], table), "compare: expected sweeps of the same cost table")


# --- real sweeps

SWEEP = {
    "name": "compared",
    "spaces": ["mobilenet_v3"],
    "strategies": ["top_down", "independent"],
    "cost": "macs",
    "predictor": "embedded",
    "targets": [[400, 300, 200]],
    "seeds": 6,
    "search": {"population": 20, "generations": 12, "warm_generations": 6},
}


def test_two_sweeps_with_other_parameters_meet_by_label(tmp_path: Path) -> None:
    before = run(SWEEP, tmp_path / "before")
    after = run(SWEEP, tmp_path / "after", search={"population": 20, "generations": 2, "warm_generations": 1})
    assert not set(before.searches["search_id"]) & set(after.searches["search_id"])
    comparison = topdown_ray.compare(before, after)
    for strategy in ("top_down", "independent"):
        row = row_of(comparison, strategy=strategy, targets="400 300 200")
        cells = [
            part.searches[part.searches["strategy"] == strategy].groupby("seed")["accuracy"].mean()
            for part in (before, after)
        ]
        assert row["n"] == 6
        assert row["difference"] == pytest.approx((cells[1] - cells[0]).mean())
        assert row["difference"] < 0, "shorter searches find worse answers"
        assert row["predictor_rows_after"] < row["predictor_rows_before"]
    assert len(regressions(comparison, 0.0)) == 2
    assert regressions(topdown_ray.compare(before, before), 0.0) == []
