"""The command ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topdown_ray.cli.display import bench_progress
from topdown_ray.cli.options import AsJson
from topdown_ray.errors import UserError
from topdown_ray.terminal import say


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(bench)


def bench(
    what: Annotated[
        str,
        typer.Argument(
            help="race: contestants side by side; floor: the distance of each strategy to the predictor "
            "alone; driver: what the driver costs through Ray; fronts: whole fronts at equal predictor "
            "evaluations."
        ),
    ] = "race",
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Smaller searches, a minute or two; not comparable with the full ones."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Also write the table here (Parquet); fronts: one row a seed."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only names with this prefix (driver: this number of actors); repeat for more."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Repeats after the warm-up; default: 5, quick: 2.")
    ] = None,
    fronts: Annotated[bool, typer.Option("--fronts", help="The same as the argument fronts.")] = False,
    case: Annotated[
        list[str] | None,
        typer.Option(help="fronts: only this case, by the name of its reference front; repeat for more."),
    ] = None,
    budget: Annotated[
        list[int] | None,
        typer.Option(min=100, help="fronts: predictor evaluations; repeat for more."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="fronts: how many seeds; default: 20, quick: 3.")
    ] = None,
    first_seed: Annotated[int | None, typer.Option(min=0, help="fronts: the first seed; default: 0.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure speed on this machine: OFA's finder, the scalar top-down search, Ray tasks of it and this
    project side by side, or how far this project is from its limits. Or (fronts) compare how good the fronts
    of several packages are at equal predictor evaluations."""
    from topdown_ray.cli.present.bench import print_bench
    from topdown_ray.sweeps.bench.run import FRONTS, run_fronts_into, run_into

    own = {
        "cases": tuple(case) if case else None,
        "budgets": tuple(budget) if budget else None,
        "seeds": seeds,
        "first_seed": first_seed,
    }
    changes = {name: value for name, value in own.items() if value is not None}
    what = FRONTS if fronts else what
    if what != FRONTS and changes:
        raise UserError(
            "--case, --budget, --seeds, --first-seed: expected the benchmark fronts, found " + what
        )
    if what == FRONTS and repeats is not None:
        raise UserError("--repeats: expected a benchmark of speed, found fronts; use --seeds")
    with bench_progress() as show:
        if what == FRONTS:
            table = run_fronts_into(out, quick, only or (), changes, show, say)
        else:
            table = run_into(what, out, quick, only or (), repeats, show)
    print_bench(what, table, as_json)
