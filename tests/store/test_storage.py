"""Results on a real S3-compatible server, which runs as its own process on loopback; and on local folders by
URI.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from support.buckets import uri
from support.commands import assert_one_line, main_in_process
from support.folders import opened, plan_of, ran, sweep_file
from support.sweeping import assert_same, in_process

import topdown_ray
from topdown_ray.errors import StoreError, UserError
from topdown_ray.store import parts
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.object_lock import ObjectLock
from topdown_ray.store.place import Place
from topdown_ray.store.results import load
from topdown_ray.sweeps import driver, status
from topdown_ray.sweeps.status import Reader


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> topdown_ray.Results:
    return ran(tmp_path_factory.mktemp("storage") / "out")


def test_a_sweep_on_s3_is_the_sweep_on_a_disk(
    server: str, undisturbed: topdown_ray.Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = uri(server, "one/paper")
    assert_same(undisturbed, ran(out, batch=3))
    monkeypatch.setattr(parts, "MERGE_AT", 4)  # on resuming, all parts become a few
    assert_same(undisturbed, ran(out))
    assert len(Place(out).files("searches")) < 4
    assert load(out).manifest["status"] == "complete"
    assert len(load(out).manifest["sessions"]) == 2


def test_a_damaged_object_is_named_and_computed_afresh(server: str, undisturbed: topdown_ray.Results) -> None:
    out = uri(server, "damaged")
    ran(out)
    place = Place(out)
    name = sorted(place.files("trace"))[1]
    place.write(f"trace/{name}", place.read(f"trace/{name}")[:500])
    with pytest.raises(
        UserError, match=rf"s3://results/damaged/trace/{name}\?.*: expected an undamaged part"
    ):
        load(out)
    assert_same(undisturbed, ran(out))


def test_two_drivers_on_one_prefix_are_harmless(
    server: str, undisturbed: topdown_ray.Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a store has no locks: both compute the same rows, and rows count once."""
    monkeypatch.setattr(ObjectLock, "hold", lambda lock: True)
    monkeypatch.setattr(ObjectLock, "held", lambda lock: None)
    plan, out = plan_of(), uri(server, "both")
    one = opened(plan, out)
    other_plan = plan_of(batch=5)
    other = opened(other_plan, out)
    driver.run(plan, one, in_process(plan))
    driver.run(other_plan, other, in_process(other_plan))
    assert len(Place(out).files("searches")) == 6 + 6  # each has written all
    sessions = load(out).manifest["sessions"]
    assert len(sessions) == 2
    assert all(session["ended_at"] for session in sessions)
    assert_same(undisturbed, load(out))
    assert_same(undisturbed, ran(out))


