"""One benchmark by its name, and its table as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from topdown_ray.errors import UserError
from topdown_ray.files import check_output, written
from topdown_ray.sweeps.bench.contestants import FULL, QUICK, OnLap
from topdown_ray.sweeps.bench.driver_cost import costs
from topdown_ray.sweeps.bench.floor import distances
from topdown_ray.sweeps.bench.race import run

BENCHMARKS = {"race": run, "floor": distances, "driver": costs}


def run_into(
    what: str, out: Path | None, quick: bool, only: Sequence[str], repeats: int | None, on_lap: OnLap
) -> pd.DataFrame:
    """Run a benchmark, and write its table to a Parquet file where one is named.

    what: race, floor or driver. only: prefixes of the names of contestants (race) or of strategies (floor),
    or numbers of actors (driver). repeats: None for the scale's own. Raises UserError.
    """
    if what not in BENCHMARKS:
        raise UserError(f"bench: expected one of {', '.join(BENCHMARKS)}, found {what!r}")
    if out is not None:
        check_output(out, "--out")
    scale = QUICK if quick else FULL
    table = BENCHMARKS[what](scale if repeats is None else replace(scale, repeats=repeats), only, on_lap)
    if out is not None:
        with written(out) as temporary:
            table.to_parquet(temporary)
    return table
