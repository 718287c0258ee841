"""Choose architectures: one that is given as JSON, or rows of a sweep by space, strategy, target and seed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from topdown_ray.addresses import is_uri, shown
from topdown_ray.errors import UserError, brief
from topdown_ray.files import parse_json, read_json
from topdown_ray.spaces.registry import SPACES, find_space, searched_space
from topdown_ray.spaces.space import Config, Space

if TYPE_CHECKING:
    import pandas as pd

Which = Literal["best", "all"]
Filters = Mapping[str, str | int | float | None]


def genes_space(row: Mapping[Any, Any]) -> Space:
    """Return the space of a row's architecture, which with ``protocol: notebook`` is MobileNetV3 for every
    space. Raises UserError.
    """
    if row["protocol"] != "notebook" and row["space"] not in SPACES:
        raise UserError(
            f"search {row['search_id']}: space: expected one of {', '.join(SPACES)}, found "
            f"{brief(row['space'])}"
        )
    return searched_space(row["space"], row["protocol"])


def config_of(row: Mapping[Any, Any]) -> tuple[Space, Config]:
    """Return a row's architecture and its space. Raises UserError that names the search if the row has
    none.
    """
    space = genes_space(row)
    return space, space.parse(row["arch"], f"search {row['search_id']}: arch")


def is_run(source: str) -> bool:
    """Whether this names a result folder or its URI, and not an architecture."""
    # not Path.is_dir, which raises for a long name
    return not _is_json(source) and (is_uri(source) or os.path.isdir(source))  # noqa: PTH112


def _is_json(source: str) -> bool:
    return source.lstrip().startswith(("{", "["))


_NEEDED = (
    "search_id",
    "space",
    "protocol",
    "strategy",
    "seed",
    "targets",
    "target",
    "feasible",
    "accuracy",
    "cost",
    "cost_unit",
    "cost_name",
    "predictor_name",
    "predictor_space",
    "predictor_sha256",
)
_COUNTED = ("macs_m", "params_m")  # for spaces with an OFA network


def check_source(source: str, filters: Filters) -> None:
    """Raise UserError if this is neither a result folder nor an architecture, before anything slow is
    imported.
    """
    if not is_run(source):
        read_arch(source, filters)
        return
    from topdown_ray.store.manifest import read_manifest

    read_manifest(source)


_OPTIONS = {"cost_name": "cost"}  # filters whose column has another name


def check_whole(rows: pd.DataFrame, run: str | Path) -> None:
    """Raise UserError, with the search and the column, if a row misses a value that is needed to choose or
    describe answers.
    """
    provided = {name: find_space(name).provides is not None for name in rows["space"].unique()}
    counted = rows["space"].map(provided).astype(bool)
    for column in (*_NEEDED, *_COUNTED):
        missing = rows[column].isna() & (counted | (column not in _COUNTED))
        if missing.any():
            search = rows["search_id"][missing].iloc[0]
            raise UserError(f"{shown(run)}: search {search}: {column}: expected a value, found none")


def exact(value: float) -> str:
    """Return a number as text that gives the same number when it is typed again, as short as possible."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def filtered(rows: pd.DataFrame, filters: Filters) -> pd.DataFrame:
    """Return the rows with these values. filters: columns and the value that each must have, None for any. A
    strategy may be given by its label. Raises UserError if no row is left.
    """
    for column, value in filters.items():
        if value is not None:
            column_of = "label" if column == "strategy" else column
            kept = rows[(rows[column] == value) | (rows[column_of] == value)]
            if kept.empty:
                found = ", ".join(
                    exact(x) if isinstance(x, float) else str(x) for x in rows[column_of].unique()[:20]
                )
                option = _OPTIONS.get(column, column)
                wanted = f"one of {found}" if found else "finished searches to choose from"
                given = exact(value) if isinstance(value, float) else value
                other = "; topdown-ray pick chooses for any cost" if column == "target" else ""
                raise UserError(f"--{option}: expected {wanted}, found {given}{other}")
            rows = kept
    return rows


def winners(run: str | Path, filters: Filters, which: Which = "best") -> pd.DataFrame:
    """Return feasible rows of a sweep. ``best``: the most accurate row of each space, cost, label, target set
    and target.

    filters: see :func:`filtered`. The column ``genes_space`` is added. Raises UserError, also for a row
    without an architecture.
    """
    from topdown_ray.store.picking import most_accurate_first
    from topdown_ray.store.results import load

    rows = load(run).searches
    check_whole(rows, run)
    rows = filtered(rows[rows["feasible"].astype(bool)], filters)
    if rows.empty:
        raise UserError(f"{shown(run)}: expected finished searches that meet their targets, found none")
    rows = rows.assign(genes_space=[genes_space(row).name for row in rows.to_dict("records")])
    if which == "best":
        names = ("space", "protocol", "cost_name", "label", "target")
        keys = [*(rows[name] for name in names), rows["targets"].map(tuple)]
        rows = rows.assign(group=rows.groupby(keys, sort=False).ngroup())
        rows = most_accurate_first(rows).drop_duplicates("group").sort_values("group").drop(columns="group")
    return rows.assign(arch=[json.dumps(config_of(row)[1]) for row in rows.to_dict("records")])


def read_arch(source: str, filters: Filters) -> tuple[Space, Config]:
    """Read an architecture from JSON text or a JSON file, and return it with its space: that of the filters,
    or the first one it belongs to.

    Raises UserError if it belongs to no space, and for any other filter, because an architecture has no rows
    to choose from.
    """
    if _is_json(source):
        config = parse_json(source, "architecture")
    else:
        config = read_json(Path(source), "a result folder, a JSON file or JSON text")
    if not isinstance(config, dict):
        raise UserError(f"architecture: expected a JSON object, found {type(config).__name__}")
    for column, value in filters.items():
        if column != "space" and value is not None:
            option = _OPTIONS.get(column, column)
            raise UserError(f"--{option}: expected a result folder to choose from, found an architecture")
    name = filters.get("space")
    space = _space_of(config) if name is None else find_space(str(name))
    return space, space.to_config(space.from_config(config))


def _space_of(config: Config) -> Space:
    """Return the first space that the architecture belongs to. If there is none, return the one that it
    resembles most.
    """
    for space in SPACES.values():
        with contextlib.suppress(UserError):
            space.from_config(config)
            return space
    return min(SPACES.values(), key=lambda space: _differences(space, config))


def _differences(space: Space, config: Config) -> tuple[int, int]:
    """Return the number of keys of a configuration that a space does not have, and of lists with another
    length.
    """
    lengths: dict[str, int] = {key: len(values) for key, values in space.fixed}
    for gene in space.genes:
        lengths[gene.key] = lengths.get(gene.key, 0) + 1
    lists = {key: value for key, value in config.items() if isinstance(value, list)}
    wrong = sum(len(value) != lengths[key] for key, value in lists.items() if key in lengths)
    return len(lengths.keys() ^ config.keys()), wrong
