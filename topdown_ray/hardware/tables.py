"""Read and convert latency tables. Nothing is measured here, and torch is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topdown_ray.errors import UserError
from topdown_ray.files import brief_path, check_output
from topdown_ray.spaces import csv_table, latency_table, ofa_tables
from topdown_ray.spaces.cost import measured
from topdown_ray.spaces.latency_table import LatencyTable
from topdown_ray.spaces.registry import SPACES, find_space


def find_table(source: str, space: str) -> tuple[LatencyTable, Path]:
    """Find a measured table by its file, or a shipped one by its name and space. Return it with its file.
    Raises UserError.
    """
    found = latency_table.source_of(source, find_space(space))
    if found is None:
        raise UserError(
            f"{brief_path(source)}: expected a .parquet file or one of {', '.join(latency_table.shipped())}, "
            "found neither"
        )
    return latency_table.read(found.path), found.path


def export_csv(source: str, space: str, path: Path) -> Path:
    """Write a table as CSV. Raises UserError."""
    csv_table.write(find_table(source, space)[0], path)
    return path


def export_table(source: str, space: str, folder: Path) -> list[Path]:
    """Write a table in OFA's published form (YAML) into a folder, and return the files. Raises UserError."""
    table, _ = find_table(source, space)
    check_output(folder, "--export-yaml", folder=True)
    return list(ofa_tables.export(table, folder))


def table_facts(table: LatencyTable, path: Path) -> dict[str, Any]:
    """Return everything that a table records about itself, and the range of its space in ms."""
    cost = measured(latency_table.Source(path.stem, path, False), SPACES[table.space])
    about = {"file": str(path), "space": table.space, "layers": len(table.layers), "sha256": table.sha256()}
    return {
        **about,
        **vars(table.conditions),
        **table.facts,
        "range_ms": list(cost.range()),
        "check": dict(table.check),
    }
