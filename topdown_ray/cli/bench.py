"""Define the command ``bench``, which measures speed and compares fronts."""

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
            help="race: compare the speed of several implementations. floor: compare each strategy with the "
            "time of the predictor alone. driver: measure the overhead of the driver on Ray. fronts: compare "
            "whole fronts at equal numbers of predictor rows."
        ),
    ] = "race",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Run smaller searches in a minute or two. Results are not comparable with full runs.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Parquet file to write the table to (fronts: one row for each run)."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Run only contestants (floor: cases) whose names start with this prefix (driver: only this "
            "number of actors). Repeat the option for more."
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="race and floor: repeats after the warm-up (default 5; 2 with --quick)."),
    ] = None,
    fronts: Annotated[bool, typer.Option("--fronts", help="Same as the argument fronts.")] = False,
    case: Annotated[
        list[str] | None,
        typer.Option(
            help="fronts: run only this case, named like its reference front. Repeat the option for more."
        ),
    ] = None,
    budget: Annotated[
        list[int] | None,
        typer.Option(min=100, help="fronts: budget in predictor rows. Repeat the option for more."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="fronts: number of seeds (default 20; 3 with --quick).")
    ] = None,
    first_seed: Annotated[int | None, typer.Option(min=0, help="fronts: first seed (default 0).")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure speed, or compare fronts. The benchmark race times OFA's finder, a scalar top-down search, Ray
    tasks of that search, pymoo and this project on this machine. The benchmark fronts compares how good the
    fronts of several packages are at equal numbers of predictor rows.
    """
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
        options = {"cases": "--case", "budgets": "--budget", "seeds": "--seeds", "first_seed": "--first-seed"}
        given = ", ".join(options[name] for name in changes)
        raise UserError(f"{given}: expected the benchmark fronts, found {what}")
    if what in (FRONTS, "driver") and repeats is not None:
        advice = " (use --seeds)" if what == FRONTS else ""
        raise UserError(f"--repeats: expected the benchmark race or floor, found {what}{advice}")
    with bench_progress() as show:
        if what == FRONTS:
            table = run_fronts_into(out, quick, only or (), changes, show, say)
        else:
            table = run_into(what, out, quick, only or (), repeats, show)
    print_bench(what, table, as_json)
