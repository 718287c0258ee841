"""``topdown-ray bench floor``: how far each strategy is from its floor, the time that the predictor alone
needs.

One core, MobileNetV3's published case: ten targets under Note10. A batch of searches and the dense float32
predictor on as many architectures (one-hot features given, batches as large as a generation's) run in turn in
one process, so that a drift of the machine meets both alike. The floor of ``joint`` counts its predictor rows
and two for each gradient; that of the others counts the children that they score, remembered ones included.
Searching includes making the rows of the answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.spaces.predictor import features
from topdown_ray.sweeps.bench import Scale, plan_of
from topdown_ray.sweeps.runner import Worker


def distances(
    scale: Scale,
    batch: int = 32,
    strategies: Sequence[str] = (),
    on_lap: Callable[[str, int], None] = lambda name, repeat: None,
) -> pd.DataFrame:
    """A row a strategy (all, where none is named): seconds of a search and of its floor, and their ratio.

    The figures are medians over the repeats. Raises UserError for a strategy that is not known.
    """
    torch.set_num_threads(1)
    rows = []
    for strategy in strategies or STRATEGIES:
        plan = plan_of(scale, [0], batch, strategy)
        worker = Worker(plan.setups, plan.spec.search)
        (setup,) = worker.setups.values()
        inputs = features(
            setup.genes_space, setup.predictor.encoding, setup.genes_space.random(100 * batch, 0)
        )
        searching, floors = [], []
        for repeat in range(scale.repeats + 1):
            on_lap(strategy, repeat)
            (shard,) = plan_of(scale, range(repeat * batch, (repeat + 1) * batch), batch, strategy).shards()
            start = time.perf_counter()
            found, _ = worker.run(shard)
            middle = time.perf_counter()
            evaluations = sum(_evaluations(row) for row in found)
            with torch.inference_mode():
                for _ in range(max(1, round(evaluations / len(inputs)))):
                    setup.predictor.dense(inputs)
            end = time.perf_counter()
            if repeat:  # the first lap warms up
                searching.append((middle - start) / batch)
                floors.append((end - middle) / batch)
        rows.append(
            {
                "strategy": strategy,
                "batch": batch,
                "evaluations": evaluations / batch,
                "seconds_per_search": statistics.median(searching),
                "floor_s": statistics.median(floors),
                "to_floor": statistics.median(a / b for a, b in zip(searching, floors, strict=True)),
            }
        )
    return pd.DataFrame(rows)


def _evaluations(row: Mapping[str, Any]) -> int:
    """What the answer for one target took, in rows of the predictor."""
    if row["strategy"] == "joint":
        return int(row["unique_evaluations"] + 2 * row["gradients"])
    return int(row["evaluations"])
