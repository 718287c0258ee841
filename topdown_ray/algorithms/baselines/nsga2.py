"""Run pymoo's NSGA-II on the same predictor and cost, as the multi-objective baseline of the benchmark.

One run trades accuracy against cost over the whole range below the loosest target. For each target the best
of everything that it scored counts, not only its last population. Operators are those that pymoo's manual
recommends for whole numbers. Source: Deb et al. 2002, *A fast and elitist multiobjective genetic algorithm:
NSGA-II*; Blank and Deb 2020, *pymoo*. pymoo is a development dependency (the extra ``bench``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from topdown_ray.algorithms.memory import scored
from topdown_ray.errors import UserError
from topdown_ray.spaces.space import Space


def nsga2(
    space: Space,
    accuracy: Callable[[torch.Tensor], torch.Tensor],
    cost: Callable[[torch.Tensor], torch.Tensor],
    targets: Sequence[float],
    evaluations: int,
    population: int = 100,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run this many evaluations, and return genes (K, G) and accuracy (K,) of the best for each target, with
    -inf if none fits.
    """
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.optimize import minimize
    except ImportError as error:
        raise UserError(
            "bench: nsga2: expected the package pymoo (pip install 'topdown-ray[bench]'), found none"
        ) from error

    best = torch.full((len(targets),), -torch.inf)
    answers = torch.zeros(len(targets), space.G, dtype=torch.int8)

    class Trade(Problem):  # type: ignore[misc]
        """Minimise minus the accuracy and the cost."""

        def __init__(self) -> None:
            upper = np.array(space.sizes) - 1
            super().__init__(
                n_var=space.G, n_obj=2, n_ieq_constr=1, xl=np.zeros(space.G, int), xu=upper, vtype=int
            )

        def _evaluate(self, x: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
            genes = torch.from_numpy(np.asarray(x).astype(np.int8))
            scores, costs = scored(accuracy, genes), cost(genes)
            for k, target in enumerate(targets):
                fitting = scores.masked_fill(costs > target, -torch.inf)
                place = int(fitting.argmax())
                if fitting[place] > best[k]:
                    best[k], answers[k] = fitting[place], genes[place]
            out["F"] = torch.stack([-scores.double(), costs], dim=1).numpy()
            out["G"] = (costs - max(targets)).numpy()[:, None]

    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    minimize(Trade(), algorithm, ("n_evals", evaluations), seed=seed, verbose=False, copy_algorithm=False)
    return answers, best
