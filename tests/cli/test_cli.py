"""The command line: every mistake is one line and exit status 2, and nothing half-written is left."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import SWEEP, assert_one_line, main_in_process, sweep_file

from topdown_ray.cli.present.sweeps import print_demo
from topdown_ray.sweeps.api import Workers, run_sweep
from topdown_ray.sweeps.driver import make_plan
from topdown_ray.sweeps.spec import make_spec


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"spaces": ["vgg"]}, ["spaces: expected one of mobilenet_v3", "'vgg'"]),
        ({"spaces": []}, ["spaces: expected a non-empty list"]),
        ({"strategies": ["sideways"]}, ["strategies: expected one of independent", "'sideways'"]),
        (
            {"strategies": ["top_down", "top_down"]},
            ["strategies: expected distinct labels"],
        ),
        ({"cost": "pixel9"}, ["cost: expected note10, macs", "'pixel9'"]),
        ({"cost": None}, ["cost: expected a value, found none"]),
        (
            {"cost": "note10", "spaces": ["resnet50d"]},
            ["cost: expected a cost of resnet50d", "found note10, a table of mobilenet_v3"],
        ),
        ({"colour": "red"}, ["colour: expected one of the keys name, spaces", "unknown key"]),
        (
            {"search": {"populaton": 5}},
            ["search.populaton: expected one of the keys population", "did you mean 'population'?"],
        ),
        (
            {"search": {"population": 3}},
            ["search.population: expected a number greater than or equal to 4, found 3"],
        ),
        ({"search": {"mutate_prob": 0}}, ["search.mutate_prob: expected a number greater than 0, found 0"]),
        (
            {"targets": []},
            ["targets: expected a list of numbers, a range {from, to, step}, or a list"],
        ),
        ({"targets": [[]]}, ["targets[0]: expected a non-empty list"]),
        ({"targets": [[300, 300]]}, ["targets[0]: expected distinct targets, found 300"]),
        ({"targets": [[300, -5]]}, ["targets[0]: expected positive numbers, found -5"]),
        ({"targets": [["fast"]]}, ["targets[0]: expected positive numbers, found 'fast'"]),
        ({"targets": [[float("nan")]]}, ["targets[0]: expected positive numbers, found nan"]),
        ({"targets": [[300, 100]]}, ["targets: mobilenet_v3: expected at least 100.321", "found 100"]),
        (
            {"targets": {"resnet50d": [[3000]]}},
            ["targets: expected one entry for each of mobilenet_v3, found resnet50d"],
        ),
        ({"seeds": []}, ["seeds: expected a count, a non-empty list"]),
        ({"seeds": 0}, ["seeds: expected from one to", "found 0"]),
        ({"seeds": [4, 4]}, ["seeds: expected distinct seeds, found 4"]),
        ({"seeds": [-1]}, ["seeds: expected whole numbers", "found -1"]),
        ({"seeds": {"start": 2**63, "count": 5}}, ["seeds: expected start >= 0"]),
        ({"targets": [[10**400]]}, ["targets[0]: expected positive numbers"]),
        ({"search": {"generations": True}}, ["search.generations: expected a valid integer, found True"]),
        ({"predictor": "tests"}, ["tests: expected a predictor checkpoint", "found a folder"]),
        ({"batch": 0}, ["batch: expected auto", "found 0"]),
        ({"protocol": "magic"}, ["protocol: expected 'default' or 'notebook', found 'magic'"]),
        ({"predictor": "no/such/file.pth"}, ["file.pth: expected a predictor checkpoint", "no such file"]),
    ],
)
def test_mistakes_in_a_sweep_file(
    changes: dict[str, Any], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["sweep", sweep_file(tmp_path, **changes), "--out", out, "--address", "none"]
    assert_one_line(main_in_process(arguments, capsys), *parts)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1,", "expected YAML"),
        ("- 1", "expected a mapping"),
        ("x: !!python/object/apply:os.getpid []", "expected YAML"),
    ],
)
def test_a_sweep_file_that_is_none(
    text: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    result = main_in_process(["sweep", tmp_path / "bad.yaml", "--out", tmp_path / "out"], capsys)
    assert_one_line(result, "bad.yaml", part)
    missing = main_in_process(["sweep", tmp_path / "none.yaml", "--out", tmp_path / "out"], capsys)
    assert_one_line(missing, "none.yaml: expected a sweep file, found no readable file")


def test_folders_that_will_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sweep_file(tmp_path)
    (tmp_path / "taken").write_text("a file")
    common = ["sweep", file, "--address", "none", "--out"]
    assert_one_line(
        main_in_process([*common, tmp_path / "taken"], capsys), "taken: expected a folder, found a file"
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    assert_one_line(
        main_in_process([*common, tmp_path / "other"], capsys),
        "other: expected an empty folder",
        "other files",
    )
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]
    assert main_in_process([*common, tmp_path / "out"], capsys).returncode == 0
    again = main_in_process([*common, tmp_path / "out", "--no-resume"], capsys)
    assert_one_line(again, "out: expected an empty folder (--no-resume), found results of this sweep")
    changed = ["sweep", sweep_file(tmp_path, seeds=3), "--address", "none", "--out", tmp_path / "out"]
    assert_one_line(main_in_process(changed, capsys), "out: expected an empty folder or sweep", "found sweep")


@pytest.mark.skipif(
    not Path("/proc").is_dir(), reason="needs /proc, a folder that not even root can write to"
)
def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = main_in_process(
        ["sweep", sweep_file(tmp_path), "--address", "none", "--out", "/proc/out"], capsys
    )
    assert_one_line(result, "/proc/out: expected a folder to write to, found")


def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sweep_file(tmp_path)
    for arguments, part in [
        (["swep"], "swep"),
        (["sweep", file], "--out"),
        (["sweep", file, "--out", "x", "--actors", "0"], "--actors"),
        (
            ["sweep", file, "--out", tmp_path / "x", "--address", "none", "--actors", "3"],
            "--actors: expected 1",
        ),
        (["sweep", file, "--out", tmp_path / "x", "--address", "none", "--gpus", "1"], "--gpus: expected 0"),
        (["search", "--target", "5O"], "--target: expected a valid number, found '5O'"),
        (["search", "--seed", "-1"], "--seed: expected a number greater than or equal to 0, found '-1'"),
        (["search", "--limit", "size=3"], "--limit: expected note10, macs, params, "),
        (
            ["bench", "driver", "--repeats", "2"],
            "--repeats: expected the benchmark race or floor, found driver",
        ),
        (["bench", "race", "--seeds", "2"], "--seeds: expected the benchmark fronts, found race"),
        (
            ["search", "--cost", "macs", "--predictor", "embedded", "--target", "5"],
            "--target: mobilenet_v3: expected at least",
        ),
        (["verify", tmp_path / "nowhere"], "expected a sweep's result folder, found no readable run.json"),
        (["describe", "{"], "architecture: expected JSON"),
        (["describe", '{"ks": 3}'], "architecture: expected the keys"),
        (["describe", "[1]"], "architecture: expected a JSON object, found list"),
        (["describe", '{"ks": 3}', "--seed", "1"], "--seed: expected a result folder"),
        (["sweep", file, "--out", file / "below", "--address", "none"], "is a file"),
        (["describe", tmp_path / "none.json"], "expected a result folder, a JSON file or JSON text"),
    ]:
        assert_one_line(main_in_process(arguments, capsys), part)


def test_sweep_dry_run_verify_and_describe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = sweep_file(tmp_path), tmp_path / "out"
    planned = main_in_process(["sweep", file, "--out", out, "--dry-run", "--json"], capsys)
    facts = json.loads(planned.stdout)
    assert facts["searches"] == 2
    assert facts["evaluations"] == 2 * (20 * 6 + 1 + 20 * 3)
    assert not out.exists()

    done = main_in_process(["sweep", file, "--out", out, "--address", "none", "--json"], capsys)
    assert json.loads(done.stdout)["done"] == 2
    again = main_in_process(["sweep", file, "--out", out, "--address", "none"], capsys)
    assert "Finished 2 of 2 searches (0 in this run) in" in again.stdout

    verified = main_in_process(["verify", out, "--json"], capsys)
    assert json.loads(verified.stdout)["passed"] is True

    row = main_in_process(["describe", out, "--seed", 1, "--target", 300, "--json"], capsys)
    facts = json.loads(row.stdout)
    assert facts["seed"] == 1
    assert facts["target"] == 300
    assert facts["macs_m"] == pytest.approx(facts["cost"])
    text = main_in_process(["describe", json.dumps(facts["arch"], indent=2)], capsys).stdout
    assert facts["layers"][0] in text
    assert "1536x1000_Linear" in text
    wrong = main_in_process(["describe", out, "--target", 7], capsys)
    assert_one_line(
        wrong, "--target: expected one of 400, 300, found 7; topdown-ray pick chooses for any cost"
    )


def test_the_demo_ends_with_commands_that_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a folder that a shell would split, and a target with many digits. The demo itself runs in
    tests/test_package.py.
    """
    monkeypatch.chdir(tmp_path)
    plan = make_plan(make_spec({**SWEEP, "targets": [[400.1234567, 300]]}, "test"))
    print_demo(run_sweep(plan, "my results/demo", Workers("none")), "my results/demo")
    printed = capsys.readouterr().out
    assert "\nFinished 2 of 2 searches (2 in this run) in " in printed
    report, describe = map(shlex.split, printed.splitlines()[-2:])
    assert report == ["topdown-ray", "report", "my results/demo"]
    assert main_in_process([*report[1:]], capsys).returncode == 0
    assert Path("my results/demo/report/report.html").is_file()
    assert "400.1234567" in describe
    assert "1536x1000_Linear" in main_in_process([*describe[1:]], capsys).stdout
    wrong = main_in_process(["describe", "my results/demo", "--target", 7], capsys)
    assert_one_line(wrong, "--target: expected one of 400.1234567, 300, found 7")


