"""Print the results of ``demo``, ``sweep``, ``search`` and ``merge``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from topdown_ray.addresses import shown
from topdown_ray.cli.present.tables import (
    ANSWER,
    PREDICTED,
    amount,
    answer,
    print_damaged,
    print_footnote,
    print_json,
    print_records,
    print_table,
    print_wrapped,
    table_of,
)
from topdown_ray.terminal import say

if TYPE_CHECKING:
    import pandas as pd

    from topdown_ray.store.results import Results
    from topdown_ray.sweeps.api import Forecast
    from topdown_ray.sweeps.driver import SweepSummary
    from topdown_ray.sweeps.merge import Merged


def print_dashboard(url: str) -> None:
    """Print the address of Ray's dashboard."""
    print(f"Ray dashboard: {url}", file=sys.stderr)


def print_opened(out: str, damaged: Sequence[str], rebuilt: bool) -> None:
    """Print which parts of a result folder are computed again, and whether its manifest was written again."""
    print_damaged(damaged)
    if rebuilt:
        say(f"{shown(out)}: run.json was missing and has been written again for the parts of this sweep")


def print_forecast(forecast: Forecast, as_json: bool) -> None:
    """Print how much work a sweep is."""
    if as_json:
        print_json(forecast._asdict())
        return
    shards = f"{forecast.shards:,} shards" if forecast.shards else "shards of about ten seconds"
    print(
        f"This sweep has {forecast.searches:,} searches with {forecast.evaluations:,} predictor evaluations, "
        f"in {shards} on {forecast.actors} {'actor' if forecast.actors == 1 else 'actors'}."
    )


def print_summary(summary: SweepSummary, run_id: str, out: str, as_json: bool) -> None:
    """Print the result of a sweep."""
    progress = summary.progress
    if as_json:
        print_json(
            {
                "out": shown(out),
                "run_id": run_id,
                "searches": progress.total,
                "done": progress.done,
                "failed": progress.failures,
                "wall_s": round(summary.wall_s, 3),
            }
        )
        return
    _print_finished(summary, out)


def _print_finished(summary: SweepSummary, out: str) -> None:
    progress = summary.progress
    new = progress.done - progress.before
    print(
        f"Finished {progress.done} of {progress.total} searches ({new} in this run) in "
        f"{summary.wall_s:.1f} s. Results: {shown(out)}"
    )


def print_merged(merged: Merged, out: str, folders: int, as_json: bool) -> None:
    """Print the result of a merge."""
    if as_json:
        print_json({"out": shown(out), "folders": folders, **merged._asdict()})
        return
    of = "1 folder" if folders == 1 else f"{folders} folders"
    print(f"Merged {merged.done} of {merged.total} searches from {of}. Results: {shown(out)}")
    if merged.done < merged.total:
        command = shlex.join(["topdown-ray", "sweep", shown(out), "--out", shown(out)])
        print(f"To run the missing searches: {command}")


def print_given_up(given_up: Mapping[str, str]) -> None:
    """Print the shards that failed permanently, each with its reason and its record."""
    for shard, reason in given_up.items():
        record = f"failures/{shard}.json"
        print(
            f"shard {shard} failed: {reason}; {record} has the traceback and the command that runs it again",
            file=sys.stderr,
        )


def print_demo_begins(used: str) -> None:
    """Print which predictors and costs the demo uses, before it starts."""
    print_wrapped(used, "")


def print_demo(summary: SweepSummary, out: str) -> None:
    """Print the demo's answers, one of them layer by layer, where the results are, and two commands to try
    next.
    """
    from topdown_ray.store.results import load

    results = load(out)
    _print_best(results)
    _print_winner(results)
    _print_finished(summary, out)
    _print_next(results, shown(out))


def _print_best(results: Results) -> None:
    """Print a table with the most accurate row of each space, label and target."""
    keys = ["space", "label", "target"]
    rows = results.searches
    best = rows.loc[rows.groupby(keys)["accuracy"].idxmax()].sort_values(keys, ascending=[True, True, False])
    table = table_of(keys[:2], (*ANSWER, "seed"), f"Best architecture for each target ({PREDICTED})")
    for row in best.to_dict("records"):
        table.add_row(row["space"], row["label"], *answer(row), str(row["seed"]))
    print_table(table)
    print_footnote(best)


def _print_winner(results: Results) -> None:
    """Print the most accurate architecture for the tightest target of the first space, layer by layer."""
    from topdown_ray.networks.api import describe_row

    rows = results.searches
    rows = rows[rows["space"] == results.manifest["spec"]["spaces"][0]]
    row: dict[str, Any] = dict(rows[rows["target"] == rows["target"].min()].nlargest(1, "accuracy").iloc[0])
    accuracy = f"predicted top-1 {100 * row['accuracy']:.2f} %"
    print(f"\nBest architecture of {row['space']} at {amount(row)} ({accuracy}), layer by layer:")
    print(f"{describe_row(row).layers}\n")


def _print_next(results: Results, out: str) -> None:
    """Print two commands that use the results: a report, and an answer for the loosest target of a space."""
    from topdown_ray.networks.architectures import exact

    space = results.manifest["spec"]["spaces"][0]
    rows = results.searches
    target = float(rows[rows["space"] == space]["target"].max())
    commands = [
        ["topdown-ray", "report", out],
        ["topdown-ray", "describe", out, "--space", space, "--target", exact(target)],
    ]
    print("\nNext, write a report, or show the architecture for another target:")
    for command in commands:
        print(f"  {shlex.join(command)}")


def print_search(frame: pd.DataFrame, as_json: bool) -> None:
    """Print the answers of one search."""
    if as_json:
        print_records(frame)
        return
    rows = frame.to_dict("records")
    title = f"Best architecture for each target ({PREDICTED})"
    table = table_of((), (*ANSWER, "evaluations", "seconds"), title)
    for row in rows:
        table.add_row(*answer(row), f"{row['evaluations']:,}", f"{row['wall_s']:.2f}")
    print_table(table)
    print_footnote(frame)
    for row in rows:
        print(f"{amount(row)}: {row['arch']}")
