"""What the commands print: tables of targets, architectures layer by layer, progress."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich import progress as rich_progress
from rich.table import Table

from topdown_ray.cli.display import print_table, progress_bar, status_line
from topdown_ray.errors import UserError
from topdown_ray.networks.architectures import Filters, check_whole, config_of, filtered, is_run, read_arch
from topdown_ray.networks.supernet import Supernet, n_parameters
from topdown_ray.progress import Progress
from topdown_ray.store.place import shown
from topdown_ray.store.results import Results, load
from topdown_ray.sweeps.events import Observer
from topdown_ray.sweeps.verify import Verification
from topdown_ray.terminal import visible


@contextlib.contextmanager
def progress_display() -> Iterator[Callable[[Progress], None]]:
    """One live line: searches done of all, searches a second, time left, failures."""
    columns = (
        rich_progress.TextColumn("searches"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[rate]}"),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[trouble]}"),
    )
    with progress_bar(*columns) as display:
        task = display.add_task("searches", total=None, rate="starting", trouble="")

        def show(state: Progress) -> None:
            display.start()
            trouble = [f"{state.failures} failed"] if state.failures else []
            trouble += [f"{state.losses} workers died"] if state.losses else []
            rate = f"{state.rate:.2f}/s" if state.done > state.before else "..."
            display.update(
                task, total=state.total, completed=state.done, rate=rate, trouble=", ".join(trouble)
            )

        yield show


@contextlib.contextmanager
def no_display() -> Iterator[Callable[[Progress], None]]:
    """Where stderr is a machine's."""
    yield lambda state: None


def print_cluster(address: str, dashboard: str | None, observe: Observer) -> None:
    """Where Ray's dashboard is, if it has one."""
    observe("connected", {"address": address, "dashboard": dashboard})
    if dashboard:
        print(f"Ray dashboard: {dashboard}", file=sys.stderr)


def print_damaged(damaged: Sequence[str]) -> None:
    """The parts that are computed afresh."""
    for problem in damaged:
        print(f"damaged, to be computed afresh: {visible(problem)}", file=sys.stderr)


def _amount(row: Mapping[Any, Any], column: str = "target") -> str:
    """A target or cost with its unit: ``35 ms``, ``400 x 1e6 MACs``."""
    return f"{row[column]:g} {'' if row['cost_unit'] == 'ms' else 'x '}{row['cost_unit']}"


_ANSWER = ("target", "cost", "unit", "predicted top-1", "MACs (1e6)", "parameters (1e6)")


def _answer(row: Mapping[Any, Any]) -> list[str]:
    """The cells of the columns ``_ANSWER``."""
    numbers = [f"{100 * row['accuracy']:.2f} %", f"{row['macs_m']:.1f}", f"{row['params_m']:.2f}"]
    return [f"{row['target']:g}", f"{row['cost']:.2f}", row["cost_unit"], *numbers]


def print_best(results: Results) -> None:
    """A table with the most accurate row of every space, strategy and target."""
    rows = results.searches
    best = rows.loc[rows.groupby(["space", "strategy", "target"])["accuracy"].idxmax()]
    table = Table(title="Best architecture for each target")
    for name in ("space", "strategy"):
        table.add_column(name)
    for name in (*_ANSWER, "seed"):
        table.add_column(name, justify="right")
    for row in best.sort_values(["space", "strategy", "target"], ascending=[True, True, False]).to_dict(
        "records"
    ):
        table.add_row(
            row["space"],
            row["strategy"],
            *_answer(row),
            str(row["seed"]),
        )
    print_table(table)


def print_winner(results: Results) -> None:
    """The most accurate architecture for the tightest target of the first space, layer by layer."""
    rows = results.searches
    first = results.manifest["spec"]["spaces"][0]
    rows = rows[rows["space"] == first]
    row: dict[str, Any] = dict(rows[rows["target"] == rows["target"].min()].nlargest(1, "accuracy").iloc[0])
    space, config = config_of(row)
    print(f"\n{row['space']} at {_amount(row)}, {100 * row['accuracy']:.2f} %, layer by layer:")
    print(Supernet(space).describe(config).rstrip())
    print()


def print_search(frame: pd.DataFrame, as_json: bool) -> None:
    """The answers of one search."""
    if as_json:
        print(frame.to_json(orient="records", date_format="iso"))
        return
    table = Table()
    for name in (*_ANSWER, "evaluations", "seconds"):
        table.add_column(name, justify="right")
    for row in frame.to_dict("records"):
        table.add_row(
            *_answer(row),
            f"{row['evaluations']:,}",
            f"{row['wall_s']:.2f}",
        )
    print_table(table)
    for row in frame.to_dict("records"):
        print(f"{_amount(row)}: {row['arch']}")


