"""Secrets of addresses: every command against a real S3-compatible server, and everything that it prints or
writes.
"""

import contextlib
import itertools
import json
import re
import signal
import threading
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.buckets import server, uri
from support.commands import main_in_process
from support.folders import opened, plan_of, sweep_file
from support.sweeping import Faulty, in_process

from topdown_ray import assets
from topdown_ray.addresses import checked, hidden, is_uri, shown, without_secrets
from topdown_ray.errors import UserError
from topdown_ray.store.place import Place
from topdown_ray.store.results import load
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.status import Reader

__all__ = ["server"]  # the fixture

KEY, SECRET = "AKIAHUSHHUSH", "wJalr/XUtn#FEMI bPxR@fiCYKEY"
PIECES = ("AKIAHUSH", "wJalr", "XUtn", "FEMI", "bPxR", "fiCYKEY")


def with_secret(server: str, path: str) -> str:
    return uri(server, path).replace("s3://", f"s3://{KEY}:{urllib.parse.quote(SECRET, safe='')}@")


def leaks(text: str) -> list[str]:
    return [piece for piece in PIECES if piece in text]


@pytest.mark.slow
def test_no_command_tells_a_secret(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, file = with_secret(server, "hush"), sweep_file(tmp_path, strategies=["top_down"], seeds=3)
    empty, lines = with_secret(server, "nothing"), tmp_path / "lines.jsonl"
    (tmp_path / "other").mkdir()
    other = sweep_file(tmp_path / "other", targets=[[390]])
    run: list[object] = ["sweep", file, "--out", out, "--address", "none"]
    front: list[object] = [
        "front",
        "--cost",
        "macs",
        "--predictor",
        "embedded",
        "--targets",
        "300",
        "--out",
        tmp_path / "x.csv",
    ]
    front += ["--seeds", 1, "--children", 40, "--population", 8]
    commands: list[tuple[int, list[object]]] = [
        (0, [*run, "--log-json", lines]),
        (0, [*run, "--json", "--log-json", lines]),
        (0, [*run, "--log-json", "-"]),
        (2, [*run, "--no-resume"]),
        (2, [*run, "--only", "nothing"]),
        (0, ["sweep", out, "--out", out, "--address", "none"]),
        (2, ["sweep", other, "--out", out, "--address", "none"]),
        (0, ["status", out]),
        (0, ["status", out, "--json"]),
        (0, ["status", out, "--watch"]),
        (0, ["verify", out]),
        (0, ["describe", out, "--seed", 1, "--target", 300]),
        (2, ["describe", out, "--seed", 99]),
        (2, ["report", out]),
        (0, ["report", out, "--out", tmp_path / "report"]),
        (2, ["report", empty, "--out", tmp_path / "none"]),
        (2, ["status", empty]),
        (2, ["verify", empty]),
        (2, ["describe", empty]),
        (2, ["evaluate", out, "--data", tmp_path]),
        (2, ["export", empty, "--target", 300, "--out", tmp_path / "new"]),
        (0, [*front, "--start", out]),
        (2, [*front, "--start", empty]),
    ]
    seen = []
    for status, arguments in commands:
        done = main_in_process(arguments, capsys)
        assert not leaks(done.stdout + done.stderr), (arguments[0], done.stdout, done.stderr)
        assert "internal error" not in done.stderr
        seen.append((arguments[0], done.returncode, status, done.stderr))
    assert [each for each in seen if each[1] != each[2]] == []
    place = Place(out)
    written = b"".join(place.read(name) for name in place.files(""))
    written += b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    written += b"".join(
        place.read(f"{table}/{name}") for table in ("searches", "trace") for name in place.files(table)
    )
    assert not leaks(written.decode(errors="replace"))
    assert load(out).searches["search_id"].nunique() == 3  # and the address works


def test_a_failed_shard_and_a_damaged_part_tell_no_secret(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = plan_of(), with_secret(server, "failing")
    executor = Faulty(in_process(plan).hosted)
    executor.times = 99
    events: list[Any] = []
    driver.run(plan, opened(plan, out), executor, observe=events.append)
    place = Place(out)
    (record,) = place.files("failures")
    name = sorted(place.files("trace"))[0]
    place.write(f"trace/{name}", b"broken")
    with pytest.raises(UserError) as told:
        load(out)
    folder = opened(plan, out)
    texts = [place.read(f"failures/{record}").decode(), str(events), str(told.value), str(folder.damaged)]
    texts += [main_in_process(["status", out, "--json"], capsys).stdout, str(Reader(out).read())]
    assert [leaks(text) for text in texts] == [[]] * len(texts)
    assert f"s3://results/failing?endpoint_override={server}" in json.loads(texts[0])["command"]
    assert place.exists(f"damaged/trace/{name}")
    assert not place.exists(f"trace/{name}")
    folder.end(False, {"wall_s": 0.0}, {})


def test_an_interrupted_sweep_tells_no_secret(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = with_secret(server, "interrupted")
    file = sweep_file(tmp_path, seeds=5000, batch=1, search={"population": 50, "generations": 100})

    def stop() -> None:
        place = Place(out)
        while not done.is_set() and not place.files("searches"):
            done.wait(0.05)
        if not done.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    done = threading.Event()
    watching = threading.Thread(target=stop)
    watching.start()
    try:
        result = main_in_process(["sweep", file, "--out", out, "--address", "none"], capsys)
    finally:
        done.set()
        watching.join()
    assert result.returncode == 130
    assert "Interrupted. Finished shards are in s3://results/interrupted?" in result.stderr
    assert not leaks(result.stdout + result.stderr)


REFUSED = [
    f"{scheme}{KEY}:{secret}@results/x"
    for scheme in ("s3://", "gs://", "abfs://", "ftp://", "hdfs://", "s3:/", "s3:", "file://")
    for secret in (
        SECRET,
        "wJalr/XUtn",
        "wJalr#XUtn",
        "wJalr XUtn",
        "wJalr@XUtn",
        "wJalr?XUtn",
        "wJalr\nXUtn",
    )
]
REFUSED += [f"s3://{KEY}:wJalr/results/x", f"s3://{KEY}:wJalr@/x", "s3://results/x#wJalr"]
REFUSED += [f"s3://results/x?secret_key=wJalr&access_key={KEY}", "s3://results/x?session_token=wJalr"]
REFUSED += ["s3://results/x?endpoint_override=u:wJalr@host&region=us-east-1"]


@pytest.mark.parametrize("command", ["status", "report", "verify", "sweep", "describe", "evaluate"])
def test_addresses_that_will_not_do_are_refused_without_their_secret(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more: dict[str, list[object]] = {
        "sweep": [sweep_file(tmp_path), "--address", "none", "--out"],
        "report": ["--out", tmp_path / "report"],
        "evaluate": ["--data", tmp_path],
    }
    for where in REFUSED if command == "status" else REFUSED[::6]:
        done = main_in_process([command, *more.get(command, []), where], capsys)
        assert done.returncode == 2, (where, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1
        assert not leaks(done.stdout + done.stderr), (where, done.stderr)
    assert not [path for path in tmp_path.rglob("*") if leaks(path.name)]


@pytest.mark.slow
def test_a_mirror_tells_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOPDOWN_RAY_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for mirror in (
        f"http://{KEY}:wJalr@127.0.0.1:1/x",
        f"https://{KEY}:wJalr/XUtn@[::1/",
        f"ftp://{KEY}:wJalr@host/x",
        f"http:{KEY}:wJalr@h",
    ):
        monkeypatch.setenv("TOPDOWN_RAY_MIRROR", mirror)
        for offline in ("0", "1"):
            monkeypatch.setenv("TOPDOWN_RAY_OFFLINE", offline)
            for arguments in (
                ["assets", "list"],
                ["assets", "where"],
                ["assets", "fetch", "acc_predictor.pth"],
                ["search"],
            ):
                done = main_in_process([*arguments], capsys)
                assert not leaks(done.stdout + done.stderr), (mirror, arguments, done.stderr)
    assert shown(assets.UPSTREAM) == assets.UPSTREAM


_TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), max_size=30)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    key=_TEXT,
    secret=st.text("abcXYZ0189/+#?@: %=&", min_size=6, max_size=30),
    scheme=st.sampled_from(["s3", "gs", "x-y"]),
)
def test_whatever_the_secret_it_is_not_shown(key: str, secret: str, scheme: str) -> None:
    key = re.sub(r"[/?#]", "", key)
    where = f"{scheme}://{key}:{secret}@bucket/x"
    assert shown(where) == f"{scheme}://bucket/x"
    assert is_uri(shown(where))
    # urlsplit's, of brackets: such a URI is refused before any library gets it
    with contextlib.suppress(ValueError):
        message = without_secrets(f"Cannot parse URI: '{where}'", where)
        assert message == f"Cannot parse URI: '{scheme}://bucket/x'"
    problem = ""
    try:
        assert checked(where).hostname == "bucket"
    except UserError as error:
        problem = str(error)
    assert "\n" not in problem
    assert secret not in problem


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("s3://bucket/a@b/c?region=eu&scheme=http", "s3://bucket/a@b/c?region=eu&scheme=http"),
        ("s3://k:s@bucket/x?region=eu&token=t", "s3://bucket/x?region=eu"),
        ("hdfs://namenode:8020/x", "hdfs://namenode:8020/x"),
        ("s3://key:secret/x", "s3://.../x"),
        ("results/a:b@c", "results/a:b@c"),
        ("./x\x1b[31my", "./x\N{REPLACEMENT CHARACTER}[31my"),
        ("file:///a b", "file:///a b"),
    ],
)
def test_what_holds_no_secret_is_shown_as_it_is(where: str, name: str) -> None:
    assert shown(where) == name


def test_the_last_safeguard() -> None:
    for scheme, end in itertools.product(("s3://", "https://", "s3:/", "gs://"), ("", "/x y", ": and more")):
        assert hidden(f"found {scheme}{KEY}:wJalr/XU@bucket{end}") == f"found {scheme}bucket{end}"
    assert hidden("s3://bucket/a@b: expected x@y") == "s3://bucket/a@b: expected x@y"
