"""A strategy is shown as it was registered, and the package's own ones as they are listed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from support import synthetic

import topdown_ray
from topdown_ray import strategy_styles
from topdown_ray.algorithms.strategies import STRATEGIES, Outcome, Searches, strategy
from topdown_ray.report import plots
from topdown_ray.strategy_styles import STYLES, strategy_rank, style_of


def test_every_strategy_of_the_package_has_a_style_of_its_own() -> None:
    assert set(STYLES) == set(STRATEGIES)
    assert len({style.colour for style in STYLES.values()}) == len(STYLES)
    for name in STRATEGIES:
        assert style_of(name) == STYLES[name]._replace(label=name)
    assert sorted(["zeta", *reversed(STYLES), "mine"], key=strategy_rank) == [*STYLES, "mine", "zeta"]


@pytest.fixture
def mine() -> Iterator[None]:
    def serve(searches: Searches) -> Iterator[Outcome]:
        yield from ()

    strategy("mine", lambda full, warm: warm, label="my own", colour="#123456")(serve)
    yield
    del STRATEGIES["mine"]
    del strategy_styles._chosen["mine"]


@pytest.mark.usefixtures("mine")
def test_a_registered_label_and_colour_are_drawn(tmp_path: Path) -> None:
    folder = synthetic.write(
        tmp_path / "own", *synthetic.frames({"mine": 0.0, "top_down": 0.0, "other": 0.0})
    )
    axes = plots.accuracy(topdown_ray.summary(topdown_ray.load(folder)).accuracy, Figure().add_subplot())
    drawn = {str(line.get_label()): to_hex(str(line.get_color())) for line in axes.get_lines()}
    assert drawn["my own"] == "#123456"
    assert drawn["top_down"] == STYLES["top_down"].colour
    assert "other" in drawn
