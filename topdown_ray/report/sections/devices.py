"""Make the section "Devices": the front of each device, and the loss of its answers on another device."""

from __future__ import annotations

from typing import cast

import pandas as pd

from topdown_ray.figures import Picture, file_name
from topdown_ray.report import plots
from topdown_ray.report.context import Context
from topdown_ray.report.devices import front_points, losses, on_devices
from topdown_ray.report.page import Column, Section, Table, interval, number, text

_WORDS = (
    "The sweep records the cost of every answer on all of its devices. The tables show what the answers for "
    "one device lose on another one: how much less accurate they are than the best known architecture that "
    "costs no more on that device. The diagonal shows what a device's own answers lose to that best one. An "
    "answer counts only if its cost on the other device is between that device's cheapest answer and its "
    "loosest target."
)


def devices(context: Context) -> Section | None:
    """Show the fronts of all devices and the losses between them. Returns None without a sweep over several
    devices.
    """
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
        tables.append(
            _matrix(name, f"{title}: loss (points) of answers for one device (row) on another (column)", mine)
        )
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
    columns += [number(device, f"on {device}", ".3f", 100.0, missing="no answer counts") for device in names]
    return Table(name, title, frame, columns)
