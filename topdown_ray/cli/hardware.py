"""The commands ``measure`` and ``table``: parse and wire; no logic."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topdown_ray.addresses import check_address
from topdown_ray.cli.display import AsJson, progress_bar
from topdown_ray.cli.supervisor import supervise
from topdown_ray.errors import UserError
from topdown_ray.files import brief_path, check_output
from topdown_ray.spaces.registry import DEFAULT_SPACE, in_words
from topdown_ray.terminal import say

if TYPE_CHECKING:
    from topdown_ray.hardware.rounds import OnState, State
    from topdown_ray.spaces.latency_table import LatencyTable


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(measure)
    app.command()(table)


def measure(
    space: Annotated[str | None, typer.Option(help=f"{in_words()}.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The table to write (.parquet); what was begun there is continued.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Compare this table with whole subnets on this machine instead.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of torch, on a CPU.")] = 1,
    batch: Annotated[
        int, typer.Option(min=1, max=1 << 20, help="Images at once; times are those of the batch.")
    ] = 1,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    mode: Annotated[str, typer.Option(help="eager, compile, or graph (CUDA only).")] = "eager",
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Channels-last memory format.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Coarser, in a minute.")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="At most so long; default: 5, quick 1, check 3.")
    ] = None,
    precision: Annotated[
        float | None, typer.Option(min=1e-4, max=1, help="Half width of the intervals to be reached.")
    ] = None,
    address: Annotated[
        str,
        typer.Option(
            callback=check_address, help="none (this machine), or a Ray cluster: local, auto or HOST:PORT."
        ),
    ] = "none",
    subnets: Annotated[int, typer.Option(min=4, max=10_000, help="Of a check: how many subnets.")] = 50,
    picture: Annotated[
        Path | None, typer.Option(help="Of a check: where the picture goes; default: beside the table.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A latency table of this machine, or of every kind of node of a Ray cluster; or how good such a table
    is.
    """
    supervise(address)
    from topdown_ray.hardware import measure
    from topdown_ray.hardware import rounds as measuring
    from topdown_ray.hardware import whole_subnets as whole
    from topdown_ray.spaces.latency_table import SUFFIX, Conditions, read

    effort = measuring.QUICK if quick else whole.EFFORT if check is not None else measuring.FULL
    effort = effort if minutes is None else dataclasses.replace(effort, minutes=minutes, strict=check is None)
    effort = effort if precision is None else dataclasses.replace(effort, precision=precision)
    if check is not None:
        if space is not None or out is not None or address != "none":
            raise UserError(
                "--check: expected no --space, --out or --address (the table says what it is), found one"
            )
        comparison = measure.check(check, subnets, effort, picture, rounds_display)
        if as_json:
            print(json.dumps(comparison.figures))
        else:
            print(f"{check}:")
            print_check(comparison.figures, picture or check.with_name(f"{check.stem}.check.svg"))
        return
    if space is None or out is None:
        raise UserError(
            f"{'--space' if space is None else '--out'}: expected a value (or --check TABLE), found none"
        )
    if out.suffix != SUFFIX:
        raise UserError(f"--out: expected a file {SUFFIX}, found {out}")
    check_output(out, "--out")
    conditions = Conditions(device, threads, batch, dtype, mode, channels_last)
    if address == "none":
        tables = measure.measure_here(space, conditions, out, effort, rounds_display)
    else:
        tables = measure.measure_cluster(address, space, conditions, out, effort, rounds_display)
    for path in tables:
        print_table(read(path), path, as_json)


