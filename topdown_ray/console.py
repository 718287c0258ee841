"""What the commands share at a terminal: their common options, wide tables, an orderly end when told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Address = Annotated[str, typer.Option(help="none (this process, no Ray), local, auto or HOST:PORT.")]


def terminal(**options: Any) -> Console:
    """A console that prints no control character of a name, which could move the cursor or rewrite what stands there.

    options: of rich's Console. Text is never taken for markup.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Terminal(Console):
        def render(self, *arguments: Any, **keywords: Any) -> Any:
            for text, style, control in super().render(*arguments, **keywords):
                yield Segment(text if control else visible(text), style, control)

    return Terminal(**{"markup": False, "emoji": False, **options})


def visible(text: str) -> str:
    """Text in which every control character but the end of a line has become a mark."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def print_table(table: Table) -> None:
    """A table at its full width: a cut-off number is worse than a long line."""
    console = terminal()
    width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    terminal(width=max(width, console.width)).print(table)


def interrupt(*_: object) -> None:
    """A signal handler that ends a command as Ctrl-C does."""
    raise KeyboardInterrupt
