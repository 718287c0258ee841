"""Write and read tables of measured accuracies.

A running measurement writes to a folder of parts (see :mod:`parts`). ``combine`` makes one file of them, the
training set of a predictor."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import brief_path, check_file, digest, written
from topdown_ray.store.columns import TableColumn, schema_of
from topdown_ray.store.layout import Layout
from topdown_ray.store.part_files import READ_ATTEMPTS, DamagedError, parallel, part_names, read_part
from topdown_ray.store.parts import Parts
from topdown_ray.store.place import Place

FOLDER = "evaluations"  # in a sweep's result folder
FAILURES = "failures"  # in FOLDER

_VERSION = b"topdown_ray_evaluations"  # in the file's metadata

_OF_OTHERS = "another program made the table and left the column out"
_NOT_OF_A_SWEEP = "the architecture does not come from a sweep"

#: One row for each measurement: an architecture with some weights on some images.
EVALUATION_COLUMNS = (
    TableColumn(
        "evaluation_id",
        pa.string(),
        "Identity of the measurement: a hash of the architecture, weights, images and settings.",
    ),
    TableColumn("space", pa.string(), "Design space."),
    TableColumn("arch", pa.string(), "The architecture as OFA's configuration, as JSON, in canonical form."),
    TableColumn("genes", pa.list_(pa.int8()), "The same architecture as choice indices.", null=_OF_OTHERS),
    TableColumn("image_size", pa.int32(), "Resolution of the input images.", "pixels", _OF_OTHERS),
    TableColumn("top1", pa.float64(), "Measured top-1 accuracy.", "fraction (0 to 1)"),
    TableColumn("top5", pa.float64(), "Measured top-5 accuracy.", "fraction (0 to 1)", _OF_OTHERS),
    TableColumn("n_images", pa.int64(), "Validation images that were classified.", "images", _OF_OTHERS),
    TableColumn(
        "n_bad", pa.int64(), "Validation images that did not decode and were skipped.", "images", _OF_OTHERS
    ),
    TableColumn(
        "calibration_images",
        pa.int64(),
        "Training images that recalibrated batch normalisation.",
        "images",
        _OF_OTHERS,
    ),
    TableColumn(
        "calibration_bad",
        pa.int64(),
        "Training images that did not decode and were skipped.",
        "images",
        _OF_OTHERS,
    ),
    TableColumn(
        "missing_classes",
        pa.int64(),
        "Classes of the network that have no validation images.",
        "classes",
        _OF_OTHERS,
    ),
    TableColumn("n_classes", pa.int64(), "Classes of the network.", "classes", _OF_OTHERS),
    TableColumn(
        "predicted",
        pa.float64(),
        "Predicted top-1 accuracy of the same architecture in the sweep.",
        "fraction (0 to 1)",
        _NOT_OF_A_SWEEP,
    ),
    TableColumn("predictor_name", pa.string(), "Name of the sweep's predictor.", null=_NOT_OF_A_SWEEP),
    TableColumn("predictor_sha256", pa.string(), "SHA-256 of the sweep's predictor.", null=_NOT_OF_A_SWEEP),
    TableColumn(
        "predictor_space",
        pa.string(),
        "Space that the sweep's predictor was trained on.",
        null=_NOT_OF_A_SWEEP,
    ),
    TableColumn("macs_m", pa.float64(), "Multiply-accumulates of the subnet.", "1e6", _OF_OTHERS),
    TableColumn("params_m", pa.float64(), "Parameters of the subnet.", "1e6", _OF_OTHERS),
    TableColumn("weights_name", pa.string(), "Name of the supernet's weights.", null=_OF_OTHERS),
    TableColumn("weights_sha256", pa.string(), "SHA-256 of the supernet's weights.", null=_OF_OTHERS),
    TableColumn("data_name", pa.string(), "Name of the data folder.", null=_OF_OTHERS),
    TableColumn("data_sha256", pa.string(), "SHA-256 that identifies the images.", null=_OF_OTHERS),
    TableColumn(
        "calibration_seed",
        pa.int64(),
        "Seed that chooses and crops the images for recalibration.",
        null=_OF_OTHERS,
    ),
    TableColumn("device", pa.string(), "Device of the measurement.", null=_OF_OTHERS),
    TableColumn("host", pa.string(), "Name of the machine.", null=_OF_OTHERS),
    TableColumn("wall_s", pa.float64(), "Wall time of the measurement.", "s", _OF_OTHERS),
    TableColumn(
        "started_at",
        pa.timestamp("us", tz="UTC"),
        "Time at which the measurement started.",
        "UTC",
        _OF_OTHERS,
    ),
)
EVALUATIONS = schema_of(EVALUATION_COLUMNS, {_VERSION: b"1"})
_REQUIRED = ("evaluation_id", "space", "arch", "top1")  # of a table that others made
# what pyarrow raises for broken files
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    MemoryError,
    pa.ArrowException,
)

#: Columns that say how a row was measured, and not what its result is.
INCIDENTAL = ("device", "host", "wall_s", "started_at")


class Evaluations:
    """The measured rows in a sweep's result folder (local or in a bucket), as their driver writes them.

    folder: the folder of the parts in ``run``; its subfolder ``failures/`` has a record for each measurement
    that failed permanently."""

    def __init__(self, run: str | Path, folder: str = FOLDER):
        self.folder = folder
        self.place = Place(run)
        self._parts = Parts(self.place, _layout(folder))
        self.damaged: list[str] = []  # the rows of these parts are measured again
        self._failed: set[str] = set()

    def open(self) -> None:
        """Make the folder, or continue with the rows in it. Damaged parts are moved to ``damaged/`` (see
        ``damaged``).

        Raises UserError, StoreError."""
        try:
            self.place.prepare((self.folder,))
            self.place.clear_away((self.folder,))
            self.damaged = self._parts.resume().damaged
            names = self.place.files(f"{self.folder}/{FAILURES}")
            self._failed = {name.removesuffix(".json") for name in names if name.endswith(".json")}
        except OSError as error:
            raise UserError(
                f"{self.place.of(self.folder)}: expected a folder to write to, found "
                f"{self.place.reason(error)}"
            ) from error

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows as one part. When this returns, they are stored permanently. Raises StoreError."""
        table = pa.Table.from_pylist(list(rows), schema=EVALUATIONS)
        identities = table["evaluation_id"].to_pylist()
        self._parts.write(digest(identities), table)
        for identity in self._failed.intersection(identities):
            self.place.delete(self._record(identity))
            self._failed.remove(identity)

    def record_failure(self, identity: str, arch: str, error: str) -> None:
        """Write a record of a measurement that failed permanently. It is deleted when the row is written.
        Raises StoreError.
        """
        record = {
            "evaluation_id": identity,
            "arch": arch,
            "failed_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "error": error.strip().splitlines()[-1] if error.strip() else "",
            "traceback": error.splitlines(),
        }
        self.place.write(self._record(identity), (json.dumps(record, indent=2) + "\n").encode())
        self._failed.add(identity)

    def _record(self, identity: str) -> str:
        return f"{self.folder}/{FAILURES}/{identity}.json"

    def read(self) -> pd.DataFrame:
        """Return all rows, each measurement once, in the order of their identities. Raises UserError."""
        for _ in range(READ_ATTEMPTS):
            try:
                names = list(part_names(self.place, self.folder))
                return _ordered(list(parallel(self.place, self._part, names)))
            except FileNotFoundError:  # merged in the meantime
                continue
            except OSError as error:
                raise UserError(
                    f"{self.place.of(self.folder)}: expected parts that can be read, found "
                    f"{self.place.reason(error)}"
                ) from error
        raise UserError(
            f"{self.place.of(self.folder)}: expected parts that do not change while they are read, found "
            f"parts that were merged in each of {READ_ATTEMPTS} attempts"
        )

    def _part(self, name: str) -> pa.Table:
        where = self.place.of(f"{self.folder}/{name}")
        try:
            return _checked(read_part(self.place, self.folder, name, layout=self._parts.layout), where)
        except DamagedError as error:
            raise UserError(
                f"{where}: expected an undamaged part, found {error}; run the same evaluate or "
                "sample-dataset command again to measure its rows again"
            ) from error

    def combine(self, out: Path, order: Sequence[str]) -> int:
        """Write these measurements in this order, and then all others, as one file, and remove the parts of a
        local folder. Returns the number of rows.
        """
        rows = self.read().set_index("evaluation_id", drop=False)
        rows = rows.loc[[*order, *rows.index.difference(list(order))]]
        write_table(pa.Table.from_pandas(rows, schema=EVALUATIONS, preserve_index=False), out)
        for name in part_names(self.place, self.folder):
            self.place.delete(f"{self.folder}/{name}")
        if self.place.local is not None:
            for folder in (f"{self.folder}/{FAILURES}", self.folder):
                with contextlib.suppress(OSError):  # keep folders with failure records or damaged parts
                    (self.place.local / folder).rmdir()
        return len(rows)


