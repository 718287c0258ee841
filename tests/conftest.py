"""Where the tests find the published artefacts: $TOPDOWN_RAY_ASSETS, else ../shared/assets beside the checkout."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

if "TOPDOWN_RAY_ASSETS" not in os.environ and (ROOT.parent / "shared" / "assets").is_dir():
    os.environ["TOPDOWN_RAY_ASSETS"] = str(ROOT.parent / "shared" / "assets")
os.environ.setdefault("TOPDOWN_RAY_OFFLINE", "1")  # a test never fetches by accident


torch.set_num_threads(1)  # as in every worker


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of the published artefacts; the test skips, saying so, where it is missing."""
    folder = Path(os.environ.get("TOPDOWN_RAY_ASSETS", "missing"))
    if not (folder / "acc_predictor.pth").is_file():
        pytest.skip("the published artefacts are missing: set TOPDOWN_RAY_ASSETS to a folder that holds them")
    return folder
