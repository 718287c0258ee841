"""Places and files of results that will not do: refused in one line, in bounded time, before anything is
written.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import synthetic
from support.commands import assert_one_line, main_in_process
from support.folders import opened, plan_of, ran, sweep_file

from topdown_ray.addresses import checked
from topdown_ray.errors import UserError
from topdown_ray.store import filesystems, parts
from topdown_ray.store.failures import read_failures
from topdown_ray.store.layout import TABLES
from topdown_ray.store.manifest import read_manifest
from topdown_ray.store.part_files import read_part
from topdown_ray.store.place import Place
from topdown_ray.store.schema import SEARCHES, TRACE
from topdown_ray.sweeps.spec import read_spec
from topdown_ray.sweeps.status import Reader


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return synthetic.write(tmp_path / "run", *synthetic.frames({"top_down": 0.0}, seeds=2))


# --- addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("file:x", "expected file:/// and an absolute path"),
        ("file:./x", "expected file:/// and an absolute path"),
        ("file:/x", "expected file:/// and an absolute path"),
        ("file://x", "expected file:/// and an absolute path on this machine"),
        ("file://host/x", "expected file:/// and an absolute path on this machine"),
        ("file:///x?y=1", "expected a file URI without a query"),
        ("file:///x%00y", "expected a URI without NUL"),
        ("file:///" + 300 * "x", "File name too long"),
        ("s3:/bucket/x", "expected s3://, or ./ before a local folder of this name"),
        ("s3://\u00b2/x", "expected a URI of ASCII characters"),
        ("s3://bucket/x?endpoint_override=\u00b2", "expected a URI of ASCII characters"),
        ("s3://[::1/x", "expected a bucket or host name"),
        ("s3://b:99999/x", "expected a bucket or host name"),
        ("s3://a..%2e/x", "expected a bucket or host name"),
        ("abfs://container/x", "expected a store that answers"),
        ("abfs://container@127.0.0.1/x", "expected a store that answers and accepts your credentials, found"),
    ],
)
def test_addresses(
    where: str, found: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = sweep_file(tmp_path)
    for arguments in (["status", where], ["sweep", file, "--out", where, "--address", "none"]):
        assert_one_line(main_in_process(arguments, capsys), found)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


def test_names_that_are_too_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = sweep_file(tmp_path), tmp_path / ("x" * 300)
    for arguments in (
        ["status", out],
        ["report", out],
        ["verify", out],
        ["sweep", out, "--out", tmp_path / "a"],
    ):
        assert_one_line(main_in_process([*arguments], capsys), "File name too long")
    assert_one_line(
        main_in_process(["sweep", file, "--out", out, "--address", "none"], capsys), "File name too long"
    )


def test_a_place_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's client tries for 15 minutes where it finds no credentials; here the limit is two seconds."""
    monkeypatch.setattr(filesystems, "PROBE_S", 2)
    with pytest.raises(
        UserError, match="gs://bucket/x: expected a store that answers and accepts your credentials, found"
    ):
        Place("gs://bucket/x")


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.text(max_size=40), st.sampled_from(["s3", "gs", "file", "hdfs", "x"]))
def test_any_text_is_an_address_or_one_line(text: str, scheme: str) -> None:
    problem = ""
    try:
        assert checked(f"{scheme}://{text}").scheme == scheme
    except UserError as error:
        problem = str(error)
    assert problem.isprintable()


