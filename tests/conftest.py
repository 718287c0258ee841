"""Where the tests find the published artefacts: $TOPDOWN_RAY_ASSETS, else ../shared/assets beside the
checkout.
"""

import os
import signal
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

if "TOPDOWN_RAY_ASSETS" not in os.environ and (ROOT.parent / "shared" / "assets").is_dir():
    os.environ["TOPDOWN_RAY_ASSETS"] = str(ROOT.parent / "shared" / "assets")
os.environ.setdefault("TOPDOWN_RAY_OFFLINE", "1")  # a test never fetches by accident
os.environ.setdefault("RAY_worker_niceness", "0")  # else Ray's processes starve beside other tests
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # processes that no test asked for

pytest_plugins = ["support.browsing", "support.buckets"]  # the fixtures ``chromium`` and ``server``

# ignored in a shell's background job, and so by commands that are tested
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # as in every worker


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of the published artefacts; the test skips, saying so, where it is missing."""
    folder = Path(os.environ.get("TOPDOWN_RAY_ASSETS", "missing"))
    if not (folder / "acc_predictor.pth").is_file():
        pytest.skip("the published artefacts are missing: set TOPDOWN_RAY_ASSETS to a folder that holds them")
    return folder


LONGEST = (
    "test_full_loop",
    "test_cluster",
    "test_supervisor",
    "test_warm",
    "test_sweep",
    "test_ray",
    "test_storage",
    "test_evaluation",
    "test_docs",
    "test_scalar",
    "test_latency_ray",
    "test_report",
    "test_performance",
    "test_export",
    "test_package",
    "test_python",
    "test_extending",
    "test_entries",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: processes that share the tests (``--dist loadfile``) end together."""
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))
