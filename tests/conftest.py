"""Where the tests find the published artefacts: $TOPDOWN_RAY_ASSETS, else ../shared/assets beside the
checkout.
"""

import os
import signal
import sys
from pathlib import Path

import pytest

# before numpy: where processes share the cores, threads of products spin while they wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parent.parent

if "TOPDOWN_RAY_ASSETS" not in os.environ and (ROOT.parent / "shared" / "assets").is_dir():
    os.environ["TOPDOWN_RAY_ASSETS"] = str(ROOT.parent / "shared" / "assets")
os.environ.setdefault("TOPDOWN_RAY_OFFLINE", "1")  # a test never fetches by accident
os.environ.setdefault("RAY_worker_niceness", "0")  # else Ray's processes starve beside other tests
os.environ.setdefault("RAY_metrics_report_interval_ms", "1000")  # not ten seconds: a test waits for them
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # processes that no test asked for

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process of a test compiles the package again
sys.dont_write_bytecode = False

# the fixtures ``chromium``, ``server``, ``local_ray`` and ``slurm``
pytest_plugins = ["support.browsing", "support.buckets", "support.one_ray", "support.slurm"]

# ignored in a shell's background job, and so by commands that are tested
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # likewise by nohup

torch.set_num_threads(1)  # as in every worker


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of the published artefacts; the test skips, saying so, where it is missing."""
    folder = Path(os.environ.get("TOPDOWN_RAY_ASSETS", "missing"))
    if not (folder / "acc_predictor.pth").is_file():
        pytest.skip("the published artefacts are missing: set TOPDOWN_RAY_ASSETS to a folder that holds them")
    return folder


ONE_RAY = (
    "test_full_loop",
    "test_ray",
    "test_warm",
    "test_hosting",
    "test_ray_counters",
)  # see the fixture ``local_ray``
LONGEST = (
    "test_full_loop",
    "test_ray",
    "test_warm",
    "test_hosting",
    "test_ray_counters",
    "test_cluster",
    "test_cluster_tutorial",
    "test_docs_blocks",
    "test_slurm",
    "test_supervisor",
    "test_entries",
    "test_limits",
    "test_evaluation",
    "test_extending",
    "test_storage",
    "test_python",
    "test_sweep",
    "test_fronts",
    "test_report",
    "test_latency_ray",
    "test_trackers",
    "test_live",
    "test_scalar",
    "test_export",
    "test_package",
    "test_performance",
    "test_notebook",
    "test_docs",
    "test_bad_input",
    "test_evolution",
    "test_damage",
    "test_places",
    "test_latency",
)


class Scheduling(LoadFileScheduling):
    """``--dist loadfile``, but the files that share a Ray run in one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "one ray" if Path(file).stem in ONE_RAY else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """None: another ``--dist`` was asked for."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: processes that share the tests (``--dist loadfile``) end together."""
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))
