"""Searches of every space, small enough for a test."""

import torch

from topdown_ray.algorithms import rng
from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.strategies import Searches
from topdown_ray.spaces.cost import macs
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space


def small(generations: int = 500, warm_generations: int = 100) -> EvolutionParams:
    """The default parameters, but for a population of 20 and these lengths."""
    return EvolutionParams(population=20, generations=generations, warm_generations=warm_generations)


SMALL = small().sizes()


def problem(space: Space) -> Problem:
    cost = macs(space)
    return Problem(space, load_predictor("embedded", space), cost, torch.from_numpy(cost.cheapest()[1]))


PROBLEMS = {name: problem(space) for name, space in SPACES.items()}


def searches(name: str, seeds: list[int], share: list[float], params: EvolutionParams) -> Searches:
    """Targets at these shares of the way from the cheapest cost to the mean one."""
    problem = PROBLEMS[name]
    lowest = float(problem.cost(problem.cheapest[None]))
    mean = float(problem.cost(problem.space.random(1000, 0)).mean())
    targets = sorted((lowest + part * (mean - lowest) for part in share), reverse=True)
    return Searches(problem, params, targets, rng.Draws(seeds, name))