def test_commands_take_uris(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, file = uri(server, "commands"), sweep_file(tmp_path, strategies=["top_down"], seeds=5)
    lines = tmp_path / "lines.jsonl"
    done = main_in_process(
        ["sweep", file, "--out", out, "--address", "none", "--json", "--log-json", lines], capsys
    )
    assert json.loads(done.stdout)["done"] == 5
    events = [json.loads(line) for line in lines.read_text().splitlines()]
    names = [event["event"] for event in events]
    assert [name for name in names if name != "improved"] == ["connected", "start", "shard", "shard", "end"]
    assert events[1]["out"] == out
    status = json.loads(main_in_process(["status", out, "--json"], capsys).stdout)
    assert (status["state"], status["done"], status["total"]) == ("complete", 5, 5)
    assert json.loads(main_in_process(["verify", out, "--json"], capsys).stdout)["passed"] is True
    assert (
        json.loads(main_in_process(["describe", out, "--seed", 3, "--target", 300, "--json"], capsys).stdout)[
            "seed"
        ]
        == 3
    )
    assert_one_line(main_in_process(["report", out], capsys), "--out: expected a local folder for the report")
    assert main_in_process(["report", out, "--out", tmp_path / "report"], capsys).returncode == 0
    assert (tmp_path / "report" / "report.html").exists()
    # the sweep that lies there
    again = main_in_process(["sweep", out, "--out", out, "--address", "none", "--json"], capsys)
    assert json.loads(again.stdout)["done"] == 5
    Place(out).delete("run.json")
    assert_one_line(
        main_in_process(["status", out], capsys),
        "found no readable run.json",
        "the folder contains parts of a sweep",
    )
    # written anew
    again = main_in_process(["sweep", file, "--out", out, "--address", "none", "--json"], capsys)
    assert json.loads(again.stdout)["done"] == 5
    assert load(out).manifest["status"] == "complete"


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ("ftp://host/x", "expected a folder, or a URI that pyarrow can open"),
        (
            "s3://results/x?colour=red",
            "Unexpected query parameter in S3 URI: 'colour'",
        ),  # whose value may be a secret
        ("s3://", "expected a bucket or folder after the scheme"),
        (
            "s3://nowhere/x?endpoint_override={server}&scheme=http&region=us-east-1",
            "expected an existing bucket, found no nowhere",
        ),
        (
            "s3://results/x?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1",
            "expected a store that answers, found",
        ),
    ],
)
def test_uris_that_will_not_do(
    where: str, part: str, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = where.replace("{server}", server)
    result = main_in_process(["sweep", sweep_file(tmp_path), "--out", where, "--address", "none"], capsys)
    assert_one_line(result, part, where.removesuffix("?colour=red"))
    assert "colour=" not in result.stderr


def test_other_objects_under_a_prefix_are_left_alone(server: str) -> None:
    place = Place(uri(server, "taken"))
    place.write("thesis.tex", b"precious")
    with pytest.raises(UserError, match="expected an empty folder or a sweep's results, found other files"):
        opened(plan_of(), uri(server, "taken"))
    assert list(place.files("")) == ["thesis.tex"]


def test_secrets_in_a_uri_are_never_shown(server: str) -> None:
    place = Place(f"s3://AKIA:secret@results/hidden?endpoint_override={server}&scheme=http&region=us-east-1")
    assert "secret" not in place.name + place.of("run.json")
    place.write("run.json", b"{}")
    assert place.read("run.json") == b"{}"


def test_an_object_store_that_refuses_is_one_clear_error(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr(Place._put.retry, "wait", lambda state: tried.append(state.attempt_number) or 0)  # type: ignore[attr-defined]
    place = Place(uri(server, "x").replace("results", "nowhere"))
    with pytest.raises(
        StoreError,
        match=r"nowhere/x/run.json\?.*: expected free space and permission to write, found: .*NO_SUCH_BUCKET",
    ):
        place.write("run.json", b"{}")
    assert tried == [1, 2, 3, 4]


def test_file_uris_are_local_folders(undisturbed: topdown_ray.Results, tmp_path: Path) -> None:
    out = tmp_path / "a folder"
    assert_same(undisturbed, ran(out.as_uri()))
    assert_same(undisturbed, load(out))
    assert ResultFolder(out.as_uri()).place.held() is False


@pytest.mark.slow
@pytest.mark.ray
def test_a_driver_on_ray_and_s3_killed_twice_loses_nothing(
    published: Path, server: str, tmp_path: Path
) -> None:
    changes = {"strategies": ["top_down"], "seeds": 24, "search": {"population": 50, "generations": 60}}
    file, out = sweep_file(tmp_path, **changes, batch=1), uri(server, "ray")
    command = [sys.executable, "-m", "topdown_ray", "sweep", str(file), "--out", out, "--actors", "2"]
    place, finished = Place(out), 0
    for seed in range(2):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while len(place.files("searches")) < finished + 2 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep([0.13, 0.31][seed])
        process.send_signal(signal.SIGKILL)
        process.wait()
        finished = len(place.files("searches"))
    assert 4 <= finished < 24
    ran(out, **changes)  # goes on without Ray
    assert_same(ran(tmp_path / "out", **changes), load(out))


def test_a_filesystem_that_is_neither_a_disk_nor_an_object_store() -> None:
    """Files are renamed into place there, as on hdfs; pyarrow's own filesystem in memory."""
    folder = ResultFolder("mock:///somewhere/out")
    place = folder.place
    assert place.local is None
    assert not place.objects
    place.prepare(("searches", "trace"))
    assert place.empty(("searches", "trace"))
    for content in (b"one", b"two"):
        place.write("run.json", content)
        assert place.read("run.json") == content
        assert list(place.files("")) == ["run.json"]  # nothing temporary is left
    assert not place.empty(("searches", "trace"))
    place.delete("run.json")
    place.delete("run.json")  # gone already
    assert not place.exists("run.json")


def test_where_there_is_no_lock_silence_is_told_from_work(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ObjectLock, "held", lambda lock: None)
    out = uri(server, "silent")
    ran(out)
    place = Place(out)
    place.write("run.json", json.dumps({**json.loads(place.read("run.json")), "status": "running"}).encode())
    assert Reader(out).read().state == "running"  # it wrote a moment ago
    monkeypatch.setattr(status, "SILENT_S", 0.0)
    assert Reader(out).read().state == "silent"


def test_evaluate_tells_a_uri_without_its_secret(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"s3://key:secret@results/none?scheme=http&endpoint_override={server}"
    result = main_in_process(["evaluate", out, "--data", tmp_path], capsys)
    assert_one_line(
        result, "s3://results/none", "expected a sweep's result folder, found no readable run.json"
    )
    assert "secret" not in result.stderr
