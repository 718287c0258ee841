"""scripts/examples/analysis.ipynb runs from load to the last figure."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import ROOT
from support import synthetic

NOTEBOOK = ROOT / "scripts" / "examples" / "analysis.ipynb"


@pytest.mark.filterwarnings("default")  # those of Jupyter's own machinery
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    effects = {"independent": 0.0, "bottom_up": 0.0, "top_down": 0.001}
    folder = synthetic.write(tmp_path / "paper", *synthetic.frames(effects))
    monkeypatch.setenv("TOPDOWN_RAY_RESULTS", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert not [output for output in outputs if output.output_type == "stream"], "warnings or prints"


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None
        for cell in cells
        if cell["cell_type"] == "code"
    )
