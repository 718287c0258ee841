"""Fetching, from real servers on loopback that cut, stall, lie and refuse; the list, the check and the
folders.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.commands import assert_one_line, main_in_process, topdown_ray

from topdown_ray import assets, download
from topdown_ray.download import Patience
from topdown_ray.errors import UserError
from topdown_ray.spaces.catalogue import entries
from topdown_ray.spaces.cost import COUNTED, PEAK
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.sweeps.demo import demo_spec

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()
KEPT = len(BODY) // 3 // download.CHUNK * download.CHUNK  # of an answer that is broken off after a third
QUICK = Patience(attempts=3, first_wait_s=0.01, longest_wait_s=0.02, connect_s=2, silence_s=0.4)


@dataclass
class Script:
    """What the server does with each request in turn; the last entry holds for all later ones."""

    acts: list[str] = field(default_factory=lambda: ["serve"])
    files: dict[str, bytes] = field(default_factory=lambda: {"/file": BODY})
    ranges: list[str | None] = field(default_factory=list)  # the Range header of every request
    # one an answer, the last for all later ones; none: none is sent
    etags: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)


class Handler(http.server.BaseHTTPRequestHandler):
    script: Script

    def do_GET(self) -> None:
        script = self.script
        script.ranges.append(self.headers.get("Range"))
        script.paths.append(self.path)
        act = script.acts.pop(0) if len(script.acts) > 1 else script.acts[0]
        body = script.files.get(self.path.removeprefix("http://upstream.invalid"), b"")
        if act.isdigit() or not body:
            self.send_error(int(act) if act.isdigit() else 404)
            return
        if act == "silence":
            script.stop.wait(20)
            return
        first, status = 0, 200
        etag = (script.etags.pop(0) if len(script.etags) > 1 else script.etags[0]) if script.etags else None
        same = self.headers.get("If-Range") in (None, etag)
        if script.ranges[-1] and same and act not in ("no ranges", "cut without ranges"):
            first, status = int(script.ranges[-1].removeprefix("bytes=").removesuffix("-")), 206
            if first >= len(body):
                self.send_error(416)
                return
        rest = body[first:]
        if act == "wrong bytes":
            rest = bytes(len(rest))
        self.send_response(status)
        if etag is not None:
            self.send_header("ETag", etag)
        if status == 206:
            shown = first + 7 if act == "wrong range" else first
            self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        if act != "no length":
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if act.startswith("cut"):
            self.wfile.write(rest[: len(body) // 3])
            self.connection.shutdown(socket.SHUT_RDWR)
        elif act == "stall":
            self.wfile.write(rest[: len(body) // 3])
            self.wfile.flush()
            script.stop.wait(20)
        else:
            self.wfile.write(rest)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Script]]:
    """(address, script) of a server with real sockets; proxies of the environment do not stand between."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    script = Script()
    handler = type("Scripted", (Handler,), {"script": script})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        serving.daemon_threads = True
        thread = threading.Thread(target=serving.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}", script
        script.stop.set()
        serving.shutdown()
        thread.join()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def get(address: str, folder: Path, sha256: str | None = SHA256, **options: object) -> str:
    return download.download(f"{address}/file", folder / "file", sha256, QUICK, **options)  # type: ignore[arg-type]


def test_a_whole_file_with_its_progress(server: tuple[str, Script], tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    assert get(server[0], tmp_path, show=lambda done, total: seen.append((done, total))) == SHA256
    assert (tmp_path / "file").read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)
    assert left(tmp_path) == {"file"}


def test_cut_connections_are_resumed_where_they_broke(server: tuple[str, Script], tmp_path: Path) -> None:
    address, script = server
    script.acts = ["cut", "cut", "serve"]
    assert get(address, tmp_path) == SHA256
    third = KEPT
    assert script.ranges == [None, f"bytes={third}-", f"bytes={2 * third}-"]
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_later_process_resumes_too(server: tuple[str, Script], tmp_path: Path) -> None:
    address, script = server
    (tmp_path / ".file.part").write_bytes(BODY[:1000])
    get(address, tmp_path)
    assert script.ranges == ["bytes=1000-"]