def print_architecture(source: str, filters: Filters, as_json: bool) -> None:
    """An architecture from JSON or a folder's row, layer by layer, with counts of the OFA network."""
    facts: dict[str, Any] = {}
    if is_run(source):
        rows = load(source).searches
        check_whole(rows, source)
        rows = filtered(rows, filters)
        if rows.empty:
            raise UserError(f"{shown(source)}: expected finished searches, found none")
        row: dict[str, Any] = dict(rows.nlargest(1, "accuracy").iloc[0])
        space, config = config_of(row)
        facts = {
            name: row[name] for name in ("search_id", "strategy", "target", "accuracy", "cost", "cost_unit")
        }
        facts["seed"] = int(row["seed"])
    else:
        space, config = read_arch(source, filters)
    supernet = Supernet(space)
    macs, _ = supernet.count(config)
    parameters = n_parameters(supernet.materialise(config)) / 1e6
    layers = supernet.describe(config).rstrip()
    facts = {**facts, "space": space.name, "macs_m": macs, "params_m": parameters, "arch": config}
    if as_json:
        print(json.dumps({**facts, "layers": layers.splitlines()}))
        return
    print(f"{space.name} ({space.network}) at {config['image_size']} pixels")
    print(layers)
    print(f"{macs:.2f} x 1e6 MACs, {parameters:.3f} x 1e6 parameters")
    if "accuracy" in facts:
        print(f"predicted top-1 {100 * facts['accuracy']:.2f} %, {facts['cost']:.2f} {facts['cost_unit']}")


@contextlib.contextmanager
def laps_display() -> Iterator[Callable[[str, int], None]]:
    """One live line: which contestant of the benchmark runs."""
    with status_line("starting") as status:
        yield lambda name, repeat: status.update(f"{name}, {f'repeat {repeat}' if repeat else 'warming up'}")


def print_bench(frame: pd.DataFrame, as_json: bool) -> None:
    """The benchmark's table."""
    if as_json:
        print(frame.to_json(orient="records"))
        return
    columns = {
        "contestant": ("", "{}"),
        "seconds_per_search_and_core": ("s / search, core", "{:.3f}"),
        "evaluations_per_second_and_core": ("evaluations / s, core", "{:,.0f}"),
        "to_floor": ("x floor", "{:.2f}"),
        "faster_than_notebook": ("faster than notebook", "{:.1f}"),
        "faster_than_ofa": ("than ofa", "{:.1f}"),
        "faster_than_ray_naive": ("than ray-naive", "{:.1f}"),
        "accuracy": ("mean top-1", "{:.4f}"),
        "peak_gib": ("peak GiB", "{:.2f}"),
    }
    table = Table(title="Seconds of one search, all its targets, on one core (medians)")
    for name, (heading, _) in columns.items():
        table.add_column(heading, justify="left" if name == "contestant" else "right")
    for row in frame.to_dict("records"):
        table.add_row(
            *("" if row[name] != row[name] else form.format(row[name]) for name, (_, form) in columns.items())
        )
    print_table(table)


def print_verification(verification: Verification, as_json: bool) -> None:
    """Every check with its numbers of rows and failures, the first failing row of each, and the verdict."""
    if as_json:
        facts = {
            "rows": verification.rows,
            "missing": verification.missing,
            "complete": verification.complete,
            "passed": verification.passed,
            "checks": [dataclasses.asdict(found) for found in verification.checks],
        }
        print(json.dumps(facts))
        return
    print(f"{verification.rows} rows, checked against OFA's own code and run.json")
    print(f"\n{'check':<42}{'rows':>8}{'failed':>8}  largest difference")
    for found in verification.checks:
        if found.rows or not found.not_checked:
            at_most = "" if found.largest is None else f"  {found.largest:.1e} of {found.tolerance:g}"
            print(f"{found.name:<42}{found.rows:>8}{found.failures:>8}{at_most}")
    if notes := [found for found in verification.checks if found.not_checked]:
        print("\nNot checked:")
        for found in notes:
            _print_wrapped(f"{found.name}: {found.not_checked}")
    if verification.missing:
        said = (
            "although the sweep says it is complete" if verification.complete else "the sweep is not complete"
        )
        print(f"\nSearches without rows: {verification.missing} ({said})")
    if not verification.passed:
        print("\nFailed:")
    for found in verification.checks:
        if found.failures:
            _print_wrapped(f"{found.name}: {found.failures} of {found.rows} rows are not {found.rule}")
            where = "" if found.search_id is None else f"first in search {found.search_id}, "
            where += "" if found.target is None else f"target {found.target:g}: "
            _print_wrapped(f"{where}expected {found.expected}, found {found.found}", "    ")
    print("\npassed" if verification.passed else "\nFAILED")


def _print_wrapped(text: str, indent: str = "  ") -> None:
    print(textwrap.fill(text, 80, initial_indent=indent, subsequent_indent=indent + "  "))
