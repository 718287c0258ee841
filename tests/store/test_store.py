"""Result folders: failure records, damaged parts, full disks, locks, killed drivers, sessions."""

import contextlib
import errno
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from support.commands import main_in_process
from support.folders import command_of, cut, made_up, merged_at, opened, plan_of, ran, sweep_file
from support.sweeping import Faulty, assert_same, in_process

import topdown_ray
from topdown_ray.errors import UserError
from topdown_ray.store import part_files, parts
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.layout import TABLES
from topdown_ray.store.place import Place
from topdown_ray.store.results import load
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.spec import make_spec


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> topdown_ray.Results:
    return ran(tmp_path_factory.mktemp("store") / "out")


def test_a_failed_shard_leaves_a_record_whose_command_reruns_exactly_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = plan_of(), tmp_path / "out"
    executor = Faulty(in_process(plan).hosted)
    executor.times = 99
    summary = driver.run(plan, opened(plan, out), executor)
    (shard_id,) = summary.given_up
    (file,) = (out / "failures").iterdir()
    record = json.loads(file.read_text())
    assert file.name == f"{shard_id}.json"
    assert record["traceback"] == ["Traceback", "ValueError: boom"]
    done = set(load(out).searches["search_id"])
    assert len(done) == 20
    assert not done.intersection(record["search_ids"])
    # pending too, and not to be run by the command
    (out / "searches" / next((out / "searches").glob("*.parquet")).name).unlink()

    words = shlex.split(record["command"])
    assert words[0] == "topdown-ray"
    result = main_in_process([*words[1:], "--address", "none", "--json"], capsys)
    assert json.loads(result.stdout)["searches"] == json.loads(result.stdout)["done"] == 4
    rows = load(out).searches
    assert set(rows[rows["shard_id"] == shard_id]["search_id"]) == set(record["search_ids"])
    assert rows["search_id"].nunique() == 20
    assert not list((out / "failures").iterdir())
    assert load(out).manifest["status"] == "incomplete"


def test_a_record_goes_once_its_searches_have_rows(tmp_path: Path) -> None:
    plan = plan_of(strategies=["prune"], seeds=3)
    folder = opened(plan, tmp_path / "out")
    (shard,) = plan.shards()
    folder.record_failure(shard, "Traceback\nMemoryError: all of it")
    assert list((tmp_path / "out" / "failures").iterdir())
    summary = driver.run(plan, folder, in_process(plan))
    assert summary.progress.done == 3
    assert not list((tmp_path / "out" / "failures").iterdir())


@pytest.mark.parametrize("only", ["nonsense", "0123456789abcdef0123"])
def test_only_names_what_there_is(only: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"--only: expected a search of this sweep or a shard .* found '{only}'"
    ):
        plan_of().only([only], {})


def flip(data: bytes) -> bytes:
    """One bit, in the middle of the rows: the file still opens."""
    return data[:200] + bytes([data[200] ^ 4]) + data[201:]