# --- what lies in the folder --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_a_lock_that_is_none(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, precious = tmp_path / "out", tmp_path / "precious"
    out.mkdir()
    precious.write_text("somebody's file")
    lock = out / ".lock"
    if kind == "folder":
        lock.mkdir()
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(precious if kind == "link" else tmp_path / "nowhere")
    result = main_in_process(["sweep", sweep_file(tmp_path), "--out", out, "--address", "none"], capsys)
    assert_one_line(result, f"{out}/.lock: expected a lock that is a regular file, found something else")
    assert [path.name for path in out.iterdir()] == [".lock"]
    assert precious.read_text() == "somebody's file"
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_could_not_be_begun_goes_again(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "trace").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="expected an empty folder or a sweep's results"):
        opened(plan_of(), tmp_path / "out")
    place = Place(tmp_path / "new" / "out")
    place.prepare(TABLES)
    assert place.hold()
    place.abandon()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["run.json", "searches/x.parquet", "trace/x.parquet", "failures/x.json"])
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "dangling"])
def test_pipes_devices_and_links_to_nothing(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    ran(out, strategies=["prune"], seeds=2)
    (out / "failures").mkdir(exist_ok=True)
    (out / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(out / name)
    else:
        (out / name).symlink_to(kind if kind == "/dev/zero" else tmp_path / "nowhere")
    found = (
        f"{out}/{name}: expected a regular file, found "
        f"{'a broken link' if kind == 'dangling' else 'a pipe or device'}"
    )
    file = sweep_file(tmp_path, strategies=["prune"], seeds=2)
    commands: list[list[object]] = [["sweep", file, "--out", out, "--address", "none"]]
    commands += [["verify", out]] if not name.startswith("failures") else []
    commands += [["status", out]] if not name.startswith("trace") else []
    for arguments in commands:
        assert_one_line(main_in_process(arguments, capsys), found)
    assert not (out / "damaged").exists()


def test_status_shows_no_control_characters(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((run / "run.json").read_text())
    manifest["spec"] |= {
        "name": "evil\x1b[2J\r\x9b31m",
        "cost": {"mobilenet_v3": "macs"},
        "predictor": {"mobilenet_v3": "x"},
    }
    (run / "run.json").write_text(json.dumps(manifest))
    (run / "failures").mkdir()
    record = {"search_ids": ["x"], "error": "boom\x1b]0;title\x07", "command": "topdown-ray\x1b[1A sweep"}
    (run / "failures" / "abc.json").write_text(json.dumps(record))
    done = main_in_process(["status", run], capsys)
    assert done.returncode == 0, done.stderr
    assert "evil" in done.stdout
    assert "boom" in done.stdout
    assert done.stdout.replace("\n", "").isprintable()


# --- readers: a value, or one line --------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MANIFEST = synthetic.manifest(synthetic.frames({"top_down": 0.0}, seeds=2)[0])
MANIFEST["spec"] |= {"cost": {"mobilenet_v3": "macs"}, "predictor": {"mobilenet_v3": "embedded"}}
MANIFEST |= {
    "sessions": [{"started_at": "2020-12-12T00:00:00+00:00", "ended_at": None, "host": "here", "pid": 1}],
    "busy_s": 1.0,
}


def one_line_or_value(function: Any, *arguments: Any) -> None:
    problem = ""
    try:
        function(*arguments)
    except UserError as error:
        problem = str(error)
    assert problem.isprintable()
    assert len(problem) < 2000


@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data(), value=JSON)
def test_any_manifest(data: st.DataObject, value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One field, at any depth, becomes anything."""
    manifest = json.loads(json.dumps(MANIFEST))
    at: Any = manifest
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = value
    folder = tmp_path_factory.mktemp("manifest")
    (folder / "run.json").write_text(json.dumps(manifest))
    one_line_or_value(read_manifest, folder)
    one_line_or_value(Reader(folder).read)
    one_line_or_value(read_spec, folder)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    text=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()) | st.just(b"[" * 100_000)
)
def test_any_bytes_as_manifest_or_record(text: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "failures").mkdir()
    for name in ("run.json", "failures/x.json"):
        (folder / name).write_bytes(text)
    one_line_or_value(read_manifest, folder)
    one_line_or_value(read_failures, Place(folder))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(field=st.sampled_from(["search_ids", "error", "command", "traceback"]), value=JSON)
def test_any_record(field: str, value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("record")
    (folder / "failures").mkdir()
    (folder / "run.json").write_text(json.dumps(MANIFEST))
    record = {"search_ids": ["x"], "error": "boom", "command": "sweep", "traceback": ["boom"], field: value}
    (folder / "failures" / "x.json").write_text(json.dumps(record))
    one_line_or_value(Reader(folder).read)


COLUMNS = st.one_of(
    st.builds(lambda n: pa.array([[1.5]] * n, pa.list_(pa.float64())), st.just(2)),
    st.sampled_from(
        [
            pa.array([1, 2]),
            pa.array(["a", None]),
            pa.array([b"a", b"\xff"]),
            pa.array([None, None]),
            pa.array([{"a": 1}] * 2),
        ]
    ),
    st.sampled_from(
        [
            pa.array([1.5, float("nan")]),
            pa.array([True, False]),
            pa.array([2**63, 1], pa.uint64()),
            pa.array(["x", "y"]),
        ]
    ),
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(table=st.sampled_from(TABLES), data=st.data(), column=COLUMNS)
def test_any_type_of_any_column_of_a_part(
    table: str, data: st.DataObject, column: pa.Array, tmp_path_factory: pytest.TempPathFactory
) -> None:
    schema = {"searches": SEARCHES, "trace": TRACE}[table]
    frames = dict(
        zip(TABLES, synthetic.frames({"top_down": 0.0}, seeds=2, sets=((35.0,),), points=1), strict=True)
    )
    folder = synthetic.write(tmp_path_factory.mktemp("part") / "run", *frames.values())
    path = folder / table / "all.parquet"
    rows = pq.read_table(path)
    name = data.draw(st.sampled_from(schema.names))
    kept, index = rows.drop_columns([name]), schema.names.index(name)
    rows = kept.add_column(index, name, column) if data.draw(st.booleans()) else kept
    pq.write_table(rows, path)
    place = Place(folder)
    one_line_or_value(read_part, place, table, "all.parquet", schema)
    one_line_or_value(Reader(folder).read)
    one_line_or_value(parts.Parts(place).resume)
    assert path.exists()  # valid Parquet is never damage
    assert not (folder / "damaged").exists()


@settings(deadline=None, max_examples=60, derandomize=True)
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_any_bytes_of_a_part(at: int, byte: int, cut: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A part of an older folder, whose name holds no checksum."""
    frames = synthetic.frames({"top_down": 0.0}, seeds=2, sets=((35.0,),), points=1)
    folder = synthetic.write(tmp_path_factory.mktemp("bytes") / "run", *frames)
    path = folder / "searches" / "all.parquet"
    whole = path.read_bytes()
    at %= len(whole)
    broken = whole[:at] if cut else whole[:at] + bytes([byte]) + whole[at + 1 :]
    path.write_bytes(broken)
    one_line_or_value(Reader(folder).read)
    one_line_or_value(parts.Parts(Place(folder)).resume)
    kept = path if path.exists() else folder / "damaged" / "searches" / "all.parquet"
    assert kept.read_bytes() == broken  # moved at most
    shutil.rmtree(folder)
