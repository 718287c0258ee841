"""``topdown-ray status --serve``: the live page of a sweep, in a real browser and by plain requests."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import ROOT
from support import synthetic
from support.browsing import look_like
from support.commands import assert_one_line, main_in_process
from support.folders import command_of, cut, opened, plan_of, ran, sweep_file
from support.sweeping import Faulty, in_process

from topdown_ray.cli import live
from topdown_ray.cli.live import Follower, LiveServer
from topdown_ray.errors import UserError
from topdown_ray.report.live import MOST_SEEDS, draw_album
from topdown_ray.sweeps import driver

EVIL = "<script>alert(1)</script>"
LOOK = """
const text = id => document.getElementById(id).textContent;
return {
  title: document.title,
  name: text('name'),
  headline: text('headline'),
  gone: document.getElementById('gone').hidden ? '' : text('gone'),
  overall: [document.getElementById('overall').value, document.getElementById('overall').max],
  groups: [...document.querySelectorAll('#groups .bar')].map(bar => bar.innerText.trim()),
  labelled: [...document.querySelectorAll('progress')].every(bar => bar.labels.length === 1),
  failures: document.getElementById('failures').hidden ? '' : text('failure-list'),
  unreadable: document.getElementById('unreadable').hidden ? '' : text('unreadable-list'),
  note: text('pictures-note'),
  images: [...document.images].map(image => [image.naturalWidth, image.alt]),
  scripts: document.scripts.length,
  width: document.documentElement.scrollWidth,
};
"""


def wait_for(look: Callable[[], Any], seconds: float = 90.0) -> Any:
    """The first answer that is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def serve_command(out: Path) -> list[str]:
    return [sys.executable, "-m", "topdown_ray", "status", str(out), "--serve", "--every", "0.5"]


