"""scripts/examples/analysis.ipynb runs from its own folder, and is kept with its outputs."""

from __future__ import annotations

import json
import os
import runpy
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT
from support.sweeping import run

NOTEBOOK = ROOT / "scripts" / "examples" / "analysis.ipynb"
MAKER = ROOT / "scripts" / "make" / "analysis_notebook.py"
PICTURES = 7
SWEEP = {
    "name": "yours",
    "spaces": ["resnet50d"],
    "strategies": ["bottom_up", "top_down"],
    "cost": "macs",
    "predictor": "embedded",
    "targets": [[3000, 2000]],
    "seeds": 2,
    "search": {"population": 12, "generations": 4, "warm_generations": 2},
}


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook, run in a folder that holds nothing else."""
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    shutil.copy(NOTEBOOK, folder)
    notebook = nbformat.read(folder / NOTEBOOK.name, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources=where).execute()
    return notebook


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of Jupyter's own machinery
def test_the_notebook_runs_without_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOPDOWN_RAY_RESULTS", raising=False)
    found = outputs(executed(tmp_path, monkeypatch))
    assert sum("image/png" in output.get("data", {}) for output in found) == PICTURES
    assert not [output for output in found if output.output_type == "stream"], "warnings or prints"
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["example", "example-front"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_notebook_reads_a_folder_of_yours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(SWEEP, tmp_path / "yours")
    monkeypatch.setenv("TOPDOWN_RAY_RESULTS", str(tmp_path / "yours"))
    notebook = executed(tmp_path, monkeypatch)
    found = outputs(notebook)
    assert sum("image/png" in output.get("data", {}) for output in found) == PICTURES
    assert not [output for output in found if output.output_type == "stream"], "warnings or prints"
    assert not (tmp_path / "results").exists()
    assert "Sweep yours (complete), 4 searches of resnet50d" in found[0]["data"]["text/plain"]


def test_the_notebook_is_kept_as_its_maker_runs_it() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < 400_000
    notebook = nbformat.reads(text, as_version=4)
    cells = runpy.run_path(str(MAKER))["CELLS"]
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == cells
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.outputs for cell in code)
    found = outputs(notebook)
    assert {output.output_type for output in found} == {"execute_result", "display_data"}
    assert sum("image/png" in output.data for output in found) == PICTURES
    shown = json.dumps([output.data.get("text/plain", "") for output in found])
    assert not [word for word in (str(ROOT), str(Path.home()), "/tmp") if word in shown]
