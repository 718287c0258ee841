"""Tables of measured accuracies: the schema, parts that appear whole or not at all, loading them.

A folder of parts is what a running measurement writes to; ``combine`` makes one file of it, the training set of a predictor.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.errors import UserError
from topdown_ray.files import TEMPORARY, written
from topdown_ray.spec import digest

FOLDER = "evaluations"  # in a sweep's result folder

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
    metadata={"topdown_ray_evaluations": "1"},
)

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
            raise UserError(f"{self.folder}: expected a folder to write to, found {error.strerror}") from error

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows as one part, atomically."""
        table = pa.Table.from_pylist(list(rows), schema=EVALUATIONS)
        write_table(table, self.folder / f"{digest(table['evaluation_id'].to_pylist())}.parquet")

    def read(self) -> pd.DataFrame:
        """All rows, each measurement once, in the order of their identities. Raises UserError."""
        return _ordered([read_table(part) for part in sorted(self.folder.glob("*.parquet"))])

    def combine(self, out: Path, order: Sequence[str]) -> int:
        """Write these measurements, in this order, then all others, as one file; remove the parts. Returns the number of rows."""
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
    """One file of measured rows. Raises UserError."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: expected a table of measured accuracies (Parquet), found {reason}") from error
    missing = [name for name in ("evaluation_id", "space", "arch", "top1") if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: expected the columns of measured accuracies, found none called {missing[0]}")
    for field in EVALUATIONS:  # a table that others made may lack what only informs
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    try:
        return table.select(EVALUATIONS.names).cast(EVALUATIONS)
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"{path}: expected the columns of measured accuracies, found {' '.join(str(error).split())}") from error


def load_evaluations(run: Path) -> pd.DataFrame:
    """The measured rows beside a sweep's; empty where there are none. Raises UserError."""
    return Parts(run / FOLDER).read()


def _ordered(tables: Sequence[pa.Table]) -> pd.DataFrame:
    frame: pd.DataFrame = pa.concat_tables([EVALUATIONS.empty_table(), *tables]).to_pandas()
    return frame.drop_duplicates("evaluation_id").sort_values("evaluation_id", kind="stable").reset_index(drop=True)
