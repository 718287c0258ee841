"""Show the progress of a sweep in the output of a notebook cell (``topdown_ray.sweep(..., live=True)``)."""

from __future__ import annotations

import contextlib
import datetime
import html
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from topdown_ray.errors import UserError
from topdown_ray.progress import Progress
from topdown_ray.store.transferred import MARK, footnote_of
from topdown_ray.sweeps.events import Ended, Improved, SweepEvent

if TYPE_CHECKING:
    from topdown_ray.store.folder import ResultFolder

EVERY_S = 1.0  # shortest time between two drawings


class LiveCell:
    """Shows the progress of a sweep and its best accuracies in the output of the current cell. Raises
    UserError outside a notebook.
    """

    def __init__(self) -> None:
        ipython = sys.modules.get("IPython")
        shell = ipython.get_ipython() if ipython else None
        if not hasattr(shell, "kernel"):
            raise UserError("live: expected a notebook, found a process without a Jupyter kernel")
        from IPython import display

        notebook: Any = display  # without types
        self._html = notebook.HTML
        self._progress: Progress | None = None
        self._state = ""
        self._best: dict[tuple[str, str, str, str], dict[float, float]] = {}
        self._transferred: dict[str, str] = {}  # space -> the space of its predictor, if that is different
        self._drawn = time.monotonic()
        self._handle = notebook.display(self._html("<p>Starting the sweep ...</p>"), display_id=True)

    def step(self, text: str) -> None:
        """Show a step that comes before the first shard and may take long."""
        self._handle.update(self._html(f"<p>{html.escape(text)}</p>"))

    @contextlib.contextmanager
    def follow(self, folder: ResultFolder) -> Iterator[Callable[[Progress], None]]:
        """Follow the progress of the sweep. The last drawing shows its end."""

        def show(state: Progress) -> None:
            self._progress = state
            if time.monotonic() - self._drawn >= EVERY_S:
                self._draw()

        try:
            yield show
        finally:
            self._draw()

    def observe(self, event: SweepEvent) -> None:
        """Record what the next drawing shows."""
        if isinstance(event, Improved):
            space = event.space
            if event.predictor_space != space:
                self._transferred[space] = event.predictor_space
                space += MARK
            row = (space, event.cost_name, event.label, event.limits or "")
            self._best.setdefault(row, {})[event.target] = event.accuracy
        elif isinstance(event, Ended):
            self._state = event.status

    def _draw(self) -> None:
        self._handle.update(self._html(self._text()))
        self._drawn = time.monotonic()

    def _text(self) -> str:
        state = self._progress
        if state is None:
            return "<p>The sweep has not started.</p>"
        facts = [f"Finished {state.done:,} of {state.total:,} searches"]
        if state.done > state.before:
            facts.append(f"{state.rate:.3g} per second")
            if not self._state:
                left = datetime.timedelta(seconds=round((state.total - state.done) / state.rate))
                facts.append(f"{left} left")
        facts += [f"{state.failures:,} failed"] if state.failures else []
        facts += [f"actors replaced: {state.losses:,}"] if state.losses else []
        bar = f'<progress value="{state.done}" max="{state.total}"></progress>'
        return f"<p>{bar} {', '.join([*facts, *filter(None, [self._state])])}</p>{self._table()}"

    def _table(self) -> str:
        """Return the best accuracies as a table with a row for each space, cost and label, and a column for
        each target.
        """
        if not self._best:
            return ""
        targets = sorted({target for row in self._best.values() for target in row}, reverse=True)
        head = ["space", "cost", "strategy", "limits", *(f"{target:g}" for target in targets)]
        rows = [
            [*names, *(f"{100 * of[target]:.2f}" if target in of else "" for target in targets)]
            for names, of in sorted(self._best.items())
        ]
        lines = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
        caption = "<caption>Best predicted top-1 (%) for each target</caption>"
        table = f"<table>{caption}<thead><tr>{_cells('th', head)}</tr></thead><tbody>{lines}</tbody></table>"
        return f"{table}<p>{html.escape(footnote_of(self._transferred.items()))}</p>"


def _cells(tag: str, texts: list[str]) -> str:
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)
