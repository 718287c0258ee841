"""Compare whole accuracy/cost fronts at equal numbers of predictor rows (``topdown-ray bench fronts``).

Each case (:mod:`topdown_ray.sweeps.bench.front_recorder`) gives every contestant
(:mod:`topdown_ray.sweeps.bench.front_contestants`) the same budget of predictor rows, seed by seed, on one
core. Everything that a contestant scored within its budget counts, which is the most generous rule for all:
its hypervolume (by ``moocore``), and its regret against the reference front that comes with the package, in
percentage points of predicted top-1, as a mean over the targets of that front. A target that nothing meets
counts with the accuracy of the cheapest architecture. CPU seconds are those of the search alone, without the
preparation and the sizing of lengths.

Each case and contestant has its own process. A row depends only on its seed, its budget and its contestant,
so that a race can be run in pieces whose tables are then joined.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pandas as pd

from topdown_ray import stats
from topdown_ray.errors import StartError, UserError
from topdown_ray.progress import Progress
from topdown_ray.sweeps.bench.contestants import OnLap
from topdown_ray.sweeps.bench.front_contestants import CONTESTANTS, race_one
from topdown_ray.sweeps.bench.front_recorder import CASES, load_arena, measures

BUDGETS = (2_000, 10_000, 40_000)
SEEDS = 20
WARM_SEED, WARM_BUDGET = 10**6, 300

OnMissing = Callable[[str], None]
Row = dict[str, Any]


@dataclass(frozen=True)
class Pieces:
    """Which pieces of the race run."""

    cases: tuple[str, ...] = tuple(CASES)
    budgets: tuple[int, ...] = BUDGETS
    seeds: int = SEEDS
    first_seed: int = 0


QUICK = Pieces(tuple(CASES)[:1], BUDGETS[:1], 3)


def race_fronts(
    pieces: Pieces,
    only: Sequence[str] = (),
    on_lap: OnLap = lambda progress, name: None,
    on_missing: OnMissing = lambda line: None,
) -> pd.DataFrame:
    """Return one row for each case, budget, contestant and seed. ``only``: prefixes of contestants, all if
    empty.

    A contestant whose package is missing is left out and reported to ``on_missing``. Raises UserError for an
    unknown case or prefix, without moocore, or if the package of a contestant chosen by ``only`` is missing.
    """
    for case in pieces.cases:
        if case not in CASES:
            raise UserError(f"--case: expected one of {', '.join(CASES)}, found {case!r}")
    names = _chosen(only, on_missing)
    if importlib.util.find_spec("moocore") is None:
        raise UserError("fronts: expected the package moocore, found none; pip install 'topdown-ray[bench]'")
    rows: list[Row] = []
    pairs = [(case, name) for case in pieces.cases for name in names]
    progress = Progress(len(pairs) * len(pieces.budgets) * pieces.seeds, 0, 0)
    for case, name in pairs:
        on_lap(progress, f"{name}, {case}")
        rows += _in_a_process(case, name, pieces, progress, on_lap)
    return joined([pd.DataFrame(rows)])


def joined(pieces: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of several pieces of a race, ordered by case, budget, contestant and seed.

    Raises UserError if a row is there twice.
    """
    frame = pd.concat(pieces, ignore_index=True)
    keys = ["case", "budget", "contestant", "seed"]
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        raise UserError(f"pieces: expected every run once, found {tuple(twice.iloc[0][keys])} twice")
    ranks = {"case": list(CASES), "contestant": list(CONTESTANTS)}
    return frame.sort_values(
        keys,
        key=lambda column: column.map(ranks[column.name].index) if column.name in ranks else column,
        ignore_index=True,
    )


