"""What the commands share at a terminal: their common options, wide tables, an orderly end when told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Address = Annotated[str, typer.Option(help="none (this process, no Ray), local, auto or HOST:PORT.")]


def print_table(table: Table) -> None:
    """A table at its full width: a cut-off number is worse than a long line."""
    from rich.console import Console

    console = Console()
    width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    Console(width=max(width, console.width)).print(table)


def interrupt(*_: object) -> None:
    """A signal handler that ends a command as Ctrl-C does."""
    raise KeyboardInterrupt