def table(
    source: Annotated[str, typer.Argument(help="A measured table (.parquet), or the name of a shipped one.")],
    space: Annotated[str, typer.Option(help=f"Of a shipped name: {in_words()}.")] = DEFAULT_SPACE,
    export_yaml: Annotated[
        Path | None, typer.Option(help="Write it in OFA's published form into this folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a measured latency table says about itself; and its conversion to OFA's published form (YAML)."""
    from topdown_ray.spaces import latency_table, ofa_tables
    from topdown_ray.spaces.registry import find_space

    found = latency_table.source_of(source, find_space(space))
    if found is None:
        raise UserError(
            f"{brief_path(source)}: expected a file .parquet or one of {', '.join(latency_table.shipped())}, "
            "found neither"
        )
    if export_yaml is not None:
        check_output(export_yaml, "--export-yaml", folder=True)
    measured = latency_table.read(found.path)
    if export_yaml is not None:
        paths = ofa_tables.export(measured, export_yaml)
        print(
            json.dumps([str(path) for path in paths])
            if as_json
            else f"{export_yaml}: {len(paths)} tables written"
        )
        return
    print_table(measured, found.path, as_json)


@contextlib.contextmanager
def rounds_display(what: str, out: Path | None) -> Iterator[OnState]:
    """One live line: the share done, rounds, how many intervals are tight, time left at most; an interrupt
    says how to go on.
    """
    from rich import progress as rich_progress

    from topdown_ray.hardware.rounds import PARTIAL

    columns = (
        rich_progress.TextColumn(what, markup=False),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("{task.fields[rounds]} rounds, {task.fields[tight]:.0%} tight, at most"),
        rich_progress.TimeRemainingColumn(),
    )
    try:
        with progress_bar(*columns) as display:
            task = display.add_task(what, total=1.0, rounds=0, tight=0.0)

            def show(state: State) -> None:
                display.start()  # with the first round: what is refused before it shows no bar
                display.update(task, completed=state.done, rounds=state.rounds, tight=state.tight)

            yield show
    except KeyboardInterrupt:
        if out is not None:
            say(
                f"Interrupted. Finished rounds are in {out.with_name(out.name + PARTIAL)}; run the same "
                "command again to go on."
            )
        raise


def print_table(table: LatencyTable, path: Path, as_json: bool) -> None:
    """What a table says about itself."""
    from topdown_ray.hardware.measure import facts_of

    facts = facts_of(table, path)
    if as_json:
        print(json.dumps(facts))
        return
    low, high = facts["range_ms"]
    print(f"{path}: {table.space}, {len(table.layers)} layers, {table.describe()}")
    print(f"  architectures from {low:.3g} to {high:.3g} ms (a batch of {table.conditions.batch})")
    noise = table.facts.get("noise")
    if noise:
        print(
            f"  {noise['rounds']} rounds in {table.facts['seconds']:.0f} s; half width of the medians' 95 % "
            "intervals: "
            f"{100 * noise['half_width_median']:.1f} % (largest {100 * noise['half_width_largest']:.1f} %), "
            f"{noise['not_tight']} wider than {100 * noise['precision']:g} %"
        )
        print(
            f"  outliers {100 * noise['outlier_share']:.1f} % of the runs, slowest round "
            f"{noise['slowest_round']:.2f} x the median"
        )
        if noise["contention"] and noise["contention"] > 1.1:
            print(
                f"  other work took the core: {noise['contention']:.1f} x the thread's own time went by, "
                "which does not count"
            )
        if noise["throttled"]:
            print(
                f"  the last rounds were {noise['slowdown']:.2f} x as slow as the first: the machine "
                "throttled or was busy"
            )
    if "subnets" in table.check:
        print_check(table.check)


def print_check(figures: Any, picture: Path | None = None) -> None:
    """The figures of a comparison with whole subnets."""
    from topdown_ray.spaces.latency_table import CORRECTED

    print(
        f"  {figures['subnets']} whole subnets ({figures['fastest_ms']:.3g} to {figures['slowest_ms']:.3g} "
        "ms, half width "
        f"{100 * figures['half_width_median']:.1f} %): bias of the sum {100 * figures['bias']:+.1f} %, "
        f"mean error {100 * figures['mae']:.1f} %, RMSE {100 * figures['rmse']:.1f} %, Kendall's tau "
        f"{figures['tau']:.3f}"
    )
    print(
        f"  correction {figures['offset_ms']:+.3f} ms, x {figures['slope']:.4f} (used by {CORRECTED}): on "
        "subnets left out "
        f"bias {100 * figures['corrected_bias']:+.1f} %, mean error {100 * figures['corrected_mae']:.1f} %, "
        f"RMSE {100 * figures['corrected_rmse']:.1f} %"
    )
    if picture is not None:
        print(f"  picture: {picture}")
