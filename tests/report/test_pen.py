"""Pictures that another process draws are those that this one would draw."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from support import synthetic

from topdown_ray import strategy_styles, summary
from topdown_ray.errors import UserError
from topdown_ray.figures import PANEL
from topdown_ray.report import plots
from topdown_ray.report.build import write_report
from topdown_ray.report.pen import Beside, Drawing

EFFECTS = {"independent": 0.0, "mine": 0.01}


def drawing(folder: Path, name: str, setting: str | None = None) -> Drawing:
    folder.mkdir(exist_ok=True)
    table = summary(synthetic.results(EFFECTS, seeds=5)).accuracy
    return Drawing(folder, name, "of two strategies", plots.accuracy, table, PANEL, {"setting": setting})


def test_the_other_process_draws_the_same_with_the_same_styles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(strategy_styles._chosen, "mine", ("a label of its own", "#123456"))
    here = drawing(tmp_path / "here", "picture").drawn()
    with Beside() as beside:
        assert beside._ask(drawing(tmp_path / "there", "picture")) == here.svg
        with pytest.raises(UserError, match=r"setting: expected one of .*, found elsewhere"):
            beside._ask(drawing(tmp_path / "there", "wrong", "elsewhere"))
        pictures = [beside.draw(drawing(tmp_path / f"{i}", "picture")) for i in range(4)]
        assert {picture.svg for picture in pictures} == {here.svg}, "whoever draws it"
        assert {(picture.name, picture.caption) for picture in pictures} == {(here.name, here.caption)}
    assert "a label of its own" in here.svg
    assert "#123456" in here.svg
    for kind in ("svg", "pdf"):
        files = [tmp_path / place / f"picture.{kind}" for place in ("here", "there")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_process_that_dies_is_told(tmp_path: Path) -> None:
    with Beside() as beside:
        beside._process.kill()
        with pytest.raises(RuntimeError, match="the process that draws pictures ended with status -9"):
            beside._ask(drawing(tmp_path / "there", "picture"))


def test_a_report_of_several_settings_is_the_same_with_one_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces, alone = ("mobilenet_v3", "a"), {"mine": 0.0}
    frames = [synthetic.frames(alone, [(35.0, 30.0)], 5, points=2, space=space) for space in spaces]
    searches, trace = (pd.concat(parts) for parts in zip(*frames, strict=True))
    folder = synthetic.write(tmp_path / "two", searches, trace)
    reports = []
    for cores in (2, 1):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        out = write_report([folder], tmp_path / f"{cores}").path.parent
        reports.append({x.relative_to(out): x.read_bytes() for x in out.rglob("*") if x.is_file()})
    assert reports[0] == reports[1]
    assert len([path for path in reports[0] if path.suffix == ".pdf"]) >= 10
