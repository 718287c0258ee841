"""What changed between two result folders: known effects, and the same numbers by pandas and scipy."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from support import synthetic
from support.compared import EFFECTS, SETS, WIDE, changed, made, row_of, without

from topdown_ray import stats
from topdown_ray.errors import UserError
from topdown_ray.report import comparisons, tables
from topdown_ray.report.compare import compare, regressions
from topdown_ray.store.results import Results

# --- numbers


def test_a_folder_is_as_good_as_itself() -> None:
    comparison = compare(made(), made())
    rows = comparison.rows
    assert len(rows) == 2 * (2 + 4)  # of each strategy: one target and all, three targets and all
    assert (rows[["difference", "low", "high"]] == 0).all(axis=None)
    assert (rows["ties"] == rows["n"]).all()
    assert (rows[["p", "p_holm", "time_ratio"]] == 1).all(axis=None)
    assert comparison.only_before.empty
    assert comparison.only_after.empty
    assert regressions(comparison, 0.0) == []


def test_rows_come_by_size_of_set_and_strategy_all_targets_first() -> None:
    rows = compare(made(), made(0.1)).rows
    assert list(rows["target"].fillna(0)) == [0, 40, 30, 20, 0, 40, 30, 20, 0, 35, 0, 35]
    assert list(rows["strategy"].unique()) == list(
        tables.accuracy(tables.prepare([made()]))["strategy"].unique()
    )


def test_paired_numbers_are_those_of_pandas_and_scipy() -> None:
    before, after = made(), made(0.001, stream=1)
    row, whole = row_of(compare(before, after), 30.0), row_of(compare(before, after))
    wide = [
        part.searches[(part.searches["strategy"] == "top_down") & (part.searches["k"] == 3)].pivot_table(
            index="seed", columns="target", values="accuracy"
        )
        for part in (before, after)
    ]
    delta = wide[1] - wide[0]
    assert (row["n"], row["n_before"], row["paired"]) == (10, 10, True)
    assert [row["before"], row["after"]] == pytest.approx([part[30.0].mean() for part in wide])
    assert row["difference"] == pytest.approx(delta[30.0].mean())
    assert whole["difference"] == pytest.approx(delta.mean(axis=1).mean())
    exact = scipy.stats.permutation_test(
        (delta[30.0].to_numpy(),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert row["p"] == pytest.approx(exact.pvalue)
    assert whole["p_holm"] == whole["p"]
    assert row["p_holm"] >= row["p"]
    expected = stats.intervals([delta.mean(axis=1).to_numpy()])[0]
    assert [whole["low"], whole["high"]] == pytest.approx(expected)
    seconds = [
        part.searches[(part.searches["strategy"] == "top_down") & (part.searches["k"] == 3)]
        for part in (before, after)
    ]
    mean = [part.groupby("search_id")["search_wall_s"].first().mean() for part in seconds]
    assert [whole["seconds_before"], whole["seconds_after"]] == pytest.approx(mean)
    assert whole["time_ratio"] == pytest.approx(mean[1] / mean[0])
    assert row["seconds_before"] == pytest.approx(seconds[0].loc[seconds[0]["target"] == 30, "wall_s"].mean())
    assert whole["predictor_rows_before"] == pytest.approx(0.9 * (5000 + 1000 + 1000))
    assert row["predictor_rows_after"] == pytest.approx(0.9 * 1000)


def test_paired_numbers_are_those_of_differences_between_strategies() -> None:
    """The two sides as two strategies of one folder give the same row in the report."""
    before, after = (
        made(shift, stream=stream, effects={"top_down": 0.0}) for shift, stream in ((0, 0), (0.001, 1))
    )
    renamed = after.searches.assign(
        strategy="after",
        search_id="x" + after.searches["search_id"],
        shard_id="x" + after.searches["shard_id"],
    )
    both = pd.concat([before.searches, renamed], ignore_index=True)
    data = tables.prepare([Results(synthetic.manifest(both), both, before.trace.head(0))])
    table = comparisons.differences(data)
    (expected,) = table[table["target"].isna()].to_dict("records")
    row = row_of(compare(before, after))
    sign = 1 if expected["strategy"] == "after" else -1
    assert row["difference"] == pytest.approx(sign * expected["mean"])
    assert (row["p"], row["ties"], row["n"]) == pytest.approx(
        (expected["p"], expected["ties"], expected["n"])
    )
    assert sorted([sign * expected["low"], sign * expected["high"]]) == pytest.approx(
        [row["low"], row["high"]], abs=1e-5
    )


def test_without_shared_seeds_the_interval_is_scipys_welch() -> None:
    before, after = made(seeds=8), made(0.002, stream=1, first_seed=100)
    row = row_of(compare(before, after))
    cells = [
        part.searches[(part.searches["strategy"] == "top_down") & (part.searches["k"] == 3)]
        .groupby("seed")["accuracy"]
        .mean()
        for part in (before, after)
    ]
    welch = scipy.stats.ttest_ind(cells[1], cells[0], equal_var=False).confidence_interval()
    assert [row["low"], row["high"]] == pytest.approx([welch.low, welch.high])
    assert row["difference"] == pytest.approx(cells[1].mean() - cells[0].mean())
    assert (row["paired"], row["n"], row["n_before"], row["n_after"]) == (False, 0, 8, 10)
    assert (row["interval"], row["missing"]) == ("Welch", 0)
    assert math.isnan(row["p"])


def test_welch_without_spread_or_with_few_values() -> None:
    same = np.full(6, 0.75)
    assert stats.welch(same + 0.25, same) == (0.25, 0.25)
    assert all(map(math.isnan, stats.welch(same[:4], same)))


@pytest.mark.parametrize("first_seed", [0, 1000])
def test_intervals_cover_the_true_difference(first_seed: int) -> None:
    """120 intervals of 95 %: fewer than 104 that cover happen once in 10,000 times."""
    labels = {f"label {i}": 0.0 for i in range(60)}
    rows = compare(made(effects=labels), made(0.001, 1, first_seed, effects=labels)).rows
    whole = rows[rows["target"].isna()]
    assert len(whole) == 120
    assert ((whole["low"] <= 0.001) & (whole["high"] >= 0.001)).sum() >= 104


def test_seeds_that_are_partly_shared_are_paired_and_the_others_counted() -> None:
    before, after = made(), made(0.001, first_seed=4)
    row = row_of(compare(before, after))
    assert (row["n"], row["seeds_only_before"], row["seeds_only_after"]) == (6, 4, 4)
    assert (row["interval"], row["missing"]) == ("Student's t", 0)
    kept = before.searches[(before.searches["k"] == 3) & (before.searches["seed"] >= 4)]
    assert row["before"] == pytest.approx(kept.loc[kept["strategy"] == "top_down", "accuracy"].mean())


def test_one_seed_has_no_interval() -> None:
    row = row_of(compare(made(seeds=1), made(0.001, seeds=1)))
    assert (row["n"], row["interval"]) == (1, "none")
    assert row["difference"] == pytest.approx(0.001)
    assert math.isnan(row["low"])


# --- what meets


def test_searches_meet_whatever_their_identities_algorithm_and_parameters() -> None:
    before, after = made(), made(0.001)
    searches = after.searches.assign(search_id="x" + after.searches["search_id"], run_id="other")
    manifest = synthetic.manifest(searches, algorithm=2)
    manifest["spec"]["search"] = {"population": 7}
    row = row_of(compare(before, Results(manifest, searches, after.trace)))
    assert row["difference"] == pytest.approx(0.001)
    assert row["n"] == 10
    assert row["setting"] == "mobilenet_v3 on note10"


def test_labels_meet_and_not_strategies() -> None:
    before = changed(made(effects={"top_down": 0.0}), label="mine")
    after = changed(made(0.001, effects={"independent": 0.0}), label="mine")
    assert row_of(compare(before, after), strategy="mine")["n"] == 10
    with pytest.raises(UserError, match="same strategy label, found mine and yours"):
        compare(before, changed(after, label="yours"))


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"cost_sha256": "9" * 64}, "same cost table, found note10 cccccccc and note10 99999999"),
        ({"predictor_sha256": "9" * 64}, "same predictor, found published pppppppp and published 99999999"),
        ({"cost_name": "macs"}, "same cost, found note10 and macs"),
        ({"space": "proxyless"}, "same space, found mobilenet_v3 and proxyless"),
        ({"protocol": "notebook"}, "same protocol, found default and notebook"),
        ({"limits": '{"params": 6.0}'}, "same limits, found none and params <= 6"),
        (
            {"predictor_sha256": None, "predictor_name": "embedded"},
            "same predictor, found published pppppppp and embedded",
        ),
    ],
)
def test_what_does_not_compare_is_refused(columns: dict[str, Any], found: str) -> None:
    with pytest.raises(UserError, match=f"^compare: expected sweeps of the {found}$"):
        compare(made(), changed(made(), **columns))


def test_what_is_not_recorded_does_not_differ() -> None:
    bare = made().searches.drop(columns=["cost_sha256", "predictor_sha256", "predictor_space"])
    comparison = compare(Results(synthetic.manifest(bare), bare, made().trace), made())
    assert (comparison.rows["difference"] == 0).all()
    assert comparison.only_after.empty


def test_searches_with_limits_meet_those_with_the_same() -> None:
    limited = '{"params": 6.0, "macs": 300}'
    same = changed(made(), limits='{"macs": 300.0, "params": 6.0}')
    row = row_of(compare(changed(made(), limits=limited), same))
    assert row["limits"] == "macs <= 300 and params <= 6"
    each = made().searches["target"].map(lambda target: json.dumps({"params": target / 5}))
    comparison = compare(changed(made(), limits=each), changed(made(), limits=each))
    assert len(comparison.rows) == 12
    assert row_of(comparison)["setting"].startswith("mobilenet_v3 on note10, params <= 8, 6, 4 by target (")


def test_groups_of_one_side_alone_are_listed() -> None:
    before = made(effects={**EFFECTS, "prune": 0.0})
    after = made(sets=[*SETS, (50.0, 45.0)])
    comparison = compare(before, after)
    lone = comparison.only_before
    assert list(zip(lone["strategy"], lone["targets"], lone["seeds"], strict=True)) == [
        ("prune", WIDE, 10),
        ("prune", "35", 10),
    ]
    assert set(comparison.only_after["targets"]) == {"50 45"}
    assert len(regressions(comparison, -1.0)) == 2
    assert "prune: missing" in regressions(comparison, -1.0)[0]


def test_another_table_for_one_space_only_is_named() -> None:
    before, after = made(), made()
    table = np.where(after.searches["k"] == 3, "9" * 64, "c" * 64)
    comparison = compare(before, changed(after, cost_sha256=table))
    assert set(comparison.rows["targets"]) == {"35"}
    assert set(comparison.only_before["differs"]) == {"cost table"}
    assert "missing (the cost table differs)" in regressions(comparison, -1.0)[0]


# --- answers that are lost


def test_answers_that_became_infeasible_and_feasible_are_counted_and_not_averaged() -> None:
    before, after = made(), made(0.001)
    mine = (before.searches["strategy"] == "top_down") & (before.searches["k"] == 3)
    at = mine & (before.searches["target"] == 20)
    lost = at & before.searches["seed"].isin([1, 2])
    won = at & (before.searches["seed"] == 3)
    comparison = compare(changed(before, feasible=~won), changed(after, feasible=~lost))
    row, whole = row_of(comparison, 20.0), row_of(comparison)
    assert (row["became_infeasible"], row["became_feasible"], row["n"]) == (2, 1, 7)
    assert (whole["became_infeasible"], whole["became_feasible"], whole["n"]) == (2, 1, 7)
    assert row_of(comparison, 40.0)["n"] == 10
    assert row["difference"] == pytest.approx(0.001)
    assert regressions(comparison, -1.0) == [
        f"mobilenet_v3 on note10, {WIDE}, top_down: 2 answers are no longer feasible, or missing"
    ]


def test_a_target_that_no_search_meets_leaves_the_others() -> None:
    never = made().searches["target"] != 20
    comparison = compare(changed(made(), feasible=never), changed(made(0.001), feasible=never))
    assert row_of(comparison)["difference"] == pytest.approx(0.001)
    assert (row_of(comparison)["n"], row_of(comparison, 20.0)["n"]) == (10, 0)
    assert regressions(comparison, 0.0) == []
    without_partners = compare(made(), changed(made(first_seed=50), feasible=never))
    assert "no feasible answer for the target 20" in regressions(without_partners, -1.0)[0]


def test_a_search_that_failed_is_missing_only_where_its_seed_was_asked_for() -> None:
    before, after = made(), made()
    gone = (after.searches["strategy"] == "top_down") & (after.searches["seed"] == 3)
    comparison = compare(before, without(after, gone))
    assert (row_of(comparison)["missing"], row_of(comparison)["seeds_only_before"]) == (3, 1)
    assert len(regressions(comparison, -1.0)) == 2
    fewer = compare(before, made(seeds=5))
    assert (fewer.rows["missing"] == 0).all()
    assert regressions(fewer, -1.0) == []


def test_searches_without_all_answers_are_judged_target_by_target() -> None:
    """Where no search met both targets, their mean over searches does not exist."""
    before = made(sets=[(40.0, 30.0)], seeds=2)
    half = (before.searches["seed"] == 0) == (before.searches["target"] == 40)
    after = made(-0.001, sets=[(40.0, 30.0)], seeds=2)
    comparison = compare(changed(before, feasible=half), changed(after, feasible=half))
    assert math.isnan(row_of(comparison, targets="40 30")["difference"])
    assert "-0.100 percentage points" in regressions(comparison, -0.0005)[0]
    assert regressions(comparison, -0.001) == []


def test_times_of_different_clocks_do_not_compare() -> None:
    row = row_of(compare(made(), made(batch=5)))
    assert all(math.isnan(row[name]) for name in ("seconds_before", "seconds_after", "time_ratio"))
    assert row["predictor_rows_after"] == row["predictor_rows_before"]
    other = made()
    other.manifest["machine"]["processor"] = "another"
    assert math.isnan(row_of(compare(made(), other))["time_ratio"])
    assert row_of(compare(made(batch=5), made(batch=5)))["clock"] == tables.AMORTISED