def _chosen(only: Sequence[str], on_missing: OnMissing) -> list[str]:
    for prefix in only:
        if not any(name.startswith(prefix) for name in CONTESTANTS):
            raise UserError(f"--only: expected a prefix of one of {'; '.join(CONTESTANTS)}, found {prefix!r}")
    names = [name for name in CONTESTANTS if name.startswith(tuple(only or ("",)))]
    lacking = {name: missing for name in names if (missing := CONTESTANTS[name].missing)}
    for name, missing in lacking.items():
        line = f"{name}: expected the package {' and '.join(missing)}, found none"
        how = "see scripts/benchmarks/fronts_env.sh"
        if only:
            raise UserError(f"{line}; {how}")
        on_missing(f"{line}: left out ({how})")
    return [name for name in names if name not in lacking]


def _in_a_process(case: str, name: str, pieces: Pieces, progress: Progress, on_lap: OnLap) -> list[Row]:
    """Return the rows of one contestant in one case, computed in a separate process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_contestant, args=(theirs, case, name, pieces), daemon=True)
    process.start()
    theirs.close()  # so that this process notices the end of the other
    rows: list[Row] = []
    try:
        while True:
            try:
                answer = ours.recv()
            except (EOFError, OSError) as error:
                raise StartError(f"bench: {name} ended without a result") from error
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                return rows
            rows.append(answer)
            progress.done += 1
            on_lap(progress, f"{name}, {case}")
    finally:  # the process ends if this one no longer waits for it
        process.terminate()
        process.join()


def _contestant(connection: Connection, case: str, name: str, pieces: Pieces) -> None:
    try:
        for row in run_contestant(case, name, pieces):
            connection.send(row)
        connection.send(None)
    except Exception as error:
        connection.send(error)


def run_contestant(case: str, name: str, pieces: Pieces) -> Any:
    """Return the rows of one contestant in one case, budget by budget and seed by seed, computed in this
    process.
    """
    import torch

    from topdown_ray.spaces.tiles import one_thread

    with one_thread(), torch.inference_mode():
        arena = load_arena(case)
        for budget in pieces.budgets:
            recorder = arena.recorder(budget)
            prepared = CONTESTANTS[name].prepare(arena, recorder)
            recorder.reset(WARM_BUDGET)
            race_one(prepared, WARM_SEED)
            for seed in range(pieces.first_seed, pieces.first_seed + pieces.seeds):
                recorder.reset(budget)
                start = time.process_time()
                cut = race_one(prepared, seed)
                cpu_s = time.process_time() - start
                yield {
                    "case": case,
                    "space": arena.case.space,
                    "cost_name": arena.case.cost,
                    "cost_unit": arena.cost.unit,
                    "budget": budget,
                    "contestant": name,
                    "seed": seed,
                    **measures(arena, recorder),
                    "gradient_rows": arena.case.gradient_rows,
                    "cut": cut,
                    "cpu_s": cpu_s,
                    "evaluations_per_second": recorder.spent / cpu_s,
                    "generations": prepared.lengths.get("generations"),
                    "warm_generations": prepared.lengths.get("warm_generations"),
                }


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds with 95 % intervals (:func:`topdown_ray.stats.intervals`): one row for each
    case, budget and contestant.

    best_hypervolume, best_regret: whether the mean is the best one of its case and budget.
    """
    keys = ["case", "budget", "contestant"]
    groups = list(rows.groupby(keys, sort=False))
    records = []
    for key, group in groups:
        means = {
            column: float(group[column].mean())
            for column in ("hypervolume", "regret", "unmet", "spent", "cpu_s")
        }
        facts = {**dict(zip(keys, key, strict=True)), "seeds": len(group), **means}
        records.append({**facts, "evaluations_per_second": means["spent"] / means["cpu_s"]})
    frame = pd.DataFrame(records)
    for column in ("hypervolume", "regret"):
        ends = stats.intervals([group[column].to_numpy(float) for _, group in groups])
        frame[[f"{column}_low", f"{column}_high"]] = ends
    cells = frame.groupby(["case", "budget"], sort=False)
    frame["best_hypervolume"] = frame["hypervolume"] == cells["hypervolume"].transform("max")
    frame["best_regret"] = frame["regret"] == cells["regret"].transform("min")
    return frame