def test_search_prints_its_answers(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "search",
        "--space",
        "resnet50d",
        "--cost",
        "macs",
        "--predictor",
        "embedded",
        "--target",
        "2000",
    ]
    arguments += ["--population", "20", "--generations", "5"]
    (row,) = json.loads(main_in_process([*arguments, "--json"], capsys).stdout)
    assert row["cost"] <= 2000
    assert row["arch"] in main_in_process(arguments, capsys).stdout


def test_help_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys; sys.argv = ['x', '--help']\nfrom topdown_ray.cli.main import main\ntry: main()\nexcept "
        "SystemExit: pass\n"
    )
    code += "print(sorted({'torch', 'ray', 'ofa'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip().endswith("[]")


HELP = """
import sys, typer
from topdown_ray.cli.main import app, main
names = list(typer.main.get_command(app).commands)
for name in names:
    sys.argv = ["x", name, "--help"]
    try:
        main()
    except SystemExit as stopped:
        assert not stopped.code, name
print(len(names), sorted({"torch", "ray", "ofa", "pandas"} & set(sys.modules)))
"""


def test_the_help_of_every_command_needs_neither_torch_nor_ray() -> None:
    result = subprocess.run(
        [sys.executable, "-c", HELP], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.splitlines()[-1] == "19 []"
