"""The events of a sweep, as an observer in Python is told of them."""

import dataclasses
import json
import re
from pathlib import Path

import pyarrow.compute as pc
import pytest
from conftest import ROOT
from support.folders import SMALL, opened, plan_of
from support.sweeping import Stopping, in_process

import topdown_ray
from topdown_ray.store.results import load
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.events import Ended, Improved, ShardDone, ShardEvent, Started, SweepEvent
from topdown_ray.sweeps.improvements import observed_by


def run_observed(out: Path, stops: bool = False, **changes: object) -> list[SweepEvent]:
    seen: list[SweepEvent] = []
    plan = plan_of(**changes)
    folder, executor = opened(plan, out), in_process(plan)
    observe = observed_by([seen.append], folder.place)
    if stops:
        with pytest.raises(KeyboardInterrupt):
            driver.run(plan, folder, Stopping(executor.hosted), observe=observe)
    else:
        driver.run(plan, folder, executor, observe=observe)
    return seen


def bests(events: list[SweepEvent]) -> dict[tuple[str, float], float]:
    """The last that was told of each label and target; what is told never falls."""
    best: dict[tuple[str, float], float] = {}
    for event in events:
        if isinstance(event, Improved):
            key = (event.label, event.target)
            assert event.accuracy > best.get(key, 0)
            best[key] = event.accuracy
    return best


def test_improvements_are_those_of_the_tables_also_when_a_sweep_goes_on(tmp_path: Path) -> None:
    """A continued sweep begins with the bests of its folder, and tells only of better ones."""
    out = tmp_path / "out"
    first = run_observed(out, stops=True)
    half = load(out).searches.groupby(["label", "target"])["accuracy"].max().to_dict()
    assert bests(first) == half
    assert {event.name for event in first} == {"start", "shard", "improved", "end"}
    assert first[-1].facts["status"] == "interrupted"

    second = run_observed(out)
    assert isinstance(second[0], Started)
    at_once = second[1 : 1 + len(half)]
    assert bests(at_once) == half
    assert [event.facts["done"] for event in at_once] == [second[0].done] * len(half)
    whole = load(out).searches
    assert bests(second) == whole.groupby(["label", "target"])["accuracy"].max().to_dict()
    assert [event.facts["status"] for event in second if isinstance(event, Ended)] == ["complete"]

    shards = [event for event in [*first, *second] if isinstance(event, ShardDone)]
    assert sum(event.rows.num_rows for event in shards) == len(whole)  # two targets of every search
    assert sum(pc.sum(event.rows["evaluations"]).as_py() for event in shards) == whole["evaluations"].sum()


def test_the_documented_observer_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the page names every event, with all its fields."""
    page = (ROOT / "docs" / "guides" / "trackers.md").read_text()
    (block,) = [code for code in re.findall(r"```python\n(.+?)```", page, re.DOTALL) if "on_event" in code]
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/guides/trackers.md", "exec"), {})
    assert capsys.readouterr().out.endswith("complete: 4 of 4 searches\n")
    for kind in (*SweepEvent.__subclasses__(), *ShardEvent.__subclasses__()):
        if kind is not ShardEvent:
            (row,) = re.findall(rf"^\| `{kind.__name__}` \(`{kind.name}`\).*", page, re.MULTILINE)
            named = {field.name for field in dataclasses.fields(kind)}
            of_shard = (
                {field.name for field in dataclasses.fields(ShardEvent)}
                if "those of a shard" in row
                else set()
            )
            assert {
                *re.findall(r"`([a-z_]+)`", row.rpartition("|")[0].rpartition("|")[2]),
                *of_shard,
            } == named


def test_a_target_with_other_limits_is_another_target(tmp_path: Path) -> None:
    targets = [[400, {"macs": 300, "params": 8.0}], [{"macs": 300, "params": 6.0}]]
    seen = run_observed(tmp_path / "out", targets=targets, strategies=["independent"], seeds=1, batch=1)
    found = {(event.target, event.limits) for event in seen if isinstance(event, Improved)}
    assert {(target, limits and json.loads(limits)["params"]) for target, limits in found} == {
        (400.0, None),
        (300.0, 8.0),
        (300.0, 6.0),
    }


def test_an_observer_of_ones_own_and_the_lines_of_json(tmp_path: Path) -> None:
    """What an observer is told is what the lines say; the rows of a shard are no part of a line."""
    seen: list[SweepEvent] = []
    options = {"address": "none", "progress": False, "on_event": seen.append, "seeds": 1, "batch": 1}
    results = topdown_ray.sweep(SMALL, tmp_path / "out", **options)
    assert [event.name for event in seen][:2] == ["connected", "start"]
    assert seen[-1].name == "end"
    for event in seen:
        assert "rows" not in event.facts
        assert json.loads(json.dumps(event.facts)) == event.facts
    best = max(event.accuracy for event in seen if isinstance(event, Improved) and event.target == 400)
    assert best == results.searches.query("target == 400")["accuracy"].max()