@contextmanager
def served(out: Path, every_s: float = 0.1) -> Iterator[LiveServer]:
    """The same server in this process."""
    with LiveServer(Follower(out, every_s)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(
    server: LiveServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    try:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete sweep."""
    out = tmp_path_factory.mktemp("finished") / "out"
    ran(out)
    return out


@pytest.fixture(scope="module")
def serving(finished: Path) -> Iterator[LiveServer]:
    with served(finished) as server:
        yield server


@pytest.mark.slow
def test_a_browser_follows_a_sweep_while_it_runs(tmp_path: Path, chromium: Any) -> None:
    """The sweep stands still while the server and the browser start, and while the pictures are drawn: on a
    busy machine it would be over before them."""
    file = sweep_file(tmp_path, batch=1, seeds=20, search={"population": 50, "generations": 100})
    out = tmp_path / "out"
    with started(command_of(file, out)) as sweep:
        wait_for((out / "run.json").exists)
        sweep.send_signal(signal.SIGSTOP)
        with started(serve_command(out)) as server:
            assert server.stdout is not None
            line = server.stdout.readline()
            url = line.split()[5]
            assert line == f"Showing the sweep small at {url} until you press Ctrl-C.\n"
            chromium.get(url)
            chromium.execute_script("window.loadedOnce = true")
            looks: list[dict[str, Any]] = []

            def look() -> dict[str, Any]:
                looks.append(chromium.execute_script(LOOK))
                return looks[-1]

            wait_for(lambda: look()["headline"].startswith("Running: "))
            sweep.send_signal(signal.SIGCONT)
            wait_for(lambda: look()["overall"][0] >= 5)
            sweep.send_signal(signal.SIGSTOP)
            wait_for(lambda: look()["images"] and all(size for size, _ in looks[-1]["images"]))
            during = looks[-1]
            sweep.send_signal(signal.SIGCONT)
            end = wait_for(lambda: look()["headline"].startswith("Complete") and looks[-1])
            wait_for(lambda: look()["note"] == "The pictures show 40 searches.")
            assert chromium.execute_script("return window.loadedOnce"), "the page was loaded anew"
            assert chromium.get_log("browser") == []
            log = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 130
            assert server.communicate() == ("", "")
            gone = wait_for(lambda: look()["gone"])
    assert during["headline"].startswith("Running: ")
    assert 5 <= during["overall"][0] < during["overall"][1] == 40
    counts = [look["overall"][0] for look in looks]
    assert len(set(counts)) > 3
    assert counts == sorted(counts)
    assert end["overall"] == [40, 40]
    assert end["title"] == "100 % of small"
    assert [text.split("\n") for text in end["groups"]] == [
        ["mobilenet_v3, top_down", "20 of 20 (100 %)"],
        ["mobilenet_v3, prune", "20 of 20 (100 %)"],
    ]
    assert end["labelled"]
    assert len(end["images"]) == 2
    assert all("accuracy against" in alt for _, alt in end["images"])
    assert gone.startswith("The server does not answer. This page shows the state at ")
    assert gone.endswith("The page tries again automatically.")
    sent = [m["params"]["request"]["url"] for m in log if m["method"] == "Network.requestWillBeSent"]
    assert {urlsplit(address).path for address in sent} >= {"/", "/status.json", "/anytime.svg"}
    assert [address for address in sent if not address.startswith((url, "data:"))] == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_failures_unreadable_files_and_names_are_shown_as_they_are(
    tmp_path: Path, chromium: Any, width: int, scheme: str
) -> None:
    look_like(chromium, width, scheme)
    out = tmp_path / "out"
    plan = plan_of(name=EVIL, strategies=["top_down", {"name": "prune", "label": EVIL}])
    executor = Faulty(in_process(plan).hosted)
    executor.times = 99
    (shard_id,) = driver.run(plan, opened(plan, out), executor).given_up
    record = out / "failures" / f"{shard_id}.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "error": f"ValueError: {EVIL}"}))
    part = sorted((out / "searches").glob("*.parquet"))[0]
    part.write_bytes(cut(part.read_bytes()))
    with served(out) as server:
        _, page = ask(server, "/")
        assert EVIL.encode() not in page
        chromium.get(server.url)
        seen = wait_for(lambda: (now := chromium.execute_script(LOOK))["failures"] and now)
        assert chromium.get_log("browser") == []
        chromium.get("about:blank")  # it asks no more
    assert seen["name"] == EVIL
    assert seen["scripts"] == 1
    assert seen["headline"].startswith(
        "Incomplete: the sweep has ended, but 8 searches are missing. To compute them, run"
    )
    assert any(f"mobilenet_v3, {EVIL}" in group for group in seen["groups"])
    assert f"Shard {shard_id}: ValueError: {EVIL}" in seen["failures"]
    assert f"--only {shard_id}" in seen["failures"]
    assert str(part) in seen["unreadable"]
    assert seen["width"] <= width


def test_the_server_gives_what_the_command_prints(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = json.loads(main_in_process(["status", finished, "--json"], capsys).stdout)
    with served(finished) as server:
        answer, body = ask(server, "/status.json")
        assert answer.headers["Cache-Control"] == "no-store"
        found = json.loads(body)
        for facts in (found, printed):
            facts.pop("last_write_s")
        assert found == printed
        facts = wait_for(lambda: (now := json.loads(ask(server, "/pictures.json")[1]))["captions"] and now)
        assert facts["message"] == "The pictures show 24 searches."
        answer, svg = ask(server, f"/anytime.svg?panel={len(facts['captions']) - 1}")
        assert answer.headers["Content-Type"] == "image/svg+xml; charset=utf-8"
        assert svg.startswith(b"<svg")
        assert json.loads(ask(server, "/pictures.json")[1]) == facts, "nothing new, nothing to draw"
        answer, body = ask(server, "/", "HEAD")
        assert (answer.status, body) == (200, b"")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        for path in ("/other", "/anytime.svg?panel=99", "/anytime.svg?panel=x"):
            assert ask(server, path)[0].status == 404, path
        assert ask(server, "/status.json", "POST")[0].status == 501


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9000", 200),  # the near end of ssh -L may be another port
        ("[::1]:9000", 200),
        ("127.0.0.1:9000", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:80", 403),
        ("localhost@evil.example", 403),
        ("", 403),
    ],
)
def test_only_loopback_hosts_are_answered(serving: LiveServer, host: str, status: int) -> None:
    for path in ("/", "/status.json", "/pictures.json", "/anytime.svg"):
        answer, body = ask(serving, path, host=host)
        assert answer.status == status or (status, path) == (200, "/anytime.svg")
        assert (b"small" in body) == (status == 200 and path in ("/", "/status.json"))


def test_a_slow_drawing_delays_no_answer(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(where: Path) -> Any:
        begun.set()
        assert go_on.wait(60)
        return draw_album(where)

    monkeypatch.setattr("topdown_ray.report.live.draw_album", slow)
    with served(finished) as server:
        for _ in range(3):
            facts = json.loads(ask(server, "/pictures.json")[1])
            assert facts == {"version": 0, "message": "The pictures are being drawn.", "captions": []}
            assert begun.wait(60)
            assert json.loads(ask(server, "/status.json")[1])["done"] == 24
        go_on.set()
        wait_for(lambda: json.loads(ask(server, "/pictures.json")[1])["captions"])


def test_a_drawing_that_fails_is_told_and_tried_again(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [UserError("the disk: expected a file, found none"), draw_album(finished)]

    def failing_once(where: Path) -> Any:
        if isinstance(answer := answers.pop(0), UserError):
            raise answer
        return answer

    monkeypatch.setattr("topdown_ray.report.live.draw_album", failing_once)
    monkeypatch.setattr(live, "RETRY_S", 1.0)
    follower = Follower(finished, 0.1)
    told = wait_for(lambda: "drawn." not in (now := follower.pictures()["message"]) and now)
    assert told == "The pictures cannot be drawn: the disk: expected a file, found none"
    wait_for(lambda: follower.pictures()["captions"])
    assert follower.pictures()["message"] == "The pictures show 24 searches."


def test_before_the_first_search_and_after_the_folder_has_gone(tmp_path: Path) -> None:
    folder = opened(plan_of(), tmp_path / "out")
    with served(tmp_path / "out") as server:
        facts = json.loads(ask(server, "/pictures.json")[1])
        assert facts["message"].startswith("The first searches are running.")
        folder.end(False, {"wall_s": 0.0}, {})
        wait_for(lambda: json.loads(ask(server, "/status.json")[1])["state"] == "incomplete")
        assert json.loads(ask(server, "/pictures.json")[1])["message"] == "No search has finished."
        manifest = tmp_path / "out" / "run.json"
        text = manifest.read_text()
        manifest.unlink()
        _, body = wait_for(lambda: (now := ask(server, "/status.json"))[0].status == 503 and now)
        assert "found no readable run.json" in json.loads(body)["error"]
        manifest.write_text(text)
        wait_for(lambda: ask(server, "/status.json")[0].status == 200)


def test_pictures_of_many_seeds_and_settings_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects = {"top_down": 0.0, "random": -0.01}
    frames = synthetic.frames(effects, [(35.0, 30.0)], seeds=MOST_SEEDS + 50)
    album = draw_album(synthetic.write(tmp_path / "many", *frames))
    assert album.note == "The pictures show 400 searches with the first 200 of the sweep's 250 seeds."
    assert len(album.pictures) == 2
    searches, trace = synthetic.frames({"top_down": 0.0}, [(30.0, 25.0, 20.0, 15.0)], seeds=30)
    searches["cost_name"] = [f"cost {seed % 5}" for seed in searches["seed"]]
    wide = synthetic.write(tmp_path / "wide", searches, trace)
    monkeypatch.setattr("topdown_ray.report.live.MOST_PANELS", 4)
    album = draw_album(wide)
    room = "This page shows at most 4 pictures; the report has all of them."
    assert album.note == f"The pictures show 30 searches. {room}"
    assert [picture.caption.partition(":")[0] for picture in album.pictures] == [
        f"mobilenet_v3 on cost {i // 2}" for i in range(4)
    ]


def test_mistakes_are_one_line(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def mistake(*arguments: object) -> subprocess.CompletedProcess[str]:
        return main_in_process(["status", *arguments], capsys)

    assert_one_line(mistake(tmp_path, "--serve"), "expected a sweep's result folder")
    both = "--serve: expected neither --watch nor --json, found"
    assert_one_line(mistake(finished, "--serve", "--watch"), f"{both} --watch")
    assert_one_line(mistake(finished, "--serve", "--json"), f"{both} --json")
    assert_one_line(mistake(finished, "--port", 8000), "--port: expected the option --serve, found none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_line(
            mistake(finished, "--serve", "--port", port), f"--port: expected a free port, found {port}"
        )
