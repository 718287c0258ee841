"""Result folders of drivers that ran their own seeds of one sweep, put together."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.buckets import uri
from support.commands import assert_one_line, main_in_process
from support.folders import SMALL, merged_at, opened, plan_of, ran, sweep_file
from support.sweeping import Stopping, assert_same

from topdown_ray import Results, load
from topdown_ray.errors import UserError
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.place import Place
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.executors import ShardHost
from topdown_ray.sweeps.merge import merge_folders
from topdown_ray.sweeps.spec import make_spec
from topdown_ray.sweeps.verify import verify

STRATEGIES = ["top_down", "joint"]  # joint keeps fronts
PARTS: list[dict[str, Any]] = [{"seeds": {"start": 0, "count": 7}}, {"seeds": {"start": 7, "count": 5}}]


@pytest.fixture(scope="module")
def undivided(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return ran(tmp_path_factory.mktemp("undivided") / "out", strategies=STRATEGIES)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folders = [str(tmp_path_factory.mktemp("halves") / "out") for _ in PARTS]
    for folder, part in zip(folders, PARTS, strict=True):
        ran(folder, strategies=STRATEGIES, **part, batch=2)
    return folders


def test_merged_folders_are_one_sweep(
    undivided: Results,
    halves: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    merged_at(monkeypatch, 3)
    out = tmp_path / "out"
    done = main_in_process(["merge", out, *reversed(halves), "--json"], capsys)
    assert json.loads(done.stdout) == {
        "out": str(out),
        "folders": 2,
        "run_id": undivided.manifest["run_id"],
        "done": 24,
        "total": 24,
    }
    found = load(out)
    assert_same(undivided, found)
    assert verify(found).passed
    assert found.manifest["status"] == "complete"
    assert len(found.manifest["sessions"]) == 3  # the two drivers and the merge
    each = [load(half).manifest["busy_s"] for half in halves]
    assert found.manifest["busy_s"] == pytest.approx(sum(each))
    again = main_in_process(["merge", out, *halves], capsys)
    assert again.stdout == f"Merged 24 of 24 searches from 2 folders. Results: {out}\n"
    assert_same(undivided, load(out))


def test_what_is_missing_is_run_in_the_merged_folder(
    undivided: Results, halves: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half, out = tmp_path / "half", tmp_path / "out"
    plan = plan_of(strategies=STRATEGIES, **PARTS[1], batch=2)
    stopping = Stopping(ShardHost(plan.run_id, plan.setups))
    with pytest.raises(KeyboardInterrupt):
        driver.run(plan, opened(plan, half), stopping)
    done = main_in_process(["merge", out, halves[0], half], capsys)
    assert (
        f"of 24 searches from 2 folders. Results: {out}\nTo run the missing searches: topdown-ray sweep"
        in done.stdout
    )
    assert load(out).manifest["status"] == "incomplete"
    copy = shutil.copytree(out, tmp_path / "copy")
    assert_same(undivided, ran(copy, strategies=STRATEGIES))
    # or the part is completed, and merged again
    ran(half, strategies=STRATEGIES, **PARTS[1])
    assert merge_folders(str(out), [halves[0], str(half)]).done == 24
    found = load(out)
    assert_same(undivided, found)
    assert found.manifest["status"] == "complete"
    assert len(pq.read_table(out / "searches")) == len(found.searches)  # no row twice
    each = [load(folder).manifest for folder in (halves[0], half)]
    assert found.manifest["busy_s"] == pytest.approx(sum(manifest["busy_s"] for manifest in each))
    sessions = sum(len(manifest["sessions"]) for manifest in each)
    assert len(found.manifest["sessions"]) == sessions + 2  # those that merged


def test_a_merge_that_is_interrupted_goes_on(
    undivided: Results, halves: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write, left = str(tmp_path / "out"), ResultFolder.write, [3]

    def interrupted(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ResultFolder, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge_folders(out, halves)
    assert 0 < load(out).searches["search_id"].nunique() < 24
    assert merge_folders(out, halves).done == 24
    assert_same(undivided, load(out))
    assert len(list((tmp_path / "out" / "searches").iterdir())) == len(
        load(out).searches["shard_id"].unique()
    )


def test_folders_in_a_bucket(undivided: Results, halves: list[str], server: str) -> None:
    out, half = uri(server, "merged"), uri(server, "half")
    ran(half, strategies=STRATEGIES, **PARTS[1])
    assert merge_folders(out, [halves[0], half]).done == 24
    assert_same(undivided, load(out))


def test_folders_that_cannot_be_merged(
    halves: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = tmp_path / "other", tmp_path / "out"
    ran(other, strategies=STRATEGIES, seeds=[12], search={"population": 12, "generations": 5})
    plan = plan_of(strategies=STRATEGIES, seeds=[6, 13])
    overlapping, running, damaged = (tmp_path / name for name in ("overlapping", "running", "damaged"))
    driver.run(plan, opened(plan, overlapping), driver.in_process(plan))
    plan = plan_of(strategies=STRATEGIES, seeds=[14])
    driver.run(plan, opened(plan, damaged), driver.in_process(plan))
    place = Place(damaged)
    name = next(iter(place.files("trace")))
    place.write(f"trace/{name}", b"")
    for folder, *said in (
        (
            other,
            f"{other}: expected the sweep of the first folder with other seeds",
            "the field search",
        ),
        (
            overlapping,
            f"{overlapping}: expected no searches that {halves[0]} also has, found 2: seeds [6]",
        ),
        (damaged, f"{damaged}/trace/{name}: expected an undamaged part"),
        (tmp_path, "expected a sweep's result folder"),
    ):
        assert_one_line(main_in_process(["merge", out, halves[0], folder], capsys), *said)
        assert not out.exists()
    with_a_driver = opened(plan_of(strategies=STRATEGIES, seeds=[15]), running)
    assert_one_line(
        main_in_process(["merge", out, halves[0], running], capsys),
        "expected a folder that no driver writes to",
    )
    with_a_driver.place.release()


@pytest.mark.parametrize("n", [1, 5, 12])
def test_the_parts_of_a_sweep_are_its_seeds(n: int) -> None:
    whole = make_spec({**SMALL, "seeds": {"start": 3, "count": 12}}, "test")
    parts = [whole.part(k + 1, n) for k in range(n)]
    assert [seed for part in parts for seed in part.seeds] == list(whole.seeds)
    sizes = {len(part.seeds) for part in parts}
    assert max(sizes) - min(sizes) <= 1
    assert all(part.model_copy(update={"seeds": whole.seeds}) == whole for part in parts)


def test_a_budget_in_seconds_has_no_parts() -> None:
    """Each part would calibrate it for itself; one that is calibrated already is the same for all."""
    whole = make_spec({**SMALL, "budget": {"seconds": 0.5}}, "test")
    with pytest.raises(UserError, match="--part: expected a budget in evaluations, found one in seconds"):
        whole.part(1, 2)
    calibrated = driver.make_plan(whole).spec
    assert calibrated.part(1, 2).budget == calibrated.budget


def test_a_missing_part_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sweep_file(tmp_path, strategies=["prune"])
    for number in (1, 3):
        command = [
            "sweep",
            file,
            "--out",
            tmp_path / str(number),
            "--part",
            f"{number}/4",
            "--address",
            "none",
        ]
        assert main_in_process(command, capsys).returncode == 0
    assert_one_line(
        main_in_process(["merge", tmp_path / "out", tmp_path / "1", tmp_path / "3"], capsys),
        "merge: expected the folders of all 4 parts of the seeds, found no folder for parts [2, 4]",
    )
    assert not (tmp_path / "out").exists()
