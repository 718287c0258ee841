"""Wrong arguments and wrong documents: one bounded line, the right exit status, no traceback, nothing left
behind.
"""

import contextlib
import functools
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.table import Table
from support.commands import SWEEP, assert_one_line, main_in_process, sweep_file

from topdown_ray.addresses import check_address
from topdown_ray.cli import main
from topdown_ray.cli.display import progress_bar
from topdown_ray.cli.present.tables import print_table
from topdown_ray.errors import UserError, brief
from topdown_ray.files import LARGEST_DOCUMENT, check_output, read_yaml, written, written_folder
from topdown_ray.hardware import rounds, stopwatch
from topdown_ray.spaces.latency_table import Conditions
from topdown_ray.spaces.proxyless import PROXYLESS
from topdown_ray.sweeps.spec import SweepSpec, load_spec

LONG = "x" * 300  # more than a file's name may have
MACS = ("--cost", "macs", "--predictor", "embedded")
FUZZ = settings(deadline=None, derandomize=True, max_examples=80, suppress_health_check=list(HealthCheck))


# --- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["sweep", LONG, "--out", "o", "--address", "none"], "File name too long"),
        (["sweep", "SWEEP", "--out", LONG, "--address", "none"], "File name too long"),
        (["sweep", "SWEEP", "--out", "o", "--address", "none", "--log-json", LONG], "--log-json"),
        (["sweep", "SWEEP", "--out", "o", "--part", "3-8"], "--part: expected K/N, such as 3/8, found '3-8'"),
        (["sweep", "SWEEP", "--out", "o", "--part", "0/2"], "--part: expected K/N with 1 <= K <= N <= 2"),
        (["sweep", "SWEEP", "--out", "o", "--part", "1/3"], "the number of seeds, found 1/3"),
        (["status", LONG], "File name too long"),
        (["verify", LONG], "File name too long"),
        (["describe", LONG], "File name too long"),
        (["describe", "[" * 100_000], "architecture: expected JSON"),
        (["describe", "garbage"], "garbage: expected JSON"),
        (["table", f"{LONG}.parquet"], "File name too long"),
        (["table", "[red]x"], "[red]x: expected a .parquet file"),
        (["evaluate", LONG, "--data", "d"], "File name too long"),
        (["export", LONG, "--out", "e"], "File name too long"),
        (["export", "{}", "--out", "e", "--seed", "²"], "--seed: expected best or a whole number"),
        (["search", "--cost", LONG], "File name too long"),
        (["front", "--targets", "²"], "--targets: expected numbers"),
        (["front", "--targets", "300", *MACS, "--population", "0"], "--population"),
        (
            ["front", "--targets", "300", *MACS, "--start", "garbage"],
            "garbage: expected a sweep's result folder",
        ),
        (["measure", "--space", "proxyless", "--out", "a.parquet", "--threads", "99999999"], "--threads"),
        (["measure", "--space", "proxyless", "--out", "a.parquet", "--batch", "1000000"], "--batch"),
        (["assets", "fetch", LONG], "NAME: expected some of"),
    ],
)
def test_arguments(
    arguments: list[str],
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("garbage").write_bytes(b"\x00\xff")
    sweep_file(tmp_path)
    before = sorted(Path().iterdir())
    started = time.monotonic()
    result = main_in_process(
        ["sweep.yaml" if argument == "SWEEP" else argument for argument in arguments], capsys
    )
    assert_one_line(result, part)
    assert len(result.stderr) < 1500
    assert time.monotonic() - started < 60
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    "address",
    [
        "",
        "²:1",
        "1:²",
        "h:0",
        "h:65536",
        "h:99999999999",
        "ray://h",
        "ray://",
        ":1",
        "h:",
        "h",
        "ä:1",
        "a b:1",
        "user@h:1",
        "h\n:1",
    ],
)
def test_what_is_no_address(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_one_line(
        main_in_process(["demo", "--address", address], capsys),
        "--address: expected none, local, auto, HOST:PORT or ray://HOST:PORT",
    )


@pytest.mark.parametrize(
    "address", ["none", "local", "auto", "h:1", "a.b-c:65535", "127.0.0.1:6379", "[::1]:6379", "ray://h:1"]
)
def test_what_is_an_address(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize("host", ["a" * 64, "a..b"])
def test_a_host_that_idna_refuses(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = main_in_process(["demo", "--address", f"{host}:1"], capsys)
    assert_one_line(result, "expected a Ray cluster that answers, found none")


@pytest.mark.parametrize(
    ("arguments", "option", "folder"),
    [
        (["bench", "--out"], "--out", False),
        (["front", "--targets", "300", *MACS, "--out"], "--out", False),
        (["measure", "--space", "proxyless", "--out"], "--out", False),
        (["sample-dataset", "--data", "no", "--out"], "--out", False),
        (["train-predictor", "no.parquet", "--space", "proxyless", "--out"], "--out", False),
        (["report", "no", "--out"], "--out", True),
        (["export", "{}", "--out"], "--out", True),
        (["table", "epyc_1thread", "--export-yaml"], "--export-yaml", True),
        (["assets", "fetch", "--to"], "--to", True),
    ],
)
def test_outputs_are_checked_before_the_work(
    arguments: list[str], option: str, folder: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder for a file, a file for a folder, a name too long, a file on the way: before the inputs are
    even looked for.
    """
    (tmp_path / "file.parquet").write_text("precious")
    (tmp_path / "folder.parquet").mkdir()
    wrong = ["file.parquet" if folder else "folder.parquet", "file.parquet/below.parquet", f"{LONG}.parquet"]
    for name in wrong:
        assert_one_line(main_in_process([*arguments, tmp_path / name], capsys), f"{option}: expected a f")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.parquet", "folder.parquet"]
    assert (tmp_path / "file.parquet").read_text() == "precious"


def test_an_output_on_which_nothing_can_be_written(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "x", "--out")
    check_output(tmp_path / ("ä" * 120), "--out")  # 240 bytes: its temporary name fits, too
    with written(tmp_path / ("ä" * 120)) as temporary:
        temporary.write_text("whole")
    for path in (Path("/proc/x"), Path("/dev/null")):
        with pytest.raises(UserError, match="--out: expected a file that can be written, found"):
            check_output(path, "--out")
    assert not (tmp_path / "new").exists()


def test_a_measurement_does_not_replace_another_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dataset.parquet"
    out.write_bytes(b"PAR1 another table")
    result = main_in_process(["measure", "--space", "proxyless", "--out", out], capsys)
    assert_one_line(result, "dataset.parquet: expected a latency table")
    assert out.read_bytes() == b"PAR1 another table"


@pytest.mark.parametrize(
    "text", ["[1]", "7", '{"identity": 3}', '{"identity": {}}\n{"ms": "x"}', "{" * 10_000]
)
def test_a_partial_file_that_is_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.partial"
    path.write_text(text)
    with pytest.raises(UserError, match=r"t\.partial"):
        rounds.Journal(path, {}).load(3)


def test_minutes_that_cannot_be_kept_are_refused() -> None:
    watch = stopwatch.Stopwatch("proxyless", Conditions())
    watch.hold_layers(PROXYLESS.distinct_layers()[:20])
    effort = rounds.Effort(minutes=1e-7, strict=True)
    states: list[rounds.RoundsState] = []
    with pytest.raises(
        UserError, match=r"--minutes: expected at least .*, which 11 rounds take, found 1e-07"
    ):
        rounds.rounds(watch, 20, effort, rounds.Journal(None, {}), states.append)
    assert all(state.rounds == 0 for state in states)  # the first rounds, which do not count, have told
    samples, _ = rounds.rounds(
        watch, 20, rounds.Effort(minutes=1e-7), rounds.Journal(None, {}), states.append
    )
    assert len(samples) == 11


# --- what is printed ----------------------------------------------------------------------------------------


def test_cells_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("a")
    table.add_row("[red]x[/red] :smile: [/b]")
    print_table(table)
    assert "[red]x[/red] :smile: [/b]" in capsys.readouterr().out


def test_progress_disappears_before_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def work(fails: bool) -> None:
        with progress_bar("half way") as show:
            show(1, 2)
            if fails:
                raise UserError("wrong")

    with pytest.raises(UserError):
        work(fails=True)
    assert capsys.readouterr().err == ""
    work(fails=False)
    assert "half way" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_stdout_on_a_full_disk() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "topdown_ray", "assets", "where"]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False, timeout=60
        )
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: output: expected permission and space to read and write, found No space left on device\n"
    )


def test_a_reader_of_stdout_that_has_gone() -> None:
    command = f'"{sys.executable}" -m topdown_ray assets list --json | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command], stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False, timeout=100
    )
    assert done.stderr == ""
    assert done.returncode == 1


FAULTS = """
import contextlib, resource, sys
from topdown_ray.cli import main
from topdown_ray.algorithms import strategies

@strategies.strategy("broken", lambda before, after: after)
def broken(*arguments):
    raise ZeroDivisionError("[red]first line\\nsecond line")
    yield

def run(*arguments):
    sys.argv = ["topdown-ray", *arguments]
    with contextlib.suppress(SystemExit):
        main.main()
    print("----", file=sys.stderr)

search = ["search", "--cost", "macs", "--predictor", "embedded", "--target", "300", "--strategy", "broken"]
run(*search)
run("--debug", *search)
# as a full disk, errors come while files are written
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
run("report", sys.argv_run)
"""


@pytest.mark.slow
def test_internal_errors_and_full_disks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A strategy that raises, then a report for which there is no room."""
    run = tmp_path / "run"
    assert (
        main_in_process(["sweep", sweep_file(tmp_path), "--out", run, "--address", "none"], capsys).returncode
        == 0
    )
    code = FAULTS.replace("sys.argv_run", repr(str(run)))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False, timeout=200
    )
    short, debug, full = done.stderr.split("----\n")[:3]
    line = (
        "error: internal error: ZeroDivisionError: [red]first line second line; please report it with the "
        "command"
    )
    assert short == f"{line}; topdown-ray --debug COMMAND prints the traceback\n"
    assert debug.startswith("Traceback (most recent call last):\n")
    assert debug.endswith(f"\n{line}\n")
    assert full.startswith("error: ")
    assert "File too large" in full
    assert full.count("\n") == 1


def test_an_internal_error_has_its_own_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from topdown_ray.algorithms import strategies

    def broken(*arguments: object) -> Any:
        raise ZeroDivisionError("boom")
        yield

    monkeypatch.setitem(
        strategies.STRATEGIES, "broken", strategies.Strategy(broken, lambda before, after: after)
    )
    result = main_in_process(["search", *MACS, "--target", "300", "--strategy", "broken"], capsys)
    assert result.returncode == 70
    assert result.stderr.count("\n") == 1


# --- documents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        [["y" * 1000] * 1000] * 1000,
        {i: {i: "z" * 100} for i in range(1000)},
        10**5000,
        [10**5000],
    ],
    ids=["text", "lists", "mappings", "number", "numbers"],
)
def test_a_value_is_shown_in_brief(value: object) -> None:
    assert len(brief(value)) <= 120
    assert "\n" not in brief(value)


def complaint(text: str, folder: Path) -> str:
    path = folder / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        read_yaml(path, "a file", "keys")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000
    return str(raised.value)


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "x: {a: 1, a: 1}", "[{a: 1, b: 2, a: 3}]"])
def test_keys_that_repeat(text: str, tmp_path: Path) -> None:
    assert "expected distinct keys, found 'a' again in line" in complaint(text, tmp_path)


