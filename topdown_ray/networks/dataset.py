"""Read the training set of an accuracy predictor: measured subnets, with each architecture once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import brief_path, parse_json
from topdown_ray.spaces.space import Space
from topdown_ray.store.evaluations import read_table

LEAST = 20  # architectures: with fewer, nothing is left to hold out


class Dataset(NamedTuple):
    """Measured architectures: genes (N, G) in canonical form, each once, their top-1 (N,), and all rows of
    the file (R >= N).
    """

    genes: torch.Tensor
    top1: npt.NDArray[np.float64]
    rows: pd.DataFrame

    @property
    def in_words(self) -> str:
        """The number of rows, and of architectures if some were measured more than once."""
        repeated = len(self.rows) > len(self.genes)
        return f"{len(self.rows)} rows" + (f" of {len(self.genes)} architectures" if repeated else "")


def read_dataset(path: Path, space: Space) -> Dataset:
    """Read a data set with each architecture once. Measurements of the same architecture are averaged. Raises
    UserError.

    The mean is weighted by the number of images. If a row does not have that number, all rows have the same
    weight. If rows of one architecture were on both sides of a split, the held-out rows would judge the
    predictor on what it was trained on.
    """
    rows = read_table(path).to_pandas()
    where = brief_path(path)
    if foreign := sorted(set(rows["space"]) - {space.name}):
        raise UserError(f"{where}: expected rows of {space.name}, found rows of {one_line(foreign[0], 120)}")
    for column in ("weights_sha256", "data_sha256"):
        if (kinds := rows[column].nunique(dropna=False)) > 1:
            raise UserError(
                f"{where}: {column}: expected the same value in every row, found {kinds} different ones"
            )
    genes = space.canonical(torch.from_numpy(_genes(rows["arch"], space, where)))
    of_row, distinct = pd.factorize(pd.Series([row.numpy().tobytes() for row in genes], dtype=object))
    if len(distinct) < LEAST:
        kind, found = (
            ("", "")
            if len(rows) == len(distinct)
            else (" of distinct architectures", f" in {len(rows)} rows")
        )
        raise UserError(f"{where}: expected at least {LEAST} rows{kind}, found {len(distinct)}{found}")
    first = np.unique(of_row, return_index=True)[1]
    top1 = rows["top1"].to_numpy(np.float64)
    weights = rows["n_images"].to_numpy(np.float64, na_value=np.nan)
    if not (weights > 0).all():
        weights = np.ones(len(rows))
    count = np.bincount(of_row)
    mean = np.bincount(of_row, weights * top1) / np.bincount(of_row, weights)
    return Dataset(
        genes[torch.from_numpy(first)], np.where(count > 1, np.clip(mean, 0, 1), top1[first]), rows
    )


def _genes(archs: pd.Series[str], space: Space, where: str) -> npt.NDArray[np.int8]:
    """Return the genes (R, G) of architectures as JSON."""
    found = np.empty((len(archs), space.G), np.int8)
    for i, arch in enumerate(archs):
        config = parse_json(arch, f"{where}: arch of row {i + 1}")
        if not isinstance(config, dict):
            raise UserError(f"{where}: arch of row {i + 1}: expected an architecture, found {brief(config)}")
        try:
            found[i] = space.from_config(config)
        except UserError as error:
            raise UserError(f"{where}: arch of row {i + 1}: {one_line(error, 500)}") from error
    return found
