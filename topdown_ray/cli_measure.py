"""The commands ``measure`` and ``table``: parse and wire; no logic."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from topdown_ray.console import AsJson, check_address
from topdown_ray.errors import UserError
from topdown_ray.files import brief_path, check_output
from topdown_ray.supervisor import supervise


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(measure)
    app.command()(table)


def measure(
    space: Annotated[str | None, typer.Option(help="mobilenet_v3, resnet50d or proxyless.")] = None,
    out: Annotated[Path | None, typer.Option(help="The table to write (.parquet); what was begun there is continued.")] = None,
    check: Annotated[Path | None, typer.Option(help="Compare this table with whole subnets on this machine instead.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of torch, on a CPU.")] = 1,
    batch: Annotated[int, typer.Option(min=1, max=1 << 20, help="Images at once; times are those of the batch.")] = 1,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    mode: Annotated[str, typer.Option(help="eager, compile, or graph (CUDA only).")] = "eager",
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Channels-last memory format.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Coarser, in a minute.")] = False,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="At most so long; default: 5, quick 1, check 3.")] = None,
    precision: Annotated[float | None, typer.Option(min=1e-4, max=1, help="Half width of the intervals to be reached.")] = None,
    address: Annotated[
        str, typer.Option(callback=check_address, help="none (this machine), or a Ray cluster: local, auto or HOST:PORT.")
    ] = "none",
    subnets: Annotated[int, typer.Option(min=4, max=10_000, help="Of a check: how many subnets.")] = 50,
    picture: Annotated[Path | None, typer.Option(help="Of a check: where the picture goes; default: beside the table.")] = None,
    as_json: AsJson = False,
) -> None:
    """A latency table of this machine, or of every kind of node of a Ray cluster; or how good such a table is."""
    supervise(address)
    from topdown_ray import campaign
    from topdown_ray import measure as measuring
    from topdown_ray import subnets as whole
    from topdown_ray.latency import SUFFIX, Conditions, read

    effort = measuring.QUICK if quick else whole.EFFORT if check is not None else measuring.FULL
    effort = effort if minutes is None else dataclasses.replace(effort, minutes=minutes, strict=check is None)
    effort = effort if precision is None else dataclasses.replace(effort, precision=precision)
    if check is not None:
        if space is not None or out is not None or address != "none":
            raise UserError("--check: expected no --space, --out or --address (the table says what it is), found one")
        comparison = campaign.check(check, subnets, effort, picture)
        if as_json:
            print(json.dumps(comparison.figures))
        else:
            print(f"{check}:")
            campaign.print_check(comparison.figures, picture or check.with_name(f"{check.stem}.check.svg"))
        return
    if space is None or out is None:
        raise UserError(f"{'--space' if space is None else '--out'}: expected a value (or --check TABLE), found none")
    if out.suffix != SUFFIX:
        raise UserError(f"--out: expected a file {SUFFIX}, found {out}")
    check_output(out, "--out")
    conditions = Conditions(device, threads, batch, dtype, mode, channels_last)
    if address == "none":
        tables = campaign.measure_here(space, conditions, out, effort)
    else:
        tables = campaign.measure_cluster(address, space, conditions, out, effort)
    for path in tables:
        campaign.print_table(read(path), path, as_json)


def table(
    source: Annotated[str, typer.Argument(help="A measured table (.parquet), or the name of a shipped one.")],
    space: Annotated[str, typer.Option(help="Of a shipped name: mobilenet_v3, resnet50d or proxyless.")] = "mobilenet_v3",
    export_yaml: Annotated[Path | None, typer.Option(help="Write it in OFA's published form into this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a measured latency table says about itself; and its conversion to OFA's published form (YAML)."""
    from topdown_ray import campaign, latency
    from topdown_ray.spaces import find_space

    found = latency.source_of(source, find_space(space))
    if found is None:
        raise UserError(
            f"{brief_path(source)}: expected a file .parquet or one of {', '.join(latency.shipped())}, found neither"
        )
    if export_yaml is not None:
        check_output(export_yaml, "--export-yaml", folder=True)
    measured = latency.read(found.path)
    if export_yaml is not None:
        paths = latency.export_published(measured, export_yaml)
        print(json.dumps([str(path) for path in paths]) if as_json else f"{export_yaml}: {len(paths)} tables written")
        return
    campaign.print_table(measured, found.path, as_json)
