"""Write event files for TensorBoard (``--track tensorboard:DIR``), whose steps are numbers of finished
searches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from topdown_ray.errors import UserError
from topdown_ray.sweeps.events import Ended, Started, SweepEvent
from topdown_ray.sweeps.tracking.facts import Log, TrackedSweep, metrics
from topdown_ray.sweeps.tracking.options import Track


@contextlib.contextmanager
def tensorboard_folder(track: Track, sweep: TrackedSweep) -> Iterator[Log]:
    """Write to a new event file in the folder, next to those of earlier runs. Raises UserError if the file
    cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    try:
        writer: Any = SummaryWriter(Path(track.where))
    except OSError as error:
        raise UserError(
            f"{track.option}: expected a folder to write to, found {track.where} ({error.strerror})"
        ) from error

    def log(events: Sequence[SweepEvent]) -> None:
        for event in events:
            if isinstance(event, Started):
                parameters = _markdown(("parameter", "value"), sweep.parameters.items())
                writer.add_text("parameters", parameters, event.done)
                writer.add_text("run_id", sweep.run_id, event.done)
        for name, (value, step) in metrics(events).items():
            writer.add_scalar(name, value, step)
        for event in events:
            if isinstance(event, Ended):
                table = sweep.final_table().drop_columns(["arch"])
                rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
                writer.add_text("results", _markdown(table.column_names, rows), event.done)
        writer.flush()

    with contextlib.closing(writer):
        yield log


def _markdown(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table in the form of text that TensorBoard shows."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "&#124;") for cell in row) + " |" for row in lines
    )
