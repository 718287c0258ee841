"""Define the cases of ``topdown-ray bench fronts``, and count and keep the rows that a contestant scores.

A case is a space under a cost with its published predictor. Its targets are all those of the reference front
that comes with the package. The recorder has the predictor and the cost, keeps the cost and the accuracy of
every row that it scores, and raises :class:`BudgetSpent` when a contestant asks for a row beyond its budget,
so that no contestant can exceed it. A row that is asked for twice counts twice. A gradient counts as a fixed
number of rows (``data/fronts_race.json``), so that the benchmark does not depend on the noise of a clock: 3
on MobileNetV3 and 5 on ResNet50D, where a gradient takes as long as 2.7 to 2.9 and 3.7 to 6.4 rows do,
depending on the size of the batch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from topdown_ray.algorithms.gradients import Gradient
from topdown_ray.algorithms.memory import scored
from topdown_ray.algorithms.problem import Problem
from topdown_ray.errors import UserError
from topdown_ray.files import data
from topdown_ray.spaces.cost import CostModel, load_cost
from topdown_ray.spaces.predictor import Predictor
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space
from topdown_ray.sweeps.reference_front import find_front

Array = NDArray[np.float64]

# the reference point of the hypervolume, as in topdown_ray.report.comparisons (a test compares them)
BEYOND, FLOOR = 1.1, 0.75


class BudgetSpent(Exception):  # noqa: N818 - it ends a search as planned, and is no error
    """A contestant asked for more than its budget."""


# --- cases --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A space under a cost; its name is that of the reference front."""

    space: str
    cost: str
    gradient_rows: float  # the rows of the predictor that a gradient counts as

    @property
    def name(self) -> str:
        """The name of the case and of the shipped reference front."""
        return f"{self.space}-{self.cost}"


#: The cases by name, in the order of the race.
CASES = {
    case.name: case
    for case in (Case(**fields) for fields in json.loads(data("fronts_race.json").read_text()))
}


@dataclass(frozen=True, eq=False)
class Arena:
    """A case with its artefacts."""

    case: Case
    space: Space
    predictor: Predictor
    cost: CostModel
    targets: tuple[float, ...]  # loosest first
    best: Array  # (K,), the reference front's accuracy for each target

    @cached_property
    def cheapest(self) -> torch.Tensor:
        """Genes (G,) of the cheapest architecture."""
        return torch.from_numpy(self.cost.cheapest()[1])

    @cached_property
    def cheapest_accuracy(self) -> float:
        """The accuracy of the cheapest architecture, which is scored outside of every budget."""
        return float(self.predictor(self.cheapest[None])[0])

    def problem(self, predictor: Predictor) -> Problem:
        """Return the problem that the strategies of this project solve."""
        return Problem(self.space, predictor, self.cost, self.cheapest)

    def recorder(self, budget: int) -> Recorder:
        """A new recorder of this case."""
        return Recorder(self.predictor, self.cost, budget, self.case.gradient_rows)


def load_arena(name: str) -> Arena:
    """Return a case by its name. Raises UserError."""
    if name not in CASES:
        raise UserError(f"--case: expected one of {', '.join(CASES)}, found {name!r}")
    case = CASES[name]
    space = SPACES[case.space]
    front = pd.read_csv(find_front(name), comment="#")
    targets = tuple(sorted(map(float, front["target"]), reverse=True))
    best = [float(front.loc[front["cost"] <= target, "accuracy"].max()) for target in targets]
    predictor, cost = load_predictor("published", space), load_cost(case.cost, space)
    return Arena(case, space, predictor, cost, targets, np.array(best))


# --- the recorder -------------------------------------------------------------------------------------------


