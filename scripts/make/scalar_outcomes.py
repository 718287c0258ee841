"""Run the scalar top-down search many times, for the tests' comparison with the lock-step search.

    python scripts/make/scalar_outcomes.py --seeds 64 --processes 2 --out tests/data/scalar_top_down.csv

MobileNetV3, Note10, targets 60 ... 15 ms, full budget, with ``ofa``'s own predictor and table. A run takes
about a minute on one core; finished seeds are kept and not run again."""

import argparse
import csv
import multiprocessing
from pathlib import Path

import torch

from topdown_ray.algorithms.baselines.scalar import TopDownFinder
from topdown_ray.networks.ofa_reference import tutorial_models

TARGETS = [60, 55, 50, 45, 40, 35, 30, 25, 20, 15]


def run(seed: int) -> list[tuple[int, float, float, float]]:
    """(seed, target, accuracy, cost) of one search."""
    torch.set_num_threads(1)
    accuracy_model, efficiency_model = tutorial_models()
    answers = TopDownFinder(accuracy_model, efficiency_model, seed).run(TARGETS)
    return [(seed, answer.target, answer.accuracy, answer.cost) for answer in answers]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("tests/data/scalar_top_down.csv"))
    arguments = parser.parse_args()
    rows: list[tuple[float, ...]] = []
    if arguments.out.exists():
        with arguments.out.open() as file:
            rows = [tuple(float(value) for value in row) for row in list(csv.reader(file))[1:]]
    missing = sorted(set(range(arguments.seeds)) - {int(row[0]) for row in rows})
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for outcome in pool.imap_unordered(run, missing):
            rows += outcome
            temporary = arguments.out.with_suffix(".tmp")
            with temporary.open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["seed", "target", "accuracy", "cost"])
                for seed, target, accuracy, cost in sorted(rows, key=lambda row: (row[0], -row[1])):
                    writer.writerow([int(seed), f"{target:g}", f"{accuracy:.7f}", f"{cost:.6f}"])
            temporary.replace(arguments.out)
            print(f"seed {outcome[0][0]} done", flush=True)


if __name__ == "__main__":
    main()
