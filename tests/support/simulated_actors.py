"""Actors that only take time: what a driver makes of a thousand of them, and of those that die or hang."""

import dataclasses
import heapq
import math
import time
from collections.abc import Callable, Mapping, Set

import numpy as np
import pyarrow as pa

from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.store.schema import to_tables
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.groups import Shard
from topdown_ray.sweeps.runner import Worker
from topdown_ray.sweeps.spec import make_spec
from topdown_ray.tasks import Attempt, Done, Event, Lost, Slot

GROUPS = 10  # strategies x target sets


def plan_of(searches: int, batch: int | str) -> driver.Plan:
    """A sweep of this many searches in ten groups, top-down over ten targets, with OFA's budget."""
    data = {
        "name": "simulation",
        "spaces": ["mobilenet_v3"],
        "strategies": ["top_down"],
        "cost": "macs",
        "predictor": "embedded",
        "targets": [[float(700 - 50 * k + group) for k in range(10)] for group in range(GROUPS)],
        "seeds": searches // GROUPS,
        "batch": batch,
    }
    return driver.make_plan(make_spec(data, "simulation"))


def one_search(plan: driver.Plan) -> tuple[pa.Table, pa.Table]:
    """The rows of one search of this shape, made by a real, short one."""
    short = EvolutionParams(population=20, generations=100, warm_generations=20)
    shard = plan.pending().take(1)
    group = dataclasses.replace(shard.group, params=short)
    return to_tables(plan.run_id, *Worker(plan.setups).run(dataclasses.replace(shard, group=group)))


def rows_of(template: pa.Table, shard: Shard) -> pa.Table:
    """The template's rows once for each search, under its name."""
    return named(pa.concat_tables([template] * len(shard.seeds)), shard)


def named(table: pa.Table, shard: Shard) -> pa.Table:
    """Rows, as many for each search, under the names of a shard's searches."""
    table, each = table.combine_chunks(), table.num_rows // len(shard.seeds)
    for column, values in (
        ("search_id", shard.search_ids),
        ("seed", shard.seeds),
        ("shard_id", [shard.shard_id] * len(shard.seeds)),
    ):
        index = table.schema.get_field_index(column)
        repeated = np.repeat(np.array(values), each)
        table = table.set_column(
            index, table.schema.field(index), pa.array(repeated, type=table.schema.field(index).type)
        )
    return table


class SimulatedActors:
    """An executor on a clock of its own: the driver's real time, and jumps to the next event where it
    waits.
    """

    def __init__(
        self,
        actors: int,
        seconds: float,
        spread: float,
        lost: float,
        hung: float,
        rows: Callable[[Shard], tuple[pa.Table, ...]],
    ):
        self.devices: Mapping[str, int] = {"cpu": actors}
        self.standing: Set[int] = frozenset(range(actors))
        self.shards, self.busy_s, self.waited_s, self.own_cpu_s = 0, 0.0, 0.0, 0.0
        self.sizes: list[int] = []
        self._seconds, self._spread, self._lost, self._hung, self._rows = seconds, spread, lost, hung, rows
        self._random = np.random.default_rng(0)
        self._skipped = -time.perf_counter()
        self._idle = {worker: Slot(worker, "cpu") for worker in range(actors)}
        self._ending: list[tuple[float, int, Attempt, float]] = []

    def clock(self) -> float:
        return time.perf_counter() + self._skipped

    def idle(self) -> list[Slot]:
        return list(self._idle.values())

    def submit(self, attempt: Attempt) -> None:
        del self._idle[attempt.slot.worker]
        batch = len(attempt.task.seeds)
        # as measured: a fixed part a shard
        takes = (1.3 + 0.9 * self._seconds * batch) * self._random.lognormal(0, self._spread)
        ends = math.inf if self._random.random() < self._hung else self.clock() + takes
        heapq.heappush(self._ending, (ends, self.shards, attempt, takes))
        self.shards += 1
        self.sizes.append(batch)

    def wait(self, timeout_s: float) -> list[Event]:
        now = self.clock()
        events: list[Event] = []
        if self._ending:
            skip = min(max(self._ending[0][0] - now, 0.0), timeout_s)
            self._skipped += skip
            self.waited_s += skip
        outside, own = time.perf_counter(), time.thread_time()  # what follows is the actors' work
        until = self.clock()
        while self._ending and self._ending[0][0] <= until and len(events) < 32:
            _, _, attempt, takes = heapq.heappop(self._ending)
            self._idle[attempt.slot.worker] = attempt.slot
            if self._random.random() < self._lost:
                events.append(Lost(attempt, "reclaimed"))
            else:
                self.busy_s += takes
                events.append(Done(attempt, self._rows(attempt.task), takes))
        self._skipped -= time.perf_counter() - outside
        self.own_cpu_s += time.thread_time() - own
        return events

    def cancel(self, attempt: Attempt) -> None:
        kept = [entry for entry in self._ending if entry[2] is not attempt]
        if len(kept) < len(self._ending):
            heapq.heapify(kept)
            self._ending = kept
            self._idle[attempt.slot.worker] = attempt.slot

    def close(self) -> None:
        """Nothing runs."""
