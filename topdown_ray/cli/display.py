"""Show progress bars and status lines at a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from topdown_ray.terminal import say, terminal

if TYPE_CHECKING:
    from rich.progress import ProgressColumn
    from rich.status import Status

    from topdown_ray.assets import Asset
    from topdown_ray.download import OnBytes
    from topdown_ray.hardware.rounds import OnState, RoundsState
    from topdown_ray.progress import Progress


class ShowBar(Protocol):
    """Moves a progress bar. fields: the texts of its columns."""

    def __call__(self, done: float, total: float | None, **fields: str) -> None:
        """Redraw the bar. The first call makes it appear."""


@contextlib.contextmanager
def progress_bar(label: str, *columns: str) -> Iterator[ShowBar]:
    """Show a live bar with a label on stderr. It appears when the yielded function is first called.

    columns: ``count``, ``share``, ``bytes``, ``speed`` or ``left`` (the remaining time). Any other name is a
    column of text that the calls set by that name. If the block fails, the bar disappears, so that only the
    error remains.
    """
    from rich.progress import BarColumn, Progress, TextColumn

    text = TextColumn("{task.description}", markup=False)
    bar = Progress(text, BarColumn(), *map(_column, columns), console=terminal(stderr=True))

    def show(done: float, total: float | None, **fields: Any) -> None:
        if not bar.tasks:
            bar.add_task(label, completed=int(done), total=total, **fields)
            bar.start()
        bar.update(bar.tasks[0].id, completed=done, total=total, **fields)

    try:
        yield show
    except Exception:
        bar.live.transient = True
        bar.live.stop()  # bar.stop would end with an empty line
        raise
    finally:
        if bar.live.is_started:
            bar.stop()


def _column(name: str) -> ProgressColumn:
    from rich import progress

    known: dict[str, Callable[[], ProgressColumn]] = {
        "count": progress.MofNCompleteColumn,
        "share": progress.TaskProgressColumn,
        "bytes": progress.DownloadColumn,
        "speed": progress.TransferSpeedColumn,
        "left": progress.TimeRemainingColumn,
    }
    return known[name]() if name in known else progress.TextColumn(f"{{task.fields[{name}]}}", markup=False)


@contextlib.contextmanager
def status_line(text: str) -> Iterator[Status]:
    """Show one live line on stderr, only at a terminal. It disappears when the block ends."""
    with terminal(stderr=True).status(text) as status:
        yield status


@contextlib.contextmanager
def sweep_progress() -> Iterator[Callable[[Progress], None]]:
    """Show finished searches, searches per second, the remaining time and failures."""
    with progress_bar("searches", "count", "rate", "left", "trouble") as show:

        def on_progress(state: Progress) -> None:
            trouble = [f"{state.failures} failed"] if state.failures else []
            trouble += [f"actors replaced: {state.losses}"] if state.losses else []
            rate = f"{state.rate:.2f}/s" if state.done > state.before else "..."
            show(state.done, state.total, rate=rate, trouble=", ".join(trouble))

        yield on_progress


@contextlib.contextmanager
def no_progress() -> Iterator[Callable[[Progress], None]]:
    """Show nothing, because stderr carries JSON lines."""
    yield lambda state: None


@contextlib.contextmanager
def evaluation_progress() -> Iterator[Callable[[Progress], None]]:
    """Show finished subnets, subnets per minute and the remaining time. Print how to continue after an
    interrupt.
    """
    try:
        with progress_bar("subnets", "count", "rate", "left") as show:

            def on_progress(state: Progress) -> None:
                rate = f"{60 * state.rate:.1f}/min" if state.done > state.before else "..."
                show(state.done, state.total, rate=rate)

            yield on_progress
    except KeyboardInterrupt:
        say("Interrupted. Finished measurements are kept. Run the same command again to continue.")
        raise typer.Exit(130) from None


@contextlib.contextmanager
def rounds_progress(what: str, out: Path | None) -> Iterator[OnState]:
    """Show the finished share of a measurement, its rounds, how many medians are precise enough, and the
    longest remaining time. Print how to continue after an interrupt.
    """
    from topdown_ray.hardware.rounds import PARTIAL

    try:
        with progress_bar(what, "share", "rounds", "left") as show:

            def on_state(state: RoundsState) -> None:
                rounds = f"{state.rounds} rounds, {state.tight:.0%} precise enough, time left <="
                show(state.done, 1.0, rounds=rounds)

            yield on_state
    except KeyboardInterrupt:
        if out is not None:
            say(
                f"Interrupted. Finished rounds are in {out.with_name(out.name + PARTIAL)}. Run the same "
                "command again to continue."
            )
        raise


@contextlib.contextmanager
def bench_progress() -> Iterator[Callable[[Progress, str], None]]:
    """Show finished laps of the benchmark and the contestant that runs."""
    with progress_bar("laps", "count", "contestant") as show:
        yield lambda state, contestant: show(state.done, state.total, contestant=contestant)


@contextlib.contextmanager
def download_progress(asset: Asset) -> Iterator[OnBytes]:
    """Show downloaded bytes, the transfer rate and the remaining time."""
    with progress_bar(asset.path, "bytes", "speed", "left") as show:
        yield show
