"""Draw the pictures of a live page, which follows a sweep while it runs.

They are drawn again and again. For speed, they are made from few columns and from at most ``MOST_SEEDS``
searches of each group."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from topdown_ray.figures import Picture, draw
from topdown_ray.report import whole_sets
from topdown_ray.report.labelling import SEARCH_COLUMNS, TRACE_COLUMNS, Data, prepare
from topdown_ray.report.panels import quality, quality_caption
from topdown_ray.store.manifest import read_manifest
from topdown_ray.store.results import load_columns
from topdown_ray.store.transferred import footnote

MOST_SEEDS = 200  # the first ones, because they are computed first
MOST_PANELS = 12  # pictures of a page


@dataclass(frozen=True)
class LivePicture:
    """A picture as a file of its own."""

    caption: str
    svg: bytes


@dataclass(frozen=True)
class Album:
    """The pictures of a sweep's finished searches. note: which searches those are, and the meaning of a
    mark in the names of spaces.
    """

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
    data = prepare([results])
    n = data.searches["search_id"].nunique()
    with tempfile.TemporaryDirectory() as folder:
        pictures = _draw(data, Path(folder))
        files = [(Path(folder) / f"{picture.name}.svg").read_bytes() for picture in pictures]
    shown = (LivePicture(picture.caption, svg) for picture, svg in zip(pictures, files, strict=True))
    drawn = f"The pictures show {n:,} {'search' if n == 1 else 'searches'}{of_seeds}."
    notes = [drawn, footnote(data.searches)]
    if len(pictures) == MOST_PANELS:
        notes.insert(1, f"This page shows at most {MOST_PANELS} pictures; the report has all of them.")
    return Album(" ".join(filter(None, notes)), tuple(shown))


def _draw(data: Data, folder: Path) -> list[Picture]:
    """Draw accuracy against work for these rows, as in the overview of a report."""
    curves = whole_sets.anytime(data)
    panels = curves[["setting", "work"]].drop_duplicates().head(MOST_PANELS).itertuples(index=False)
    return [
        draw(
            folder,
            f"anytime_{i}",
            quality_caption(curves, setting, work),
            functools.partial(quality, curves, setting=setting, work=work),
        )
        for i, (setting, work) in enumerate(panels)
    ]
