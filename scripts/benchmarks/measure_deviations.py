"""Measure how much the rules that differ from OFA's finder and from the notebook change the accuracy.

    python scripts/benchmarks/measure_deviations.py --seeds 100 --out deviations.csv

The searches use MobileNetV3 and the Note10 table, with ``ofa``'s own predictor and table. Each rule is
switched back to the original's in the scalar search (``algorithms.baselines.scalar``), one at a time, and all
variants run with the same seeds. The script prints the mean difference in predicted top-1, our rule minus the
original's, in percentage points with Student's 95 % interval. A seed takes about ten seconds on one core."""

from __future__ import annotations

import argparse
import copy

import numpy as np
import pandas as pd
import scipy.stats
import torch

from topdown_ray.algorithms.baselines.scalar import DEPTHS, EXPANDS, KERNELS, RESOLUTIONS, Spec, TopDownFinder
from topdown_ray.networks.ofa_reference import tutorial_models

TARGET, TIGHTER = 35.0, 25.0  # ms
Scored = tuple[float, Spec]


class Variant(TopDownFinder):
    """The scalar search for one target, with the rules of ``ofa.tutorial.EvolutionFinder`` where they are
    asked for.
    """

    later_ties = False  # of equally accurate parents the later ones come first
    all_draws = False  # all first draws are the first population, not only as many as there are mutations

    def search(self, target: float) -> tuple[Scored, Scored]:
        """The answer by our rule, and the one without the last generation's children."""
        scored = self.score([self.random_sample(target) for _ in range(self.population)])
        population = scored if self.all_draws else scored[: self.n_mutations]
        best = earlier = self.best_of(population if self.all_draws else scored)
        for _ in range(self.generations):
            earlier = best
            if self.later_ties:
                population = sorted(population, key=lambda pair: pair[0])[::-1]
            population = self.generation(population, target)
            best = max(best, self.best_of(population), key=lambda pair: pair[0])
        return best, earlier

    def generation(self, population: list[Scored], target: float) -> list[Scored]:
        """Parents and their children; parents of equal accuracy stay in the order in which they come."""
        parents = sorted(population, key=lambda pair: -pair[0])[: self.n_parents]
        children = [self.mutate(self.random.choice(parents)[1], target) for _ in range(self.n_mutations)]
        for _ in range(self.population - self.n_mutations):
            mother, father = self.random.choice(parents)[1], self.random.choice(parents)[1]
            children.append(self.crossover(mother, father, target))
        return parents + self.score(children)


class LaterTies(Variant):
    """OFA's order of equally accurate parents."""

    later_ties = True


class AllDraws(Variant):
    """OFA's first population."""

    all_draws = True


def prune_with_idle_picks(finder: TopDownFinder, answer: Spec, target: float) -> Spec:
    """As the notebook prunes: a pick moves on by one position even where there is nothing to lower."""
    spec = copy.deepcopy(answer)
    choices = {"ks": KERNELS, "d": DEPTHS, "e": EXPANDS}
    level, position = dict.fromkeys(choices, 1), dict.fromkeys(choices, 0)
    while not finder.fits(spec, target):
        if all(value < 0 for value in level.values()):
            spec["r"][0] = RESOLUTIONS[max(RESOLUTIONS.index(spec["r"][0]) - 1, 0)]
            continue
        kind = finder.random.choice(list(choices))
        if level[kind] < 0:
            continue
        i = position[kind]
        spec[kind][i] = min(spec[kind][i], choices[kind][level[kind]])
        position[kind] += 1
        if position[kind] == len(spec[kind]):
            level[kind], position[kind] = level[kind] - 1, 0
    return spec


def outcomes(seed: int, generations: int) -> dict[str, float]:
    """Predicted top-1 of one seed under each rule."""
    accuracy_model, efficiency_model = tutorial_models()

    def finder(kind: type[Variant]) -> Variant:
        return kind(accuracy_model, efficiency_model, seed, generations=generations)

    best, earlier = finder(Variant).search(TARGET)
    row = {"seed": seed, "ours": best[0], "without the last generation": earlier[0]}
    row["later ties first"] = finder(LaterTies).search(TARGET)[0][0]
    row["all first draws"] = finder(AllDraws).search(TARGET)[0][0]
    for name, lower in (("pruned", TopDownFinder.prune), ("pruned with idle picks", prune_with_idle_picks)):
        mine = finder(Variant)
        mine.generations = generations // 5
        start = mine.score([lower(mine, best[1], TIGHTER)])[0]
        row[name] = start[0]
        row[f"{name}, then searched"] = mine.evolve(
            [start] * mine.population, start, TIGHTER, mine.generations
        )[0]
    return row


def main() -> None:
    """Run the seeds, print the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100, help="number of seeds (default 100)")
    parser.add_argument("--generations", type=int, default=100, help="default 100")
    parser.add_argument("--out", help="CSV file for the outcome of each seed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in range(given.seeds):
        rows.append(outcomes(seed, given.generations))
        if given.out:
            pd.DataFrame(rows).to_csv(given.out, index=False)
    frame = 100 * pd.DataFrame(rows)
    pairs = [
        ("ours", name) for name in ("later ties first", "all first draws", "without the last generation")
    ]
    pairs += [(f"pruned{later}", f"pruned with idle picks{later}") for later in ("", ", then searched")]
    for ours, original in pairs:
        difference = frame[ours] - frame[original]
        reach = (
            scipy.stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
        )
        print(
            f"{ours} minus {original}: {difference.mean():+.3f} ± {reach:.3f} points (n = {len(difference)})"
        )


if __name__ == "__main__":
    main()
