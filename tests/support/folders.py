"""Result folders, whole and damaged."""

import sys
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

import topdown_ray
from support.sweeping import in_process
from topdown_ray.store import parts
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.results import load
from topdown_ray.store.schema import SEARCHES, TRACE
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.spec import make_spec

SMALL = {
    "name": "small",
    "spaces": ["mobilenet_v3"],
    "strategies": ["top_down", "prune"],
    "cost": "macs",
    "predictor": "embedded",
    "targets": [[400, 300]],
    "seeds": 12,
    "batch": 4,
    "search": {"population": 12, "generations": 4, "warm_generations": 2},
}


def plan_of(**changes: object) -> driver.Plan:
    return driver.make_plan(make_spec({**SMALL, **changes}, "test"))


def opened(plan: driver.Plan, out: Path | str) -> ResultFolder:
    folder = ResultFolder(out)
    folder.open(plan.manifest(), resume=True)
    return folder


def ran(out: Path | str, **changes: object) -> topdown_ray.Results:
    plan = plan_of(**changes)
    driver.run(plan, opened(plan, out), in_process(plan))
    return load(out)


def command_of(file: Path, out: Path | str, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "topdown_ray",
        "sweep",
        str(file),
        "--out",
        str(out),
        "--address",
        "none",
        *more,
    ]


def sweep_file(folder: Path, **changes: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return path


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def merged_at(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """Parts are merged, and merged again, as soon as there are so few."""
    monkeypatch.setattr(parts, "MERGE_AT", few)
    monkeypatch.setattr(parts, "MERGE_AGAIN_AT", few)


def made_up(number: int) -> tuple[pa.Table, pa.Table]:
    rows = [{"search_id": f"search-{number}", "target_index": k, "space": "mobilenet_v3"} for k in range(2)]
    return pa.Table.from_pylist(rows, schema=SEARCHES), pa.Table.from_pylist(rows, schema=TRACE)
