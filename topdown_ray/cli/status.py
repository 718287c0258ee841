"""The command ``status``."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    out: Annotated[str, typer.Argument(metavar="DIR_OR_URI", help="A result folder, or its URI.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Again and again, until the sweep runs no more.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --watch, a line a look.")] = False,
) -> None:
    """How far a sweep is, from its files alone: done, rate, time left, failures, whether it runs."""
    from rich.live import Live

    from topdown_ray.sweeps.status import Reader, as_facts, print_status, rendered
    from topdown_ray.terminal import terminal

    reader = Reader(out)
    now = reader.read()
    if as_json or not watch:
        while True:
            if as_json:
                print(json.dumps(as_facts(now)), flush=True)
            else:
                print_status(now)
            if not watch or now.state != "running":
                return
            time.sleep(every)
            now = reader.read()
    with Live(rendered(now), console=terminal(), auto_refresh=False) as live:
        while now.state == "running":
            time.sleep(every)
            now = reader.read()
            live.update(rendered(now), refresh=True)
