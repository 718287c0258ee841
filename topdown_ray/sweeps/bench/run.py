"""Run one benchmark by its name, and write its table to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from topdown_ray.errors import UserError
from topdown_ray.files import check_output, written
from topdown_ray.sweeps.bench.contestants import FULL, QUICK, OnLap
from topdown_ray.sweeps.bench.driver_cost import costs
from topdown_ray.sweeps.bench.floor import distances
from topdown_ray.sweeps.bench.fronts import QUICK as QUICK_PIECES
from topdown_ray.sweeps.bench.fronts import OnMissing, Pieces, race_fronts, summary
from topdown_ray.sweeps.bench.race import run

BENCHMARKS = {"race": run, "floor": distances, "driver": costs}
FRONTS = "fronts"


def run_into(
    what: str, out: Path | None, quick: bool, only: Sequence[str], repeats: int | None, on_lap: OnLap
) -> pd.DataFrame:
    """Run a benchmark, and write its table to a Parquet file if one is named.

    what: race, floor or driver. only: prefixes of the names of contestants (race) or of cases (floor), or
    numbers of actors (driver). repeats: None for the default of the scale. Raises UserError.
    """
    if what not in BENCHMARKS:
        raise UserError(f"bench: expected one of {', '.join([*BENCHMARKS, FRONTS])}, found {what!r}")
    if out is not None:
        check_output(out, "--out")
    scale = QUICK if quick else FULL
    table = BENCHMARKS[what](scale if repeats is None else replace(scale, repeats=repeats), only, on_lap)
    _write(table, out)
    return table


def run_fronts_into(
    out: Path | None,
    quick: bool,
    only: Sequence[str],
    changes: Mapping[str, Any],
    on_lap: OnLap,
    on_missing: OnMissing,
) -> pd.DataFrame:
    """Run the race of fronts, write its rows, one for each seed, to a Parquet file if one is named, and
    return their means.

    changes: the fields of :class:`~topdown_ray.sweeps.bench.fronts.Pieces` that differ from those of the
    scale. Raises UserError.
    """
    if out is not None:
        check_output(out, "--out")
    pieces = replace(QUICK_PIECES if quick else Pieces(), **changes)
    rows = race_fronts(pieces, only, on_lap, on_missing)
    _write(rows, out)
    return summary(rows)


def _write(table: pd.DataFrame, out: Path | None) -> None:
    if out is not None:
        with written(out) as temporary:
            table.to_parquet(temporary)
