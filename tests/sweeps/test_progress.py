"""When the progress of a sweep is shown."""

from pathlib import Path

import pytest
from support.folders import opened, plan_of

from topdown_ray.progress import Progress
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.groups import Shard


def test_a_result_is_shown_before_the_next_shard_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "SHOWN_WITHIN_S", 60.0)  # however slow the disk is
    plan = plan_of()
    executor = driver.in_process(plan)
    shown, at_the_start_of = [0], []
    run = executor.hosted

    def hosted(shard: Shard) -> driver.Tables:
        at_the_start_of.append(shown[-1])
        return run(shard)

    def on_progress(progress: Progress) -> None:
        shown.append(progress.done)

    executor.hosted = hosted
    driver.run(plan, opened(plan, tmp_path), executor, on_progress)
    size, shards = plan.spec.batch, len(list(plan.shards()))
    assert shards > 2
    assert at_the_start_of == [size * number for number in range(shards)]
