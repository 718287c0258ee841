"""Who gets which shard: sizes, retries elsewhere, copies of what takes too long; the real driver over
simulated actors.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
from support import simulated_actors

from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.identities import Identities
from topdown_ray.store.results import load
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.dispatch import Dispatch, Limits
from topdown_ray.sweeps.groups import Group, Shard
from topdown_ray.sweeps.identities import search_id
from topdown_ray.sweeps.pending import Pending
from topdown_ray.sweeps.sizing import AIM_S, ENOUGH, Speeds, batch_size
from topdown_ray.sweeps.spec import SweepSpec, make_spec
from topdown_ray.tasks import Attempt, Slot

CPU, OTHER, GPU = Slot(0, "cpu"), Slot(1, "cpu"), Slot(2, "cuda")
WORKERS = {"cpu": 2}
ARTEFACTS = {space: {"cost": f"c-{space}", "predictor": "p"} for space in ("mobilenet_v3", "resnet50d")}


def spec_of(**changes: Any) -> SweepSpec:
    data = {
        "name": "test",
        "spaces": ["mobilenet_v3", "resnet50d"],
        "strategies": ["top_down", "independent"],
        "cost": "macs",
        "targets": {"mobilenet_v3": [[400, 300], [300]], "resnet50d": [[3000]]},
        "seeds": 11,
    }
    return make_spec({**data, **changes}, "test")


def test_every_pending_search_is_taken_once_whatever_the_sizes() -> None:
    spec = spec_of()
    names = {
        search_id(group, seed, "default", ARTEFACTS[group.space])
        for group in spec.groups()
        for seed in spec.seeds
    }
    assert len(names) == spec.n_searches() == 66
    finished = set(sorted(names)[::3])
    pending = Pending(spec, ARTEFACTS, Identities(finished))
    taken: list[str] = []
    left = [pending.evaluations]
    sizes = iter([1, 5, 100, 2, 3] * 20)
    while pending.group is not None:
        shard = pending.take(next(sizes))
        taken += shard.search_ids
        left.append(pending.evaluations)
    assert len(taken) == len(set(taken)) == 44
    assert set(taken) == names - finished
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0


def test_a_shard_lasts_seconds_and_shrinks_at_the_end() -> None:
    group, speeds, each = Group("mobilenet_v3", "top_down", (300.0,), EvolutionParams()), Speeds(), 50_000

    def size(pending: float, device: str = "cpu", workers: dict[str, int] = WORKERS) -> int:
        return batch_size(speeds, device, group, each, pending, workers)

    speeds.record("cpu", group, 20 * each, 4.0)  # 0.2 s a search
    speeds.record("cuda", group, 200 * each, 4.0)  # 0.02 s a search
    assert size(1e12) == AIM_S / 0.2
    assert size(1e12, "cuda") > 200  # as much memory as a batch may take, though it does not last as long
    # many workers: longer shards, for the driver's sake
    assert size(1e12, workers={"cpu": 5000}) > 2 * size(1e12)
    # half of what is left for one of two workers would be 4 searches: not below two seconds ...
    assert size(16 * each) == 8
    assert size(4 * each) == 2  # ... and both get something in the end
    assert size(1) == 1
    slow = Speeds()
    slow.record("cpu", group, each, 100.0)
    # long searches: an efficient batch first
    assert batch_size(slow, "cpu", group, each, 1e12, WORKERS) == ENOUGH
    large = dataclasses.replace(group, params=EvolutionParams(population=2**20))
    assert batch_size(slow, "cpu", large, each, 1e12, WORKERS) == 1  # memory first


def dispatch_of(limits: Limits = Limits(overdue_floor_s=1), **changes: Any) -> Dispatch:  # noqa: B008
    return Dispatch(Pending(spec_of(**changes), ARTEFACTS), 4, limits)


def given(dispatch: Dispatch, slot: Slot, standing: set[int], now: float = 0.0) -> Attempt:
    attempt = dispatch.next(slot, WORKERS, standing, now)
    assert attempt is not None
    return attempt


def test_what_failed_goes_to_a_worker_that_has_not_tried_it() -> None:
    dispatch = dispatch_of()
    first = given(dispatch, CPU, {0, 1})
    assert not dispatch.failed(first)
    assert given(dispatch, CPU, {0, 1}).task != first.task
    second = given(dispatch, OTHER, {0, 1})
    assert second.task == first.task
    assert not dispatch.failed(second)
    third = given(dispatch, CPU, {0, 1})  # all have tried
    assert third.task == first.task
    assert dispatch.failed(third)  # given up
    assert given(dispatch, OTHER, {0, 1}).task != first.task


def test_a_copy_of_what_is_overdue_and_the_first_result_counts() -> None:
    dispatch = dispatch_of()
    quick = given(dispatch, CPU, {0, 1})
    assert dispatch.done(quick, 2.0) == []
    slow = given(dispatch, CPU, {0, 1}, now=10.0)
    assert list(dispatch.hung(17.9)) == []
    assert given(dispatch, OTHER, {0, 1}, now=17.9).task != slow.task  # not yet
    assert list(dispatch.hung(18.1)) == []  # four times its peers' two seconds: overdue
    copy = given(dispatch, OTHER, {0, 1}, now=18.1)
    assert copy.task == slow.task
    assert dispatch.done(copy, 2.0) == [slow]
    assert not dispatch.running(slow)  # its result, if it comes after all, is of no use
    assert not dispatch.running(copy)


def test_what_is_beyond_hope_is_handed_to_a_replacement() -> None:
    """The only worker hangs: there is no other one to copy to."""
    dispatch = dispatch_of()
    dispatch.done(given(dispatch, CPU, {0}), 2.0)
    slow = given(dispatch, CPU, {0})
    assert list(dispatch.hung(23.9)) == []
    assert list(dispatch.hung(24.1)) == [slow]
    assert not dispatch.lost(slow)
    assert given(dispatch, Slot(7, "cpu"), {7}).task == slow.task


def test_a_first_shard_that_hangs_is_copied_once_nothing_else_is_pending() -> None:
    """No peer has finished, so its time is a guess: an idle worker may try, but nothing that runs is taken
    for lost.
    """
    limits = Limits(unmeasured_floor_s=60.0)
    dispatch = dispatch_of(limits, spaces=["mobilenet_v3"], strategies=["top_down"], targets=[[300]], seeds=8)
    hanging = given(dispatch, CPU, {0, 1})
    assert list(dispatch.hung(1e6)) == []
    other = given(dispatch, OTHER, {0, 1})  # another shard is pending: that first
    assert other.task != hanging.task
    assert list(dispatch.hung(59.0)) == []
    assert not dispatch.waiting
    assert list(dispatch.hung(1e6)) == []
    copy = given(dispatch, Slot(2, "cpu"), {0, 1, 2})
    assert copy.task == hanging.task
    assert dispatch.done(copy, 2.0) == [hanging]


def test_losses_are_bounded_and_a_copy_saves_a_lost_shard() -> None:
    dispatch = dispatch_of(Limits(losses=2, overdue_floor_s=1))
    dispatch.done(given(dispatch, CPU, {0, 1}), 2.0)
    slow = given(dispatch, CPU, {0, 1})
    list(dispatch.hung(9.0))
    copy = given(dispatch, OTHER, {0, 1})
    assert copy.task == slow.task
    assert not dispatch.lost(slow)
    assert dispatch.done(copy, 2.0) == []
    lost = [given(dispatch, CPU, {0, 1})]
    assert not dispatch.lost(lost[0])
    lost.append(given(dispatch, OTHER, {0, 1}))
    assert lost[1].task == lost[0].task
    assert dispatch.lost(lost[1])


def test_twenty_actors_that_die_and_hang_do_everything_once_and_end_together(
    tmp_path: Path,
) -> None:
    """The real driver. With 5 % of the shards lost and 5 % hanging, about ten of each; none of either: 1 in
    10^7.
    """
    plan = simulated_actors.plan_of(1600, "auto")
    tables = simulated_actors.one_search(plan)

    def rows(shard: Shard) -> tuple[pa.Table, ...]:
        return tuple(simulated_actors.rows_of(table, shard) for table in tables)

    walls = {}
    for share in (0.0, 0.05):
        pool = simulated_actors.SimulatedActors(20, 0.4, 0.2, share, share, rows)
        folder = ResultFolder(tmp_path / f"out{share}")
        folder.open(plan.manifest(), resume=True)
        summary = driver.run(plan, folder, pool)
        results = load(folder.path)
        assert summary.progress.done == len(results.searches["search_id"].unique()) == 1600
        assert len(results.searches) == 16_000
        assert not summary.given_up
        assert (summary.progress.losses > 0) == (share > 0)
        assert len(pool.idle()) == 20  # what hung was replaced
        walls[share] = summary.wall_s
        if share == 0:
            assert pool.busy_s / 20 / summary.wall_s > 0.85  # they end together
            assert 2 < pool.busy_s / pool.shards < 20
    assert walls[0.05] < 3 * walls[0.0]
    assert math.isfinite(walls[0.05])
