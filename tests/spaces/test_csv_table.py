"""Latency tables as CSV files: written, filled, refused with the place of a mistake, used by a sweep."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import main_in_process
from support.sweeping import run

from topdown_ray.errors import UserError
from topdown_ray.spaces import csv_table
from topdown_ray.spaces.cost import load_cost
from topdown_ray.spaces.proxyless import PROXYLESS
from topdown_ray.sweeps.verify import verify

SWEEP = {
    "name": "csv",
    "spaces": ["proxyless"],
    "strategies": ["top_down", "joint"],
    "predictor": "embedded",
    "seeds": 2,
    "search": {"population": 12, "generations": 4, "warm_generations": 2},
}


@pytest.fixture
def file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The shipped table, as the command writes it."""
    path = tmp_path / "phone.csv"
    command: list[object] = ["table", "epyc_1thread", "--space", "proxyless", "--export-csv", path]
    assert main_in_process(command, capsys).returncode == 0
    return path


def test_a_table_comes_back_as_it_was(file: Path) -> None:
    shipped, own = load_cost("epyc_1thread", PROXYLESS), load_cost(str(file), PROXYLESS)
    genes = PROXYLESS.random(500, 0)
    assert (shipped(genes) == own(genes)).all()
    assert (own.name, own.unit) == ("table:phone", "ms")
    assert own.sha256 == shipped.sha256


def test_a_table_of_another_device_serves_a_sweep_and_proves_itself(file: Path, tmp_path: Path) -> None:
    header, *lines = file.read_text().splitlines()
    doubled = [f"{line.rpartition(',')[0]},{2 * float(line.rpartition(',')[2])!r}" for line in lines]
    file.write_text("\n".join([header, *doubled]) + "\n")
    low, high = load_cost(str(file), PROXYLESS).range()
    targets = [[round(low + share * (high - low), 1) for share in (0.6, 0.3)]]
    results = run({**SWEEP, "cost": str(file), "targets": targets}, tmp_path / "out")
    assert set(results.searches["cost_name"]) == {"table:phone"}
    assert verify(results, rerun=2).passed
    file.write_text("\n".join([header, *lines]) + "\n")
    with pytest.raises(UserError, match="expected the table that the rows were computed with, SHA-256"):
        verify(results)


def without_lines(*numbers: int) -> Callable[[list[str]], list[str]]:
    return lambda lines: [line for i, line in enumerate(lines, 1) if i not in numbers]


def with_line(number: int, old: str, new: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [
        line.replace(old, new, 1) if i == number else line for i, line in enumerate(lines, 1)
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without_lines(2, 3, 4, 5),
            r"every layer of proxyless, found no row for kind=.* and 1 more",
        ),
        (without_lines(1), r"expected the columns kind, size_in, .*, ms, found "),
        (with_line(3, "conv", "conv,"), r"line 3: |expected the columns"),
        (lambda lines: [*lines, lines[5]], r"expected one row for each layer, found two for kind="),
        (
            lambda lines: [*lines[:9], lines[9].rpartition(",")[0] + ",-1"],
            r"line 10: ms: expected a number above 0",
        ),
        (
            lambda lines: [*lines[:9], lines[9].rpartition(",")[0] + ",nan"],
            r"line 10: ms: expected a number above",
        ),
        (
            lambda lines: [*lines[:9], lines[9].replace("False", "no", 1)],
            r"line 10: \w+: expected True or False",
        ),
        (lambda lines: [], r"expected the columns"),
        (lambda lines: ["\x00"], r"expected"),
    ],
)
def test_a_mistake_names_its_place(
    change: Callable[[list[str]], list[str]], message: str, file: Path
) -> None:
    file.write_text("\n".join(change(file.read_text().splitlines())) + "\n")
    with pytest.raises(UserError, match=message) as caught:
        csv_table.read(file, PROXYLESS)
    assert "\n" not in str(caught.value)
