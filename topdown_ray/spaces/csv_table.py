"""Read and write latency tables as CSV files, with one row for each layer of a space and its milliseconds.

The columns are the fields of :class:`topdown_ray.spaces.layers.Layer` and ``ms``. ``topdown-ray table NAME
--export-csv FILE`` writes such a file, with the layers in the order in which they are needed."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import LARGEST_DOCUMENT, brief_path, check_regular, written
from topdown_ray.spaces.latency_table import Conditions, LatencyTable
from topdown_ray.spaces.layers import Layer
from topdown_ray.spaces.space import Space

SUFFIX = ".csv"
_KINDS = get_type_hints(Layer)
COLUMNS = (*_KINDS, "ms")
_NAMED = 3  # missing layers that a message names


def read(path: Path, space: Space) -> LatencyTable:
    """Read the table of a space. Raises UserError with the line and column, or with the missing layers."""
    where = brief_path(path)
    check_regular(path, "a latency table (.csv)", LARGEST_DOCUMENT)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            reader = csv.DictReader(file)
            found = set(reader.fieldnames or ())
            if found != set(COLUMNS):
                lacking = ", ".join(name for name in COLUMNS if name not in found)
                others = one_line(", ".join(sorted(found - set(COLUMNS))))
                wrong = [f"no {lacking}"] * bool(lacking) + [f"also {others}"] * bool(others)
                expected = f"expected the columns {', '.join(COLUMNS)}"
                raise UserError(f"{where}: {expected}, found {' and '.join(wrong)}")
            rows = [_row(row, f"{where}: line {reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where}: expected a latency table (.csv), found {one_line(error)}") from error
    layers, ms = tuple(layer for layer, _ in rows), np.array([value for _, value in rows])
    wanted = space.distinct_layers()
    missing = [layer for layer in wanted if layer not in set(layers)]
    if missing:
        words = "; ".join(_in_words(layer) for layer in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise UserError(f"{where}: expected every layer of {space.name}, found no row for {words}{more}")
    if len(set(layers)) < len(layers):
        twice = next(layer for i, layer in enumerate(layers) if layer in layers[:i])
        raise UserError(f"{where}: expected one row for each layer, found two for {_in_words(twice)}")
    ones = np.ones(len(ms), dtype=np.int64)
    return LatencyTable(space.name, Conditions(), layers, ms, ms, ms, ones, 0 * ones)


def _row(row: dict[str, Any], where: str) -> tuple[Layer, float]:
    values = [_value(name, row[name], where) for name in COLUMNS]
    return Layer(*values[:-1]), values[-1]


def _value(name: str, text: Any, where: str) -> Any:
    kind = _KINDS.get(name, float)
    if kind is str and isinstance(text, str):
        return text
    if kind is bool and str(text).lower() in ("true", "false"):
        return str(text).lower() == "true"
    if kind is int and isinstance(text, str) and text.isdecimal() and len(text) < 10:
        return int(text)
    if kind is float:
        try:
            number = float(text)
        except (TypeError, ValueError):
            number = math.nan
        if 0 < number < math.inf:
            return number
    words = {str: "text", bool: "True or False", int: "a whole number", float: "a number above 0"}
    raise UserError(f"{where}: {name}: expected {words[kind]}, found {brief(text)}")


def _in_words(layer: Layer) -> str:
    return " ".join(f"{name}={value}" for name, value in layer._asdict().items() if value not in ("", False))


def write(table: LatencyTable, path: Path) -> None:
    """Write a table as CSV, completely or not at all. Raises UserError."""
    with written(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([*layer, repr(value)] for layer, value in table.values.items())
