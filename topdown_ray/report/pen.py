"""Draw the pictures of a report in this process, or in a second process while the tables are computed.

The second process reads requests from its standard input and answers on its standard output. It ends when its
input is closed, which also happens when this process ends."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from topdown_ray import strategy_styles
from topdown_ray.figures import Picture, draw


@dataclass(frozen=True)
class Drawing:
    """A picture to be drawn: a table, and the function of a module that draws it into axes."""

    folder: Path
    name: str
    caption: str
    plot: Callable[..., Axes]
    table: pd.DataFrame
    size: tuple[float, float]
    options: Mapping[str, Any]
    styles: strategy_styles.Chosen = field(default_factory=strategy_styles.chosen)

    def drawn(self) -> Picture:
        """Draw the picture."""
        return draw(
            self.folder,
            self.name,
            self.caption,
            lambda ax: self.plot(self.table, ax, **self.options),
            self.size,
        )


class Beside:
    """A process that draws. Leaving the context ends it; so does the end of this process."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", "-c", "from topdown_ray.report.pen import main; main()"]
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C is for this process
        )
        self._asking = ThreadPoolExecutor(1)

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._asking.shutdown(cancel_futures=True)
        self._process.communicate()

    def draw(self, drawing: Drawing) -> Picture:
        """Return a picture that the other process draws. If it is needed before that has begun, this process
        draws it.
        """
        answer = self._asking.submit(self._ask, drawing)

        @functools.cache
        def drawn() -> Markup:
            return drawing.drawn().svg if answer.cancel() else answer.result()

        return Picture(drawing.name, drawing.caption, drawn)

    def _ask(self, drawing: Drawing) -> Markup:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump(drawing, self._process.stdin)
            self._process.stdin.flush()
            answer: Markup | Exception = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            status = self._process.wait()
            raise RuntimeError(f"the process that draws pictures ended with status {status}") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def main() -> None:
    """Draw what standard input asks for, until it ends."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keeps other output out of the answers
        while True:
            try:
                drawing = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            strategy_styles.adopt(drawing.styles)
            try:
                answer: Markup | Exception = drawing.drawn().svg
            except Exception as error:  # raised again in the process that asked
                answer = error
            pickle.dump(answer, answers)
            answers.flush()
