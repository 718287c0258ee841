"""What is searched: a space, its accuracy predictor and its cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from topdown_ray.spaces.space import Space


@dataclass(frozen=True)
class Problem:
    """What is searched: a space, its accuracy predictor and its cost, both plain callables on genes (N,
    G).
    """

    space: Space
    accuracy: Callable[[torch.Tensor], torch.Tensor]  # -> float32 (N,)
    cost: Callable[[torch.Tensor], torch.Tensor]  # -> float64 (N,)
    cheapest: torch.Tensor  # genes (G,) of the cheapest architecture: what is left where nothing else fits
