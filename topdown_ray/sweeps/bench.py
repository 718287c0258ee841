"""``topdown-ray bench``: the same searches by OFA's own finder, by the scalar top-down search, by Ray tasks
of it, by pymoo's NSGA-II, and by this project.

MobileNetV3 under Note10, published predictor. Every contestant lives in a process of its own (so that peak
memory is its own) and they run in turn, repeat by repeat, so that a drift of the machine meets all of them
alike. Ratios are of medians of one run."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from topdown_ray.errors import StartError, UserError
from topdown_ray.files import check_output, written
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


FULL = Scale(TARGETS, 500, 100, (1, 8, 32, 128), 64, 4, 5, True)
QUICK = Scale(
    (60.0, 35.0, 20.0), 20, 5, (1, 8, 32), 16, 8, 2, False
)  # starting Ray three times takes longer than the rest


_JOINT_SHARE = 0.7  # of its evaluations that are children, the others pay for gradients; measured


class Lap(NamedTuple):
    """One repeat of a contestant."""

    seconds: float
    searches: int
    evaluations: int  # children scored, of all searches
    accuracy: float  # mean over searches and targets; nan: none
    cores: int


Runner = Callable[[int], Lap]  # the repeat's number -> its lap


# --- contestants: each builds its runner in its own process -------------------------------------------------


def ofa_finder(scale: Scale) -> Runner:
    """OFA's own ``ofa.tutorial.EvolutionFinder``, as published: an independent search for every target."""
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
    """The direct top-down search, one Ray task a search, on all cores: what one would write in an
    afternoon.
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
    """This project on one core: a batch of searches in lock step, rows and counts of the winners included."""
    from topdown_ray.sweeps.runner import Worker

    plan = plan_of(scale, [0], batch)
    worker = Worker(plan.setups, plan.spec.search)

    def run(repeat: int) -> Lap:
        (shard,) = plan_of(scale, range(repeat * batch, (repeat + 1) * batch), batch).shards()
        start = time.perf_counter()
        rows, _ = worker.run(shard)
        seconds = time.perf_counter() - start
        return Lap(
            seconds, batch, batch * _evaluations(scale), statistics.mean(row["accuracy"] for row in rows), 1
        )

    return run


def joint(scale: Scale, batch: int) -> Runner:
    """The strategy joint on one core, about as many nominal evaluations as the others (children, and two for
    each gradient).
    """
    from topdown_ray.sweeps.runner import Worker

    generations = round(_JOINT_SHARE * _evaluations(scale) / 100) - 1
    search = {"generations": generations, "warm_generations": 0}
    plan = plan_of(scale, [0], batch, "joint", search)
    worker = Worker(plan.setups, plan.spec.search)

    def run(repeat: int) -> Lap:
        seeds = range(repeat * batch, (repeat + 1) * batch)
        (shard,) = plan_of(scale, seeds, batch, "joint", search).shards()
        start = time.perf_counter()
        rows, _ = worker.run(shard)
        seconds = time.perf_counter() - start
        spent = sum(row["evaluations"] + 2 * row["gradients"] for row in rows)
        return Lap(seconds, batch, spent, statistics.mean(row["accuracy"] for row in rows), 1)

    return run


def pymoo_nsga2(scale: Scale) -> Runner:
    """NSGA-II of pymoo on the same predictor and table: one run for all targets, as many evaluations as the
    others.
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
    """This project through Ray: a sweep of shards into Parquet, actors ready before the clock starts."""
    from topdown_ray.cluster import connect
    from topdown_ray.store.folder import ResultFolder
    from topdown_ray.store.results import load
    from topdown_ray.sweeps import driver
    from topdown_ray.sweeps.executors import shard_pool

    connect("local")
    n = scale.ray_shards * scale.ray_batch
    plan = plan_of(scale, range(n), scale.ray_batch)
    pool = shard_pool(actors, plan.run_id, plan.setups, plan.spec.search)
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
    """The dense float32 predictor alone, on as many architectures as a search scores, as many at once as 32
    searches do.
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
    """A sweep of MobileNetV3 under Note10. search: hyper-parameters; None: those of the scale."""
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


# --- the race -----------------------------------------------------------------------------------------------


OnLap = Callable[[Progress, str], None]  # how many laps are done, and which one begins


def run_into(
    out: Path | None, quick: bool, only: Sequence[str], repeats: int | None, on_lap: OnLap
) -> pd.DataFrame:
    """Run the benchmark, and write its table to a Parquet file where one is named. repeats: None for the
    scale's own. Raises UserError.
    """
    if out is not None:
        check_output(out, "--out")
    scale = QUICK if quick else FULL
    table = run(scale if repeats is None else replace(scale, repeats=repeats), only, on_lap)
    if out is not None:
        with written(out) as temporary:
            table.to_parquet(temporary)
    return table


def run(scale: Scale, only: Sequence[str] = (), on_lap: OnLap = lambda progress, name: None) -> pd.DataFrame:
    """Run the benchmark: one row per contestant. ``only``: prefixes of names, all if empty; the floor always
    runs.

    Seconds are of one search over all its targets, times the cores that the contestant uses; ratios are of
    medians. Raises UserError for a prefix that no name has."""
    cores = os.cpu_count() or 1
    contestants: list[tuple[str, Callable[..., Runner], tuple[Any, ...]]] = [
        ("floor", floor, ()),
        ("ofa", ofa_finder, ()),
        ("notebook", scalar_search, ()),
        *((f"ours, batch {batch}", ours, (batch,)) for batch in scale.batches),
        ("joint, batch 32", joint, (32,)),
        ("nsga2", pymoo_nsga2, ()),
    ]
    on_ray: list[tuple[str, Callable[..., Runner], tuple[Any, ...]]] = [
        (f"ours, Ray, {cores} actors", ours_on_ray, (cores,))
    ]
    if scale.with_ray_baselines:
        on_ray = [("ray-naive", ray_naive, ()), ("ours, Ray, 1 actor", ours_on_ray, (1,)), *on_ray]
    names = [name for name, _, _ in [*contestants, *on_ray]]
    for prefix in only:
        if not any(name.startswith(prefix) for name in names):
            raise UserError(f"--only: expected a prefix of one of {'; '.join(names)}, found {prefix!r}")
    os.environ["TQDM_DISABLE"] = "1"  # OFA's finder would draw a bar over ours
    context = multiprocessing.get_context("spawn")
    wanted = ("floor", *only) if only else ("",)
    contestants = [contestant for contestant in contestants if contestant[0].startswith(wanted)]
    on_ray = [contestant for contestant in on_ray if contestant[0].startswith(wanted)]
    if any(name == "nsga2" for name, _, _ in contestants) and importlib.util.find_spec("pymoo") is None:
        raise UserError(
            "nsga2: expected the package pymoo, found none; pip install 'topdown-ray[bench]', or choose "
            "others by --only"
        )
    laps: dict[str, list[Lap]] = {name: [] for name, _, _ in [*contestants, *on_ray]}
    memory: dict[str, float] = {}
    progress = Progress(len(laps) * (scale.repeats + 1), 0, 0)
    # those with a Ray of their own do not wait beside the others: an idle Ray is not idle
    for together in (contestants, *([contestant] for contestant in on_ray)):
        processes = {}
        try:
            for name, build, arguments in together:
                ours_end, theirs = context.Pipe()
                process = context.Process(
                    target=_contestant, args=(theirs, build, (scale, *arguments)), daemon=True
                )
                process.start()
                theirs.close()  # so that its end is noticed
                processes[name] = process, ours_end
            for repeat in range(scale.repeats + 1):
                for name, (_, connection) in processes.items():
                    on_lap(progress, f"{name}, {f'repeat {repeat}' if repeat else 'warming up'}")
                    lap, peak = _answer(connection, name, repeat)
                    memory[name] = peak
                    progress.done += 1
                    if repeat:  # the first one warms up
                        laps[name].append(lap)
            for process, connection in processes.values():
                connection.send(None)
                process.join()
        finally:  # if one failed, the others end too
            for process, _ in processes.values():
                process.terminate()
                process.join()
    return _table(laps, memory)


def _answer(connection: Connection, name: str, repeat: int) -> tuple[Lap, float]:
    with contextlib.suppress(OSError):  # it has ended; its last word may lie in the pipe
        connection.send(repeat)
    try:
        answer = connection.recv()
    except (EOFError, OSError) as error:
        raise StartError(f"bench: {name} ended without an answer") from error
    if isinstance(answer, BaseException):
        raise answer
    return answer  # type: ignore[no-any-return]


def _contestant(connection: Connection, build: Callable[..., Runner], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        run_lap = build(*arguments)
        while (repeat := connection.recv()) is not None:
            lap = run_lap(repeat)
            connection.send((lap, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))
    except Exception as error:
        connection.send(error)


def _table(laps: dict[str, list[Lap]], memory: dict[str, float]) -> pd.DataFrame:
    def per_search(name: str) -> float:
        if name not in laps:
            return float("nan")
        return statistics.median(lap.seconds * lap.cores / lap.searches for lap in laps[name])

    rows = []
    for name, own in laps.items():
        seconds = per_search(name)
        first = own[0]
        rows.append(
            {
                "contestant": name,
                "cores": first.cores,
                "searches": first.searches,
                "repeats": len(own),
                "seconds_per_search_and_core": seconds,
                "searches_per_second_and_core": 1 / seconds,
                "evaluations_per_second_and_core": first.evaluations / first.searches / seconds,
                "wall_s": statistics.median(lap.seconds for lap in own),
                "wall_s_min": min(lap.seconds for lap in own),
                "wall_s_max": max(lap.seconds for lap in own),
                "accuracy": statistics.mean(lap.accuracy for lap in own),
                "to_floor": seconds / per_search("floor"),
                "faster_than_ofa": per_search("ofa") / seconds,
                "faster_than_notebook": per_search("notebook") / seconds,
                "faster_than_ray_naive": per_search("ray-naive") / seconds,
                "peak_gib": memory[name],
            }
        )
    return pd.DataFrame(rows)
