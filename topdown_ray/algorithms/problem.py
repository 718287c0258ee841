"""Define the problem of a search: a space, its accuracy predictor, its cost, and the further limits of its
targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from topdown_ray.spaces.cost import CostModel
from topdown_ray.spaces.limits import LimitedCost
from topdown_ray.spaces.space import Space
from topdown_ray.spaces.terms import FlatSum

Cost = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Problem:
    """The problem of a search: a space, its accuracy predictor and its cost, both plain callables on genes
    (N, G).
    """

    space: Space
    accuracy: Callable[[torch.Tensor], torch.Tensor]  # -> float32 (N,)
    cost: Cost  # -> float64 (N,)
    cheapest: torch.Tensor  # genes (G,) of the cheapest architecture, the answer if nothing else fits
    # if targets limit several costs, the problem of each target. It has its own cost, which is infinite for
    # architectures that break a further limit, and its own ``cheapest``, which meets all limits.
    by_target: tuple[Problem, ...] = ()

    def at(self, index: int) -> Problem:
        """Return the problem of one target."""
        return replace(self.by_target[index], accuracy=self.accuracy) if self.by_target else self

    def constraints(self, targets: Sequence[float]) -> tuple[list[Cost], torch.Tensor]:
        """Return the J costs that some of the K targets limit, the problem's own first, and the limits
        float64 (K, J), infinite if a target has none.
        """
        most_of: dict[Cost, list[float]] = {self.cost: [torch.inf] * len(targets)}
        for k, target in enumerate(targets):
            for cost, most in limits_of(self.at(k).cost, target):
                of_cost = most_of.setdefault(cost, [torch.inf] * len(targets))
                of_cost[k] = min(of_cost[k], most)
        return list(most_of), torch.tensor(list(most_of.values()), dtype=torch.float64).T.contiguous()


def flat_cost(cost: Cost, device: torch.device) -> FlatSum | None:
    """Return a cost for compiled code if that can run: on a CPU, with costs that are sums over terms."""
    return cost.flat if device.type == "cpu" and isinstance(cost, CostModel | LimitedCost) else None


def limits_of(cost: Cost, target: float) -> list[tuple[Cost, float]]:
    """Return everything that a target limits: its own cost, then the costs of its further limits."""
    if isinstance(cost, LimitedCost):
        return [(cost.main, target), *cost.limits]
    return [(cost, target)]
