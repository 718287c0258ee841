"""Tables of measured accuracies: the schema, parts that appear whole or not at all, loading them.

A folder of parts is what a running measurement writes to; ``combine`` makes one file of it, the training set
of a predictor."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import TEMPORARY, brief_path, check_file, digest, written

FOLDER = "evaluations"  # in a sweep's result folder

_VERSION = b"topdown_ray_evaluations"  # in the file's metadata

EVALUATIONS = pa.schema(
    [
        ("evaluation_id", pa.string()),
        ("space", pa.string()),
        ("arch", pa.string()),
        ("genes", pa.list_(pa.int8())),
        ("image_size", pa.int32()),
        ("top1", pa.float64()),
        ("top5", pa.float64()),
        ("n_images", pa.int64()),
        ("n_bad", pa.int64()),
        ("calibration_images", pa.int64()),
        ("calibration_bad", pa.int64()),
        ("missing_classes", pa.int64()),
        ("n_classes", pa.int64()),
        ("predicted", pa.float64()),
        ("predictor_name", pa.string()),
        ("predictor_sha256", pa.string()),
        ("macs_m", pa.float64()),
        ("params_m", pa.float64()),
        ("weights_name", pa.string()),
        ("weights_sha256", pa.string()),
        ("data_name", pa.string()),
        ("data_sha256", pa.string()),
        ("calibration_seed", pa.int64()),
        ("device", pa.string()),
        ("host", pa.string()),
        ("wall_s", pa.float64()),
        ("started_at", pa.timestamp("us", tz="UTC")),
    ],
    metadata={_VERSION: b"1"},
)
_REQUIRED = ("evaluation_id", "space", "arch", "top1")  # of a table that others made
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    MemoryError,
    pa.ArrowException,
)  # what pyarrow raises for broken files

#: Columns that tell how a row was measured, not what came out.
INCIDENTAL = ("device", "host", "wall_s", "started_at")


class Parts:
    """A folder of measured rows, as the driver writes it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def open(self) -> None:
        """Create the folder. Raises UserError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(f".*{TEMPORARY}"):
                leftover.unlink()
        except OSError as error:
            raise UserError(
                f"{self.folder}: expected a folder to write to, found {error.strerror}"
            ) from error

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows as one part, atomically."""
        table = pa.Table.from_pylist(list(rows), schema=EVALUATIONS)
        write_table(table, self.folder / f"{digest(table['evaluation_id'].to_pylist())}.parquet")

    def read(self) -> pd.DataFrame:
        """All rows, each measurement once, in the order of their identities. Raises UserError."""
        return _ordered([read_table(part) for part in sorted(self.folder.glob("*.parquet"))])

    def combine(self, out: Path, order: Sequence[str]) -> int:
        """Write these measurements, in this order, then all others, as one file; remove the parts. Returns
        the number of rows.
        """
        rows = self.read().set_index("evaluation_id", drop=False)
        rows = rows.loc[[*order, *rows.index.difference(list(order))]]
        write_table(pa.Table.from_pandas(rows, schema=EVALUATIONS, preserve_index=False), out)
        shutil.rmtree(self.folder)
        return len(rows)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file: whole or not at all. Raises UserError."""
    with written(path) as temporary:
        pq.write_table(table, temporary)


def read_table(path: Path) -> pa.Table:
    """One file of measured rows. Raises UserError: not readable, not such a table, a row that lacks what
    identifies it, no accuracy.
    """
    what, where = "a table of measured accuracies (Parquet)", brief_path(path)
    check_file(path, what)
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except _UNREADABLE as error:
        raise UserError(f"{where}: expected {what}, found {one_line(error)}") from error
    version = (table.schema.metadata or {}).get(_VERSION, b"1")
    if version != b"1":
        raise UserError(
            f"{where}: {_VERSION.decode()}: expected version 1, found "
            f"{brief(version.decode(errors='replace'))}"
        )
    names = table.column_names
    for name in _REQUIRED:
        if name not in names:
            raise UserError(f"{where}: expected the columns of measured accuracies, found none called {name}")
    for name in EVALUATIONS.names:
        if names.count(name) > 1:
            raise UserError(f"{where}: expected distinct columns, found {name} more than once")
    for field in EVALUATIONS:  # a table that others made may lack what only informs
        if field.name not in names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    try:
        table = table.select(EVALUATIONS.names).cast(EVALUATIONS)
    except _UNREADABLE as error:
        raise UserError(
            f"{where}: expected the columns of measured accuracies, found {one_line(error)}"
        ) from error
    for name in _REQUIRED:
        if table[name].null_count:
            raise UserError(
                f"{where}: {name}: expected a value in every row, found none in {table[name].null_count}"
            )
    for name in ("top1", "top5"):
        values = table[name].drop_null().to_numpy()
        if not ((values >= 0) & (values <= 1)).all():
            raise UserError(
                f"{where}: {name}: expected fractions from 0 to 1, found {values.min():g} to {values.max():g}"
            )
    return table


def load_evaluations(run: Path) -> pd.DataFrame:
    """The measured rows beside a sweep's; empty where there are none. Raises UserError."""
    return Parts(run / FOLDER).read()


def _ordered(tables: Sequence[pa.Table]) -> pd.DataFrame:
    frame: pd.DataFrame = pa.concat_tables([EVALUATIONS.empty_table(), *tables]).to_pandas()
    return (
        frame.drop_duplicates("evaluation_id")
        .sort_values("evaluation_id", kind="stable")
        .reset_index(drop=True)
    )
