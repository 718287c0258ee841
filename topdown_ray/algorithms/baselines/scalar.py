"""Run the top-down search in a direct way: one architecture at a time, in plain Python, on OFA's own
dictionaries.

Sweeps do not use it. The tests and ``topdown-ray bench`` compare the lock-step search with it (accuracy and
speed). It follows the description of Kumar and Szidon (arXiv 2012.06748) without the two faults of their
notebook (see :mod:`topdown_ray.algorithms.pruning`). Evolution is that of ``ofa.tutorial.EvolutionFinder``.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

Spec = dict[str, Any]  # {"wid": None, "ks": [20], "e": [20], "d": [5], "r": [resolution]}

KERNELS, EXPANDS, DEPTHS, RESOLUTIONS = [3, 5, 7], [3, 4, 6], [2, 3, 4], [160, 176, 192, 208, 224]
N_BLOCKS, N_STAGES = 20, 5


class AccuracyModel(Protocol):
    """As ``ofa.tutorial.AccuracyPredictor``."""

    def predict_accuracy(self, population: list[Spec]) -> Any:
        """Predicted top-1 of each."""


class EfficiencyModel(Protocol):
    """As ``ofa.tutorial.LatencyTable``."""

    def predict_efficiency(self, spec: Spec) -> float:
        """Its cost."""


class Answer(NamedTuple):
    """The answer for one target."""

    target: float
    accuracy: float
    cost: float
    spec: Spec


class TopDownFinder:
    """Searches several targets in one run on MobileNetV3: evolution for the loosest, then pruning and warm
    starts down to the tightest.
    """

    def __init__(
        self,
        accuracy_model: AccuracyModel,
        efficiency_model: EfficiencyModel,
        seed: int,
        population: int = 100,
        generations: int = 500,
        warm_generations: int = 100,
        parent_ratio: float = 0.25,
        mutation_ratio: float = 0.5,
        mutate_prob: float = 0.1,
    ):
        self.accuracy_model = accuracy_model
        self.efficiency_model = efficiency_model
        self.random = random.Random(seed)
        self.population = population
        self.generations = generations
        self.warm_generations = warm_generations
        self.n_parents = round(parent_ratio * population)
        self.n_mutations = round(mutation_ratio * population)
        self.mutate_prob = mutate_prob

    def run(self, targets: Sequence[float]) -> list[Answer]:
        """Serve all targets, loosest first."""
        answers: list[Answer] = []
        for target in sorted(targets, reverse=True):
            if not answers:
                pool = [self.random_sample(target) for _ in range(self.population)]
                scored = self.score(pool)
                best, population = self.best_of(scored), scored[: self.n_mutations]
                generations = self.generations
            else:
                best = self.score([self.prune(answers[-1].spec, target)])[0]
                population = [best] * self.population
                generations = self.warm_generations
            accuracy, spec = self.evolve(population, best, target, generations)
            answers.append(Answer(target, accuracy, self.efficiency_model.predict_efficiency(spec), spec))
        return answers

    def evolve(
        self, population: list[tuple[float, Spec]], best: tuple[float, Spec], target: float, generations: int
    ) -> tuple[float, Spec]:
        """Return the best architecture ever scored under the target."""
        for _ in range(generations):
            parents = sorted(population, key=lambda scored: -scored[0])[: self.n_parents]
            children = [self.mutate(self.random.choice(parents)[1], target) for _ in range(self.n_mutations)]
            for _ in range(self.population - self.n_mutations):
                mother, father = self.random.choice(parents)[1], self.random.choice(parents)[1]
                children.append(self.crossover(mother, father, target))
            population = parents + self.score(children)
            best = max(best, self.best_of(population), key=lambda scored: scored[0])
        return best

    def score(self, specs: list[Spec]) -> list[tuple[float, Spec]]:
        """Return pairs of predicted accuracy and architecture."""
        return [
            (float(accuracy), spec)
            for accuracy, spec in zip(self.accuracy_model.predict_accuracy(specs), specs, strict=True)
        ]

    @staticmethod
    def best_of(scored: list[tuple[float, Spec]]) -> tuple[float, Spec]:
        """The first of the most accurate."""
        return max(scored, key=lambda pair: pair[0])

    def fits(self, spec: Spec, target: float) -> bool:
        """Whether the architecture meets the target."""
        return self.efficiency_model.predict_efficiency(spec) <= target

    def random_sample(self, target: float) -> Spec:
        """Return a uniformly drawn architecture that meets the target."""
        while True:
            spec = {
                "wid": None,
                "ks": [self.random.choice(KERNELS) for _ in range(N_BLOCKS)],
                "e": [self.random.choice(EXPANDS) for _ in range(N_BLOCKS)],
                "d": [self.random.choice(DEPTHS) for _ in range(N_STAGES)],
                "r": [self.random.choice(RESOLUTIONS)],
            }
            if self.fits(spec, target):
                return spec

    def mutate(self, parent: Spec, target: float) -> Spec:
        """Return a mutated copy that meets the target."""
        while True:
            spec = copy.deepcopy(parent)
            if self.random.random() < self.mutate_prob:
                spec["r"][0] = self.random.choice(RESOLUTIONS)
            for i in range(N_BLOCKS):
                if self.random.random() < self.mutate_prob:
                    spec["ks"][i] = self.random.choice(KERNELS)
                    spec["e"][i] = self.random.choice(EXPANDS)
            for i in range(N_STAGES):
                if self.random.random() < self.mutate_prob:
                    spec["d"][i] = self.random.choice(DEPTHS)
            if self.fits(spec, target):
                return spec

    def crossover(self, mother: Spec, father: Spec, target: float) -> Spec:
        """Return a child that takes every gene from either parent and meets the target."""
        while True:
            spec = copy.deepcopy(mother)
            for key in ("ks", "e", "d", "r"):
                for i in range(len(spec[key])):
                    spec[key][i] = self.random.choice([mother[key][i], father[key][i]])
            if self.fits(spec, target):
                return spec

    def prune(self, answer: Spec, target: float) -> Spec:
        """Lower a copy at random until it meets the target."""
        spec = copy.deepcopy(answer)
        choices = {"ks": KERNELS, "d": DEPTHS, "e": EXPANDS}
        level = dict.fromkeys(choices, 1)  # the index of the choice that positions are lowered to
        position = dict.fromkeys(choices, 0)
        while not self.fits(spec, target):
            if all(value < 0 for value in level.values()):
                if spec["r"][0] == RESOLUTIONS[0]:
                    raise ValueError(f"no architecture on the way down meets {target}")
                spec["r"][0] -= 16
                continue
            kind = self.random.choice(list(choices))
            while level[kind] >= 0:
                lowered = choices[kind][level[kind]]
                above = [i for i in range(position[kind], len(spec[kind])) if spec[kind][i] > lowered]
                if above:
                    spec[kind][above[0]] = lowered
                    position[kind] = above[0] + 1
                    break
                level[kind], position[kind] = level[kind] - 1, 0
        return spec
