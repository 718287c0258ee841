"""What a command says without searching, it says without importing what searches: by a list of modules, not
of seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from support.commands import SWEEP, sweep_file, topdown_ray

HEAVY = (
    *("torch", "torchvision", "ofa", "numba", "ray", "scipy", "pandas"),
    *("matplotlib", "altair", "joblib", "requests", "mlflow", "tensorboard", "IPython"),
)
# The command line, which reports what its process had imported when it ended. A command that uses Ray runs in
# a child, and both report.
WRAPPED = """
import sys
from topdown_ray.cli.main import main
try:
    main()
finally:
    print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
SMALLEST = json.dumps({"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "image_size": 160})
COMMANDS = (
    *(
        "demo",
        "sweep",
        "search",
        "status",
        "merge",
        "describe",
        "pick",
        "verify",
        "report",
        "compare",
        "front",
    ),
    *("measure", "table", "evaluate", "sample-dataset", "train-predictor", "export", "bench", "assets"),
)


def run(*arguments: object) -> tuple[int, str, str, set[str]]:
    """The exit status of a command in a fresh process, its two streams, and the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", WRAPPED, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TOPDOWN_RAY_OFFLINE": "1"},
        timeout=200,
        check=False,
    )
    lines = done.stderr.splitlines()
    imported = {name for line in lines if line.startswith("imported:") for name in line.split()[1:]}
    assert "typer" in imported, done.stderr
    said = [line for line in lines if not line.startswith("imported:")]
    return done.returncode, done.stdout, "\n".join(said), imported


def assert_light(imported: set[str]) -> None:
    assert imported & set(HEAVY) == set()


HELP = f"""
import sys
from topdown_ray.cli.main import app
for words in ([], *([name] for name in {COMMANDS}), ["assets", "list"]):
    app([*words, "--help"], standalone_mode=False)
named = [info.name or info.callback.__name__ for info in [*app.registered_commands, *app.registered_groups]]
assert {{name.replace("_", "-") for name in named}} == set({COMMANDS})
print(*sorted(name.partition(".")[0] for name in sys.modules), file=sys.stderr)
"""


def test_the_help_of_every_command() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert done.stdout.count("Usage:") == len(COMMANDS) + 2
    assert_light(set(done.stderr.split()))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"spaces": ["nowhere"]}, ("sweep.yaml: spaces: expected one of mobilenet_v3", "'nowhere'")),
        ({"strategies": ["top_dwn"]}, ("sweep.yaml: strategies: expected one of", "top_down", "'top_dwn'")),
        ({"strategies": [{"name": "joint", "archve": 3}]}, ("strategies[0].archve: expected", "archive")),
        ({"cost": "makcs"}, ("cost: expected note10, macs", "'makcs'")),
        ({"predictor": "embeded"}, ("embeded: expected a predictor checkpoint", "published, embedded")),
        ({"targets": [[1]]}, ("targets: mobilenet_v3: expected at least", "found 1")),
        ({"limits": {"prams": 3}}, ("limits: expected", "params", "'prams'")),
        ({"seds": 3}, ("sweep.yaml: seds: expected one of the keys", "seeds")),
        ({"search": {"populaton": 20}}, ("search.populaton: expected one of the keys population",)),
        ({"search": {"population": 1}}, ("search.population: expected", "found 1")),
        ({"cost": "no_such_module:cost"}, ("cost: no_such_module:cost: expected an object",)),
    ],
)
def test_what_is_wrong_in_a_sweep_file(
    tmp_path: Path, changes: dict[str, object], parts: tuple[str, ...]
) -> None:
    status, out, said, imported = run("sweep", sweep_file(tmp_path, **changes), "--out", tmp_path / "out")
    assert (status, out) == (2, "")
    assert said.startswith("error: ")
    assert said.count("\n") == 0
    for part in parts:
        assert part in said
    assert_light(imported)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("sweep", "missing.yaml", "--out", "out"), "missing.yaml: expected a sweep file"),
        (("search", "--space", "nowhere"), "--space: expected one of mobilenet_v3"),
        (("search", "--cost", "makcs"), "--cost: expected note10, macs"),
        (("search", "--cost", "macs", "--predictor", "embeded"), "embeded: expected a predictor"),
        (("search", "--populaton", "3"), "No such option: --populaton"),
        (("describe", "missing.json"), "missing.json: expected a result folder, a JSON file"),
        (("describe", '{"ks": [3]}'), "architecture: expected the keys"),
        (("export", "missing", "--out", "x"), "missing: expected a result folder, a JSON file"),
        (("evaluate", "missing", "--data", "x"), "missing: expected a result folder, a JSON file"),
        (("train-predictor", "missing", "--space", "proxyless", "--out", "x.safetensors"), "missing: "),
        *(
            ((command, "missing", *more), "missing: expected a sweep's result folder")
            for command, *more in (("report",), ("verify",), ("compare", "b"), ("pick", "--at", "3"))
        ),
        (("merge", "out", "missing"), "missing: expected a sweep's result folder"),
        (("status", "missing"), "missing: expected a sweep's result folder"),
        (("table", "missing"), "missing: expected a .parquet file or one of"),
        (("measure", "--space", "nowhere", "--out", "x.parquet"), "--space: expected one of"),
        (("measure", "--check", "missing.parquet"), "missing.parquet: expected a latency table"),
    ],
)
def test_what_is_not_there(arguments: tuple[str, ...], part: str) -> None:
    status, out, said, imported = run(*arguments)
    assert (status, out) == (2, "")
    assert said.startswith("error: ")
    assert said.count("\n") == 0
    assert part in said
    assert_light(imported)


@pytest.mark.parametrize(
    "arguments",
    [("assets", "list"), ("table", "epyc_1thread"), ("describe", SMALLEST)],
    ids=lambda arguments: arguments[0],
)
def test_what_is_known_of_tables_predictors_and_architectures(arguments: tuple[str, ...]) -> None:
    status, out, said, imported = run(*arguments)
    assert (status, said) == (0, "")
    assert out
    assert_light(imported)


def test_the_status_of_a_sweep_and_the_plan_of_another(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, search={"population": 8, "generations": 1, "warm_generations": 1})
    made = topdown_ray("sweep", file, "--out", tmp_path / "out", "--address", "none")
    assert made.returncode == 0, made.stderr
    status, out, said, imported = run("status", tmp_path / "out")
    assert (status, said) == (0, "")
    assert f"{SWEEP['seeds']} of {SWEEP['seeds']} searches" in out
    assert_light(imported)