class Recorder:
    """Scores rows for one contestant, keeps them, and stops it at its budget. ``reset`` starts again."""

    def __init__(self, predictor: Predictor, cost: CostModel, budget: int, gradient_rows: float) -> None:
        """budget: in rows of the predictor; gradient_rows: the rows that a gradient counts as."""
        self.predictor, self.cost = predictor, cost
        self.gradient_rows = gradient_rows
        self.reset(budget)

    def reset(self, budget: int) -> None:
        """Forget everything and start with a full budget."""
        self.budget = budget
        self.rows = self.gradients = 0
        self._genes: list[torch.Tensor] = []
        self._accuracy: list[torch.Tensor] = []

    @property
    def spent(self) -> float:
        """The rows of the predictor so far, including those of gradients."""
        return self.rows + self.gradient_rows * self.gradients

    def accuracy(self, genes: torch.Tensor) -> torch.Tensor:
        """Return the predicted top-1 of genes (N, G): float32 (N,).

        Raises BudgetSpent if the budget ends before the last row. The rows within the budget are scored and
        kept.
        """
        n = min(len(genes), int(self.budget - self.spent + 1e-6))
        found = scored(self.predictor, genes[:n])
        self.rows += n
        self._genes.append(genes[:n].clone())
        self._accuracy.append(found)
        if n < len(genes):
            raise BudgetSpent
        return found

    def score(self, genes: torch.Tensor) -> tuple[Array, Array]:
        """Return the accuracy and cost of genes (N, G): two float64 (N,). Raises BudgetSpent as
        :meth:`accuracy`.
        """
        accuracy = self.accuracy(genes)
        return accuracy.double().numpy(), self.cost(genes).numpy()

    def charge_gradients(self, n: int) -> None:
        """Count n gradients. Raises BudgetSpent, without counting any, if they do not fit into the budget."""
        if self.spent + n * self.gradient_rows > self.budget + 1e-6:
            raise BudgetSpent
        self.gradients += n

    def points(self) -> tuple[Array, Array]:
        """Return the cost and accuracy of everything that was scored: two float64 (rows,)."""
        if not self.rows:
            return np.zeros(0), np.zeros(0)
        return self.cost(torch.cat(self._genes)).numpy(), torch.cat(self._accuracy).double().numpy()


@dataclass(frozen=True, eq=False)
class RecordingPredictor(Predictor):
    """A predictor whose rows go through a recorder. Searches use it like any other predictor."""

    recorder: Recorder | None = None

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Predicted top-1, recorded: genes int8 (N, G) -> float32 (N,)."""
        assert self.recorder is not None
        return self.recorder.accuracy(genes)

    @classmethod
    def of(cls, recorder: Recorder) -> RecordingPredictor:
        """The recorder's predictor, recorded."""
        plain = recorder.predictor
        own = {part.name: getattr(plain, part.name) for part in dataclasses.fields(plain) if part.init}
        return cls(**own, recorder=recorder)


class RecordedGradient(Gradient):
    """A predictor's gradient that a recorder counts before it is computed."""

    def __init__(self, recorder: Recorder, *costs: CostModel) -> None:
        super().__init__(recorder.predictor, *costs)
        self.recorder = recorder

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Gains of all single changes: genes (N, G) -> float32 (N, C). Raises BudgetSpent."""
        self.recorder.charge_gradients(len(genes))
        return super().__call__(genes)


# --- measures -----------------------------------------------------------------------------------------------


def hypervolume(cost: Array, accuracy: Array, loosest: float) -> float:
    """Return the area between the points that meet the loosest target and the reference point (``BEYOND``
    times that target, ``FLOOR``), computed by ``moocore``: in the cost's unit times percentage points. Raises
    UserError without moocore.
    """
    try:
        from moocore import hypervolume as volume
    except ImportError as error:
        raise UserError(
            "fronts: expected the package moocore, found none; pip install 'topdown-ray[bench]'"
        ) from error
    counted = cost <= loosest
    points = np.stack([cost[counted], -accuracy[counted]], axis=1)
    return 100 * float(volume(points, ref=[BEYOND * loosest, -FLOOR])) if len(points) else 0.0


def answers(arena: Arena, cost: Array, accuracy: Array) -> Array:
    """Return the best accuracy for each target (K,), or that of the cheapest architecture if nothing meets
    the target.
    """
    fitting = np.where(cost[None] <= np.array(arena.targets)[:, None], accuracy[None], -np.inf)
    best = fitting.max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(best), best, arena.cheapest_accuracy)


def measures(arena: Arena, recorder: Recorder) -> dict[str, Any]:
    """Return the hypervolume of a contestant's points, their regret in percentage points (mean, and for each
    target), and how many targets nothing meets.
    """
    cost, accuracy = recorder.points()
    regrets = 100 * (arena.best - answers(arena, cost, accuracy))
    return {
        "hypervolume": hypervolume(cost, accuracy, arena.targets[0]),
        "regret": float(regrets.mean()),
        "regrets": regrets.tolist(),
        "unmet": _unmet(arena.targets, cost),
        "rows": recorder.rows,
        "gradients": recorder.gradients,
        "spent": recorder.spent,
    }


def _unmet(targets: Iterable[float], cost: Array) -> int:
    lowest = cost.min(initial=np.inf)
    return sum(lowest > target for target in targets)
