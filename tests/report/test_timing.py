"""What is compared as time, and as effort: equal batches, predictor rows, CPU seconds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from support import synthetic

import topdown_ray
from topdown_ray import stats
from topdown_ray.report import comparisons, plots, tables
from topdown_ray.report.build import write_report
from topdown_ray.report.labelling import AMORTISED, LONE
from topdown_ray.store.results import Results


def batched(strategy: str, targets: tuple[float, ...], seeds: int, batch: int) -> pd.DataFrame:
    """A strategy's rows; the last batch has the seeds that are left, and an absurd time where it is a lone
    one.
    """
    rows, _ = synthetic.frames({strategy: 0.0}, sets=[targets], seeds=seeds, batch=batch)
    sizes = rows.groupby("shard_id")["search_id"].transform("nunique")
    rows["batch_size"] = sizes
    rows.loc[sizes < batch, "search_wall_s"] = 1e6
    return rows


def prepared(*rows: pd.DataFrame) -> tables.Data:
    searches = pd.concat(rows, ignore_index=True)
    trace = synthetic.frames({"top_down": 0.0}, seeds=1)[1].iloc[:0]
    return tables.prepare([Results(synthetic.manifest(searches), searches, trace)])


def test_a_last_shard_of_one_is_no_lone_search() -> None:
    data = prepared(*(batched("top_down", targets, 41, 8) for targets in synthetic.SETS))
    time = tables.time(data)
    assert set(time["clock"]) == {AMORTISED}
    assert list(time["n"]) == [5] * 4
    assert set(time["batch_size"]) == {"8"}
    assert time["mean"].max() < 100
    assert tables.single_target(data)["mean"].max() < 100
    assert (tables.accuracy(data)["n"] == 41).all(), "its answers count"
    (note,) = data.timing_notes
    assert "leave out 4 batches (4 searches) whose size differs" in note
    seconds = tables.growth(data).set_index("unit").loc["s"]
    assert seconds["n"] == 20
    assert 0 < seconds["exponent"] < 1


def test_different_batches_are_apart_and_not_fitted_together() -> None:
    one, ten = (35.0,), synthetic.SETS[-1]
    data = prepared(batched("top_down", one, 40, 10), batched("top_down", ten, 40, 5))
    time = tables.time(data)
    assert list(time["clock"]) == [f"{AMORTISED} of 10", f"{AMORTISED} of 5"]
    assert "cannot be compared" in data.timing_notes[0]
    seconds = tables.growth(data)
    assert set(seconds.loc[seconds["unit"] == "s", "sublinear"]) == {"one k only"}


def test_the_size_that_all_share_is_compared() -> None:
    """Of 2 x 10 and 4 x 5 searches for one target and 8 x 5 for ten, the batches of five compare."""
    one, ten = (35.0,), synthetic.SETS[-1]
    large = batched("top_down", one, 20, 10)
    small = batched("top_down", one, 40, 5)
    data = prepared(large, small[small["seed"] >= 20], batched("top_down", ten, 40, 5))
    time = tables.time(data)
    assert set(time["clock"]) == {AMORTISED}
    assert sorted(zip(time["batch_size"], time["n"], strict=True)) == [("5", 4), ("5", 8)]
    assert "2 batches (20 searches)" in data.timing_notes[0]
    truly_lone = prepared(batched("top_down", one, 6, 1))
    assert set(tables.time(truly_lone)["clock"]) == {LONE}


def counted(**columns: object) -> pd.DataFrame:
    rows = batched("joint", (35.0, 30.0), 6, 1)
    return rows.assign(unique_evaluations=400, gradients=100, **columns)


def test_predictor_rows_and_cpu_seconds_stand_beside_evaluations(tmp_path: Path) -> None:
    rows = counted(gradient_rows=3.5, cpu_s=0.5, search_cpu_s=np.repeat(np.arange(6) + 1.0, 2))
    time = tables.time(prepared(rows)).iloc[0]
    assert time["predictor_rows"] == 2 * (400 + 350)
    assert time["cpu_s"] == 3.5
    assert time["evaluations"] == rows.groupby("search_id")["evaluations"].sum().mean()
    growth = tables.growth(prepared(rows))
    assert set(growth["unit"]) == {"s", "CPU s", "evaluations", "predictor rows"}


@pytest.mark.parametrize(
    "columns", [{}, {"gradient_rows": None, "cpu_s": None, "search_cpu_s": None}, {"gradients": None}]
)
def test_what_an_older_folder_does_not_tell_is_no_number(columns: dict[str, object], tmp_path: Path) -> None:
    rows = counted().assign(**columns)
    time = tables.time(prepared(rows)).iloc[0]
    assert math.isnan(time["predictor_rows"])
    assert math.isnan(time["cpu_s"])
    some = pd.concat([counted(gradient_rows=3.0).iloc[:6], counted(gradient_rows=math.nan).iloc[6:]])
    assert math.isnan(tables.time(prepared(some)).iloc[0]["predictor_rows"]), (
        "of half the searches is no mean of all"
    )
    without = batched("top_down", (35.0,), 5, 1).assign(
        unique_evaluations=300, gradients=0, gradient_rows=None
    )
    assert tables.time(prepared(without)).iloc[0]["predictor_rows"] == 300


def test_regret_and_reach_say_what_was_spent() -> None:
    """A gradient counts in both, though not among the children on the axis of the anytime curves."""
    searches, trace = synthetic.frames({"joint": 0.0}, sets=[(35.0, 30.0)], seeds=6)
    spent = {"unique_evaluations": 400, "gradients": 100, "gradient_rows": 3.5, "cpu_s": 0.5}
    searches = searches.assign(**spent, search_cpu_s=np.repeat(np.arange(6) + 1.0, 2))
    data = tables.prepare([Results(synthetic.manifest(searches), searches, trace)])
    reference = pd.DataFrame({"cost": [20.0], "accuracy": [0.8]})
    regret = comparisons.regret(data, reference)
    assert len(regret) == 3
    assert set(regret["predictor_rows"]) == {2 * (400 + 350)}
    assert set(regret["cpu_s"]) == {3.5}, "of a whole search, as in the table of running times"
    reach = comparisons.reach(data, [0.7])
    row = reach[reach["target"] == 35].iloc[0]
    assert row["predictor_rows"] == pytest.approx(750 * row["evaluations"] / 5000)
    assert row["cpu_s"] == pytest.approx(0.5 * row["evaluations"] / 5000)
    assert comparisons.reach(data, [0.99])[["seconds", "predictor_rows", "cpu_s"]].isna().all(axis=None)
    older = searches.assign(cpu_s=np.where(searches["seed"] < 3, 0.5, math.nan))
    part = tables.prepare([Results(synthetic.manifest(older), older, trace)])
    assert comparisons.reach(part, [0.7])["cpu_s"].isna().all(), "of half the searches is no median of all"


def test_seconds_of_two_clocks_do_not_meet_in_the_table_of_regrets() -> None:
    sets = [(35.0, 30.0)]
    parts = []
    for batch, stream in ((1, 0), (3, 1)):
        rows, trace = synthetic.frames({"top_down": 0.0}, sets=sets, seeds=6, batch=batch, stream=stream)
        rows = rows.assign(unique_evaluations=10, gradients=0, cpu_s=0.5, search_cpu_s=1.0)
        rows["search_id"] = rows["search_id"] + str(batch)
        parts.append(Results(synthetic.manifest(rows), rows, trace))
    regret = comparisons.regret(tables.prepare(parts), pd.DataFrame({"cost": [20.0], "accuracy": [0.8]}))
    assert regret["cpu_s"].isna().all()
    assert set(regret["predictor_rows"]) == {20.0}


def test_an_interval_that_rounding_leaves_above_its_mean_is_drawn() -> None:
    table = topdown_ray.summary(synthetic.results({"top_down": 0.0, "joint": 0.0}, seeds=8)).time
    table["low"] = table["mean"] * (1 + 1e-15)
    assert (table["low"] > table["mean"]).any()
    assert plots.time_by_k(table, Figure().add_subplot()).containers


def test_the_page_shows_no_empty_columns_and_names_as_they_are(tmp_path: Path) -> None:
    """A name of which matplotlib would make a broken formula; an older folder that tells less."""
    searches, trace = synthetic.frames({"$x^{y$": 0.0, "independent": 0.0, "{": 0.001}, seeds=5)
    searches["cost_name"], searches["cost_unit"] = "$x^{y$", "$\\frac{$"
    folder = synthetic.write(tmp_path / "run", searches, trace)
    page = write_report([folder], tmp_path / "out").path.read_text()
    assert "mobilenet_v3 on $x^{y$" in page
    cells = (tmp_path / "out" / "tables" / "time_by_k.md").read_text().splitlines()[2:]
    assert len(cells) > 5
    assert "predictor rows" not in cells[0], "nothing is known of them"
    assert ">$\\mathdefault" not in page, "the powers of ten of a logarithmic axis"


def test_the_mean_of_five_is_covered_as_promised() -> None:
    """4,000 samples of five and of seven: at 95 % the count has a standard deviation of 0.34 points, so that
    outside 93.6 to 96.4 % lies 1 in 10,000; the bootstrap of five covers 92.4 %."""
    for n in (5, 7):
        bounds = stats.intervals(list(np.random.default_rng(n).normal(size=(4000, n))))
        assert 0.936 < ((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)).mean() < 0.964
    assert [stats.method(n) for n in (4, 5, 7, 8)] == ["none", "Student's t", "Student's t", "bootstrap"]
    assert stats.method(5, stats.QUARTER) == "bootstrap"
