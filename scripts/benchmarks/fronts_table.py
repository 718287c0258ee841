"""Puts the pieces of a race of fronts together: prints the table of the files that ``topdown-ray bench fronts
--out`` wrote, and with ``--out`` writes their rows to one file.

    python scripts/benchmarks/fronts_table.py PIECE.parquet ... [--out ALL.parquet]
"""

import argparse
from pathlib import Path

import pandas as pd

from topdown_ray.cli.present.bench import print_bench
from topdown_ray.sweeps.bench.fronts import joined, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pieces", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = joined([pd.read_parquet(piece) for piece in arguments.pieces])
    if arguments.out:
        rows.to_parquet(arguments.out)
    print_bench("fronts", summary(rows), arguments.json)


if __name__ == "__main__":
    main()
