"""Compare the speed of several implementations of the same searches (``topdown-ray bench race``).

The contestants (:mod:`topdown_ray.sweeps.bench.contestants`) search MobileNetV3 under Note10 with the
published predictor. Every contestant has its own process (so that peak memory is its own), and they run in
turn, repeat by repeat, so that drift of the machine affects all of them alike. Ratios are those of the
medians of one run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import resource
import statistics
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import pandas as pd

from topdown_ray.errors import StartError, UserError
from topdown_ray.progress import Progress
from topdown_ray.sweeps.bench.contestants import (
    Lap,
    OnLap,
    Runner,
    Scale,
    floor,
    joint,
    ofa_finder,
    ours,
    ours_on_ray,
    pymoo_nsga2,
    ray_naive,
    scalar_search,
)


def run(scale: Scale, only: Sequence[str] = (), on_lap: OnLap = lambda progress, name: None) -> pd.DataFrame:
    """Run the benchmark, and return one row for each contestant. ``only``: prefixes of names, all if empty.
    The floor always runs.

    Seconds are those of one search over all its targets, times the cores that the contestant uses. Ratios are
    those of medians. Raises UserError for a prefix that no name has.
    """
    cores = os.cpu_count() or 1
    contestants: list[tuple[str, Callable[..., Runner], tuple[Any, ...]]] = [
        ("floor", floor, ()),
        ("ofa", ofa_finder, ()),
        ("notebook", scalar_search, ()),
        *((f"ours, batch {batch}", ours, (batch,)) for batch in scale.batches),
        ("joint, batch 32", joint, (32,)),
        *((f"joint, {n} generations", joint, (32, n)) for n in scale.joint_generations),
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
    # contestants that start Ray run alone: an idle Ray cluster still takes CPU time
    for together in (contestants, *([contestant] for contestant in on_ray)):
        processes = {}
        try:
            for name, build, arguments in together:
                ours_end, theirs = context.Pipe()
                process = context.Process(
                    target=_contestant, args=(theirs, build, (scale, *arguments)), daemon=True
                )
                process.start()
                theirs.close()  # so that this process notices the end of the other
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
    with contextlib.suppress(OSError):  # it has ended; its last message may still be in the pipe
        connection.send(repeat)
    try:
        answer = connection.recv()
    except (EOFError, OSError) as error:
        raise StartError(f"bench: {name} ended without a result") from error
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
