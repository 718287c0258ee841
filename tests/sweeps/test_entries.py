"""Entries of ``strategies`` with their own hyper-parameters, budgets, patience, ranges of targets: what one
sweep can compare.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.commands import SWEEP, main_in_process
from support.sweeping import assert_same, run

import topdown_ray
from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.errors import UserError
from topdown_ray.sweeps.identities import sweep_identity
from topdown_ray.sweeps.spec import SweepSpec, make_spec
from topdown_ray.sweeps.status import Reader
from topdown_ray.sweeps.verify import verify

BASE: dict[str, Any] = {
    **SWEEP,
    "name": "entries",
    "seeds": 5,
    "search": {"population": 20, "generations": 12, "warm_generations": 4},
}
LONGER = {"generations": 24, "warm_generations": 8}  # in the ratio of BASE
ARTEFACTS = {"mobilenet_v3": {"cost": "c", "predictor": "p"}}


def spec(**changes: Any) -> SweepSpec:
    return make_spec({**BASE, **changes}, "test")


# --- entries ------------------------------------------------------------------------------------------------


def test_entries_have_their_own_lengths_labels_and_identities() -> None:
    entries = ["top_down", "joint", {"name": "joint", "label": "joint-long", "generations": 40}]
    read = spec(strategies=entries)
    lengths = {group.label: (group.strategy, group.params.generations) for group in read.groups()}
    assert lengths == {"top_down": ("top_down", 12), "joint": ("joint", 12), "joint-long": ("joint", 40)}
    assert {group.params.warm_generations for group in read.groups()} == {4}
    written = read.model_dump(mode="json")
    assert written["strategies"] == entries  # as short as they were
    assert make_spec(written, "test") == read
    assert sweep_identity(read, ARTEFACTS) != sweep_identity(spec(strategies=entries[:2]), ARTEFACTS)


def test_what_an_entry_repeats_is_not_written() -> None:
    plain = spec(strategies=["top_down"])
    repeated = spec(strategies=[{"name": "top_down", "label": "top_down", "generations": 12}])
    assert repeated == plain
    assert sweep_identity(repeated, ARTEFACTS) == sweep_identity(plain, ARTEFACTS)


def test_joint_has_lengths_of_its_own_unless_some_are_stated() -> None:
    """So that what old sweep files state stays what they do."""

    def lengths(search: dict[str, Any], entry: Any = "joint") -> tuple[int, int]:
        (group,) = spec(strategies=[entry], search=search).groups()
        return group.params.generations, group.params.warm_generations

    assert lengths({}) == lengths({"population": 50}) == (20, 4)
    assert lengths({"generations": 40}) == (40, 100)
    assert lengths({"warm_generations": 0}) == (500, 0)
    assert lengths({}, {"name": "joint", "generations": 66}) == (66, 100)
    written = spec(strategies=["joint"], search={}).model_dump(mode="json")
    assert written["strategies"] == [{"name": "joint", "generations": 20, "warm_generations": 4}]
    assert make_spec(written, "test") == spec(strategies=["joint"], search={})
    old = {**written, "strategies": ["joint"]}  # as run.json of an older folder has it
    (group,) = make_spec(old, "test").groups()
    assert (group.params.generations, group.params.warm_generations) == (500, 100)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"strategies": ["joint", {"name": "joint", "generations": 3}]},
            "strategies: expected distinct labels, found 'joint' 2 times; give each entry a label",
        ),
        (
            {"strategies": ["joint", {"name": "joint", "label": "other"}]},
            "strategies: expected entries with different searches, found 'joint' and 'other' with the",
        ),
        (
            {
                "strategies": ["joint", {"name": "joint", "label": "long", **LONGER}],
                "budget": {"evaluations": 2000},
            },
            "strategies: expected entries with different searches, found 'joint' and 'long' with the "
            "same hyper-parameters except for their lengths, which the budget decides",
        ),
        (
            {"strategies": ["joint", {"name": "top_down", "label": "joint"}]},
            "strategies[1].label: expected a label that is not the name of another entry, found 'joint'",
        ),
        ({"budget": 5}, "budget: expected a mapping, found 5"),
        ({"name": ""}, "name: expected non-empty text, found ''"),
        ({"strategies": [{"label": "x"}]}, "strategies[0].name: expected the name of a strategy, found none"),
        (
            {"strategies": [{"name": "top_down", "temperature": 1.0}]},
            "strategies[0].temperature: expected ",
        ),
        (
            {"strategies": [{"name": "joint", "generations": -1}]},
            "strategies[0].generations: expected ",
        ),
        (
            {"strategies": [{"name": "joint", "label": " "}]},
            "strategies[0].label: expected text of ",
        ),
        (
            {"strategies": [{"name": "joint", "colour": "red"}]},
            "strategies[0].colour: expected a colour ",
        ),
        ({"strategies": []}, "strategies: expected a list of names (independent, "),
        ({"budget": {"evaluations": 20}}, "budget: expected at least 21 evaluations for top_down with 2"),
        ({"budget": {}}, "budget: expected one of evaluations and seconds, found none"),
        ({"budget": {"evaluations": 5, "seconds": 1.0}}, "budget: expected one of evaluations and seconds"),
        ({"budget": {"minutes": 1}}, "budget.minutes: expected one of the keys evaluations, seconds"),
        (
            {"search": {"patience": 0}},
            "search.patience: expected a number greater than or equal to 1, found 0",
        ),
        ({"targets": {"from": 15, "to": 60}}, "targets: expected {from, to, step}, positive numbers"),
        ({"targets": {"from": 1, "to": 2, "step": 1e-6}}, "targets: expected at most 1000 targets, found"),
        (
            {"target": [1]},
            "target: expected one of the keys name, spaces, strategies, cost, predictor,",
        ),
    ],
    ids=str,
)
def test_mistakes_are_one_line_that_names_the_field(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        spec(**changes)
    assert str(caught.value).startswith(f"test: {line}")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None  # no traceback of pydantic's


def test_one_sweep_compares_lengths_and_proves_itself(tmp_path: Path) -> None:
    entries = ["top_down", {"name": "joint", "label": "short"}, {"name": "joint", "generations": 30}]
    results = run(BASE, tmp_path / "out", strategies=entries, batch=3)
    rows = results.searches
    assert list(rows["label"].unique()) == ["joint", "short", "top_down"]
    assert rows.groupby("label")["evaluations"].sum().nunique() == 3
    assert verify(results, rerun=10).passed
    alone = run(BASE, tmp_path / "alone", strategies=[{"name": "joint", "generations": 30}])
    both = rows[rows["label"] == "joint"].reset_index(drop=True)
    for column in ("search_id", "genes", "accuracy", "evaluations"):  # the label is no part of a search
        assert both[column].map(str).tolist() == alone.searches[column].map(str).tolist()
    groups = {group.label: (group.done, group.total) for group in Reader(tmp_path / "out").read().groups}
    assert groups == {"top_down": (5, 5), "short": (5, 5), "joint": (5, 5)}
    accuracy = topdown_ray.summary(results).accuracy
    assert set(accuracy["strategy"]) == {"top_down", "short", "joint"}
    assert accuracy["setting"].nunique() == 1  # one picture, whatever the lengths


def test_a_wrong_label_is_found(tmp_path: Path) -> None:
    results = run(BASE, tmp_path / "out", strategies=["top_down", "prune"])
    results.searches.loc[results.searches.index[0], "label"] = "top_down"
    found = verify(results)
    assert not found.passed
    assert "label" in found.failed_columns


# --- target sets --------------------------------------------------------------------------------------------


def test_targets_as_a_range_and_as_a_flat_list() -> None:
    wanted = tuple(float(target) for target in range(400, 199, -20))
    assert spec(targets={"from": 200, "to": 400, "step": 20}).targets["mobilenet_v3"] == (wanted,)
    assert spec(targets=[{"from": 400, "to": 200, "step": 20}]).targets["mobilenet_v3"] == (wanted,)
    assert spec(targets=[300, 400]).targets["mobilenet_v3"] == ((400.0, 300.0),)
    assert spec(targets={"mobilenet_v3": [300, 400]}) == spec(targets=[[400, 300]])
    assert spec(targets={"from": 0.1, "to": 0.3, "step": 0.1}).targets["mobilenet_v3"] == ((0.3, 0.2, 0.1),)


def test_many_targets_are_named_and_not_spelled_out(tmp_path: Path) -> None:
    sets = [{"from": 200, "to": 420, "step": 20}, [*range(200, 400, 20), 419, 420]]
    results = run(BASE, tmp_path / "out", targets=sets, seeds=2)
    names = topdown_ray.summary(results).accuracy["targets"].unique()
    assert len(names) == 2  # two sets of twelve with the same ends stay two
    assert all(name.startswith("12 targets, 420 to 200") for name in names)
    shown = results.overview()
    assert len(shown) == 2
    assert set(shown[420.0].str.rpartition(" ")[2]) == {"(2)"}  # the two sets are not pooled


# --- budgets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [200, 1000, 20_000])
def test_every_strategy_spends_the_budget_and_no_more(budget: int) -> None:
    """At most one generation of each target is left over."""
    read = spec(strategies=list(STRATEGIES), budget={"evaluations": budget}, targets=[[400, 350, 300]])
    for group in read.groups():
        spent = STRATEGIES[group.strategy].evaluations(group.params, 3)
        assert budget - 3 * 20 < spent <= budget, group.strategy
        assert group.params.warm_generations == pytest.approx(group.params.generations / 3, abs=0.5)


def test_a_budget_of_seconds_is_measured_once_and_recorded(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {**BASE, "budget": {"seconds": 0.02}, "address": "none", "progress": False}
    arguments["strategies"] = ["top_down", "joint"]
    results = topdown_ray.sweep(out=tmp_path / "out", **arguments)
    recorded = results.manifest["spec"]["budget"]["calibrated"]
    assert set(recorded) == {"mobilenet_v3/top_down/2", "mobilenet_v3/joint/2"}
    spent = results.searches.groupby(["label", "seed"])["evaluations"].sum()
    for label in ("top_down", "joint"):
        most = recorded[f"mobilenet_v3/{label}/2"]
        assert spent[label].nunique() == 1
        assert most - 2 * 20 < spent[label].iloc[0] <= most
    assert verify(results).passed
    again = topdown_ray.sweep(out=tmp_path / "out", **arguments)  # not measured anew: the same sweep
    assert again.manifest["run_id"] == results.manifest["run_id"]
    assert_same(results, again)


# --- patience -----------------------------------------------------------------------------------------------

PATIENT: dict[str, Any] = {
    "seeds": 3,
    "spaces": ["mobilenet_v3", "resnet50d"],
    "strategies": [*sorted({*STRATEGIES} - {"joint"}), {"name": "joint", "archive": 8}],  # a short front
    "targets": {"mobilenet_v3": [[400, 250]], "resnet50d": [[3000, 2000]]},
    "search": {"population": 30, "generations": 40, "warm_generations": 20, "patience": 6},
}


def test_patience_ends_a_search_by_itself_whatever_the_batch(tmp_path: Path) -> None:
    together = run(BASE, tmp_path / "together", **PATIENT, batch=3)
    alone = run(BASE, tmp_path / "alone", **PATIENT, batch=1)
    assert_same(together, alone)
    assert verify(together, rerun=10).passed
    rows = together.searches
    assert rows.groupby("label")["generations"].nunique()[list(STRATEGIES)].drop("prune").min() > 1
    last = together.trace.groupby(["search_id", "target_index"])[["generation", "evaluations"]].last()
    ends = rows.set_index(["search_id", "target_index"])[["generations", "evaluations"]]
    assert (last.sort_index().to_numpy() == ends.sort_index().to_numpy()).all()


def test_a_patient_search_is_the_beginning_of_the_whole_one(tmp_path: Path) -> None:
    """Of a strategy whose targets do not build on each other."""
    changes = {**PATIENT, "strategies": ["independent"]}
    whole = {**changes, "search": {**PATIENT["search"], "patience": None}}
    patient, complete = run(BASE, tmp_path / "patient", **changes), run(BASE, tmp_path / "whole", **whole)
    keys = ["space", "seed", "target"]
    beside = patient.trace.merge(patient.searches[["search_id", "target_index", *keys]])
    others = complete.trace.merge(complete.searches[["search_id", "target_index", *keys]])
    others = others[[*keys, "generation", "best_accuracy"]]
    joined = beside.merge(others, on=[*keys, "generation"], how="left", suffixes=("", "_whole"))
    known = joined["best_accuracy_whole"].notna()  # a curve has a point at each improvement
    assert known.mean() > 0.5
    pd.testing.assert_series_equal(
        joined["best_accuracy"][known], joined["best_accuracy_whole"][known], check_names=False
    )
    assert (patient.searches["generations"] <= complete.searches["generations"]).all()


# --- reports and checks of unusual sweeps -------------------------------------------------------------------


def test_a_joint_search_that_draws_no_child_for_some_targets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their archives start from the cheapest architecture; the report and verify take it."""
    lengths = {"population": 10, "generations": 2, "warm_generations": 0}
    targets = {"from": 200, "to": 500, "step": 10}
    found = run({**BASE, "strategies": ["joint"], "targets": targets, "search": lengths}, tmp_path / "out")
    assert (found.searches["evaluations"] == 0).any()
    assert verify(found).passed
    assert main_in_process(["report", tmp_path / "out"], capsys).returncode == 0


def test_a_report_of_sweeps_with_different_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = {"generations": 3, "warm_generations": 1}
    entries = [{"name": "joint", "label": "a", **lengths}, {"name": "joint", "label": "b", "archive": 3}]
    run({**BASE, "strategies": ["top_down", "prune"]}, tmp_path / "one")
    run({**BASE, "strategies": entries, "cost": "params", "targets": [[6, 5]]}, tmp_path / "other")
    # as docs/guides/report.md shows it
    arguments = ["report", tmp_path / "one", tmp_path / "other", "--out", tmp_path / "report"]
    done = main_in_process(arguments, capsys)
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv(tmp_path / "report" / "tables" / "differences.csv")
    assert set(zip(frame["strategy"], frame["against"], strict=True)) == {("prune", "top_down"), ("b", "a")}
