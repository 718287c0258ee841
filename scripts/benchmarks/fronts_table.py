"""Put the pieces of a race of fronts together.

    python scripts/benchmarks/fronts_table.py PIECE.parquet ... [--out ALL.parquet] [--markdown]

A piece is a file that ``topdown-ray bench fronts --out`` wrote. The script prints the table of all pieces;
with ``--markdown`` it prints one Markdown table for each measure."""

import argparse
from pathlib import Path

import pandas as pd

from topdown_ray.cli.present.bench import print_bench
from topdown_ray.sweeps.bench.fronts import joined, summary

MEASURES = {"hypervolume": (",.1f", max), "regret": (".3f", min)}


def markdown(frame: pd.DataFrame, measure: str) -> str:
    """Means over the seeds: a row for each contestant, a column for each case and budget; bold: best."""
    form, best = MEASURES[measure]
    cells = frame.pivot(index="contestant", columns=["case", "budget"], values=measure)
    cells = cells.loc[
        frame["contestant"].unique(), list(dict.fromkeys(zip(frame["case"], frame["budget"], strict=True)))
    ]
    shown = {
        column: [f"**{value:{form}}**" if value == best(values) else f"{value:{form}}" for value in values]
        for column, values in cells.items()
    }
    lines = [f"| {measure} | " + " | ".join(f"{case}, {budget // 1000} k" for case, budget in shown) + " |"]
    lines.append("|---|" + "---:|" * len(shown))
    rows = zip(cells.index, zip(*shown.values(), strict=True), strict=True)
    lines += [f"| {name} | " + " | ".join(values) + " |" for name, values in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pieces", nargs="+", type=Path, help="files of topdown-ray bench fronts --out")
    parser.add_argument("--out", type=Path, help="file for the rows of all pieces")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print one Markdown table for each measure")
    arguments = parser.parse_args()
    rows = joined([pd.read_parquet(piece) for piece in arguments.pieces])
    if arguments.out:
        rows.to_parquet(arguments.out)
    if arguments.markdown:
        print("\n\n".join(markdown(summary(rows), measure) for measure in MEASURES))
    else:
        print_bench("fronts", summary(rows), arguments.json)


if __name__ == "__main__":
    main()
