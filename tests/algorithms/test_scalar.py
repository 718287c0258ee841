"""The lock-step search is as good as the direct scalar one: same means, within three standard errors of their
difference.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from topdown_ray.algorithms.baselines import scalar
from topdown_ray.networks import ofa_reference
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.sweeps import api

OUTCOMES = ROOT / "tests" / "data" / "scalar_top_down.csv"
TARGETS = [60, 55, 50, 45, 40, 35, 30, 25, 20, 15]


def standard_errors_apart(one: np.ndarray, other: np.ndarray) -> float:
    error = np.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
    return float(abs(one.mean() - other.mean()) / error)


@pytest.mark.slow
def test_full_budget_equals_64_scalar_runs(published: Path) -> None:
    """Outcomes of the scalar search as data (scripts/make/scalar_outcomes.py). Seeds are fixed: it cannot
    fail by chance.
    """
    with OUTCOMES.open() as file:
        rows = list(csv.DictReader(file))
    frame = api.search(targets=TARGETS, seeds=64)
    for target in TARGETS:
        ours = frame.loc[frame["target"] == target, "accuracy"].to_numpy()
        theirs = np.array([float(row["accuracy"]) for row in rows if float(row["target"]) == target])
        assert len(ours) == len(theirs) == 64
        assert standard_errors_apart(ours, theirs) < 3, (
            f"{target} ms: {ours.mean():.5f} and {theirs.mean():.5f}"
        )


def test_small_budget_equals_live_scalar_runs(published: Path) -> None:
    """Other seeds, run here. Seeds are fixed; of other seeds, about 1 in 120 would differ by chance (3
    targets at 3 sigma).
    """
    predictor, table = ofa_reference.tutorial_models()
    targets, budget = [40, 25, 16], {"population": 20, "generations": 15, "warm_generations": 8}
    theirs = [
        scalar.TopDownFinder(predictor, table, seed, **budget).run(targets) for seed in range(1000, 1024)
    ]
    frame = api.search(targets=targets, seeds=range(2000, 2256), **budget)
    for i, target in enumerate(targets):
        ours = frame.loc[frame["target"] == target, "accuracy"].to_numpy()
        accuracies = np.array([answers[i].accuracy for answers in theirs])
        assert standard_errors_apart(ours, accuracies) < 3, (
            f"{target} ms: {ours.mean():.5f} and {accuracies.mean():.5f}"
        )


def test_pruning_walks_as_far_as_the_scalar_one(published: Path) -> None:
    """The number of genes lowered, from the same architectures. Seeds are fixed; chance of another seed to
    differ: 0.3 %.
    """
    from topdown_ray.algorithms import rng
    from topdown_ray.algorithms.pruning import prune
    from topdown_ray.spaces.cost import load_cost

    predictor, table = ofa_reference.tutorial_models()
    space, cost, n = MOBILENET_V3, load_cost("note10", MOBILENET_V3), 150
    genes = space.random(n, 5)
    slots = rng.slots(rng.Draws([1], "x").stream(rng.PRUNING, 0, 0), n)
    lowered = prune(space, cost, genes, 18.0, slots, torch.from_numpy(cost.cheapest()[1]))
    ours = (genes - lowered).sum(1).double().numpy()
    theirs = []
    for seed, row in enumerate(genes):
        config = space.to_config(row)
        spec = {
            "wid": None,
            "ks": config["ks"],
            "e": config["e"],
            "d": config["d"],
            "r": [config["image_size"]],
        }
        pruned = scalar.TopDownFinder(predictor, table, seed).prune(spec, 18.0)
        after = {"ks": pruned["ks"], "e": pruned["e"], "d": pruned["d"], "image_size": pruned["r"][0]}
        theirs.append(float((row.numpy() - space.from_config(after)).sum()))
    difference = ours - np.array(theirs)  # paired: the same starting point
    assert abs(difference.mean()) < 3 * difference.std(ddof=1) / n**0.5


def test_pruning_reports_when_nothing_fits(published: Path) -> None:
    predictor, table = ofa_reference.tutorial_models()
    spec = {"wid": None, "ks": [7] * 20, "e": [6] * 20, "d": [4] * 5, "r": [224]}
    with pytest.raises(ValueError, match="no architecture on the way down meets 5"):
        scalar.TopDownFinder(predictor, table, 0).prune(spec, 5)
