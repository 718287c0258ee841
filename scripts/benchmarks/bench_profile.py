"""Profile a search: the shares of time of the compiled steps and of the predictor's parts, on one core.

    python scripts/benchmarks/bench_profile.py [--batch 32]

The searches are top-down with ten targets, the Note10 table and the published predictor. A wrapper around
each step measures its time. The share "other" is Python code and small tensor operations between the
steps."""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from topdown_ray.algorithms import kernels
from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.rng import Draws
from topdown_ray.algorithms.strategies import STRATEGIES, Searches
from topdown_ray.spaces import predictor
from topdown_ray.spaces.cost import load_cost
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.predictor_files import load_predictor

TARGETS = [60, 55, 50, 45, 40, 35, 30, 25, 20, 15]
STEPS = [
    (functional, "linear", "predictor: matrix products"),
    (predictor, "first_layer", "predictor: first layer, gather and add"),
    (kernels, "children", "drawing children and their costs"),
    (kernels, "recall", "memory: look-up"),
    (kernels, "remember", "memory: storing"),
    (kernels, "survivors", "selection"),
    (kernels, "random_feasible", "first populations"),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32, help="searches in lock step (default 32)")
    batch = parser.parse_args().batch
    torch.set_num_threads(1)
    seconds: dict[str, float] = defaultdict(float)

    def timed(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **options)
            seconds[label] += time.perf_counter() - start
            return result

        return call

    for module, name, label in STEPS:
        setattr(module, name, timed(getattr(module, name), label))
    cost = load_cost("note10", MOBILENET_V3)
    problem = Problem(
        MOBILENET_V3, load_predictor("published", MOBILENET_V3), cost, torch.from_numpy(cost.cheapest()[1])
    )

    def search(generations: int, warm_generations: int) -> None:
        with torch.inference_mode():
            draws = Draws(range(batch), MOBILENET_V3.name)
            params = EvolutionParams(generations=generations, warm_generations=warm_generations)
            list(STRATEGIES["top_down"].serve(Searches(problem, params, TARGETS, draws)))

    search(3, 2)  # compiles
    seconds.clear()
    start = time.perf_counter()
    search(500, 100)
    total = time.perf_counter() - start
    print(f"{batch} searches in lock step: {total / batch:.3f} s a search")
    for _, _, label in STEPS:
        print(f"{label:45} {seconds[label] / total:6.1%}")
    print(f"{'other':45} {1 - sum(seconds.values()) / total:6.1%}")


if __name__ == "__main__":
    main()
