"""What a section of a report is made from, of folders on disk."""

from __future__ import annotations

from pathlib import Path

from topdown_ray.report import build
from topdown_ray.report.context import Context, Options


def context_of(*folders: Path) -> Context:
    """As ``write_report`` makes it, with default options; for sections that draw no figures."""
    sources, data = build._load(folders)
    return Context(sources, data, Options(), None, Path())
