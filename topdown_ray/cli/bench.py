"""The command ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topdown_ray.cli.display import bench_progress
from topdown_ray.cli.options import AsJson


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(bench)


def bench(
    what: Annotated[
        str,
        typer.Argument(
            help="race: contestants side by side; floor: the distance of each strategy to the predictor "
            "alone; driver: what the driver costs through Ray."
        ),
    ] = "race",
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Smaller searches, a minute or two; not comparable with the full ones."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the table here (Parquet).")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only names with this prefix (driver: this number of actors); repeat for more."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Repeats after the warm-up; default: 5, quick: 2.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure speed on this machine: OFA's finder, the scalar top-down search, Ray tasks of it and this
    project side by side, or how far this project is from its limits."""
    from topdown_ray.cli.present.bench import print_bench
    from topdown_ray.sweeps.bench.run import run_into

    with bench_progress() as show:
        table = run_into(what, out, quick, only or (), repeats, show)
    print_bench(what, table, as_json)
