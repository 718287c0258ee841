"""What counts as damage when a sweep is continued, and what never costs a file: memory, foreign claims, other
versions.
"""

import json
import re
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from support.commands import assert_one_line, main_in_process
from support.folders import cut, made_up, opened, plan_of, ran, sweep_file
from support.sweeping import assert_same, in_process

from topdown_ray.errors import StoreError, UserError
from topdown_ray.store import parts, resuming
from topdown_ray.store.layout import TABLES
from topdown_ray.store.parts import Parts
from topdown_ray.store.place import Place
from topdown_ray.store.results import load
from topdown_ray.store.resuming import MERGED
from topdown_ray.sweeps import driver
from topdown_ray.tasks import InProcess


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of six parts."""
    out = tmp_path_factory.mktemp("damage") / "out"
    ran(out)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be broken."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every part, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("**/*.parquet"))}


# Verifies the parts of a folder again and again, under limits of address space that leave more and more room:
# a line each
LIMITED = """
import os, resource, signal, sys
from topdown_ray.errors import UserError
from topdown_ray.store.parts import Parts
from topdown_ray.store.place import Place

def used():
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmSize:")) << 10

for room in (1 << 16, 6 << 20, 20 << 20, 42 << 20, 50 << 20, 58 << 20, 4 << 30):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        # a thread of Python that finds no memory as it starts is waited for without end; where there is
        # enough, only a busy machine takes long
        signal.alarm(5 if room < 1 << 30 else 100)
        resource.setrlimit(resource.RLIMIT_AS, (used() + room, resource.RLIM_INFINITY))
        try:
            end = f"done {sorted(Parts(Place(sys.argv[1])).resume().finished)}"
        except (OSError, UserError, MemoryError) as error:
            end = f"error {type(error).__name__}: {error}"
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(end, flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print("error the process ended", flush=True)  # a library's code that gives up, or that alarm
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc/self/status")
@pytest.mark.parametrize("summed", [True, False], ids=["checksum", "older"])
def test_memory_that_runs_out_is_no_damage(summed: bool, tmp_path: Path) -> None:
    """Real limits of address space, from far too little to enough: an error or the searches, and no file is
    touched.
    """
    place, rows = Place(tmp_path / "out"), 1_000_000
    place.prepare(TABLES)
    searches, _ = made_up(0)
    ids = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["search-0"]).cast(pa.string())
    Parts(place).write(
        "large", searches, pa.table({"search_id": ids, "generation": pa.array(range(rows), pa.int64())})
    )
    if not summed:
        for path in (tmp_path / "out").glob("*/*.parquet"):
            path.rename(path.with_name("large.parquet"))
    before = contents(tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    ends = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == before
    assert ends[-1] == "done ['search-0']"
    assert all(end == ends[-1] or end.startswith("error ") for end in ends)
    assert len([end for end in ends if end.startswith("error ")]) >= 3
    assert any("expected enough memory" in end or "alloc" in end for end in ends), ends


def test_a_part_that_is_as_it_was_written_is_never_damaged(out: Path) -> None:
    """Its name holds the right checksums, and still it is no Parquet: an error that names it, and nothing
    moves.
    """
    sums = f"{zlib.crc32(b'no Parquet'):08x}" * 2
    for table in TABLES:
        (out / table / f"strange.{sums}.parquet").write_bytes(b"no Parquet")
    before = contents(out)
    with pytest.raises(
        UserError, match=rf"searches/strange.{sums}.parquet: expected the rows of a part, found "
    ):
        opened(plan_of(), out)
    assert contents(out) == before


@pytest.mark.parametrize("table", TABLES)
def test_damaged_parts_are_moved_aside(
    table: str, finished: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = sorted((out / table).glob("*.parquet"))[0]
    part.write_bytes(cut(part.read_bytes()))
    broken = {name: (out / name / part.name).read_bytes() for name in TABLES}
    (out / "damaged" / table).mkdir(parents=True)
    (out / "damaged" / table / part.name).write_bytes(b"of an earlier time")
    done = main_in_process(["sweep", sweep_file(tmp_path), "--out", out, "--address", "none"], capsys)
    assert done.returncode == 0
    assert (
        f"damaged, will be computed again: {part}: expected an undamaged part, found checksum" in done.stderr
    )
    assert f"; moved to {out}/damaged" in done.stderr
    for name in TABLES:
        assert (
            out / "damaged" / name / f"{part.name}{'.1' if name == table else ''}"
        ).read_bytes() == broken[name]
    assert (out / "damaged" / table / part.name).read_bytes() == b"of an earlier time"
    assert_same(load(finished), load(out))


def test_a_trace_alone_is_kept_safe(finished: Path, out: Path) -> None:
    part = sorted((out / "searches").glob("*.parquet"))[0]
    trace = (out / "trace" / part.name).read_bytes()
    part.unlink()
    ran(out)
    assert (out / "damaged" / "trace" / part.name).read_bytes() == trace
    assert_same(load(finished), load(out))


def claiming(out: Path, names: list[str], rows: int) -> str:
    """A part that says that it holds these parts; it holds so many rows of the first of them. Returns its
    name.
    """
    tables = [pq.read_table(out / table / names[0]).slice(0, rows) for table in TABLES]
    tables[0] = tables[0].replace_schema_metadata({MERGED: json.dumps(names)})
    before = set(contents(out))
    Parts(Place(out)).write("claims", *tables)
    (name,) = {Path(path).name for path in set(contents(out)) - before}
    return name


@pytest.mark.parametrize("rows", [0, 1])
def test_a_merged_part_is_believed_only_for_what_it_holds(rows: int, finished: Path, out: Path) -> None:
    before = contents(out)
    names = sorted(path.name for path in (out / "searches").glob("*.parquet"))
    claiming(out, names, rows)
    folder = opened(plan_of(), out)
    assert len(folder.finished()) == 24
    assert contents(out).items() >= before.items()
    folder.end(True, {"wall_s": 0.0}, {}, count=True)
    assert_same(load(finished), load(out))


def test_two_parts_that_claim_each_other_do_not_both_go(out: Path, tmp_path: Path) -> None:
    name = sorted(path.name for path in (out / "searches").glob("*.parquet"))[0]
    searches, trace = (pq.read_table(out / table / name) for table in TABLES)
    for table in TABLES:
        (out / table / name).unlink()
    for key, other in (("a", "b"), ("b", "a")):  # parts of an older version, whose names hold no checksum
        claim = searches.replace_schema_metadata({MERGED: json.dumps([f"{other}.parquet"])})
        pq.write_table(claim, out / "searches" / f"{key}.parquet")
        pq.write_table(trace, out / "trace" / f"{key}.parquet")
    assert len(opened(plan_of(), out).finished()) == 24
    left = {path.name for path in (out / "searches").glob("?.parquet")}
    assert len(left) == 1
    assert {path.name for path in (out / "trace").glob("?.parquet")} == left


def test_claims_that_are_no_names(out: Path) -> None:
    name = sorted(path.name for path in (out / "searches").glob("*.parquet"))[0]
    for text, found in (
        ("[", "expected JSON"),
        ("[1]", "expected a list of names, found"),
        ("[" * 5000, "expected JSON"),
    ):
        table = pq.read_table(out / "searches" / name).replace_schema_metadata({MERGED: text})
        pq.write_table(table, out / "searches" / "x.parquet")
        shutil.copy(out / "trace" / name, out / "trace" / "x.parquet")
        with pytest.raises(UserError, match=rf"searches/x.parquet: topdown_ray_merged: {found}"):
            opened(plan_of(), out)


@pytest.mark.parametrize(
    ("field", "version", "found"),
    [
        ("schema", 99, "schema: expected a version from 1 to [0-9]+, found 99"),
        ("schema", "3", "schema: expected a version from 1 to [0-9]+, found '3'"),
        ("algorithm", 99, "algorithm: expected version 2, found 99"),
        ("algorithm", 0, "algorithm: expected version 2, found 0"),
        ("algorithm", None, "algorithm: expected version 2, found None"),
    ],
)
def test_other_versions_are_not_continued(
    field: str, version: object, found: str, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = {**json.loads((out / "run.json").read_text()), field: version, "run_id": "of another version"}
    (out / "run.json").write_text(json.dumps(manifest))
    before = contents(out), (out / "run.json").read_text()
    result = main_in_process(["sweep", sweep_file(tmp_path), "--out", out, "--address", "none"], capsys)
    assert_one_line(result, f"{out}/run.json: {field}: ")
    assert re.search(found, result.stderr)
    assert (contents(out), (out / "run.json").read_text()) == before
    if field == "algorithm":
        assert load(out).searches["search_id"].nunique() == 24  # still to be read


class Deleting(InProcess):
    """Somebody deletes a folder of the results while the last shard runs."""

    def __init__(self, plan: driver.Plan, victim: Path, at: int):
        super().__init__(in_process(plan).hosted)
        self.victim, self.left = victim, at

    def wait(self, timeout_s: float) -> Any:
        self.left -= 1
        if self.left == 0:
            searches, deadline = self.victim.parent / "searches", time.monotonic() + 60
            while (
                self.victim.is_dir() and len(list(searches.glob("[!.]*"))) < 4 and time.monotonic() < deadline
            ):
                time.sleep(0.01)  # until nothing is being written there
            if self.victim.is_dir():
                shutil.rmtree(self.victim)
            else:
                self.victim.write_bytes(cut(self.victim.read_bytes()))
        return super().wait(timeout_s)


@pytest.mark.parametrize("victim", ["searches", "trace", "one part", "run.json"])
def test_complete_is_what_lies_in_the_folder(victim: str, finished: Path, tmp_path: Path) -> None:
    plan, out, events = plan_of(), tmp_path / "out", []
    first = opened(plan, out)
    lost: Path = out / victim
    if victim == "one part":
        (shard,) = list(plan.shards())[:1]
        searches, trace = (
            pq.read_table(next((finished / table).glob(f"{shard.shard_id}.*"))) for table in TABLES
        )
        first.write(shard.shard_id, searches, trace)
        first.end(False, {"wall_s": 0.0}, {})
        first = opened(plan, out)
        (lost,) = (out / "trace").iterdir()
    executor = Deleting(plan, lost, 5)
    if victim == "run.json":
        lost.unlink()
        driver.run(plan, first, in_process(plan))
        assert load(out).manifest["status"] == "complete"  # all rows are there
        return
    with pytest.raises(
        StoreError, match=rf"{out}: expected the rows of 24 searches, found that those of [0-9]+ are gone"
    ):
        driver.run(plan, first, executor, observe=events.append)
    assert events[-1].name == "end"
    assert events[-1].status == "error"
    assert json.loads((out / "run.json").read_text())["status"] == "incomplete"
    assert_same(load(finished), ran(out))


@pytest.mark.parametrize("lost", ["run.json", "run.json and failures"])
def test_a_lost_manifest_is_written_anew(
    lost: str, finished: Path, out: Path, tmp_path: Path, capsys: Any
) -> None:
    (out / "run.json").unlink()
    if lost != "run.json":
        (out / "report").mkdir()
        (out / "report" / "report.html").write_text("a page")
    for command in ("status", "report", "verify"):
        assert_one_line(
            main_in_process([command, out], capsys),
            "no readable run.json",
            f"command again with --out {out}",
        )
    arguments = ["sweep", sweep_file(tmp_path), "--out", out, "--address", "none"]
    assert_one_line(main_in_process([*arguments, "--no-resume"], capsys), "found results of this sweep")
    done = main_in_process(arguments, capsys)
    assert done.returncode == 0
    assert "Finished 24 of 24 searches (0 in this run)" in done.stdout
    assert "run.json was missing and has been written again" in done.stderr
    assert_same(load(finished), load(out))
    assert load(out).manifest["status"] == "complete"


def test_parts_of_another_sweep_are_not_taken_over(out: Path) -> None:
    (out / "run.json").unlink()
    before = contents(out)
    with pytest.raises(UserError, match="expected an empty folder or a sweep's results, found other files"):
        opened(plan_of(targets=[[400, 310]]), out)
    assert contents(out) == before
    assert not (out / "run.json").exists()


def test_a_sweep_without_ray_still_ends_complete_after_merging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is merged is no longer looked for under its old names."""
    monkeypatch.setattr(parts, "MERGE_AT", 4)
    counted: list[str] = []
    monkeypatch.setattr(
        parts,
        "verify",
        lambda place, layout, name: (counted.append(name), resuming.verify(place, layout, name))[1],
    )
    results = ran(tmp_path / "out", batch=1)
    assert results.manifest["status"] == "complete"
    assert counted == []  # two listings were enough


def written_parts(folder: Path, numbers: range) -> Parts:
    """The parts of made-up searches, as one driver writes them."""
    place = Place(folder)
    place.prepare(TABLES)
    written = Parts(place)
    for number in numbers:
        written.write(f"shard-{number}", *made_up(number))
    return written


def test_another_drivers_searches_do_not_hide_a_loss(tmp_path: Path) -> None:
    mine = written_parts(tmp_path, range(3))
    assert mine.missing() == set()
    written_parts(tmp_path, range(10, 20))
    for table in TABLES:
        (path,) = (tmp_path / table).glob("shard-1.*")
        path.unlink()
    assert mine.promised == 3
    assert mine.missing() == {"search-1"}


def test_a_merge_without_memory_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MERGE_AT", 4)
    with monkeypatch.context() as patch:
        patch.setattr(parts.pa, "concat_tables", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
        written = written_parts(tmp_path, range(6))
    assert len(list((tmp_path / "searches").iterdir())) == 6
    for number in range(6, 12):
        written.write(f"shard-{number}", *made_up(number))
    assert len(list((tmp_path / "searches").iterdir())) < 8
    assert written.missing() == set()
    assert Parts(Place(tmp_path)).resume().finished == {f"search-{number}" for number in range(12)}
