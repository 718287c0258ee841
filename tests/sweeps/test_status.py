"""A sweep as it is seen from outside: from its files, and line by line as JSON."""

import datetime
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from support.commands import assert_one_line, main_in_process
from support.folders import command_of, cut, opened, plan_of, ran, sweep_file
from support.sweeping import Faulty, Stopping, in_process

from topdown_ray.cli.present.sweeps import print_dashboard
from topdown_ray.errors import UserError
from topdown_ray.store import parts
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.results import load
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.api import announce
from topdown_ray.sweeps.events import Connected, json_lines
from topdown_ray.sweeps.status import Reader, Status
from topdown_ray.tasks import InProcess

SHARD = ("shard_id", "space", "strategy", "label", "searches")
#: What programs that read --log-json rely on.
KEYS = {
    "start": ("out", "run_id", "searches", "done", "damaged"),
    "shard": (*SHARD, "worker", "device", "seconds", "done", "total", "rate"),
    "retry": (*SHARD, "worker", "error"),
    "lost": (*SHARD, "worker", "error"),
    "failure": (*SHARD, "error", "command"),
    "end": ("status", "done", "total", "failed", "lost", "wall_s", "error"),
}


def watch(reader: Reader) -> Iterator[Status]:
    """Looks until the sweep runs no more."""
    while True:
        yield (look := reader.read())
        if look.state != "running":
            return
        time.sleep(0.1)


