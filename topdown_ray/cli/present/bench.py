"""Print the results of ``topdown-ray bench``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from topdown_ray.cli.present.tables import print_records, print_table, table_of

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS: dict[str, dict[str, tuple[str, str]]] = {  # for each benchmark: heading and format of each column
    "race": {
        "contestant": ("contestant", "{}"),
        "seconds_per_search_and_core": ("s per\nsearch", "{:.3f}"),
        "evaluations_per_second_and_core": ("evals\nper s", "{:,.0f}"),
        "to_floor": ("times\nfloor", "{:.2f}"),
        "faster_than_notebook": ("faster\nthan\nnotebook", "{:.1f}"),
        "faster_than_ofa": ("faster\nthan\nofa", "{:.1f}"),
        "faster_than_ray_naive": ("faster\nthan\nray-naive", "{:.1f}"),
        "accuracy": ("mean\ntop-1", "{:.4f}"),
        "peak_gib": ("peak\nGiB", "{:.2f}"),
    },
    "floor": {
        "case": ("case", "{}"),
        "evaluations": ("evaluations", "{:,.0f}"),
        "seconds_per_search": ("s per search", "{:.3f}"),
        "floor_s": ("floor (s)", "{:.3f}"),
        "to_floor": ("times floor", "{:.2f}"),
    },
    "driver": {
        "actors": ("actors", "{:.0f}"),
        "shards": ("shards", "{:.0f}"),
        "wall_s": ("time (s)", "{:.2f}"),
        "shard_s": ("s per shard", "{:.3f}"),
        "not_busy": ("idle", "{:.1%}"),
        "faster_than_first": ("speed-up over first row", "{:.2f}"),
    },
}
_TITLES = {
    "race": "Speed of one search over all its targets on one core (medians)",
    "floor": "Time of a search on one core and its floor, the time of the predictor alone (medians)",
    "driver": "Time of a sweep on Ray for each number of actors",
}


def _print_fronts(frame: pd.DataFrame) -> None:
    """Print a table for each case and budget. A star marks the best mean."""
    numbers = ("hypervolume", "regret", "rows\nper s")
    for (case, budget), group in frame.groupby(["case", "budget"], sort=False):
        title = f"{case}, {budget:,} predictor rows, {_seeds(group)} (mean ± half of the 95 % interval)"
        table = table_of(("contestant",), numbers, title)
        for row in group.to_dict("records"):
            table.add_row(
                row["contestant"],
                _measured(row, "hypervolume", ",.1f"),
                _measured(row, "regret", ".3f"),
                f"{row['evaluations_per_second']:,.0f}",
            )
        print_table(table)


def _seeds(group: pd.DataFrame) -> str:
    least, most = group["seeds"].min(), group["seeds"].max()
    return f"{most} seed{'s' if most > 1 else ''}" if least == most else f"{least} to {most} seeds"


def _measured(row: Mapping[Any, Any], name: str, form: str) -> str:
    """Format a mean, half of its interval if there are enough seeds for one, and a star if it is the best."""
    half = (row[f"{name}_high"] - row[f"{name}_low"]) / 2
    spread = "" if half != half else f" ± {half:{form}}"
    return f"{row[name]:{form}}{spread}{' *' if row[f'best_{name}'] else '  '}"


def print_bench(what: str, frame: pd.DataFrame, as_json: bool) -> None:
    """Print the table of a benchmark."""
    if as_json:
        print_records(frame)
        return
    if what == "fronts":
        _print_fronts(frame)
        return
    columns = _COLUMNS[what]
    (first, *numbers) = (heading for heading, _ in columns.values())
    table = table_of((first,), numbers, _TITLES[what])
    for row in frame.to_dict("records"):
        table.add_row(
            *("" if row[name] != row[name] else form.format(row[name]) for name, (_, form) in columns.items())
        )
    print_table(table)