def _layout(folder: str) -> Layout:
    return Layout("evaluation_id", {folder: ("evaluation_id",)}, damaged=f"{folder}/damaged")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file, completely or not at all. Raises UserError."""
    with written(path) as temporary:
        pq.write_table(table, temporary)


def read_table(path: Path) -> pa.Table:
    """Read one file of measured rows. Raises UserError if it cannot be read or is not such a table, or if a
    row has no identity or no accuracy.
    """
    what, where = "a table of measured accuracies (Parquet)", brief_path(path)
    check_file(path, what)
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except _UNREADABLE as error:
        raise UserError(f"{where}: expected {what}, found {one_line(error)}") from error
    return _checked(table, where)


def _checked(table: pa.Table, where: str) -> pa.Table:
    """The rows with the columns and types of the schema. Raises UserError, see :func:`read_table`."""
    version = (table.schema.metadata or {}).get(_VERSION, b"1")
    if version != b"1":
        raise UserError(
            f"{where}: {_VERSION.decode()}: expected version 1, found "
            f"{brief(version.decode(errors='replace'))}"
        )
    names = table.column_names
    for name in _REQUIRED:
        if name not in names:
            raise UserError(f"{where}: expected the columns of measured accuracies, found no column {name}")
    for name in EVALUATIONS.names:
        if names.count(name) > 1:
            raise UserError(f"{where}: expected distinct columns, found {name} more than once")
    for field in EVALUATIONS:  # a table from elsewhere need not have the columns that only inform
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
                f"{where}: {name}: expected a value in every row, found {table[name].null_count} without one"
            )
    for name in ("top1", "top5"):
        values = table[name].drop_null().to_numpy()
        if not ((values >= 0) & (values <= 1)).all():
            raise UserError(
                f"{where}: {name}: expected fractions from 0 to 1, found {values.min():g} to {values.max():g}"
            )
    return table


def load_evaluations(run: str | Path) -> pd.DataFrame:
    """Return the measured rows in a sweep's result folder; the frame is empty if there are none. Raises
    UserError.
    """
    return Evaluations(run).read()


def _ordered(tables: Sequence[pa.Table]) -> pd.DataFrame:
    frame: pd.DataFrame = pa.concat_tables([EVALUATIONS.empty_table(), *tables]).to_pandas()
    return (
        frame.drop_duplicates("evaluation_id")
        .sort_values("evaluation_id", kind="stable")
        .reset_index(drop=True)
    )