@pytest.mark.parametrize("table", ["searches", "trace"])
@pytest.mark.parametrize("damage", [cut, flip, lambda data: b""], ids=["cut", "flip", "empty"])
def test_a_damaged_part_is_named_and_computed_afresh(
    table: str, damage: Any, undisturbed: topdown_ray.Results, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran(out)
    part = sorted((out / table).glob("*.parquet"))[2]
    part.write_bytes(damage(part.read_bytes()))
    with pytest.raises(
        UserError, match=rf"{table}/{part.name}: expected an undamaged part, found .* to compute"
    ):
        load(out)
    plan = plan_of()
    folder = opened(plan, out)
    assert len(folder.damaged) == 1
    assert folder.damaged[0].startswith(str(part))
    assert len(folder.finished()) == 20
    driver.run(plan, folder, in_process(plan))
    assert_same(undisturbed, load(out))


def test_parts_of_older_folders_have_no_checksum(undisturbed: topdown_ray.Results, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran(out)
    for part in out.glob("*/*.parquet"):
        part.rename(part.with_name(part.name.split(".")[0] + ".parquet"))
    assert_same(undisturbed, load(out))
    victim = sorted((out / "trace").glob("*.parquet"))[0]
    victim.write_bytes(cut(victim.read_bytes()))
    plan = plan_of()
    folder = opened(plan, out)
    assert folder.damaged[0].startswith(str(victim))
    driver.run(plan, folder, in_process(plan))
    assert_same(undisturbed, load(out))


@pytest.mark.skipif(
    not Path("/proc/self/mem").exists(), reason="needs /proc/self/mem, a file whose reading fails (EIO)"
)
def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """A disk that fails for a moment must not cost what was computed."""
    out = tmp_path / "out"
    ran(out)
    before = sorted(path.name for path in out.glob("*/*.parquet"))
    sorted((out / "searches").glob("*.parquet"))[0].unlink()
    (out / "searches" / before[0]).symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=f"expected parts that can be read, found {os.strerror(errno.EIO)}"):
        opened(plan_of(), out)
    assert sorted(path.name for path in out.glob("*/*.parquet")) == before
    with pytest.raises(UserError, match="expected parts that can be read"):
        opened(plan_of(), out)  # the lock was given back: the same complaint, not another


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 400 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small filesystem is not permitted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_line_and_loses_no_finished_shard(
    small_disk: Path, undisturbed: topdown_ray.Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = small_disk / "out"
    (small_disk / "ballast").write_bytes(bytes(340_000))
    arguments: list[object] = ["sweep", sweep_file(tmp_path), "--out", out, "--address", "none"]
    full = main_in_process(arguments, capsys)
    assert full.returncode == 1, full.stderr
    errors = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert os.strerror(errno.ENOSPC) in errors[0]
    assert "finished shards are kept" in errors[0]
    assert "Traceback" not in full.stderr
    assert not list(out.rglob("*.tmp"))
    kept = {part.name for part in (out / "searches").glob("*.parquet")}
    assert 0 < len(kept) < 6
    (small_disk / "ballast").unlink()
    assert main_in_process(arguments, capsys).returncode == 0
    assert kept < {part.name for part in (out / "searches").glob("*.parquet")}  # not computed again
    assert_same(undisturbed, load(out))


@pytest.mark.slow
def test_two_drivers_never_write_to_one_folder(undisturbed: topdown_ray.Results, tmp_path: Path) -> None:
    out, file = tmp_path / "out", sweep_file(tmp_path, search={"population": 100, "generations": 5000})
    first = subprocess.Popen(command_of(file, out), cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 100
        while not (out / "run.json").exists() and time.monotonic() < deadline:
            assert first.poll() is None
            time.sleep(0.05)
        plan = driver.make_plan(make_spec(yaml.safe_load(file.read_text()), "test"))
        with pytest.raises(UserError, match=f"no other sweep writes to, found process {first.pid} on "):
            ResultFolder(out).check(plan.manifest(), resume=True)
        with pytest.raises(UserError, match=f"no other sweep writes to, found process {first.pid} on "):
            opened(plan, out)
    finally:
        first.kill()
        first.wait()
    folder = opened(plan, out)  # the lock died with the process
    assert len(json.loads((out / "run.json").read_text())["sessions"]) == 2
    folder.end(False, {"wall_s": 0.0}, {})


def test_a_folder_that_a_driver_had_just_begun(undisturbed: topdown_ray.Results, tmp_path: Path) -> None:
    """Killed before it wrote run.json: its leavings are no other files."""
    out = tmp_path / "out"
    for folder in TABLES:
        (out / folder).mkdir(parents=True)
    (out / ".lock").touch()
    (out / ".run.json.1.tmp").write_bytes(b"{")
    assert_same(undisturbed, ran(out))
    assert not (out / ".run.json.1.tmp").exists()
    (tmp_path / "other" / "searches").mkdir(parents=True)
    (tmp_path / "other" / "searches" / "mine.parquet").touch()
    with pytest.raises(UserError, match="found other files"):
        ran(tmp_path / "other")


def test_every_session_is_on_record(tmp_path: Path) -> None:
    ran(tmp_path / "out")
    manifest = ran(tmp_path / "out").manifest
    first, second = manifest["sessions"]
    assert first["versions"] == second["versions"] == manifest["versions"]
    assert first["machine"] == manifest["machine"]
    assert first["ended_at"] >= first["started_at"]
    assert first["pid"] == os.getpid()
    assert manifest["wall_s"] == pytest.approx(first["wall_s"] + second["wall_s"])
    assert first["wall_s"] > second["wall_s"]


def test_parts_are_merged_as_they_grow(
    undisturbed: topdown_ray.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged_at(monkeypatch, 4)
    out = tmp_path / "out"
    copies: dict[Path, bytes] = {}
    deleted = Place.delete

    def keep(self: Place, relative: str) -> None:
        copies[self.local / relative] = (self.local / relative).read_bytes()
        deleted(self, relative)

    monkeypatch.setattr(Place, "delete", keep)
    assert_same(undisturbed, ran(out, batch=1))
    names = {path.name for path in (out / "searches").iterdir()}
    assert {path.name for path in (out / "trace").iterdir()} == names
    assert len(names) < 4
    assert len(copies) >= 2 * 20

    for path, content in copies.items():  # as if the driver had died before it deleted them
        path.write_bytes(content)
    assert_same(undisturbed, load(out))
    folder = opened(plan_of(), out)
    assert len(folder.finished()) == 24
    assert folder.damaged == []
    folder.end(True, {"wall_s": 0.0}, {})
    # what the merged parts hold has gone again
    assert {path.name for path in (out / "searches").iterdir()} == names
    assert not (out / "damaged").exists()
    assert_same(undisturbed, load(out))


def test_many_threads_write_while_parts_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged_at(monkeypatch, 8)
    place = Place(tmp_path)
    place.prepare(TABLES)
    written = parts.Parts(place)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: written.write(f"shard-{number}", *made_up(number)), range(200)))
    found = [
        part_files.read_part(place, "searches", name)["search_id"].to_pylist()
        for name in part_files.part_names(place, "searches")
    ]
    assert len(found) < 16
    assert sorted(x for part in found for x in part) == sorted(
        2 * [f"search-{number}" for number in range(200)]
    )
    resumed = parts.Parts(place).resume()
    assert resumed.finished == {f"search-{number}" for number in range(200)}
    assert not resumed.damaged


# A process that has imported everything and makes a driver of itself for every line that it reads: arguments
# of the command line
FORKS = """
import json, os, sys, torch
from topdown_ray.cli import main
from topdown_ray.cli.present import sweeps
from topdown_ray.sweeps import api, demo, status, driver
from topdown_ray.store import parts, folder
torch.set_num_threads(1)
parts.MERGE_AT = parts.MERGE_AGAIN_AT = 3
small = {"predictor": "embedded", "population": 8, "generations": 2}
api.search("mobilenet_v3", "macs", [300], "top_down", **small)  # all is loaded
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1), os.dup2(null, 2)
        sys.argv = ["topdown-ray", *json.loads(line)]
        try:
            main.main()
        except SystemExit as stopped:
            os._exit(stopped.code or 0)
        os._exit(9)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_a_driver_killed_at_20_random_moments_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL, start again, 20 times, while parts are written and merged: the undisturbed tables."""
    out, random_moment = tmp_path / "out", random.Random(5)
    arguments = command_of(sweep_file(tmp_path, batch=1), out)[3:]
    drivers = subprocess.Popen(
        [sys.executable, "-c", FORKS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert drivers.stdin
    assert drivers.stdout

    def start() -> int:
        drivers.stdin.write(json.dumps(arguments) + "\n")
        drivers.stdin.flush()
        return int(drivers.stdout.readline())

    try:
        assert drivers.stdout.readline() == "ready\n"
        started = time.monotonic()
        start()  # undisturbed: how long it takes, and what comes out
        assert int(drivers.stdout.readline()) == 0
        whole = time.monotonic() - started
        undisturbed = load(out)
        out.rename(tmp_path / "undisturbed")
        killed, rows = 0, [0]
        for _ in range(20):
            pid = start()
            time.sleep(random_moment.uniform(0, 0.3) * whole)
            # it has ended by itself: the sweep was complete before
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed += int(drivers.stdout.readline()) == -signal.SIGKILL
            if (out / "run.json").exists():
                rows.append(load(out).searches["search_id"].nunique())  # readable at every moment
        assert rows == sorted(rows)  # nothing that was there has gone
        assert killed >= 10
        start()
        assert int(drivers.stdout.readline()) == 0
    finally:
        drivers.stdin.close()
        drivers.stdout.close()
        drivers.kill()
        drivers.wait()
    results = load(out)
    assert results.manifest["status"] == "complete"
    assert len(list((out / "searches").iterdir())) < 6
    assert not list(out.rglob("*.tmp"))
    assert_same(undisturbed, results)
