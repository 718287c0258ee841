"""Define the contestants of the race: OFA's own finder, the scalar top-down search, Ray tasks of that search,
pymoo's NSGA-II, and this project.

They search MobileNetV3 under Note10 with the published predictor. Each contestant builds its runner in its
own process.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from topdown_ray.progress import Progress

TARGETS = (60.0, 55.0, 50.0, 45.0, 40.0, 35.0, 30.0, 25.0, 20.0, 15.0)


@dataclass(frozen=True)
class Scale:
    """How much work the benchmark does."""

    targets: tuple[float, ...]
    generations: int
    warm_generations: int
    batches: tuple[int, ...]
    ray_shards: int
    ray_batch: int
    repeats: int
    with_ray_baselines: bool
    # lengths of joint, in addition to the one with as many evaluations as the others
    joint_generations: tuple[int, ...] = ()


# 14 generations of joint reach the accuracy of top-down; 1,500 are those of scripts/sweeps/joint_200k.yaml
FULL = Scale(TARGETS, 500, 100, (1, 8, 32, 128), 64, 4, 5, True, (14, 66, 1500))
# starting Ray three times takes longer than the rest
QUICK = Scale((60.0, 35.0, 20.0), 20, 5, (1, 8, 32), 16, 8, 2, False, (10,))


_JOINT_SHARE = 0.7  # measured share of its evaluations that are children; the others count gradients


class Lap(NamedTuple):
    """One repeat of a contestant."""

    seconds: float
    searches: int
    evaluations: int  # children scored in all searches
    accuracy: float  # mean over searches and targets; nan if there is none
    cores: int


OnLap = Callable[[Progress, str], None]  # called with the finished laps, and what runs in the next one
Runner = Callable[[int], Lap]  # number of the repeat -> its lap


# --- contestants: each builds its runner in its own process -------------------------------------------------


def ofa_finder(scale: Scale) -> Runner:
    """OFA's own ``ofa.tutorial.EvolutionFinder``, as published: an independent search for each target."""
    import numpy as np
    from ofa.tutorial.evolution_finder import EvolutionFinder

    from topdown_ray.networks.ofa_reference import tutorial_models

    predictor, table = tutorial_models()

    def run(repeat: int) -> Lap:
        random.seed(repeat)
        np.random.seed(repeat)  # noqa: NPY002 - the finder draws from the global generators
        start, accuracies = time.perf_counter(), []
        for target in scale.targets:
            finder = EvolutionFinder("note10", target, table, predictor, max_time_budget=scale.generations)
            with contextlib.redirect_stderr(io.StringIO()):  # it draws a progress bar
                accuracies.append(finder.run_evolution_search()[1][0])
        seconds = time.perf_counter() - start
        evaluations = len(scale.targets) * 100 * (1 + scale.generations)
        return Lap(seconds, 1, evaluations, statistics.mean(accuracies), 1)

    return run


def scalar_search(scale: Scale) -> Runner:
    """The direct top-down search, one architecture at a time."""
    return lambda repeat: _scalar_lap(scale, repeat)


def _scalar_lap(scale: Scale, seed: int) -> Lap:
    from topdown_ray.algorithms.baselines.scalar import TopDownFinder
    from topdown_ray.networks.ofa_reference import tutorial_models

    predictor, table = tutorial_models()
    start = time.perf_counter()
    finder = TopDownFinder(
        predictor, table, seed, generations=scale.generations, warm_generations=scale.warm_generations
    )
    answers = finder.run(scale.targets)
    return Lap(
        time.perf_counter() - start, 1, _evaluations(scale), statistics.mean(a.accuracy for a in answers), 1
    )


def ray_naive(scale: Scale) -> Runner:
    """The direct top-down search with one Ray task for each search, on all cores: a straightforward use of
    Ray.
    """
    from topdown_ray.cluster import connect, run_tasks

    connect("local")
    cores = os.cpu_count() or 1

    def run(repeat: int) -> Lap:
        start = time.perf_counter()
        laps = run_tasks(_one_scalar_task, [(scale, 1000 * repeat + i) for i in range(cores)])
        seconds = time.perf_counter() - start
        accuracy = statistics.mean(lap.accuracy for lap in laps)
        return Lap(seconds, cores, sum(lap.evaluations for lap in laps), accuracy, cores)

    return run


def _one_scalar_task(scale: Scale, seed: int) -> Lap:
    import torch

    torch.set_num_threads(1)
    return _scalar_lap(scale, seed)


def ours(scale: Scale, batch: int) -> Runner:
    """This project on one core: a batch of searches in lock step, including the rows and counts of the
    answers.
    """
    from topdown_ray.sweeps.runner import Worker

    plan = plan_of(scale, [0], batch)
    worker = Worker(plan.setups)

    def run(repeat: int) -> Lap:
        (shard,) = plan_of(scale, range(repeat * batch, (repeat + 1) * batch), batch).shards()
        start = time.perf_counter()
        rows = worker.run(shard).searches
        seconds = time.perf_counter() - start
        return Lap(
            seconds, batch, batch * _evaluations(scale), statistics.mean(row["accuracy"] for row in rows), 1
        )

    return run


