"""Count the progress of a sweep in Ray's own metrics, which every Ray node exports to Prometheus."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc
import ray.util.client
from ray.util.metrics import Counter

from topdown_ray.sweeps.events import Observer, ShardDone, ShardLost, ShardRetried, SweepEvent, ignore

_COUNTED = {
    "searches": "Searches whose rows are in the result folder.",
    "evaluations": "Predictor evaluations of these searches.",
    "retries": "Shards that raised and were tried again.",
    "losses": "Shards whose actor died or was replaced.",
}


def ray_counters() -> Observer:
    """Return an observer that counts by space and strategy (its label), for a process that is connected to
    Ray.

    With Ray Client it ignores all events, because this process is then not part of the cluster.
    """
    client: Any = ray.util.client.ray
    if client.is_connected():
        return ignore
    counters = {
        name: Counter(f"topdown_ray_{name}", description=text, tag_keys=("space", "strategy"))
        for name, text in _COUNTED.items()
    }

    def count(event: SweepEvent) -> None:
        if not isinstance(event, ShardDone | ShardRetried | ShardLost):
            return
        tags = {"space": event.space, "strategy": event.label}
        if isinstance(event, ShardRetried):
            counters["retries"].inc(1, tags)
        elif isinstance(event, ShardLost):
            counters["losses"].inc(1, tags)
        else:
            counters["searches"].inc(event.searches, tags)
            evaluations = pc.sum(event.rows["evaluations"]).as_py()
            if evaluations:  # a counter does not accept 0
                counters["evaluations"].inc(evaluations, tags)

    return count
