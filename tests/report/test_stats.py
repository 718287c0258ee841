"""Statistics with known answers, and against scipy and statsmodels.

All seeds are fixed, so a test that passes once passes always; the chances of a false alarm are those of
another choice of seeds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from support import synthetic

from topdown_ray import stats
from topdown_ray.errors import UserError
from topdown_ray.report import comparisons, notebook, tables
from topdown_ray.report.series import Mark
from topdown_ray.report.tables import AMORTISED, LONE

N = [5, 8, 10, 13, 20, 37]


def sample(n: int, repetitions: int = 1, stream: int = 0) -> list[stats.Array]:
    return list(np.random.default_rng([n, stream]).normal(size=(repetitions, n)))


# --- against libraries


@pytest.mark.parametrize("n", [1, 2, 3, *N])
def test_inter_quartile_mean_is_scipys(n: int) -> None:
    (values,) = sample(n)
    assert stats.trimmed_mean(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25), abs=1e-15)


@pytest.mark.parametrize("n", [8, 20, 37])
@pytest.mark.parametrize("trim", [0.0, 0.25])
def test_bootstrap_interval_is_scipys(n: int, trim: float) -> None:
    """Two bootstraps of 10,000 resamples: their ends differ by Monte-Carlo noise; 0.06 is over 4 of its
    standard deviations.
    """
    (values,) = sample(n)
    (ours,) = stats.intervals([values], trim)
    theirs = scipy.stats.bootstrap(
        (values,),
        lambda x, axis: scipy.stats.trim_mean(x, trim, axis=axis),
        confidence_level=1 - 2 * stats.tails(n),
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours == pytest.approx([theirs.low, theirs.high], abs=0.06)


@pytest.mark.parametrize("n", [5, 8, 10])
def test_sign_flips_are_scipys_permutation_test(n: int) -> None:
    for values in sample(n, 5):
        shifted = values + 0.5
        theirs = scipy.stats.permutation_test(
            (shifted,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False
        )
        assert stats.sign_flip_p([shifted])[0] == pytest.approx(theirs.pvalue, abs=1e-12)


def test_random_sign_flips_agree_with_scipy() -> None:
    """Above 13 pairs both draw 10,000 patterns: p near 0.1 has a standard error of 0.003 in each; 0.02 is
    over 4 of them.
    """
    (values,) = sample(25)
    shifted = values - values.mean() + 0.35
    theirs = scipy.stats.permutation_test(
        (shifted,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=np.random.default_rng(2),
    )
    assert stats.sign_flip_p([shifted])[0] == pytest.approx(theirs.pvalue, abs=0.02)


def test_holm_is_statsmodels() -> None:
    generator = np.random.default_rng(7)
    for n in (1, 2, 7, 10, 10, 12):
        values = generator.uniform(size=n).round(1)  # with ties
        assert stats.holm(values) == pytest.approx(multipletests(values, method="holm")[1], abs=1e-12)
    assert stats.holm(np.array([0.01, math.nan, 0.04])) == pytest.approx([0.02, math.nan, 0.04], nan_ok=True)


def test_wilson_is_statsmodels() -> None:
    for n, k in ((1, 0), (10, 10), (10, 3), (57, 28)):
        low, high = stats.wilson(np.array([float(k)]), np.array([float(n)]))
        assert (low[0], high[0]) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)


def test_line_fit_is_statsmodels() -> None:
    x = np.array([1.0, 2, 3, 4, 5, 10])
    y = 1.5 + 0.4 * x + 0.1 * np.random.default_rng(3).normal(size=6)
    fit = stats.line_fit(x, y)
    bounds = statsmodels.api.OLS(y, statsmodels.api.add_constant(x)).fit().conf_int()
    assert fit["intercept"][1:] == pytest.approx(bounds[0])
    assert fit["slope"][1:] == pytest.approx(bounds[1])


# --- known answers


@pytest.mark.parametrize("n", [10, 20, 50])
@pytest.mark.parametrize("trim", [0.0, 0.25])
def test_intervals_cover_a_known_difference(n: int, trim: float) -> None:
    """1,000 repetitions of a true difference of 0.3. At 95 % coverage the count has a standard deviation of
    0.7 points; the inter-quartile mean of ten is conservative (97.6 %). Outside 92 to 99 %: a chance below 1
    in 10,000."""
    bounds = stats.intervals([values + 0.3 for values in sample(n, 1000)], trim)
    assert 0.92 <= ((bounds[:, 0] <= 0.3) & (bounds[:, 1] >= 0.3)).mean() <= 0.99


@pytest.mark.parametrize("n", [10, 20])
def test_false_alarms_are_rare_without_a_difference(n: int) -> None:
    """1,000 repetitions without a difference: 5 % alarms, standard deviation 0.7 points. Outside 2.5 to 7.5
    %: 1 in 3,000.
    """
    p = stats.sign_flip_p(sample(n, 1000, stream=1))
    assert 0.025 <= (p <= 0.05).mean() <= 0.075
    assert (stats.sign_flip_p([values + 3 for values in sample(n, 20)]) < 0.01).all()


def test_holm_keeps_the_family_at_five_percent() -> None:
    """300 families of 10 targets without a difference: alarms in about 5 % of the families (standard
    deviation 1.3 points), in about 40 % without the correction. Above 10 %: a chance of 1 in 10,000."""
    p = stats.sign_flip_p(sample(12, 3000, stream=2)).reshape(300, 10)
    corrected = np.array([stats.holm(family) for family in p])
    assert (corrected <= 0.05).any(axis=1).mean() <= 0.10
    assert (p <= 0.05).any(axis=1).mean() > 0.25


def test_the_report_table_covers_a_known_difference() -> None:
    """The whole way from rows: top_down is 0.3 points better in truth. 50 tables of 6 independent targets,
    300 intervals: their coverage has a standard deviation of 1.3 points. Outside 91 to 99 %: a chance of 1 in
    500."""
    covered, alarms = [], []
    for stream in range(50):
        sets = [(35.0, 30.0, 25.0, 20.0, 15.0, 10.0)]
        data = tables.prepare(
            [
                synthetic.results(
                    {"independent": 0.0, "top_down": 0.003, "bottom_up": 0.0},
                    sets=sets,
                    stream=stream,
                    points=1,
                )
            ]
        )
        frame = comparisons.differences(data)
        frame = frame[frame["target"].notna() & (frame["against"] == "independent")]
        better = frame[frame["strategy"] == "top_down"]
        same = frame[frame["strategy"] == "bottom_up"]
        covered.append(((better["low"] <= 0.003) & (better["high"] >= 0.003)).mean())
        alarms.append((same["p"] <= 0.05).mean())
    assert 0.91 <= np.mean(covered) <= 0.99
    assert 0.01 <= np.mean(alarms) <= 0.09


def test_growth_recovers_a_known_line() -> None:
    """Times 1.6 + 0.4 k and 2 k with 5 % noise: 40 sweeps, every interval covers in about 95 %; below 85 %: 1
    in 100.
    """
    covered = []
    for stream in range(40):
        data = tables.prepare(
            [synthetic.results({"independent": 0, "top_down": 0}, seeds=8, stream=stream, points=1)]
        )
        frame = tables.growth(data).set_index(["unit", "strategy"])
        row = frame.loc[("s", "top_down")]
        covered.append(
            [
                row["slope_low"] <= 0.4 <= row["slope_high"],
                row["intercept_low"] <= 1.6 <= row["intercept_high"],
            ]
        )
        assert (row["sublinear"], row["interval"]) == ("yes", "bootstrap")
        assert frame.loc[("evaluations", "independent"), "exponent"] == pytest.approx(1)
        assert frame.loc[("evaluations", "independent"), "sublinear"] == "no"
        assert frame.loc[("evaluations", "top_down"), "slope"] == pytest.approx(1000)
    assert np.mean(covered, axis=0) == pytest.approx(0.95, abs=0.1)


def test_growth_without_repetitions_uses_students_t() -> None:
    fit = tables.fit_growth(
        {(k, ""): np.array([1.6 + 0.4 * k + 0.01 * (-1) ** k]) for k in (1, 2, 3, 4, 5, 10)}
    )
    assert fit["interval"] == "Student's t"
    assert fit["slope_low"] < 0.4 < fit["slope_high"]
    assert fit["further"] == pytest.approx(0.2, abs=0.01)
    assert tables.fit_growth({(3, "a"): np.ones(9)})["sublinear"] == "one k only"


def test_published_times_grow_as_the_paper_says() -> None:
    data = tables.prepare([synthetic.results({"independent": 0, "top_down": 0})])
    frame = notebook.growth(data.searches).set_index("strategy")
    assert frame.loc["top_down", "sublinear"] == "yes"
    assert frame.loc["independent", "sublinear"] != "yes"
    assert len(notebook.published()) == 54 + 9 * 10 + 3 * 10


# --- cells, batches, folders


def test_no_interval_from_fewer_than_five() -> None:
    bounds = stats.intervals([np.ones(4), np.arange(5.0)])
    assert np.isnan(bounds[0]).all()
    assert 0 <= bounds[1, 0] < 0.5 < 3.5 < bounds[1, 1] <= 4
    assert math.isnan(stats.trimmed_mean(np.array([])))


def test_an_interval_does_not_depend_on_its_company() -> None:
    cells = [values for n in N for values in sample(n, 3)]
    together = stats.intervals(cells, stats.QUARTER)
    alone = np.concatenate([stats.intervals([cell], stats.QUARTER) for cell in cells])
    assert together == pytest.approx(alone, abs=1e-12)


def test_lone_and_amortised_times_never_meet_and_a_batch_is_one_timing() -> None:
    lone, batched = (synthetic.results({"top_down": 0.0}, batch=batch, stream=batch) for batch in (1, 5))
    data = tables.prepare([lone, batched])
    frame = tables.time(data)
    assert set(frame["clock"]) == {LONE, AMORTISED}
    assert (frame.groupby("clock")["n"].unique().map(list)).to_dict() == {LONE: [10], AMORTISED: [2]}
    assert frame.loc[frame["clock"] == AMORTISED, "low"].isna().all()
    single = tables.single_target(data)
    assert set(zip(single["clock"], single["n"], strict=True)) == {(LONE, 10), (AMORTISED, 2)}
    assert (tables.accuracy(data)["n"] == 10).all(), "the same searches in two folders count once"
    assert "answers differ" in data.notes[0]


def test_series_of_one_label_are_told_apart_by_the_letter_of_their_folder() -> None:
    one, other = (synthetic.results({"top_down": 0.0}) for _ in range(2))
    other.manifest["spec"]["search"] = {"population": 100, "generations": 50}
    rows = other.searches.assign(search_id=other.searches["search_id"] + "x")
    data = tables.prepare([one, type(other)(other.manifest, rows, other.trace)], ["long", "short"])
    assert set(data.searches["setting"]) == {"mobilenet_v3 on note10"}
    assert list(data.searches["strategy"].unique()) == ["top_down (A)", "top_down (B)"]
    assert data.marks == [Mark("A", "long", "generations 500"), Mark("B", "short", "generations 50")]
    assert set(data.searches["kind"]) == {"top_down"}
    same = tables.prepare([one, type(other)(other.manifest, one.searches, one.trace)])
    assert set(same.searches["strategy"]) == {"top_down"}, "the same searches are one series"
    assert same.marks == []


def test_a_folder_without_times_is_refused() -> None:
    one = synthetic.results({"top_down": 0.0})
    with pytest.raises(UserError, match="search_wall_s"):
        tables.prepare(
            [type(one)(one.manifest, one.searches.drop(columns="search_wall_s"), one.trace)], ["old"]
        )


def test_infeasible_rows_count_but_have_no_accuracy() -> None:
    results = synthetic.results({"top_down": 0.0}, sets=[(35.0,)])
    results.searches.loc[:2, "feasible"] = False
    row = tables.accuracy(tables.prepare([results])).iloc[0]
    assert (row["n"], row["infeasible"]) == (7, 3)


# --- fronts and curves


def test_hypervolume_by_hand_and_by_chance() -> None:
    cost, accuracy = np.array([30.0, 20.0, 25.0, 33.0]), np.array([0.82, 0.80, 0.79, 0.70])
    codes = np.zeros(4, int)
    # from 20 to 30 ms the best is 0.80, from 30 to 40 ms it is 0.82; the others are dominated
    assert stats.hypervolume(codes, cost, accuracy, 40, 0.75) == pytest.approx([10 * 0.05 + 10 * 0.07])
    assert stats.hypervolume(codes, cost, accuracy, 25, 0.75) == pytest.approx([5 * 0.05])
    generator = np.random.default_rng(4)
    cost, accuracy = generator.uniform(size=(2, 60))
    codes = generator.integers(0, 7, 60)
    grid = (np.arange(1000) + 0.5) / 1000
    ours = stats.hypervolume(codes, cost, accuracy, 1.0, 0.2)
    for i in range(7):
        mine = codes == i
        best = np.where(cost[mine][:, None] <= grid, accuracy[mine][:, None], 0.2).max(axis=0, initial=0.2)
        assert ours[i] == pytest.approx((best - 0.2).mean(), abs=2e-3)


def test_distance_to_a_reference_front_by_loops() -> None:
    generator = np.random.default_rng(5)
    front, reference = generator.uniform(size=(6, 2)), generator.uniform(size=(9, 2))
    span = np.ptp(reference, axis=0)
    loops = [
        min(math.hypot(max((c - rc) / span[0], 0), max((ra - a) / span[1], 0)) for c, a in front)
        for rc, ra in reference
    ]
    assert stats.igd_plus(front, reference) == pytest.approx(np.mean(loops))
    assert stats.igd_plus(reference, reference) == 0


def test_step_values_by_loops() -> None:
    generator = np.random.default_rng(6)
    curve = generator.integers(0, 5, 40)
    x = generator.permutation(200)[:40].astype(float)
    y = generator.uniform(size=40)
    grid = np.array([0.0, 10, 50, 51, 120, 500])
    ours = stats.step_values(curve, x, y, grid)
    for code, (j, point) in itertools.product(range(5), enumerate(grid)):
        before = (curve == code) & (x <= point)
        expected = y[before][x[before].argmax()] if before.any() else math.nan
        assert ours[code, j] == pytest.approx(expected, nan_ok=True)


def test_reach_counts_those_that_never_got_there() -> None:
    results = synthetic.results({"top_down": 0.0}, sets=[(35.0,)], sd=0.0)
    final = float(results.searches["accuracy"].iloc[0])
    late = results.trace["seed"] < 6
    results.trace.loc[late, "best_accuracy"] -= 0.1
    frame = comparisons.reach(tables.prepare([results]), [final - 0.005, final - 0.2])
    assert list(frame["reached"]) == [4, 10]
    assert math.isnan(frame["evaluations"].iloc[0])
    assert frame["evaluations"].iloc[1] == results.trace["evaluations"].min()
    row = results.searches.iloc[0]
    rate = results.searches["wall_s"].median() / row["evaluations"]
    assert frame["seconds"].iloc[1] == pytest.approx(frame["evaluations"].iloc[1] * rate)


def test_curves_end_where_the_searches_do() -> None:
    data = tables.prepare([synthetic.results({"independent": 0.0, "top_down": 0.0})])
    frame = comparisons.curves(data)
    last = frame.groupby(["strategy", "target"])["evaluations"].max()
    assert last["top_down", 15.0] == 1000
    assert last["independent", 15.0] == 5000
    ends = (
        frame.sort_values("evaluations")
        .groupby(["strategy", "target"])
        .tail(1)
        .set_index(["strategy", "target"])
    )
    accuracy = tables.accuracy(data)
    accuracy = accuracy[accuracy["k"] == 10].set_index(["strategy", "target"])
    pd.testing.assert_series_equal(ends["iqm"].sort_index(), accuracy["iqm"].sort_index())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cost,top1\n1,2\n", "column accuracy"),
        ("cost,accuracy\n1,high\n", "expected numbers"),
        ("cost,accuracy\n10,80\n", "fractions"),
        ("", "CSV file"),
    ],
)
def test_a_reference_front_must_be_one(
    tmp_path_factory: pytest.TempPathFactory, text: str, message: str
) -> None:
    path = tmp_path_factory.mktemp("reference") / "front.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        comparisons.read_reference(path)
