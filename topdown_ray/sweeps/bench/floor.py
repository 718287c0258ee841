"""Compare the time of each strategy with its floor, the time of the predictor alone (``topdown-ray bench
floor``).

The benchmark uses one core and MobileNetV3's published case: ten targets under Note10. A batch of searches
and the dense float32 predictor on as many architectures (with given one-hot features, in batches as large as
those of a generation) run in turn in one process, so that drift of the machine affects both alike. The floor
of ``joint`` counts the children that it scores, plus two for each gradient. That of the others counts all
children, including those that were in the cache. The time of a search includes making the rows of its
answers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch

from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.errors import UserError
from topdown_ray.progress import Progress
from topdown_ray.spaces.predictor import Predictor, features
from topdown_ray.sweeps.bench.contestants import OnLap, Scale, plan_of
from topdown_ray.sweeps.runner import Worker

BATCH = 32


class FloorCase(NamedTuple):
    """Searches that are compared with their floor."""

    name: str
    strategy: str
    batch: int
    search: dict[str, int] | None = None  # lengths; None: those of the scale


def cases_of(scale: Scale) -> list[FloorCase]:
    """Return every strategy at the lengths of the scale, joint also at other lengths, and single searches."""
    search = {"generations": min(66, scale.generations), "warm_generations": 0}
    short = f"joint, {search['generations']} generations"
    return [
        *(FloorCase(name, name, BATCH) for name in STRATEGIES),
        FloorCase("top_down, a lone search", "top_down", 1),
        FloorCase(short, "joint", BATCH, search),
        FloorCase(f"{short}, a lone search", "joint", 1, search),
    ]


def distances(
    scale: Scale, only: Sequence[str] = (), on_lap: OnLap = lambda progress, strategy: None
) -> pd.DataFrame:
    """Return one row for each case: the seconds of a search and of its floor, and their ratio.

    The figures are medians over the repeats. only: prefixes of cases, all if empty. Raises UserError for a
    prefix that no case has.
    """
    cases = cases_of(scale)
    for prefix in only:
        if not any(case.name.startswith(prefix) for case in cases):
            names = "; ".join(case.name for case in cases)
            raise UserError(f"--only: expected a prefix of one of {names}, found {prefix!r}")
    chosen = [case for case in cases if case.name.startswith(tuple(only or ("",)))]
    progress = Progress(len(chosen) * (scale.repeats + 1), 0, 0)
    torch.set_num_threads(1)
    rows = []
    for name, strategy, batch, search in chosen:
        plan = plan_of(scale, [0], batch, strategy, search)
        worker = Worker(plan.setups)
        (setup,) = worker.setups.values()
        predictor = setup.predictor
        assert isinstance(predictor, Predictor)
        inputs = features(setup.genes_space, predictor.encoding, setup.genes_space.random(100 * BATCH, 0))
        searching, floors = [], []
        for repeat in range(scale.repeats + 1):
            on_lap(progress, name)
            seeds = range(repeat * batch, (repeat + 1) * batch)
            (shard,) = plan_of(scale, seeds, batch, strategy, search).shards()
            start = time.perf_counter()
            found = worker.run(shard).searches
            middle = time.perf_counter()
            evaluations = sum(_evaluations(row) for row in found)
            with torch.inference_mode():
                products = max(1, round(evaluations / len(inputs)))
                for _ in range(products):
                    predictor.dense(inputs)
            end = time.perf_counter()
            progress.done += 1
            if repeat:  # the first lap warms up
                searching.append((middle - start) / batch)
                # whole batches of inputs do not give exactly the number of evaluations
                floors.append((end - middle) / batch * evaluations / (products * len(inputs)))
        rows.append(
            {
                "case": name,
                "batch": batch,
                "evaluations": evaluations / batch,
                "seconds_per_search": statistics.median(searching),
                "floor_s": statistics.median(floors),
                "to_floor": statistics.median(a / b for a, b in zip(searching, floors, strict=True)),
            }
        )
    return pd.DataFrame(rows)


def _evaluations(row: Mapping[str, Any]) -> int:
    """Return the rows of the predictor that the answer for one target took."""
    if row["strategy"] == "joint":
        return int(row["unique_evaluations"] + 2 * row["gradients"])
    return int(row["evaluations"])
