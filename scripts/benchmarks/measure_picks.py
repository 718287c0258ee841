"""What a pick from a front lacks to a search that was made for exactly that target.

MobileNetV3 under Note10, published predictor: joint searches for the ten targets of the paper, picked at the
targets half-way between them, against joint searches for that target alone, of the default length and of the
length of the ten-target search. Also with at most 6.5 x 1e6 parameters, which the ten-target search was not
told of. Differences are paired by seed.

    python scripts/benchmarks/measure_picks.py [--seeds 16]
"""

import argparse
import itertools
import tempfile
from typing import Any

import numpy as np
import pandas as pd

import topdown_ray
from topdown_ray import stats

TARGETS = [60, 55, 50, 45, 40, 35, 30, 25, 20, 15]
PARAMS = 6.5
LENGTHS = {"default": {}, "as long": {"generations": 56, "warm_generations": 0}}  # 20 + 9 x 4


def searched(seeds: int, search: dict[str, Any], **fields: Any) -> topdown_ray.Results:
    with tempfile.TemporaryDirectory() as folder:
        results = topdown_ray.sweep(
            out=f"{folder}/out",
            address="none",
            progress=False,
            spaces=["mobilenet_v3"],
            strategies=["joint"],
            cost="note10",
            seeds=seeds,
            search=search,
            **fields,
        )
        assert results.front is not None  # read while the folder is there
        return results


def picked(results: topdown_ray.Results, at: float, params: float = np.inf) -> pd.Series:
    """The accuracy of each seed's pick; missing where its front has none."""
    front = results.front
    return front[(front["cost"] <= at) & (front["params_m"] <= params)].groupby("seed")["accuracy"].max()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=16)
    seeds = parser.parse_args().seeds
    middles = [(one + other) / 2 for one, other in itertools.pairwise(TARGETS)]
    shares = {"joint": {}, "front_share 0.2": {"front_share": 0.2}}
    wide = {name: searched(seeds, search, targets=TARGETS) for name, search in shares.items()}
    records = []
    for limits, most in ((None, np.inf), ({"params": PARAMS}, PARAMS)):
        for at in middles:
            exact = {
                length: searched(seeds, search, targets=[at], limits=limits).searches.set_index("seed")[
                    "accuracy"
                ]
                for length, search in LENGTHS.items()
            }
            for name, results in wide.items():
                found = picked(results, at, most)
                facts = {"params": most, "search": name, "at": at, "none": seeds - len(found)}
                for length, own in exact.items():
                    facts[length] = 100 * (own - found).dropna()  # of the seeds that have a pick
                records.append(facts)
    frame = pd.DataFrame(records)
    print("points that a pick lacks to a search for exactly its target; mean over seeds, 95 % interval")
    for (most, name), rows in frame.groupby(["params", "search"], sort=False):
        whole = {"at": "all", "none": rows["none"].sum()}
        whole |= {length: pd.concat(list(rows[length])) for length in LENGTHS}
        for row in [*rows.to_dict("records"), whole]:
            cells = []
            for length in LENGTHS:
                by_seed = row[length].groupby(level=0).mean().to_numpy()
                ((low, high),) = np.asarray(stats.intervals([by_seed]))
                cells.append(f"{length}: {by_seed.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
            none = f"; without a pick: {row['none']}" if row["none"] else ""
            print(f"params <= {most:g}, {name}, at {row['at']}: {'; '.join(cells)}{none}")


if __name__ == "__main__":
    main()
