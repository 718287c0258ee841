"""The counters of sweeps, as Prometheus scrapes them from a node of a real Ray."""

import re
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.folders import SMALL, opened, plan_of
from support.sweeping import Faulty, in_process

import topdown_ray
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.tracking.ray_counters import ray_counters

WITHIN_S = 60.0


def scraped() -> dict[tuple[str, str], float]:
    """What the node shows of the counters now: their values, by name and strategy."""
    import ray

    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    lines = re.findall(r"^ray_topdown_ray_(\w+)_total\{(.*)\} (\S+)$", text, re.MULTILINE)
    found = {}
    for name, tags, value in lines:
        tag = dict(re.findall(r'(\w+)="([^"]*)"', tags))
        assert tag["space"] == "mobilenet_v3"
        found[name, tag["strategy"]] = float(value)
    return found


def until(expected: Mapping[tuple[str, str], float]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while True:
        found = scraped()
        found = {key: value for key, value in found.items() if key[1] in ("counted", "faulty")}
        if found == expected or time.monotonic() > deadline:
            break
        time.sleep(0.1)  # Ray's processes report once a second
    assert found == expected


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_prometheus_sees_searches_evaluations_retries_and_losses(tmp_path: Path) -> None:
    entry = {"name": "prune", "label": "counted"}
    options = {"strategies": [entry], "seeds": 2, "actors": 1, "progress": False}
    results = topdown_ray.sweep(SMALL, tmp_path / "counted", **options)
    plan = plan_of(strategies=[{**entry, "label": "faulty"}], seeds=2, batch=1)
    executor = Faulty(in_process(plan).hosted)
    executor.times = 2
    driver.run(plan, opened(plan, tmp_path / "faulty"), executor, observe=ray_counters())
    evaluations = float(results.searches["evaluations"].sum())
    until(
        {
            ("searches", "counted"): 2.0,
            ("evaluations", "counted"): evaluations,
            ("searches", "faulty"): 2.0,
            ("evaluations", "faulty"): evaluations,
            ("retries", "faulty"): 2.0,
            ("losses", "faulty"): 1.0,
        }
    )
