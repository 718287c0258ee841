"""What bench prints."""

from __future__ import annotations

import pandas as pd

from topdown_ray.cli.present.tables import print_records, print_table, table_of


def print_bench(frame: pd.DataFrame, as_json: bool) -> None:
    """The benchmark's table."""
    if as_json:
        print_records(frame)
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
    (contestant, *numbers) = (heading for heading, _ in columns.values())
    title = "Seconds of one search, all its targets, on one core (medians)"
    table = table_of((contestant,), numbers, title)
    for row in frame.to_dict("records"):
        table.add_row(
            *("" if row[name] != row[name] else form.format(row[name]) for name, (_, form) in columns.items())
        )
    print_table(table)
