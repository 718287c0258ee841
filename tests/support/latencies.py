"""Latency tables that were not measured."""

import dataclasses
from typing import Any

import numpy as np

from topdown_ray.spaces.latency_table import Conditions, LatencyTable
from topdown_ray.spaces.space import Space


def made_up(space: Space, seed: int = 0, **changes: Any) -> LatencyTable:
    """A table with random times: what is tested is the arithmetic, not the machine."""
    layers = space.distinct_layers()
    median = np.random.default_rng(seed).uniform(0.01, 2, len(layers))
    count = np.full(len(layers), 20)
    table = LatencyTable(
        space.name, Conditions(), layers, median, 0.9 * median, 1.2 * median, count, 0 * count
    )
    return dataclasses.replace(table, **changes)