@pytest.mark.parametrize("key", ["1", "0x1", "true", "1.5", "2020-01-01", "~"])
def test_keys_that_are_no_text_are_refused(key: str, tmp_path: Path) -> None:
    """Two of them may be equal though they are spelled differently: the last one would win."""
    assert f"expected text as keys, found '{key}' in line 1" in complaint(f"{key}: x\n", tmp_path)


def test_a_folder_that_is_written_again_holds_the_new_files_alone(tmp_path: Path) -> None:
    for names in (("page.html", "tables/a.csv", "tables/b.csv"), ("page.html", "tables/a.csv")):
        with written_folder(tmp_path / "report") as new:
            for name in names:
                (new / name).parent.mkdir(exist_ok=True)
                (new / name).write_text(str(names))
        (tmp_path / "report" / "notes.txt").write_text("of the user")
    found = {
        str(path.relative_to(tmp_path / "report"))
        for path in (tmp_path / "report").rglob("*")
        if path.is_file()
    }
    assert found == {"page.html", "tables/a.csv", "notes.txt"}


def test_two_files_whose_names_begin_alike_are_written_at_once(tmp_path: Path) -> None:
    one, other = (tmp_path / f"{'x' * 60}{end}" for end in "ab")
    with written(one) as first, written(other) as second:
        first.write_text("one")
        second.write_text("other")
    assert (one.read_text(), other.read_text()) == ("one", "other")


