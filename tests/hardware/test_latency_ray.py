"""Measuring on a real Ray cluster: one reserved node of every kind, a file for each, nothing merged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from topdown_ray.cluster import connected
from topdown_ray.errors import StartError, UserError
from topdown_ray.hardware import measure, nodes
from topdown_ray.hardware.rounds import Effort
from topdown_ray.spaces import latency_table
from topdown_ray.spaces.latency_table import Conditions
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3

pytestmark = pytest.mark.ray

ONCE = Effort(least=1, most=1, warm=0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Three nodes of two kinds: two offer Ray one CPU, one offers two."""
    whole = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for cpus in (2, 1):
        whole.add_node(num_cpus=cpus)
    try:
        yield whole.address
    finally:
        ray.shutdown()
        whole.shutdown()


@pytest.mark.slow
def test_every_kind_of_node_gets_a_file(cluster: str, tmp_path: Path) -> None:
    tables = measure.measure_cluster(cluster, "mobilenet_v3", Conditions(), tmp_path / "t.parquet", ONCE)
    assert len(tables) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in tables)
    assert {path.stem.rsplit("-", 1)[1] for path in tables} == {"1cpus", "2cpus"}
    for path, table in tables.items():
        again = latency_table.read(path)
        assert again.sha256() == table.sha256()
        assert len(again.layers) == len(MOBILENET_V3.distinct_layers())
        assert "host" not in again.facts
    with pytest.raises(
        UserError, match="--device: expected a cluster with cuda, found no node that offers it"
    ):
        measure.measure_cluster(cluster, "mobilenet_v3", Conditions("cuda"), tmp_path / "t.parquet", ONCE)


@pytest.mark.slow
def test_the_node_is_reserved_whole(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(cluster):
        kinds = nodes.node_kinds()
        assert [(kind.cpus, kind.nodes) for kind in kinds] == [(1, 2), (2, 1)]
        watch = nodes.RemoteWatch(kinds[1], "mobilenet_v3", Conditions())
        try:
            watch.hold_layers(MOBILENET_V3.distinct_layers()[:3])
            assert all(lap > 0 for lap in watch.laps([2, 0, 1]))
            assert _free(kinds[1].node_id) == 0
            monkeypatch.setattr(nodes, "START_TIMEOUT_S", 2)
            late = nodes.RemoteWatch(kinds[1], "mobilenet_v3", Conditions())
            with pytest.raises(StartError, match="expected the node to be free within 2 s"):
                late.facts()
            late.close()
            bad: list[Any] = [10_000]
            with pytest.raises(StartError, match="IndexError"):
                watch.laps(bad)
        finally:
            watch.close()


def _free(node_id: str) -> float:
    from ray._private.state import available_resources_per_node

    return float(available_resources_per_node()[node_id].get("CPU", 0))
