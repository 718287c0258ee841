"""Where the tests find the published artefacts: $TOPDOWN_RAY_ASSETS, else ../shared/assets beside the checkout."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

if "TOPDOWN_RAY_ASSETS" not in os.environ and (ROOT.parent / "shared" / "assets").is_dir():
    os.environ["TOPDOWN_RAY_ASSETS"] = str(ROOT.parent / "shared" / "assets")
os.environ.setdefault("TOPDOWN_RAY_OFFLINE", "1")  # a test never fetches by accident
os.environ.setdefault("RAY_worker_niceness", "0")  # else Ray's processes starve beside other tests


torch.set_num_threads(1)  # as in every worker


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of the published artefacts; the test skips, saying so, where it is missing."""
    folder = Path(os.environ.get("TOPDOWN_RAY_ASSETS", "missing"))
    if not (folder / "acc_predictor.pth").is_file():
        pytest.skip("the published artefacts are missing: set TOPDOWN_RAY_ASSETS to a folder that holds them")
    return folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For runs in several processes (``-n``): a file's tests stay together, and so do all files that start Ray."""
    from xdist.scheduler import LoadScopeScheduling

    starts_ray = {path.name for path in Path(__file__).parent.glob("test_*.py") if "pytest.mark.ray" in path.read_text()}

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = Path(nodeid.split("::")[0]).name
            return "ray" if name in starts_ray else name

    return ByFile(config, log)


LONGEST = ("test_sweep", "test_export", "test_scalar", "test_report", "test_docs", "test_evaluation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts Ray comes first, then the longest files: processes that share the tests end together."""

    def rank(item: pytest.Item) -> int:
        name = item.path.stem
        return -1 if item.get_closest_marker("ray") else LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=rank)