def test_aliases_that_multiply_end_in_bounded_time(tmp_path: Path) -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12)]  # 10^12 values
    started = time.monotonic()
    assert "found aliases that expand to more" in complaint("\n".join(lines), tmp_path)
    assert "an alias inside its own anchor" in complaint("a: &a [*a]", tmp_path)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "text", ["a: 2024-99-99", "a: 0x", f"a: {'9' * 5000}", "a: !!int x", "? {}\n: 1", "=: 1", "a: =", "<<: 3"]
)
def test_scalars_that_are_none_of_yaml(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with contextlib.suppress(UserError):
        assert isinstance(read_yaml(path, "a file", "keys"), dict)


def test_files_that_never_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(LARGEST_DOCUMENT + 1)
    for name, part in (
        ("fifo", "found a pipe or device"),
        ("zero", "found a pipe or device"),
        ("huge", "of at most"),
    ):
        arguments = ["sweep", tmp_path / f"{name}.yaml", "--out", tmp_path / "out", "--address", "none"]
        assert_one_line(main_in_process(arguments, capsys), f"{name}.yaml: expected a sweep file", part)


def test_a_late_duplicate_among_many_seeds(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, seeds=[*range(100_000), 7])
    started = time.process_time()
    with pytest.raises(UserError, match="seeds: expected distinct seeds, found 7"):
        load_spec(path)
    assert time.process_time() - started < 30  # of YAML; in the square of their number it was minutes


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["macs", "joint", "auto", 2**80]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@functools.cache
def folder() -> Path:
    """One for all examples of a test."""
    return Path(tempfile.mkdtemp())


def check_spec(path: Path) -> None:
    try:
        assert isinstance(load_spec(path), SweepSpec)
    except UserError as error:
        text = str(error)
    else:
        return
    assert "\n" not in text
    assert len(text) < 2000


@FUZZ
@given(st.text(max_size=200) | st.text("abc:{}[]&*!<=-?|>'\"\n #0x.,", max_size=60))
def test_any_text_is_a_sweep_or_a_line(text: str) -> None:
    path = folder() / "text.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    check_spec(path)


@FUZZ
@given(
    st.sampled_from(
        [*SWEEP, "batch", "protocol", "search.population", "search.parent_ratio", "search.archive", "new"]
    ),
    VALUES,
)
def test_any_value_of_a_field_is_a_sweep_or_a_line(field: str, value: Any) -> None:
    outer, _, inner = field.partition(".")
    data = {**SWEEP, outer: {**SWEEP["search"], inner: value} if inner else value}  # type: ignore[dict-item]
    path = folder() / "field.yaml"
    try:
        path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    except ValueError:  # a whole number that Python does not write
        return
    check_spec(path)


WORDS = st.one_of(
    st.sampled_from(
        [
            "",
            "-1",
            "0",
            "7",
            "nan",
            "1e999",
            "²",
            "[red]",
            LONG,
            "macs",
            "resnet50d",
            "/dev/null",
            "/proc",
            "{",
            "--json",
        ]
    ),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12),
)
OPTIONS = {  # commands that need no Ray and no long work, and what else they are given
    ("describe",): ["--space", "--seed", "--target", "--strategy"],
    ("table",): ["--space"],
    ("status",): [],
    ("verify",): [],
    ("report",): ["--reach", "--floor", "--reference"],
    ("sweep", "sweep.yaml", "--out", "out", "--dry-run"): ["--actors", "--gpus", "--only", "--address"],
    ("search", *MACS, "--population", "4", "--generations", "0"): [
        "--space",
        "--target",
        "--strategy",
        "--seed",
        "--predictor",
    ],
    ("export", "--out", "export", "--format", "config"): ["--space", "--seed", "--target", "--weights"],
    ("evaluate", "--data", "data", "--address", "none"): [
        "--which",
        "--bad",
        "--batch",
        "--gpus",
        "--calibration-seed",
    ],
    ("train-predictor", "--space", "proxyless", "--out", "p.safetensors"): [
        "--epochs",
        "--hidden",
        "--held-out",
    ],
    ("front", *MACS, "--children", "1", "--targets"): ["--space", "--seeds", "--start"],
    ("assets", "where"): [],
}


@FUZZ
@given(st.data())
def test_any_arguments_end_with_a_known_status(data: st.DataObject) -> None:
    command = data.draw(st.sampled_from(sorted(OPTIONS)))
    arguments = [*command, *data.draw(st.lists(WORDS, max_size=2))]
    for option in (
        data.draw(st.lists(st.sampled_from(OPTIONS[command]), max_size=2)) if OPTIONS[command] else []
    ):
        arguments += [option, data.draw(WORDS)]
    sweep_file(folder())
    out, errors = io.StringIO(), io.StringIO()
    before, argv = Path.cwd(), sys.argv
    os.chdir(folder())
    sys.argv = ["topdown-ray", *arguments]
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
            pytest.raises(SystemExit) as stopped,
        ):
            main.main()
    finally:
        os.chdir(before)
        sys.argv = argv
    assert stopped.value.code in (0, 1, 2), (arguments, errors.getvalue())
    assert len(errors.getvalue()) < 3000
    if stopped.value.code:
        assert errors.getvalue().startswith("error: "), arguments
        assert errors.getvalue().count("\n") == 1, arguments
