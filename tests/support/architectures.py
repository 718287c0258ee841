"""Architectures to export and measure."""

import json

from topdown_ray.networks import evaluate
from topdown_ray.networks.evaluator import archs_of
from topdown_ray.spaces.space import Space


def an_arch(space: Space) -> dict:
    sizes = [int(space.genes[space.resolution].choices[0])]
    return json.loads(archs_of(space, evaluate.uniform(space, sizes, 1, 4))[0])