def test_a_server_that_refuses_ranges_is_read_from_the_start(
    server: tuple[str, Script], tmp_path: Path
) -> None:
    address, script = server
    script.acts = ["cut", "no ranges"]
    assert get(address, tmp_path) == SHA256
    assert len(script.ranges) == 2
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_server_that_cuts_and_refuses_ranges_is_given_up(
    server: tuple[str, Script], tmp_path: Path
) -> None:
    address, script = server
    script.acts = ["cut without ranges"]
    with pytest.raises(UserError, match=r"/file: the connection to 127.0.0.1:\d+ broke after \d+ bytes"):
        get(address, tmp_path)
    assert len(script.ranges) == 1 + QUICK.attempts  # the first brought bytes
    assert not (tmp_path / "file").exists()


def test_a_stall_ends_and_is_resumed(server: tuple[str, Script], tmp_path: Path) -> None:
    address, script = server
    script.acts = ["stall", "serve"]
    started = time.monotonic()
    assert get(address, tmp_path) == SHA256
    assert time.monotonic() - started < 10
    assert script.ranges == [None, f"bytes={KEPT}-"]


def test_a_server_that_only_stalls_is_named(server: tuple[str, Script], tmp_path: Path) -> None:
    address, script = server
    script.acts = ["silence"]
    with pytest.raises(UserError, match=r"/file: 127.0.0.1:\d+ stopped sending after 0 bytes"):
        get(address, tmp_path)
    assert len(script.ranges) == QUICK.attempts
    assert left(tmp_path) == set()


def test_wrong_bytes_are_refused_and_leave_nothing(server: tuple[str, Script], tmp_path: Path) -> None:
    address, script = server
    script.acts = ["wrong bytes"]
    with pytest.raises(UserError, match=f"/file: expected SHA-256 {SHA256}, found "):
        get(address, tmp_path)
    assert len(script.ranges) == 1  # a whole answer that is wrong will not be right the next time
    assert left(tmp_path) == set()


def test_half_of_another_file_is_thrown_away_once(server: tuple[str, Script], tmp_path: Path) -> None:
    address, script = server
    (tmp_path / ".file.part").write_bytes(b"of another file")
    assert get(address, tmp_path) == SHA256
    assert script.ranges == ["bytes=15-", None]
    script.acts = ["wrong bytes"]
    (tmp_path / "file").unlink()
    (tmp_path / ".file.part").write_bytes(b"of another file")
    with pytest.raises(UserError, match="expected SHA-256"):
        get(address, tmp_path)
    assert len(script.ranges) == 4
    assert left(tmp_path) == set()


@pytest.mark.parametrize(("act", "part"), [("serve", BODY + b"more"), ("wrong range", BODY[:99])])
def test_a_part_that_does_not_fit_is_begun_anew(
    act: str, part: bytes, server: tuple[str, Script], tmp_path: Path
) -> None:
    address, script = server
    script.acts = [act, "serve"]
    (tmp_path / ".file.part").write_bytes(part)
    assert get(address, tmp_path) == SHA256
    assert script.ranges[1] is None


def test_passing_troubles_are_waited_out_and_others_are_not(
    server: tuple[str, Script], tmp_path: Path
) -> None:
    address, script = server
    script.acts = ["503", "429", "serve"]
    assert get(address, tmp_path) == SHA256
    (tmp_path / "file").unlink()
    script.acts = ["404"]
    with pytest.raises(UserError, match="expected the file, found the answer 404 Not Found"):
        get(address, tmp_path)
    assert len(script.ranges) == 4
    script.acts = ["503"]
    with pytest.raises(UserError, match="the server answered 503 Service Unavailable"):
        get(address, tmp_path)
    assert len(script.ranges) == 4 + QUICK.attempts


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UserError, match=f"no connection to 127.0.0.1:{port}"):
        get(f"http://127.0.0.1:{port}", tmp_path)
    assert left(tmp_path) == set()


def test_without_a_known_hash_a_broken_file_is_never_taken(
    server: tuple[str, Script], tmp_path: Path
) -> None:
    address, script = server
    (tmp_path / ".file.part").write_bytes(b"of another file")
    assert get(address, tmp_path, None) == SHA256
    assert script.ranges == [None]
    (tmp_path / "file").unlink()
    script.acts = ["no length"]
    with pytest.raises(UserError, match="expected a Content-Length"):
        get(address, tmp_path, None)
    assert not (tmp_path / "file").exists()
    assert get(address, tmp_path) == SHA256  # the hash tells


