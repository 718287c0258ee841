"""Which architectures of a sweep are meant: rows chosen by space, strategy, target and seed; the best of them, or all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from topdown_ray.errors import UserError
from topdown_ray.spaces import MOBILENET_V3, SPACES, Config, Space
from topdown_ray.store import load

Which = Literal["best", "all"]
Filters = Mapping[str, str | int | float | None]


def genes_space(row: Mapping[Any, Any]) -> Space:
    """The space that a row's architecture belongs to (``protocol: notebook`` searches MobileNetV3 under every name)."""
    return MOBILENET_V3 if row["protocol"] == "notebook" else SPACES[row["space"]]


def winners(run: Path, filters: Filters, which: Which = "best") -> pd.DataFrame:
    """Feasible rows of a sweep: ``best`` is the most accurate of each space, strategy, target set and target.

    filters: columns and the value that they must have, None for any. The column ``genes_space`` is added. Raises UserError.
    """
    rows = load(run).searches
    rows = rows[rows["feasible"]]
    for column, value in filters.items():
        if value is not None:
            kept = rows[rows[column] == value]
            if kept.empty:
                found = ", ".join(f"{x:g}" if isinstance(x, float) else str(x) for x in rows[column].unique()[:20])
                raise UserError(f"--{column}: expected one of {found or 'no rows at all'}, found {value}")
            rows = kept
    if rows.empty:
        raise UserError(f"{run}: expected finished searches that meet their targets, found none")
    rows = rows.assign(genes_space=[genes_space(row).name for row in rows.to_dict("records")])
    if which == "best":
        keys = [rows[name] for name in ("space", "protocol", "strategy", "target")] + [rows["targets"].map(tuple)]
        rows = rows.loc[rows.groupby(keys, sort=False)["accuracy"].idxmax()]
    return rows


def read_arch(source: str, space: Space | None) -> tuple[Space, Config]:
    """An architecture from JSON text or a JSON file, and its space: the given one, or the only one it belongs to. Raises UserError."""
    text = source.lstrip().startswith(("{", "["))
    try:
        config = json.loads(source if text else Path(source).read_text())
    except OSError as error:
        raise UserError(
            f"{source}: expected a result folder, a JSON file or JSON text, found none ({error.strerror})"
        ) from error
    except ValueError as error:
        raise UserError(f"architecture: expected JSON, found {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"architecture: expected a JSON object, found {type(config).__name__}")
    if space is None:
        kernels = config.get("ks")
        likely = "proxyless" if isinstance(kernels, list) and len(kernels) == 21 else "mobilenet_v3"
        space = SPACES["resnet50d" if "w" in config else likely]
    space.from_config(config)
    return space, config
