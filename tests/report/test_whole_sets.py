"""The first screen: who is best, by how much, and how good all answers were after how much work."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from support import synthetic

from topdown_ray.figures import PANEL
from topdown_ray.report import panels, tables, whole_sets
from topdown_ray.report.build import write_report
from topdown_ray.report.durations import duration, unit_of
from topdown_ray.report.findings import sentence
from topdown_ray.store.results import Results

EFFECTS = {"random": -0.01, "independent": 0.0, "bottom_up": 0.0, "top_down": 0.001, "joint": 0.003}


@pytest.fixture(scope="module")
def results() -> Results:
    searches, trace = synthetic.frames(EFFECTS)
    searches = searches.assign(
        unique_evaluations=searches["evaluations"] - 100, gradients=0, gradient_rows=math.nan
    )
    return Results(synthetic.manifest(searches), searches, trace)


def widest(results: Results, strategy: str) -> pd.DataFrame:
    rows = results.searches
    return rows[(rows["k"] == 10) & (rows["strategy"] == strategy)]


def test_the_overview_by_hand(results: Results) -> None:
    frame = whole_sets.overview(tables.prepare([results]))
    assert frame["strategy"].iloc[0] == "joint"
    assert list(frame["mean"]) == sorted(frame["mean"], reverse=True)
    best = widest(results, "joint").groupby("seed")["accuracy"].mean()
    for row in frame.to_dict("records"):
        rows = widest(results, row["strategy"])
        own = rows.groupby("seed")["accuracy"].mean()
        assert row["mean"] == pytest.approx(own.mean())
        assert row["seconds"] == pytest.approx(rows.groupby("seed")["search_wall_s"].first().mean())
        assert row["predictor_rows"] == rows.groupby("seed")["unique_evaluations"].sum().mean()
        if row["rank"] > 1:
            assert row["difference"] == pytest.approx((own - best).mean())
            assert row["difference_low"] < row["difference"] < row["difference_high"]
            assert row["pairs"] == 10
    assert (frame["n"] == frame["searches"]).all()


def test_searches_that_missed_a_target_have_no_quality(results: Results) -> None:
    rows = results.searches.copy()
    lost = rows.index[(rows["k"] == 10) & (rows["strategy"] == "joint") & (rows["seed"] == 3)][4]
    rows.loc[lost, "feasible"] = False
    frame = whole_sets.overview(tables.prepare([Results(results.manifest, rows, results.trace)]))
    row = frame[frame["strategy"] == "joint"].iloc[0]
    assert (row["n"], row["searches"]) == (9, 10)


def test_the_best_one_is_found_on_shared_seeds() -> None:
    """The better strategy has only the seeds on which all do badly."""
    searches, trace = synthetic.frames({"top_down": 0.0, "joint": 0.002}, sets=[(35.0, 30.0)], seeds=20)
    bad = searches["seed"] < 6
    searches.loc[bad, "accuracy"] -= 0.05
    searches = searches[bad | (searches["strategy"] == "top_down")]
    frame = whole_sets.overview(tables.prepare([Results(synthetic.manifest(searches), searches, trace)]))
    assert frame["strategy"].tolist() == ["joint", "top_down"]
    assert frame["mean"].iloc[0] < frame["mean"].iloc[1]
    words = sentence("here", frame.to_dict("records"))
    assert "joint is best" in words
    assert "on 6 shared seeds" not in words, "it has no others"


def test_it_is_said_when_no_search_met_all_targets(tmp_path: Path) -> None:
    searches, trace = synthetic.frames({"top_down": 0.0, "joint": 0.0}, sets=[(35.0, 30.0)], seeds=3)
    searches.loc[searches["target"] == 30.0, "feasible"] = False
    report = write_report([synthetic.write(tmp_path / "in", searches, trace)], tmp_path / "out")
    (line,) = report.findings
    assert line.startswith("mobilenet_v3 on note10: no search met all targets")
    assert not (tmp_path / "out" / "tables" / "overview.csv").exists()


def test_a_lower_mean_is_not_called_the_highest() -> None:
    near = {"difference": -0.0001, "difference_low": -0.0003, "difference_high": 0.0001, "pairs": 6}
    words = sentence("here", [record("joint"), record("top_down", mean=0.83, **near)])
    assert words.startswith("here: joint leads with 82.81 %")
    assert "highest" not in words


@pytest.mark.parametrize(
    "targets",
    [
        (4000, 3500, 3100, 2800, 2500, 2200, 1900, 1600, 1300, 1000),  # ResNet50D under MACs
        (12.25, 12.125, 12.0, 11.875, 11.75, 11.625, 11.5),
        (60, 55, 50, 45, 40, 35, 30, 25, 20, 15),
    ],
)
def test_labels_of_targets_do_not_overlap(targets: tuple[float, ...]) -> None:
    table = pd.DataFrame({"target": targets, "cost": [0.998 * target for target in targets]})
    table = table.assign(iqm=table["target"].rank() / 100, low=0.0, high=0.1, n=5, k=len(targets))
    table = table.assign(setting="here", targets="all", strategy="joint", cost_unit="1e6 MACs")
    figure = Figure(figsize=PANEL, layout="constrained")
    ax = panels.front(table, figure.add_subplot())
    figure.draw_without_rendering()
    labels = [label for label in ax.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in sorted(labels, key=lambda label: label.get_position())]
    assert len(boxes) >= 3
    gap = 0.3 * labels[0].get_fontsize() * figure.dpi / 72
    assert all(first.x1 + gap <= second.x0 for first, second in itertools.pairwise(boxes))


ORDERS = {"top_down": "loosest", "bottom_up": "tightest", "joint": "together"}


@pytest.mark.parametrize("strategy", ORDERS)
@pytest.mark.parametrize(
    ("work", "column"), [("seconds", "wall_s"), ("predictor rows", "unique_evaluations")]
)
def test_accuracy_against_work_by_loops(results: Results, strategy: str, work: str, column: str) -> None:
    frame = whole_sets.anytime(tables.prepare([results]))
    own = frame[(frame["strategy"] == strategy) & (frame["work"] == work)]
    rows = widest(results, strategy)
    for point in own[~own["end"]].iloc[[0, 7, -1]].to_dict("records"):
        qualities = []
        for _, search in rows.sort_values("target_index").groupby("seed"):
            spent, best = search[column].to_numpy(float), []
            for place, row in enumerate(search.to_dict("records")):
                curve = results.trace[
                    (results.trace["search_id"] == row["search_id"])
                    & (results.trace["target_index"] == row["target_index"])
                ]
                before = {"loosest": spent[:place], "tightest": spent[place + 1 :], "together": spent[:0]}
                length = spent.sum() if strategy == "joint" else spent[place]
                at = before[ORDERS[strategy]].sum() + length * curve["evaluations"] / row["evaluations"]
                best.append(curve["best_accuracy"][at <= point["x"] * (1 + 1e-12)].max())
            qualities.append(np.mean(best))
        answered = [quality for quality in qualities if not np.isnan(quality)]
        assert len(answered) == point["n"] >= 5, "a curve begins when half of the searches have all answers"
        assert point["mean"] == pytest.approx(np.mean(answered))
    end = own[own["end"]].iloc[0]
    assert own.loc[~own["end"], "x"].max() == pytest.approx(end["x"])
    assert end["x"] == pytest.approx(rows.groupby("seed")[column].sum().mean())
    assert end["mean"] == pytest.approx(rows["accuracy"].mean())


def test_a_strategy_whose_order_is_not_known_has_its_end_only() -> None:
    frame = whole_sets.anytime(tables.prepare([synthetic.results({"mine": 0.0, "top_down": 0.0})]))
    assert frame.loc[frame["strategy"] == "mine", "end"].all()
    assert set(frame["work"]) == {"seconds", "evaluations"}, "older folders do not tell predictor rows"


def test_pictures_of_the_first_screen(results: Results) -> None:
    data = tables.prepare([results])
    reference = pd.DataFrame({"cost": [15.0, 40.0], "accuracy": [0.78, 0.8]})
    ax = panels.front(tables.accuracy(data), Figure().add_subplot(), reference=reference)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [*EFFECTS, "reference front"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [
        "60",
        "55",
        "50",
        "45",
        "40",
        "35",
        "30",
        "25",
        "20",
        "15",
    ]
    ax = panels.quality(whole_sets.anytime(data), Figure().add_subplot(), work="seconds")
    assert ax.get_xlabel() == "time of a search (s)"
    assert ax.get_ylabel() == "mean top-1 of 10 targets (%)"


def record(strategy: str, **changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("difference", "difference_low", "difference_high"), math.nan)
    spent = {"seconds": 1.2, "predictor_rows": 500.0, "pairs": 24, "label": strategy, "searches": 24}
    facts = {"strategy": strategy, "k": 3, "n": 24, "mean": 0.8281, "low": 0.828, "high": 0.8282}
    return {**facts, **nothing, **spent, **changes}


REACHED = "82.81 % [82.80, 82.82] predicted top-1 on average over 3 targets (24 seeds)"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"difference": -0.0005, "difference_low": -0.0007, "difference_high": -0.0003},
            f"joint is best with {REACHED}, 0.05 [0.03, 0.07] percentage points above top_down",
        ),
        (
            {"difference": -0.0001, "difference_low": -0.0003, "difference_high": 0.0001},
            f"joint has the highest mean with {REACHED}, but is not clearly better than top_down: "
            "it is 0.01 [-0.01, 0.03] percentage points ahead",
        ),
        (
            {"difference": -0.0005},
            f"joint has the highest mean with {REACHED}, 0.05 percentage points above top_down (no interval)",
        ),
        (
            {"difference": -0.0, "difference_low": -0.0, "difference_high": -0.0},
            f"joint and top_down found equally accurate answers, with {REACHED}",
        ),
        (
            {"difference": -0.0005, "difference_low": -0.0007, "difference_high": -0.0003, "pairs": 12},
            f"joint is best with {REACHED}, 0.05 [0.03, 0.07] percentage points above top_down "
            "on 12 shared seeds",
        ),
        ({}, f"joint has the highest mean with {REACHED}. It shares no seeds with top_down"),
    ],
)
def test_the_sentence(changes: dict[str, float], words: str) -> None:
    time = "joint takes 30 % of the time of top_down (1.2 s against 4 s for each search)"
    found = sentence("here", [record("joint"), record("top_down", seconds=4.0, **changes)])
    assert found == f"here: {words}. {time}."


def test_the_times_of_few_searches_are_not_in_the_sentence() -> None:
    """They are mostly noise; predictor rows are not."""
    found = sentence("here", [record("joint", n=4), record("top_down", n=4, seconds=4.0)])
    assert "time" not in found
    assert "joint uses" in found


def test_the_sentence_of_one_strategy_and_of_one_seed() -> None:
    alone = record("joint", k=1, n=1, low=math.nan, high=math.nan)
    assert (
        sentence("here", [alone]) == "here: joint reaches 82.81 % predicted top-1 for its target (one seed)."
    )


def test_the_sentence_names_the_next_label_what_is_spent_and_what_was_missed() -> None:
    clear = {"difference": -0.0005, "difference_low": -0.0007, "difference_high": -0.0003}
    rows = [
        record("joint (A)", label="joint", n=20, seconds=math.nan),
        record("joint (B)", label="joint", **clear),
    ]
    rows.append(record("top_down", predictor_rows=100.0, **clear))
    assert sentence("here", rows).endswith(
        "(20 seeds), 0.05 [0.03, 0.07] percentage points above top_down. joint (A) uses 5 times the "
        "predictor rows of top_down. joint (A) met all targets in 20 of 24 searches."
    )


def test_durations() -> None:
    assert [duration(x) for x in (0.0312, 1.5, 90.0, 150.0, 9000.0, math.nan)] == [
        "31.2 ms",
        "1.5 s",
        "90 s",
        "2.5 min",
        "2.5 h",
        "",
    ]
    assert unit_of(0.0) == (1e-3, "ms")
