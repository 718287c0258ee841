"""Several devices: the fronts of all of them, and what an architecture found for one loses on another."""

from __future__ import annotations

from typing import cast

import pandas as pd

from topdown_ray.figures import Picture, file_name
from topdown_ray.report import plots
from topdown_ray.report.context import Context
from topdown_ray.report.devices import front_points, losses, on_devices
from topdown_ray.report.page import Column, Section, Table, interval, number, text

_WORDS = (
    "The cost of every answer is known on all devices of its sweep. The tables say what the answers that "
    "were found for one device lose on another: how much less accurate they are than the best architecture "
    "known here that costs no more on that device. The diagonal says what a device's own answers lose to "
    "that best one. Only answers count whose cost on the other device lies between that device's cheapest "
    "answer and its loosest target."
)


def devices(context: Context) -> Section | None:
    """The fronts of all devices, and the losses between them; None where no sweep has several devices."""
    rows = on_devices(context.data)
    if rows.empty:
        return None
    points, lost = front_points(rows), losses(rows)
    pictures: list[Picture] = []
    tables: list[Table] = []
    for key, own in points.groupby(["space", "strategy"], sort=False, observed=True):
        space, strategy = cast("tuple[str, str]", key)
        title = f"{space}, {strategy}"
        caption = f"{title}: the mean answer for every target of every device."
        name = file_name("devices", space, strategy)
        pictures.append(context.draw(name, caption, plots.devices, own, title=title))
        mine = lost[(lost["space"] == space) & (lost["strategy"] == strategy)]
        tables.append(_matrix(name, f"{title}: loss in points, found for (row) and run on (column)", mine))
    columns = [text("space"), text("strategy"), text("found_for", "found for"), text("run_on", "run on")]
    columns += [
        number("loss", "loss (points)", ".3f", 100.0),
        interval("low", "high", digits=".3f", scale=100.0),
    ]
    columns += [number("n"), number("answers", "of answers")]
    tables.append(Table("device_losses", "Losses between devices", lost, columns))
    return Section("devices", "Devices", [_WORDS], pictures, tables)


def _matrix(name: str, title: str, lost: pd.DataFrame) -> Table:
    names = list(dict.fromkeys(lost["run_on"]))
    frame = (
        lost.pivot(index="found_for", columns="run_on", values="loss")
        .reindex(index=names, columns=names)
        .reset_index()
    )
    frame.columns.name = None
    columns: list[Column] = [text("found_for", "found for")]
    columns += [number(device, f"on {device}", ".3f", 100.0, missing="no answer") for device in names]
    return Table(name, title, frame, columns)
