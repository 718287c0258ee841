"""What demo, sweep and search print."""

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
    """Where Ray's dashboard is."""
    print(f"Ray dashboard: {url}", file=sys.stderr)


def print_opened(out: str, damaged: Sequence[str], rebuilt: bool) -> None:
    """What a result folder had to suffer: parts that are computed again, a manifest that was written anew."""
    print_damaged(damaged)
    if rebuilt:
        say(f"{shown(out)}: run.json was missing; it has been written anew for the parts of this sweep")


def print_forecast(forecast: Forecast, as_json: bool) -> None:
    """How much work a sweep is."""
    if as_json:
        print_json(forecast._asdict())
        return
    shards = f"{forecast.shards:,} shards" if forecast.shards else "shards of some seconds"
    print(
        f"{forecast.searches:,} searches, {forecast.evaluations:,} predictor evaluations, {shards} on "
        f"{forecast.actors} actors"
    )


def print_summary(summary: SweepSummary, run_id: str, out: str, as_json: bool) -> None:
    """What a sweep came to."""
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
    new = progress.done - progress.before
    print(
        f"{shown(out)}: {progress.done} of {progress.total} searches, {new} of them now in "
        f"{summary.wall_s:.1f} s"
    )


def print_merged(merged: Merged, out: str, folders: int, as_json: bool) -> None:
    """What a merged folder holds."""
    if as_json:
        print_json({"out": shown(out), "folders": folders, **merged._asdict()})
        return
    of = "1 folder" if folders == 1 else f"{folders} folders"
    print(f"{shown(out)}: {merged.done} of {merged.total} searches from {of}")
    if merged.done < merged.total:
        command = shlex.join(["topdown-ray", "sweep", shown(out), "--out", shown(out)])
        print(f"To run the missing ones: {command}")


def print_given_up(given_up: Mapping[str, str]) -> None:
    """The shards that failed for good, each with its reason and its record."""
    for shard, reason in given_up.items():
        record = f"failures/{shard}.json"
        print(
            f"shard {shard} failed: {reason}; {record} has the traceback and the command to rerun it",
            file=sys.stderr,
        )


def print_demo_begins(used: str) -> None:
    """Which predictors and costs the demo uses, before it starts."""
    print_wrapped(used, "")


def print_demo(summary: SweepSummary, out: str) -> None:
    """The demo's answers, one of them layer by layer, and where all of them lie."""
    from topdown_ray.store.results import load

    results = load(out)
    _print_best(results)
    _print_winner(results)
    print(f"Results: {shown(out)}/ ({summary.progress.done} searches, {summary.wall_s:.1f} s)")


def _print_best(results: Results) -> None:
    """A table with the most accurate row of every space, label and target."""
    keys = ["space", "label", "target"]
    rows = results.searches
    best = rows.loc[rows.groupby(keys)["accuracy"].idxmax()].sort_values(keys, ascending=[True, True, False])
    table = table_of(keys[:2], (*ANSWER, "seed"), f"Best architecture for each target ({PREDICTED})")
    for row in best.to_dict("records"):
        table.add_row(row["space"], row["label"], *answer(row), str(row["seed"]))
    print_table(table)
    print_footnote(best)


def _print_winner(results: Results) -> None:
    """The most accurate architecture for the tightest target of the first space, layer by layer."""
    from topdown_ray.networks.api import describe_row

    rows = results.searches
    rows = rows[rows["space"] == results.manifest["spec"]["spaces"][0]]
    row: dict[str, Any] = dict(rows[rows["target"] == rows["target"].min()].nlargest(1, "accuracy").iloc[0])
    print(f"\n{row['space']} at {amount(row)}, {100 * row['accuracy']:.2f} %, layer by layer:")
    print(f"{describe_row(row).layers}\n")


def print_search(frame: pd.DataFrame, as_json: bool) -> None:
    """The answers of one search."""
    if as_json:
        print_records(frame)
        return
    rows = frame.to_dict("records")
    table = table_of((), (*ANSWER, "evaluations", "seconds"), PREDICTED)
    for row in rows:
        table.add_row(*answer(row), f"{row['evaluations']:,}", f"{row['wall_s']:.2f}")
    print_table(table)
    print_footnote(frame)
    for row in rows:
        print(f"{amount(row)}: {row['arch']}")
