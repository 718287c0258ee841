"""What is searched: a space, its accuracy predictor, its cost, and what further limits its targets have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from topdown_ray.spaces.limits import LimitedCost
from topdown_ray.spaces.space import Space

Cost = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Problem:
    """What is searched: a space, its accuracy predictor and its cost, both plain callables on genes (N,
    G).
    """

    space: Space
    accuracy: Callable[[torch.Tensor], torch.Tensor]  # -> float32 (N,)
    cost: Cost  # -> float64 (N,)
    cheapest: torch.Tensor  # genes (G,) of the cheapest architecture: what is left where nothing else fits
    # where targets have further limits, the problem of each target: its ``cost`` is infinite for
    # architectures that break one, and ``cheapest`` meets all of them
    by_target: tuple[Problem, ...] = ()

    def at(self, index: int) -> Problem:
        """The problem of one target."""
        return replace(self.by_target[index], accuracy=self.accuracy) if self.by_target else self

    def constraints(self, targets: Sequence[float]) -> tuple[list[Cost], torch.Tensor]:
        """The J costs that some of the K targets limit, the problem's own first, and the limits float64 (K,
        J), infinite where a target has none.
        """
        costs: list[Cost] = [self.cost]
        limits = torch.full((len(targets), 1), torch.inf, dtype=torch.float64)
        limits[:, 0] = torch.tensor(targets, dtype=torch.float64)
        for k, problem in enumerate(self.by_target):
            for cost, most in problem.cost.limits if isinstance(problem.cost, LimitedCost) else ():
                if cost not in costs:
                    costs.append(cost)
                    limits = torch.nn.functional.pad(limits, (0, 1), value=torch.inf)
                limits[k, costs.index(cost)] = most
        return costs, limits
