"""The worked examples of docs/extending.md run as they stand."""

import itertools
import re

import pytest
from conftest import ROOT

from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.strategy_styles import style_of

BLOCKS = re.findall(
    r"^## (.+?)\n.*?```python\n(.+?)```",
    (ROOT / "docs" / "extending.md").read_text(),
    re.DOTALL | re.MULTILINE,
)


def run(title: str) -> None:
    exec(compile(dict(BLOCKS)[title], "docs/extending.md", "exec"), {"__name__": title})


def test_a_new_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        run("A new strategy")
    finally:
        STRATEGIES.pop("patient", None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 2
    full, warm = 100 * 21, 1 + 2 * 100 * 5
    assert sorted(int(line.split()[-1]) for line in lines[1:]) == [warm, warm, full, full]


def test_a_strategy_with_parameters_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        run("A strategy with parameters of its own")
        assert style_of("patient").label == "patient top-down"
    finally:
        STRATEGIES.pop("patient", None)
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[-1]) for line in lines[1:]] == [20 * 21, 1 + 20 * 3 * 5]


def test_a_new_space(capsys: pytest.CaptureFixture[str]) -> None:
    """The space is small enough to know the answers: all that is possible at each target is found."""
    run("A new space")
    found = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert [target for target, _ in found] == ["30.0", "30.0", "10.0", "10.0"]

    def best(limit: float) -> float:
        accuracies = []
        for depth, resolution in itertools.product(range(3), range(3)):
            for kernels in itertools.product(range(3), repeat=depth + 1):
                pixels = (96 + 32 * resolution) ** 2
                if sum((3 + 2 * k) ** 2 for k in kernels) * pixels / 1e5 <= limit:
                    accuracies.append(0.6 + 0.02 * sum(1 + k for k in kernels) + 0.03 * resolution)
        return max(accuracies)

    assert [accuracy for _, accuracy in found] == [f"{best(limit):.3f}" for limit in (30, 30, 10, 10)]
