"""Tables of measurements that run for a long time: each function reads the file that a benchmark wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from results_pages.stored import Row, rows_of


@dataclass(frozen=True)
class Measurement:
    """A measurement: the command that makes it, what to do with its output, and how that is read."""

    command: str
    keep: str  # what of the command's output is passed to --from
    read: Callable[[Sequence[Path]], list[Row]]
    clock: bool = True  # whether the numbers depend on the machine


def race(paths: Sequence[Path]) -> list[Row]:
    """Contestants on one core. Those that run through Ray are left out: they use all cores."""
    frame = pd.concat([pd.read_parquet(path) for path in paths])
    frame = frame[~frame["contestant"].str.contains("Ray|ray")]
    columns = ["contestant", "repeats", "seconds_per_search_and_core", "evaluations_per_second_and_core"]
    columns += ["to_floor", "faster_than_ofa", "faster_than_notebook", "accuracy", "peak_gib"]
    return rows_of(frame, columns)


def floor(paths: Sequence[Path]) -> list[Row]:
    """Searches against the predictor alone."""
    frame = pd.concat([pd.read_parquet(path) for path in paths])
    return rows_of(frame, ["case", "batch", "evaluations", "seconds_per_search", "floor_s", "to_floor"])


def driver_ray(paths: Sequence[Path]) -> list[Row]:
    """A sweep through Ray, by the number of actors."""
    frame = pd.concat([pd.read_parquet(path) for path in paths])
    return rows_of(frame, ["actors", "shards", "wall_s", "shard_s", "not_busy", "faster_than_first"])


def profile(paths: Sequence[Path]) -> list[Row]:
    """The steps of a search, and their shares of its time."""
    lines = [line for path in paths for line in path.read_text().splitlines()]
    found = [re.fullmatch(r"(.+?)\s+([\d.]+)%", line) for line in lines]
    return [{"step": line[1], "share": round(float(line[2]) / 100, 6)} for line in found if line]


def scaling(paths: Sequence[Path]) -> list[Row]:
    """Seconds and memory of a search by the batch, the population, the targets and the seeds."""
    rows = []
    for line in (line for path in paths for line in path.read_text().splitlines()):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and re.fullmatch(r"[\d,]+", cells[1]):
            varied, value, seconds, peak = cells
            row: Row = {"varied": varied, "value": int(value.replace(",", ""))}
            rows.append({**row, "seconds": float(seconds), "peak_gib": float(peak)})
    return rows


def driver(paths: Sequence[Path]) -> list[Row]:
    """One driver over simulated actors."""
    lines = [line for path in paths for line in path.read_text().splitlines() if line.startswith("{")]
    names = {
        "searches": "searches",
        "shards": "shards",
        "actors": "actors",
        "cpu_ms": "driver cpu ms a shard",
        "memory_mib": "resident MiB, mean of the second half",
        "merging": "bytes written by merging / in the folder",
        "folder_mib": "MiB in the folder",
        "files": "files",
    }
    processes = {
        "tables": "resume, the tables",
        "resume": "resume, the driver",
        "status": "status",
        "load": "load, 1 % of the seeds, 2 columns",
        "import": "import of the driver",
    }
    rows = []
    for each in map(json.loads, lines):
        row = {name: each[key] for name, key in names.items()}
        for name, key in processes.items():
            used = each[key]
            row |= {f"{name}_s": used["s"], f"{name}_cpu_s": used["cpu_s"], f"{name}_mib": used["peak MiB"]}
        rows.append(row)
    return rows


def fronts(paths: Sequence[Path]) -> list[Row]:
    """The race of fronts: means over seeds."""
    from topdown_ray.sweeps.bench.fronts import joined, summary

    frame = summary(joined([pd.read_parquet(path) for path in paths]))
    return rows_of(frame, ["case", "budget", "contestant", "seeds", "hypervolume", "regret"])


def fronts_intervals(paths: Sequence[Path]) -> list[Row]:
    """The race of fronts: the largest half of a 95 % interval of the regret, for each case."""
    from topdown_ray.sweeps.bench.fronts import joined, summary

    frame = summary(joined([pd.read_parquet(path) for path in paths]))
    half = (frame["regret_high"] - frame["regret_low"]) / 2
    return [
        {"case": case, "most": most} for case, most in half.groupby(frame["case"], sort=False).max().items()
    ]


def deviations(paths: Sequence[Path]) -> list[Row]:
    """What the rules that differ from the original's change in accuracy, in percentage points."""
    found = [
        re.fullmatch(r"(.+) minus (.+): ([-+][\d.]+) ± ([\d.]+) points \(n = (\d+)\)", line)
        for path in paths
        for line in path.read_text().splitlines()
    ]
    return [
        {"rule": line[2], "mean": float(line[3]), "half": float(line[4]), "n": int(line[5])}
        for line in found
        if line
    ]


def latency_check(paths: Sequence[Path]) -> list[Row]:
    """Whole subnets against the sums of a latency table."""
    frame = pd.concat([pd.read_csv(path) for path in paths])
    return rows_of(frame, ["sum_ms", "whole_ms", "low_ms", "high_ms", "image_size"])


FROM_FILES = {
    "race": Measurement("topdown-ray bench --repeats 5 --out race.parquet", "race.parquet", race),
    "floor": Measurement(
        'topdown-ray bench floor --repeats 5 --only top_down --only "joint, " --out floor.parquet',
        "floor.parquet",
        floor,
    ),
    "driver_ray": Measurement("topdown-ray bench driver --out driver.parquet", "driver.parquet", driver_ray),
    "profile": Measurement("python scripts/benchmarks/bench_profile.py", "its output", profile),
    "scaling": Measurement("python scripts/benchmarks/bench_scaling.py", "its output", scaling),
    "driver": Measurement(
        "python scripts/benchmarks/simulate_driver.py", "its standard error, one JSON object a line", driver
    ),
    "fronts": Measurement("topdown-ray bench fronts --out fronts.parquet", "fronts.parquet", fronts, False),
    "fronts_intervals": Measurement(
        "topdown-ray bench fronts --out fronts.parquet", "fronts.parquet", fronts_intervals, False
    ),
    "deviations": Measurement(
        "python scripts/benchmarks/measure_deviations.py --seeds 111 --generations 60",
        "its output",
        deviations,
    ),
    "latency_check": Measurement(
        "topdown-ray measure --check latency_epyc_1thread.mobilenet_v3.parquet",
        "latency_epyc_1thread.mobilenet_v3.check.csv",
        latency_check,
    ),
}
