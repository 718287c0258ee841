"""The pictures of a sweep that may still run, as a live page shows them. They are drawn again and again, so
they are made from few columns and at most ``MOST_SEEDS`` searches of a group.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topdown_ray.figures import Picture, draw
from topdown_ray.report import comparisons, plots
from topdown_ray.report.labelling import SEARCH_COLUMNS, TRACE_COLUMNS, Data, prepare
from topdown_ray.report.tables import widest
from topdown_ray.store.results import load_columns, read_manifest
from topdown_ray.store.transferred import footnote

MOST_SEEDS = 200  # seeds are exchangeable, and the first ones are computed first
MOST_PANELS = 12  # of a page
PANELS = 3  # of a setting, if there is room: its loosest target, one between, its tightest


@dataclass(frozen=True)
class LivePicture:
    """A picture as a file of its own."""

    caption: str
    svg: bytes


@dataclass(frozen=True)
class Album:
    """The pictures of a sweep's finished searches. note: which searches those are, and what a mark means."""

    note: str = ""
    pictures: tuple[LivePicture, ...] = ()


def draw_album(where: str | Path) -> Album:
    """Draw the pictures of the searches that have finished in a result folder, or at its URI. Raises
    UserError.
    """
    seeds = read_manifest(where)["spec"]["seeds"]
    sample = seeds[:MOST_SEEDS] if len(seeds) > MOST_SEEDS else None
    results = load_columns(where, SEARCH_COLUMNS, TRACE_COLUMNS, sample)
    of_seeds = "" if sample is None else f" with the first {MOST_SEEDS} of the sweep's {len(seeds):,} seeds"
    if results.searches.empty:
        return Album(f"No search{of_seeds} has finished.")
    whole = prepare([results])
    data, n_settings = _thinned(whole), whole.searches["setting"].nunique()
    n = data.searches["search_id"].nunique()
    with tempfile.TemporaryDirectory() as folder:
        pictures = _draw(data, Path(folder))
        files = [(Path(folder) / f"{picture.name}.svg").read_bytes() for picture in pictures]
    shown = (LivePicture(picture.caption, svg) for picture, svg in zip(pictures, files, strict=True))
    notes = [f"Drawn from {n:,} {'search' if n == 1 else 'searches'}{of_seeds}.", footnote(data.searches)]
    if n_settings > MOST_PANELS:
        notes.insert(1, f"Only {MOST_PANELS} of {n_settings} settings have room here.")
    return Album(" ".join(filter(None, notes)), tuple(shown))


def _draw(data: Data, folder: Path) -> list[Picture]:
    """Draw what a live page shows of these rows; this function alone decides which plot that is."""
    curves = comparisons.curves(data)
    panels = curves[["setting", "target"]].drop_duplicates().itertuples(index=False)
    return [
        draw(
            folder,
            f"anytime_{i}",
            f"{setting}, target {target:g}: inter-quartile mean of the best accuracy so far; bands: 95 %.",
            functools.partial(plots.anytime, curves, setting=setting, target=target),
        )
        for i, (setting, target) in enumerate(panels)
    ]


def _thinned(data: Data) -> Data:
    """The rows that are drawn, with their curves: a few targets of each setting's widest target set."""
    rows = data.searches[data.searches["targets"] == data.searches["setting"].map(widest(data.searches))]
    found = {setting: np.unique(group["target"])[::-1] for setting, group in rows.groupby("setting")}
    each = min(max(MOST_PANELS // len(found), 1), PANELS)
    panels = [
        (setting, targets[place])
        for setting, targets in list(found.items())[:MOST_PANELS]
        for place in np.unique(np.linspace(0, len(targets) - 1, min(each, len(targets))).round().astype(int))
    ]
    order = {panel: i for i, panel in enumerate(panels)}
    place = [order.get(panel, -1) for panel in zip(rows["setting"], rows["target"], strict=True)]
    rows = rows.assign(place=place).query("place >= 0").sort_values("place", kind="stable")
    answers = np.full(len(data.searches), -1)
    answers[rows["answer"]] = np.arange(len(rows))
    trace = data.trace.assign(answer=answers[data.trace["answer"]]).query("answer >= 0")
    return Data(rows.assign(answer=np.arange(len(rows))), trace)
