"""Follow a sweep from its own process, with a progress bar, with Ray's counters, or not at all."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from topdown_ray.progress import Progress
from topdown_ray.sweeps.events import Observer, SweepEvent

if TYPE_CHECKING:
    from topdown_ray.store.folder import ResultFolder

#: Follows a sweep with its opened folder: entered before the first shard, and called with every change.
Follow = Callable[["ResultFolder"], AbstractContextManager[Callable[[Progress], None]]]


@contextlib.contextmanager
def unfollowed(folder: ResultFolder) -> Iterator[Callable[[Progress], None]]:
    """Do not follow the sweep."""
    yield lambda progress: None


@contextlib.contextmanager
def progress_bar(folder: ResultFolder) -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar in scripts and notebooks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets shows the bar as text
        from tqdm.auto import tqdm

        bar = tqdm(unit="search", desc="searches", dynamic_ncols=True)

    def show(state: Progress) -> None:
        bar.total, bar.initial, bar.n = state.total, state.before, state.done
        if state.failures or state.losses:
            bar.set_postfix(failed=state.failures, actors_replaced=state.losses, refresh=False)
        bar.refresh()

    with bar:
        yield show


def counted(observe: Observer, address: str) -> Observer:
    """Return the observer, joined with the counters of Ray if the sweep runs on Ray."""
    if address == "none":
        return observe
    from topdown_ray.sweeps.tracking.ray_counters import ray_counters

    count = ray_counters()

    def both(event: SweepEvent) -> None:
        count(event)
        observe(event)

    return both
