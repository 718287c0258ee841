"""A measurement as the command runs it: here, or on one reserved node of every kind of a Ray cluster; what is shown and said.

Hardware never mixes: every kind of node gets a file of its own, named after it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import progress as rich_progress

from topdown_ray import latency, subnets
from topdown_ray.actors import connected
from topdown_ray.console import progress_bar, say
from topdown_ray.efficiency import measured
from topdown_ray.errors import StartError, UserError
from topdown_ray.files import brief_path, check_output
from topdown_ray.latency import Conditions, LatencyTable
from topdown_ray.measure import PARTIAL, Effort, OnState, State, measure
from topdown_ray.nodes import RemoteWatch, node_kinds
from topdown_ray.spaces import SPACES, find_space
from topdown_ray.stopwatch import Stopwatch, check_conditions, check_words


@contextlib.contextmanager
def rounds_display(what: str) -> Iterator[OnState]:
    """One live line: the share done, rounds, how many intervals are tight, time left at most."""
    columns = (
        rich_progress.TextColumn(what, markup=False),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("{task.fields[rounds]} rounds, {task.fields[tight]:.0%} tight, at most"),
        rich_progress.TimeRemainingColumn(),
    )
    with progress_bar(*columns) as display:
        task = display.add_task(what, total=1.0, rounds=0, tight=0.0)

        def show(state: State) -> None:
            display.start()  # with the first round: what is refused before it shows no bar
            display.update(task, completed=state.done, rounds=state.rounds, tight=state.tight)

        yield show


def measure_here(space: str, conditions: Conditions, out: Path, effort: Effort) -> dict[Path, LatencyTable]:
    """Measure a space on this machine: the file and its table. Raises UserError."""
    find_space(space)
    watch = Stopwatch(space, conditions)
    with rounds_display(space) as show, _said_to_go_on(out):
        return {out: measure(watch, space, conditions, out, effort, show)}


@contextlib.contextmanager
def _said_to_go_on(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        partial = out.with_name(out.name + PARTIAL)
        say(f"Interrupted. Finished rounds are in {partial}; run the same command again to go on.")
        raise


def measure_cluster(address: str, space: str, conditions: Conditions, out: Path, effort: Effort) -> dict[Path, LatencyTable]:
    """Measure a space on one node of every kind, reserved whole, one after another: a file ``OUT-KIND`` each.

    Raises UserError, or StartError at the end for the kinds that could not be measured."""
    find_space(space)
    check_words(conditions)
    tables: dict[Path, LatencyTable] = {}
    failed: list[str] = []
    with connected(address):
        kinds = [kind for kind in node_kinds() if not conditions.device.startswith("cuda") or kind.gpus]
        if not kinds:
            raise UserError(f"--device: expected a cluster with {conditions.device}, found no node that offers it to Ray")
        for kind in kinds:
            path = out.with_name(f"{out.stem}-{kind.label}{out.suffix}")
            watch = RemoteWatch(kind, space, conditions)
            try:
                with rounds_display(f"{kind.label} (1 of {kind.nodes})") as show, _said_to_go_on(path):
                    tables[path] = measure(watch, space, conditions, path, effort, show)
            except StartError as error:
                failed.append(str(error))
            finally:
                watch.close()
    if failed:
        raise StartError(f"measured {len(tables)} of {len(kinds)} kinds of nodes; {'; '.join(failed)}")
    return tables


def check(path: Path, n: int, effort: Effort, picture: Path | None) -> subnets.Comparison:
    """Compare a table with whole subnets on this machine, under the table's conditions, and draw it beside the table."""
    table = latency.read(path)
    check_conditions(table.conditions)
    picture = path.with_name(f"{path.stem}.check.svg") if picture is None else picture
    if picture.suffix != ".svg" or not picture.parent.is_dir():
        raise UserError(f"--picture: expected a file .svg in an existing folder, found {brief_path(picture)}")
    check_output(picture, "--picture")
    watch = Stopwatch(table.space, table.conditions)
    with rounds_display("subnets") as show:
        comparison = subnets.compare(watch, path, n, effort, on_state=show)
    subnets.draw_comparison(comparison, table, picture.parent, picture.stem)
    return comparison


def facts_of(table: LatencyTable, path: Path) -> dict[str, Any]:
    """Everything a table says about itself, and the range of its space in ms."""
    cost = measured(latency.Source(path.stem, path, False), SPACES[table.space])
    about = {"file": str(path), "space": table.space, "layers": len(table.layers), "sha256": table.sha256()}
    return {**about, **vars(table.conditions), **table.facts, "range_ms": list(cost.range()), "check": dict(table.check)}


def print_table(table: LatencyTable, path: Path, as_json: bool) -> None:
    """What a table says about itself."""
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
            f"  {noise['rounds']} rounds in {table.facts['seconds']:.0f} s; half width of the medians' 95 % intervals: "
            f"{100 * noise['half_width_median']:.1f} % (largest {100 * noise['half_width_largest']:.1f} %), "
            f"{noise['not_tight']} wider than {100 * noise['precision']:g} %"
        )
        print(
            f"  outliers {100 * noise['outlier_share']:.1f} % of the runs, slowest round {noise['slowest_round']:.2f} x the median"
        )
        if noise["contention"] and noise["contention"] > 1.1:
            print(
                f"  other work took the core: {noise['contention']:.1f} x the thread's own time went by, which does not count"
            )
        if noise["throttled"]:
            print(f"  the last rounds were {noise['slowdown']:.2f} x as slow as the first: the machine throttled or was busy")
    if table.check:
        print_check(table.check)


def print_check(figures: Any, picture: Path | None = None) -> None:
    """The figures of a comparison with whole subnets."""
    print(
        f"  {figures['subnets']} whole subnets ({figures['fastest_ms']:.3g} to {figures['slowest_ms']:.3g} ms, half width "
        f"{100 * figures['half_width_median']:.1f} %): bias of the sum {100 * figures['bias']:+.1f} %, "
        f"mean error {100 * figures['mae']:.1f} %, RMSE {100 * figures['rmse']:.1f} %, Kendall's tau {figures['tau']:.3f}"
    )
    print(
        f"  correction {figures['offset_ms']:+.3f} ms, x {figures['slope']:.4f} (used by {latency.CORRECTED}): on subnets left out "
        f"bias {100 * figures['corrected_bias']:+.1f} %, mean error {100 * figures['corrected_mae']:.1f} %, "
        f"RMSE {100 * figures['corrected_rmse']:.1f} %"
    )
    if picture is not None:
        print(f"  picture: {picture}")
