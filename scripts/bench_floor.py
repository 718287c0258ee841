"""How far the search is from its floor, the time that the predictor alone needs: one core, top-down, 10
targets, Note10.

    python scripts/bench_floor.py [--batch 32] [--repeats 3]

Prints the seconds of a batch of searches, the seconds of the dense float32 predictor on as many architectures
(one-hot features given, batches as large as a generation's), and their ratio, medians over the repeats,
measured in turn in one process."""

import argparse
import statistics
import time

import torch

from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.rng import Draws
from topdown_ray.algorithms.strategies import STRATEGIES, Searches
from topdown_ray.spaces.cost import note10
from topdown_ray.spaces.predictor import features, load_predictor
from topdown_ray.spaces.space import MOBILENET_V3

TARGETS = [60, 55, 50, 45, 40, 35, 30, 25, 20, 15]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    predictor, cost = load_predictor("published", MOBILENET_V3), note10()
    problem = Problem(MOBILENET_V3, predictor, cost, torch.from_numpy(cost.cheapest()[1]))
    params = EvolutionParams()
    rows = arguments.batch * params.population
    inputs = features(MOBILENET_V3, predictor.encoding, MOBILENET_V3.random(rows, 0))
    searching, floor, ratios = [], [], []
    with torch.inference_mode():
        for repeat in range(arguments.repeats + 1):
            draws = Draws(range(arguments.batch), MOBILENET_V3.name)
            searches = Searches(problem, params, TARGETS, draws)
            start = time.perf_counter()
            outcomes = list(STRATEGIES["top_down"].serve(searches))
            middle = time.perf_counter()
            evaluations = arguments.batch * sum(outcome.evaluations for outcome in outcomes)
            for _ in range(round(evaluations / rows)):
                predictor.dense(inputs)
            end = time.perf_counter()
            if repeat:  # the first one warms up
                searching.append(middle - start)
                floor.append(end - middle)
                ratios.append(searching[-1] / floor[-1])
    print(f"{arguments.batch} searches in lock step, {evaluations:,} evaluations, one core")
    print(
        f"search    {statistics.median(searching):8.2f} s   "
        f"{statistics.median(searching) / arguments.batch:.3f} s a search"
    )
    print(
        f"predictor {statistics.median(floor):8.2f} s   {statistics.median(floor) / evaluations * 1e6:.2f} "
        "us an architecture"
    )
    print(f"ratio     {statistics.median(ratios):8.2f}")


if __name__ == "__main__":
    main()
