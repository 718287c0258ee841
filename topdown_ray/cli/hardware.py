"""Define the commands ``measure`` and ``table`` for latency tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topdown_ray.addresses import check_address
from topdown_ray.cli.display import rounds_progress
from topdown_ray.cli.options import AnySpace, AsJson
from topdown_ray.cli.supervisor import supervise
from topdown_ray.errors import UserError
from topdown_ray.spaces.registry import DEFAULT_SPACE, find_space, in_words


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(measure)
    app.command()(table)


def measure(
    space: AnySpace = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Table to write (.parquet). An interrupted measurement is continued."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Check this table against whole subnets on this machine.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device: cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Number of torch threads on a CPU.")] = 1,
    batch: Annotated[
        int, typer.Option(min=1, max=1 << 20, help="Images per batch. Times are for a whole batch.")
    ] = 1,
    dtype: Annotated[str, typer.Option(help="Data type: float32, bfloat16 or float16.")] = "float32",
    mode: Annotated[
        str, typer.Option(help="Execution mode: eager, compile, or graph (CUDA only).")
    ] = "eager",
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Use the channels-last memory format.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Measure with less precision, in a minute.")] = False,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="Time limit in minutes (default 5; 1 with --quick, 3 with --check)."),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            min=1e-4,
            max=1,
            help="Relative half width of the 95 % intervals to reach (default 0.02; 0.05 with --quick).",
        ),
    ] = None,
    address: Annotated[
        str,
        typer.Option(
            callback=check_address, help="none (this machine) or a Ray cluster: local, auto or HOST:PORT."
        ),
    ] = "none",
    subnets: Annotated[int, typer.Option(min=4, max=10_000, help="With --check: number of subnets.")] = 50,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="With --check: picture to write (.svg; default: next to the table). The times of the "
            "subnets are written next to it as CSV."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure or check a latency table. Measure a table on this machine or on each kind of node of a Ray
    cluster, or compare an existing table with whole subnets.
    """
    supervise(address)
    from topdown_ray.spaces import latency_table

    if check is None and (space is None or out is None):
        raise UserError(
            f"{'--space' if space is None else '--out'}: expected a value (or --check TABLE), found none"
        )
    if check is not None:
        options = {"--space": space is not None, "--out": out is not None, "--address": address != "none"}
        if any(options.values()):
            found = ", ".join(option for option, is_given in options.items() if is_given)
            raise UserError(
                "--check: expected no --space, --out or --address, because the check reads the space from "
                f"the table, runs on this machine and writes into the table, found {found}"
            )
        latency_table.read(check)
    if space is not None:
        find_space(space)
    from topdown_ray.cli.present import hardware as present
    from topdown_ray.hardware import measure as room

    thoroughness = room.Thoroughness(quick, minutes, precision)
    if check is not None:
        picture = room.picture_of(check) if picture is None else picture
        comparison = room.check_table(check, subnets, thoroughness, picture, rounds_progress)
        present.print_comparison(check, comparison.figures, picture, as_json)
        return
    assert space is not None
    assert out is not None
    conditions = latency_table.Conditions(device, threads, batch, dtype, mode, channels_last)
    tables = room.measure_space(address, space, conditions, out, thoroughness, rounds_progress)
    for path, measured in tables.items():
        present.print_latency_table(measured, path, as_json)


def table(
    source: Annotated[
        str,
        typer.Argument(help="Measured table (.parquet), or name of a table that comes with the package."),
    ],
    space: Annotated[
        str, typer.Option(help=f"Space of a table of the package: {in_words()}.")
    ] = DEFAULT_SPACE,
    export_yaml: Annotated[
        Path | None, typer.Option(help="Folder for the table in OFA's published form (YAML).")
    ] = None,
    export_csv: Annotated[
        Path | None,
        typer.Option(help="CSV file for the table. Replace its times with those of your device."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show or convert a latency table. Print what the table contains, or write it as CSV or in OFA's
    published form (YAML).
    """
    from topdown_ray.cli.present import hardware as present
    from topdown_ray.hardware import tables as room

    if export_csv is not None:
        present.print_published_form([room.export_csv(source, space, export_csv)], export_csv, as_json)
        return
    if export_yaml is not None:
        present.print_published_form(room.export_table(source, space, export_yaml), export_yaml, as_json)
        return
    present.print_latency_table(*room.find_table(source, space), as_json)
