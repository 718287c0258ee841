"""Measure how much less accurate a pick from a front is than a search for exactly that target.

The searches use MobileNetV3, the Note10 table and the published predictor. Joint searches for the ten targets
of the paper keep a front each. The script picks from these fronts at the targets half-way between, and
compares each pick with a joint search for that target alone, which is either of the default length or as long
as the ten-target search. It repeats the comparison with at most 6.5 x 1e6 parameters, a limit that the
ten-target search did not have. Differences are paired by seed.

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
LENGTHS = {"default": {}, "as_long": {"generations": 56, "warm_generations": 0}}  # 20 + 9 x 4


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


def measured(seeds: int) -> pd.DataFrame:
    """How much less accurate picks are: one row for each limit, search and target.

    params: the limit (1e6 parameters; NaN: none). search: the ten-target search. at: the target; NaN: all of
    them. missing: how many fronts have no architecture that fits. For each of ``LENGTHS``: the mean over
    seeds in percentage points, and its 95 % interval."""
    middles = [(one + other) / 2 for one, other in itertools.pairwise(TARGETS)]
    shares = {"joint": {}, "front_share 0.2": {"front_share": 0.2}}
    wide = {name: searched(seeds, search, targets=TARGETS) for name, search in shares.items()}
    records: list[dict[str, Any]] = []
    for limits, most in ((None, np.inf), ({"params": PARAMS}, PARAMS)):
        exact = {
            (length, at): searched(seeds, search, targets=[at], limits=limits).searches.set_index("seed")[
                "accuracy"
            ]
            for length, search in LENGTHS.items()
            for at in middles
        }
        for name, results in wide.items():
            found = {at: picked(results, at, most) for at in middles}
            lacks = {key: 100 * (own - found[key[1]]).dropna() for key, own in exact.items()}
            for chosen in [*([at] for at in middles), middles]:
                row = {
                    "params": most if limits else np.nan,
                    "search": name,
                    "at": chosen[0] if len(chosen) == 1 else np.nan,
                    "missing": sum(seeds - len(found[at]) for at in chosen),
                }
                for length in LENGTHS:
                    each = pd.concat([lacks[length, at] for at in chosen])
                    by_seed = each.groupby(level=0).mean().to_numpy()
                    ((low, high),) = np.asarray(stats.intervals([by_seed]))
                    row |= {length: by_seed.mean(), f"{length}_low": low, f"{length}_high": high}
                records.append(row)
    return pd.DataFrame(records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=16, help="number of seeds (default 16)")
    frame = measured(parser.parse_args().seeds)
    print("Percentage points that a pick is less accurate than a search for its target (mean, 95 % interval)")
    for row in frame.to_dict("records"):
        at = "all targets" if np.isnan(row["at"]) else f"{row['at']:g} ms"
        limit = "" if np.isnan(row["params"]) else f", at most {row['params']:g} x 1e6 parameters"
        cells = "; ".join(
            f"{length}: {row[length]:+.3f} [{row[f'{length}_low']:+.3f}, {row[f'{length}_high']:+.3f}]"
            for length in LENGTHS
        )
        missing = f"; {row['missing']} fronts without a pick" if row["missing"] else ""
        print(f"{row['search']}{limit}, {at}: {cells}{missing}")


if __name__ == "__main__":
    main()
