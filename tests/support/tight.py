"""Problems with their cheapest architectures."""

from functools import cache

import torch

from topdown_ray.algorithms.problem import Problem
from topdown_ray.spaces.cost import CostModel, load_cost
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.registry import SPACES


@cache
def problem(space: str, cost: str) -> Problem:
    model = load_cost(cost, SPACES[space])
    predictor = load_predictor("published" if space != "proxyless" else "embedded", SPACES[space])
    return Problem(SPACES[space], predictor, model, torch.from_numpy(model.cheapest()[1]))


def cheapest(space: str, cost: str) -> float:
    model = problem(space, cost).cost
    assert isinstance(model, CostModel)
    return model.cheapest()[0]