def joint(scale: Scale, batch: int, generations: int | None = None) -> Runner:
    """The strategy joint on one core, by default with about as many nominal evaluations as the others
    (children, and two for each gradient).
    """
    from topdown_ray.sweeps.runner import Worker

    if generations is None:
        generations = round(_JOINT_SHARE * _evaluations(scale) / 100) - 1
    search = {"generations": generations, "warm_generations": 0}
    plan = plan_of(scale, [0], batch, "joint", search)
    worker = Worker(plan.setups)

    def run(repeat: int) -> Lap:
        seeds = range(repeat * batch, (repeat + 1) * batch)
        (shard,) = plan_of(scale, seeds, batch, "joint", search).shards()
        start = time.perf_counter()
        rows = worker.run(shard).searches
        seconds = time.perf_counter() - start
        spent = sum(row["evaluations"] + 2 * row["gradients"] for row in rows)
        return Lap(seconds, batch, spent, statistics.mean(row["accuracy"] for row in rows), 1)

    return run


def pymoo_nsga2(scale: Scale) -> Runner:
    """pymoo's NSGA-II on the same predictor and table: one run for all targets with as many evaluations as
    the others.
    """
    from topdown_ray.algorithms.baselines.nsga2 import nsga2
    from topdown_ray.spaces.cost import load_cost
    from topdown_ray.spaces.predictor_files import load_predictor
    from topdown_ray.spaces.registry import notebook_space

    space = notebook_space()
    predictor, table = load_predictor("published", space), load_cost("note10", space)

    def run(repeat: int) -> Lap:
        start = time.perf_counter()
        _, accuracy = nsga2(space, predictor, table, scale.targets, _evaluations(scale), seed=repeat)
        return Lap(time.perf_counter() - start, 1, _evaluations(scale), float(accuracy.mean()), 1)

    return run


def ours_on_ray(scale: Scale, actors: int) -> Runner:
    """This project on Ray: a sweep of shards into Parquet. The actors are ready before the clock starts."""
    from topdown_ray.cluster import connect
    from topdown_ray.store.folder import ResultFolder
    from topdown_ray.store.results import load
    from topdown_ray.sweeps import driver
    from topdown_ray.sweeps.executors import shard_pool

    connect("local")
    n = scale.ray_shards * scale.ray_batch
    plan = plan_of(scale, range(n), scale.ray_batch)
    pool = shard_pool(actors, plan.run_id, plan.setups)
    pool.until_ready()

    def run(repeat: int) -> Lap:
        plan = plan_of(scale, range(repeat * n, (repeat + 1) * n), scale.ray_batch)
        with tempfile.TemporaryDirectory() as folder:
            results = ResultFolder(Path(folder) / "out")
            results.open(plan.manifest(), resume=True)
            start = time.perf_counter()
            driver.run(plan, results, pool)
            seconds = time.perf_counter() - start
            accuracy = float(load(results.path).searches["accuracy"].mean())
        return Lap(seconds, n, n * _evaluations(scale), accuracy, actors)

    return run


def floor(scale: Scale) -> Runner:
    """The dense float32 predictor alone, on as many architectures as a search scores, with as many at once as
    32 searches have.
    """
    import torch

    from topdown_ray.spaces.predictor import features
    from topdown_ray.spaces.predictor_files import load_predictor
    from topdown_ray.spaces.registry import notebook_space

    torch.set_num_threads(1)
    space = notebook_space()
    predictor = load_predictor("published", space)
    inputs = features(space, predictor.encoding, space.random(3200, 0))

    def run(repeat: int) -> Lap:
        laps = max(1, round(8 * _evaluations(scale) / len(inputs)))
        with torch.inference_mode():
            start = time.perf_counter()
            for _ in range(laps):
                predictor.dense(inputs)
            seconds = time.perf_counter() - start
        rows = laps * len(inputs)
        return Lap(seconds * _evaluations(scale) / rows, 1, _evaluations(scale), float("nan"), 1)

    return run


def plan_of(
    scale: Scale,
    seeds: Sequence[int],
    batch: int,
    strategy: str = "top_down",
    search: dict[str, int] | None = None,
) -> Any:
    """Return a sweep of MobileNetV3 under Note10. search: hyper-parameters; None: those of the scale."""
    from topdown_ray.spaces.registry import notebook_space
    from topdown_ray.sweeps.driver import make_plan
    from topdown_ray.sweeps.spec import make_spec

    data = {
        "name": "bench",
        "spaces": [notebook_space().name],
        "strategies": [strategy],
        "cost": "note10",
        "targets": [list(scale.targets)],
        "seeds": list(seeds),
        "batch": batch,
        "search": search or {"generations": scale.generations, "warm_generations": scale.warm_generations},
    }
    return make_plan(make_spec(data, "bench"))


def _evaluations(scale: Scale) -> int:
    return 100 * (1 + scale.generations) + (len(scale.targets) - 1) * (1 + 100 * scale.warm_generations)
