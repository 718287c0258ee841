"""Print the results of ``topdown-ray assets``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from topdown_ray.addresses import shown
from topdown_ray.cli.present.tables import print_json, print_table, table_of

if TYPE_CHECKING:
    from topdown_ray.assets import AssetCheck, Folder
    from topdown_ray.spaces.catalogue import CatalogueEntry

_HEADINGS = ("name", "space", "unit", "range", "size", "where", "source")
_TITLES = {
    "predictor": "Predictors (ranges are those of 5,000 random architectures)",
    "latency table": "Latency tables",
    "computed cost": "Costs that are computed from the architecture",
    "supernet weights": "Supernet weights",
}


def print_entries(entries: Sequence[CatalogueEntry], as_json: bool) -> None:
    """Print everything that a sweep can name."""
    if as_json:
        print_json([entry._asdict() for entry in entries], indent=1)
        return
    for kind, group in itertools.groupby(entries, lambda entry: entry.kind):
        table = table_of(_HEADINGS, (), _TITLES[kind])
        for entry in group:
            extent = "" if entry.low is None or entry.high is None else f"{entry.low:.4g} to {entry.high:.4g}"
            size = "" if entry.size is None else f"{entry.size / 1000:,.0f} kB"
            table.add_row(entry.name, entry.space, entry.unit, extent, size, entry.where, entry.source)
        print_table(table)


def print_checks(checks: Sequence[AssetCheck], as_json: bool) -> None:
    """Print which published files are as they should be."""
    if as_json:
        print_json([{**check._asdict(), "path": str(check.path)} for check in checks], indent=1)
        return
    for check in checks:
        print(f"{check.path}: {'WRONG: ' if check.right is False else ''}{check.finding}")
    if not checks:
        print("There are no published files on this machine.")


def print_folders(folders: Sequence[Folder], upstream: str | None, as_json: bool) -> None:
    """Print the folders that are searched, in order. upstream: None if downloads are switched off."""
    origin = "nowhere (TOPDOWN_RAY_OFFLINE)" if upstream is None else shown(upstream)
    if as_json:
        facts = [
            {"folder": str(folder.path), "why": folder.why, "there": folder.path.is_dir()}
            for folder in folders
        ]
        print_json({"folders": facts, "upstream": origin}, indent=1)
        return
    print("Published files are searched for in these folders, in this order:")
    for number, folder in enumerate(folders, 1):
        there = "" if folder.path.is_dir() else "; does not exist yet"
        print(f"{number}. {folder.path} ({folder.why}{there})")
    if upstream is None:
        print("Downloads are switched off (TOPDOWN_RAY_OFFLINE).")
    else:
        print(f"Missing files are downloaded from {origin}")
