"""Measure how many predictor evaluations a budget in seconds allows, once, when the sweep is planned.

The numbers become part of the specification, so that the results of the sweep follow from run.json and not
from the speed of a machine. Seconds are those of one CPU core on which searches run in lock step.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping

from topdown_ray.algorithms.compiling import compiling_told
from topdown_ray.algorithms.strategies import find_strategy
from topdown_ray.sweeps.groups import Group, Shard, calibration_key
from topdown_ray.sweeps.hyperparameters import Budget
from topdown_ray.sweeps.runner import Setup, Worker
from topdown_ray.sweeps.spec import SweepSpec

BATCH = 16  # largest number of searches in lock step
GENERATIONS = 40  # of the searches that are timed, for the first target
WARM_GENERATIONS = 80  # about as many for all further targets together
LONGEST_S = 3.0  # no repeat begins after this time
REPEATS = 3  # the fastest counts, because other processes can only slow a repeat down


def calibrated(
    spec: SweepSpec, setups: Mapping[str, Setup], on_step: Callable[[str], None] = lambda step: None
) -> SweepSpec:
    """Return the specification with the numbers of evaluations that its budget in seconds stands for.
    on_step: is called before the measurement, which takes some seconds for each space, strategy and number of
    targets.
    """
    budget = spec.budget
    if budget is None or budget.seconds is None or budget.calibrated is not None:
        return spec
    on_step(f"Measuring how many evaluations take {budget.seconds:g} s; run.json records the numbers ...")
    unlimited = spec.model_copy(update={"budget": None})
    groups = {calibration_key(g): g for g in unlimited.groups()}
    with compiling_told(on_step):
        worker = Worker(setups, groups.values())
    batch = min(BATCH, len(spec.seeds), BATCH if spec.batch == "auto" else spec.batch)
    evaluations = {
        key: max(1, round(budget.seconds / _seconds(worker, group, batch))) for key, group in groups.items()
    }
    found = Budget(seconds=budget.seconds, calibrated=evaluations)
    return SweepSpec.model_validate({**spec.model_dump(mode="json"), "budget": found.model_dump()})


def _seconds(worker: Worker, group: Group, batch: int) -> float:
    """Return the CPU seconds of one evaluation in a batch of searches."""
    ratio = group.params.warm_generations / max(group.params.generations, 1)
    most = max(1, WARM_GENERATIONS // max(1, len(group.targets) - 1))
    warm = min(math.ceil(ratio * GENERATIONS), most)
    lengths = {"generations": GENERATIONS, "warm_generations": warm}
    short = dataclasses.replace(group, params=group.params.model_copy(update=lengths))
    each = find_strategy(group.strategy).evaluations(short.params, len(group.targets))
    parts = len(group.each)
    shard = Shard(short, tuple(range(batch)), tuple(map(str, range(batch * parts))))
    seconds, began = math.inf, time.monotonic()
    for _ in range(REPEATS):
        rows = worker.run(shard).searches
        seconds = min(seconds, sum(float(row["cpu_s"]) for row in rows) / batch)
        if time.monotonic() - began > LONGEST_S:
            break
    return seconds / each