@pytest.mark.parametrize("etags", [[], ['"1"'], ['"1"', '"2"'], ['W/"1"']])
def test_without_a_known_hash_halves_of_two_versions_are_never_joined(
    etags: list[str], server: tuple[str, Script], tmp_path: Path
) -> None:
    address, script = server
    script.acts, script.etags = ["cut", "serve"], list(etags)
    assert get(address, tmp_path, None) == SHA256
    assert (tmp_path / "file").read_bytes() == BODY
    marked = bool(etags) and not etags[0].startswith("W/")
    assert script.ranges == [None, f"bytes={KEPT}-" if marked else None]


def test_many_at_once_fetch_it_once(server: tuple[str, Script], tmp_path: Path) -> None:
    address, script = server
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(lambda _: get(address, tmp_path), range(6))) == {SHA256}
    assert len(script.ranges) == 1


def test_the_proxy_of_the_environment_is_used(
    server: tuple[str, Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, script = server
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    assert get("http://upstream.invalid", tmp_path) == SHA256
    assert script.paths == ["http://upstream.invalid/file"]


# --- the commands -------------------------------------------------------------------------------------------


@pytest.fixture
def bare(
    server: tuple[str, Script], published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Script]:
    """(cache folder, script): nothing on the machine, and a mirror of the published files."""
    address, script = server
    pinned = [asset for asset in assets.ASSETS.values() if not asset.path.startswith("ofa_nets/")]
    script.files = {f"/ofa/{asset.path}": (published / asset.path).read_bytes() for asset in pinned}
    monkeypatch.delenv("TOPDOWN_RAY_ASSETS")
    monkeypatch.setenv("TOPDOWN_RAY_OFFLINE", "0")
    monkeypatch.setenv("TOPDOWN_RAY_MIRROR", f"{address}/ofa")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = assets.cache_folder()
    assert cache.is_relative_to(tmp_path)
    return cache, script


def test_fetch_list_verify_where(
    bare: tuple[Path, Script], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, script = bare
    script.acts = ["cut", "serve"]
    fetched = main_in_process(["assets", "fetch"], capsys)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.count(": downloaded") == 7
    requests = len(script.paths)
    assert (
        main_in_process(["assets", "fetch", "note10"], capsys).stdout.count(": already on this machine") == 5
    )
    assert len(script.paths) == requests
    assert main_in_process(["assets", "verify"], capsys).stdout.count("SHA-256 as published") == 7

    listed = json.loads(main_in_process(["assets", "list", "--json"], capsys).stdout)
    note10 = next(entry for entry in listed if entry["name"] == "note10")
    assert (note10["unit"], note10["where"], note10["path"]) == (
        "ms",
        "the user's cache",
        str(cache / "note10"),
    )
    assert note10["low"] == pytest.approx(9.890, abs=1e-3)

    (cache / "note10" / "160_lookup_table.yaml").write_text("{}")
    wrong = main_in_process(["assets", "verify"], capsys)
    assert wrong.returncode == 1
    assert wrong.stdout.count("WRONG: expected SHA-256") == 1
    assert "160_lookup_table.yaml: expected SHA-256" in main_in_process(["assets", "list"], capsys).stdout
    # a broken file of the cache is replaced
    assert main_in_process(["assets", "fetch"], capsys).stdout.count(": downloaded") == 1
    assert main_in_process(["assets", "verify"], capsys).returncode == 0

    places = main_in_process(["assets", "where"], capsys).stdout
    assert f"1. {cache} (the user's cache)" in places


def test_a_folder_for_a_cluster_without_network(
    bare: tuple[Path, Script],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "shared"
    assert main_in_process(["assets", "fetch", "acc_predictor.pth", "--to", folder], capsys).returncode == 0
    assert not (bare[0] / "acc_predictor.pth").exists()
    monkeypatch.setenv("TOPDOWN_RAY_OFFLINE", "1")
    monkeypatch.setenv("TOPDOWN_RAY_ASSETS", str(folder))
    assert load_predictor("published", MOBILENET_V3).sha256 == assets.ASSETS["acc_predictor.pth"].sha256
    places = main_in_process(["assets", "where"], capsys).stdout
    assert f"1. {folder} ($TOPDOWN_RAY_ASSETS)\n" in places
    assert "Downloads are switched off (TOPDOWN_RAY_OFFLINE)." in places
    result = main_in_process(["assets", "fetch", "note10"], capsys)
    assert_one_line(
        result,
        "note10/160_lookup_table.yaml: expected an intact local file, found none, and TOPDOWN_RAY_OFFLINE",
    )


def test_mistakes_are_one_line(
    bare: tuple[Path, Script],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = main_in_process(["assets", "fetch", "pixel9"], capsys)
    assert_one_line(result, "NAME: expected some of acc_predictor.pth, note10", "found 'pixel9'")
    (tmp_path / "taken").write_text("a file")
    assert_one_line(
        main_in_process(["assets", "fetch", "note10", "--to", tmp_path / "taken"], capsys), "taken"
    )
    monkeypatch.setenv("TOPDOWN_RAY_ASSETS", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "acc_predictor.pth").write_text("mine")
    assert_one_line(
        main_in_process(["assets", "fetch", "acc_predictor.pth"], capsys),
        "own/acc_predictor.pth: expected SHA-256",
    )
    monkeypatch.setenv("TOPDOWN_RAY_MIRROR", "ftp://x")
    assert_one_line(
        main_in_process(["assets", "where"], capsys), "TOPDOWN_RAY_MIRROR: expected an http or https address"
    )


def test_without_network_the_command_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mirror = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    environment = {
        "TOPDOWN_RAY_ASSETS": "",
        "TOPDOWN_RAY_OFFLINE": "",
        "TOPDOWN_RAY_MIRROR": mirror,
        "no_proxy": "127.0.0.1",
    }
    result = topdown_ray("assets", "fetch", "note10", XDG_CACHE_HOME=str(tmp_path), **environment)
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "160_lookup_table.yaml: expected an intact local file, found none, and the download failed" in line
    assert "no connection to 127.0.0.1" in line
    assert "Traceback" not in result.stderr


def test_weights_of_unknown_hash_are_held_to_their_first_one(
    bare: tuple[Path, Script], capsys: pytest.CaptureFixture[str]
) -> None:
    cache, script = bare
    name = "ofa_mbv3_d234_e346_k357_w1.2"
    script.files[f"/ofa/ofa_nets/{name}"] = BODY
    assert main_in_process(["assets", "fetch", name], capsys).returncode == 0
    checked = main_in_process(["assets", "verify"], capsys)
    assert "SHA-256 as when it was downloaded" in checked.stdout
    (cache / "ofa_nets" / name).write_bytes(BODY[:-1])
    assert main_in_process(["assets", "verify"], capsys).returncode == 1
    (cache / "ofa_nets" / f"{name}.sha256").unlink()
    checked = main_in_process(["assets", "verify"], capsys)
    assert checked.returncode == 0
    assert "no SHA-256 is published or recorded" in checked.stdout


def test_the_list_names_all_there_is(published: Path) -> None:
    listed = entries()
    names = {(entry.name, entry.space) for entry in listed}
    assert {
        ("published", "mobilenet_v3"),
        ("embedded", "resnet50d"),
        ("note10", "mobilenet_v3"),
        ("macs", "proxyless"),
        ("peak_activation", "resnet50d"),
    } <= names
    assert {entry.name for entry in listed if entry.kind == "computed cost"} == {*COUNTED, PEAK}
    for entry in listed:
        if entry.kind != "supernet weights":
            assert entry.low is not None
            assert entry.high is not None
            assert entry.low < entry.high
            assert entry.unit


def test_a_bare_machine_without_network_uses_what_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOPDOWN_RAY_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("TOPDOWN_RAY_MIRROR", f"http://127.0.0.1:{taken.getsockname()[1]}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for offline in ("1", "0"):
        monkeypatch.setenv("TOPDOWN_RAY_OFFLINE", offline)
        spec, line = demo_spec()
        assert set(spec.predictor.values()) == {"embedded"}
        assert "embedded" in line
        assert "\n" not in line


def test_a_sweep_fetches_what_it_needs(bare: tuple[Path, Script]) -> None:
    cache, script = bare
    assert load_predictor("published", MOBILENET_V3).sha256 == assets.ASSETS["acc_predictor.pth"].sha256
    assert script.paths == ["/ofa/acc_predictor.pth"]
    shutil.rmtree(cache)
    script.acts = ["wrong bytes"]
    with pytest.raises(
        UserError,
        match=r"acc_predictor.pth: .* found none, and the download failed: .*expected SHA-256",
    ):
        load_predictor("published", MOBILENET_V3)
    assert not (cache / "acc_predictor.pth").exists()