def status_of(out: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """As another terminal sees it."""
    return json.loads(main_in_process(["status", out, "--json"], capsys).stdout)


@pytest.mark.slow
def test_a_sweep_while_it_runs_and_after_it_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "out", sweep_file(tmp_path, batch=1, search={"population": 50, "generations": 200})
    looks: list[Status] = []
    process = subprocess.Popen(
        command_of(file, out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 100
        while len(list((out / "searches").glob("*.parquet"))) < 3 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        status = status_of(out, capsys)
        watched = threading.Thread(target=lambda: looks.extend(watch(Reader(out))))
        watched.start()
        time.sleep(1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    watched.join(60)
    assert [look.state for look in looks[:-1]] == ["running"] * (len(looks) - 1)
    assert looks[-1].state == "killed"  # what there is to wait for has ended
    assert status["state"] == "running"
    assert 3 <= status["done"] < status["total"] == 24
    assert status["session"]["pid"] == process.pid
    assert status["session"]["ended_at"] is None
    assert status["rate"] > 0
    # what is left is in proportion to what is done: 24 searches of one length
    elapsed = status["done"] / status["rate"]
    assert status["left_s"] == pytest.approx((24 - status["done"]) / status["rate"], rel=0.35)
    assert 0 < elapsed < 110
    assert 0 <= status["last_write_s"] < 60
    assert datetime.datetime.fromisoformat(status["last_write"]).tzinfo is not None
    assert [group["strategy"] for group in status["groups"]] == ["top_down", "prune"]
    assert sum(group["done"] for group in status["groups"]) == status["done"]

    after = status_of(out, capsys)
    assert after["state"] == "killed"
    assert after["left_s"] is None
    assert after["done"] == load(out).searches["search_id"].nunique()
    text = main_in_process(["status", out], capsys).stdout
    assert "killed" in text
    assert "To compute the missing searches, run the same sweep command again." in text


def test_a_sweep_that_ended_early_then_a_complete_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = plan_of(), tmp_path / "out"
    folder = opened(plan, out)
    assert Reader(out).read().done == 0
    with pytest.raises(KeyboardInterrupt):
        driver.run(plan, folder, Stopping(in_process(plan).hosted))
    reader = Reader(out)
    half = reader.read()
    assert (half.state, half.done, half.total) == ("incomplete", 12, 24)
    ran(out)
    whole = reader.read()  # the same reader: what it has read before stays, what is new is added
    assert (whole.state, whole.done, whole.sessions) == ("complete", 24, 2)
    assert [(part.done, part.total) for part in whole.groups] == [(12, 12), (12, 12)]
    watched = main_in_process(["status", out, "--watch", "--json"], capsys).stdout.splitlines()
    assert len(watched) == 1  # nothing to wait for
    assert Status(**json.loads(watched[0])).state == "complete"
    text = main_in_process(["status", out, "--watch"], capsys).stdout
    assert "complete" in text
    space, label = plan.spec.spaces[0], plan.spec.strategies[0].label
    assert re.search(rf"^{space} +{label} +12 +12 +100\.0$", text, re.MULTILINE)


def test_status_tells_of_failures_and_unreadable_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = plan_of(), tmp_path / "out"
    executor = Faulty(in_process(plan).hosted)
    executor.times = 99
    (shard_id,) = driver.run(plan, opened(plan, out), executor).given_up
    part = sorted((out / "searches").glob("*.parquet"))[0]
    part.write_bytes(cut(part.read_bytes()))
    status = Reader(out).read()
    assert (status.state, status.done, status.failed) == ("incomplete", 16, 4)
    assert [(failure["shard_id"], failure["error"]) for failure in status.failures] == [
        (shard_id, "ValueError: boom")
    ]
    assert status.unreadable[0].startswith(str(part))
    text = main_in_process(["status", out], capsys).stdout
    assert f"--only {shard_id}" in text
    assert f"unreadable: {part}" in text


def test_status_while_parts_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    ran(out, batch=1)
    reader = Reader(out)
    assert reader.read().done == 24
    monkeypatch.setattr(parts, "MERGE_AT", 2)
    folder = opened(plan_of(), out)
    assert len(list((out / "searches").iterdir())) == 1
    assert reader.read().done == 24
    folder.end(True, {"wall_s": 0.0}, {})


def test_status_of_what_is_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = main_in_process(["status", tmp_path / "nowhere"], capsys)
    assert_one_line(result, "expected a sweep's result folder, found no readable run.json")


def test_every_event_is_a_line(tmp_path: Path) -> None:
    plan, out, file = plan_of(), tmp_path / "out", tmp_path / "lines.jsonl"
    executor = Faulty(in_process(plan).hosted)
    executor.times = 99
    for _ in range(2):  # the second time everything goes well; lines are added
        with json_lines(str(file)) as observe:
            driver.run(plan, opened(plan, out), executor, observe=observe)
        executor = InProcess(in_process(plan).hosted)  # type: ignore[assignment]
    events = [json.loads(line) for line in file.read_text().splitlines()]
    for event in events:
        assert set(event) == {"time", "event", *KEYS[event["event"]]}
        assert datetime.datetime.fromisoformat(event["time"]).utcoffset() == datetime.timedelta()
    names = [event["event"] for event in events]
    first, second = names[: names.index("end") + 1], names[names.index("end") + 1 :]
    assert first[0] == second[0] == "start"
    assert second == ["start", "shard", "end"]
    assert (first.count("shard"), first.count("retry"), first.count("lost"), first.count("failure")) == (
        5,
        2,
        1,
        1,
    )
    failure = next(event for event in events if event["event"] == "failure")
    assert failure["error"] == "ValueError: boom"
    assert failure["command"].endswith(f"--only {failure['shard_id']}")
    ends = [event for event in events if event["event"] == "end"]
    assert [(end["status"], end["done"], end["failed"]) for end in ends] == [
        ("incomplete", 20, 4),
        ("complete", 24, 0),
    ]
    shards = [event for event in events if event["event"] == "shard"]
    assert [event["done"] for event in shards] == [4, 8, 12, 16, 20, 24]
    assert all(event["seconds"] > 0 for event in shards)


def test_lines_on_stderr_are_all_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "sweep",
        sweep_file(tmp_path, seeds=2),
        "--out",
        tmp_path / "out",
        "--address",
        "none",
        "--log-json",
        "-",
    ]
    result = main_in_process(arguments, capsys)
    assert [json.loads(line)["event"] for line in result.stderr.splitlines()][-1] == "end"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8265", None])
def test_the_dashboards_link_is_printed(url: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    announce("auto", url, seen.append, print_dashboard)
    assert seen == [Connected("auto", url)]
    assert capsys.readouterr().err == (f"Ray dashboard: {url}\n" if url else "")


def test_an_interrupted_sweep_says_so(tmp_path: Path) -> None:
    plan, seen = plan_of(), []
    folder, stopping = opened(plan, tmp_path / "out"), Stopping(in_process(plan).hosted)
    with pytest.raises(KeyboardInterrupt):
        driver.run(plan, folder, stopping, observe=seen.append)
    assert seen[-1].name == "end"
    assert seen[-1].status == "interrupted"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_cannot_be_written_does_not_end_the_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(seeds=2)
    with json_lines("/dev/full") as observe:
        summary = driver.run(plan, opened(plan, tmp_path / "out"), in_process(plan), observe=observe)
    assert summary.progress.done == 4
    told = f"/dev/full can no longer be written ({os.strerror(28)}); the sweep continues without it"
    assert capsys.readouterr().err == f"--log-json: {told}\n"


def test_a_log_that_cannot_be_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(UserError, match="--log-json: expected a file to write to or -"),
        json_lines(str(tmp_path)),
    ):
        pass
    arguments = [
        "sweep",
        sweep_file(tmp_path),
        "--out",
        tmp_path / "out",
        "--address",
        "none",
        "--log-json",
        tmp_path,
    ]
    assert_one_line(main_in_process(arguments, capsys), "--log-json: expected a file to write to or -")
    assert not ResultFolder(tmp_path / "out").place.exists("run.json")
