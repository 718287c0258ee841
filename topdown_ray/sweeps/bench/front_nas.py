"""Run packages for Once-for-All's supernets as contestants of ``topdown-ray bench fronts``: OFA² and DyNAS-T.
Each is imported when it runs; ``scripts/benchmarks/fronts_env.sh`` installs them into a separate folder that
can be deleted.

``ofa2``: the search of OFA² (Ito and Von Zuben 2023, arXiv 2303.13683) from PyPI's ``ofa2``, that is its
classes ``OfaProblem`` (minimise cost and 100 - top-1, no constraint) and ``OfaSampling`` under pymoo's
NSGA-II with a population of 100. The package has neither crossover nor mutation. The contestant uses those of
pymoo for choices (``UniformCrossover``, ``ChoiceRandomMutation``) at pymoo's rates, which were better than a
mutation rate of 0.1 on the seeds 1010 to 1012 of MobileNetV3 under Note10. Adapted: the two predictors of its
problem are the recorder's. Current versions of pymoo need variables as a mapping where OFA² passes a list.
Its problem only knows MobileNetV3's form, so on ResNet50D the genes take the places of its lists, all of them
in ``ks``. The seed also sets NumPy's global generator, from which its sampling draws. Without a constraint it
also spends rows above the loosest target. ``ofa2, limited``: the same, but architectures above the loosest
target get a hundred times its cost and no top-1, so that the search stays within the measured range.

``dynast, nsga2`` and ``dynast, age``: DyNAS-T (Intel) from PyPI's ``dynast``. The contestant runs what its
tactic ``Evolutionary`` runs: its ``EvolutionaryManager`` with NSGA-II or AGE-MOEA as it configures them
(population 50, simulated binary crossover and polynomial mutation on whole numbers; its mutation rate of 0.02
is, in the versions of pymoo that it asks for, the share of children that mutate) and its
``EvolutionaryMultiObjective``, no constraint. Adapted: the problem scores a population at once instead of one
architecture after another, which changes only the time, and prints no dots; its vector is that of this
project's genes. The class of the tactic, in ``dynast.search.search_tactic``, and the package's own
``__init__`` import every supernet of DyNAS-T and with them fairseq, whose last release cannot be imported on
Python 3.11. Therefore only ``dynast.search.evolutionary`` is imported, and the package's ``__init__`` is not
executed. The tactic ``LINAS`` is left out: for every 50 evaluations it trains ridge regressions and
support-vector machines by a grid search of 1,000 fits for each objective, which suits validations that take
minutes, but not rows that take microseconds.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from topdown_ray.spaces.space import Space
from topdown_ray.sweeps.bench.front_externals import POPULATION, Run, genes_of, minimise
from topdown_ray.sweeps.bench.front_recorder import Arena, Array, Recorder

# --- OFA² ---------------------------------------------------------------------------------------------------


def ofa2(limited: bool, arena: Arena, recorder: Recorder) -> Run:
    """The search of OFA²; limited: within the loosest target."""
    from ofa2.tutorial.multi_objective_optimization import OfaProblem, OfaSampling
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.core.variable import Choice
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.mutation.rm import ChoiceRandomMutation
    from pymoo.optimize import minimize

    class Variables(list[Any]):
        """A list of variables that is also the mapping that current versions of pymoo expect."""

        def items(self) -> Iterator[tuple[int, Any]]:
            return enumerate(self)

    class Listed(Problem):  # type: ignore[misc]
        """Takes the list of variables that OFA² passes to pymoo's problem."""

        def __init__(self, vars: list[Any], **kwargs: Any) -> None:  # noqa: A002 - pymoo's name
            super().__init__(vars=Variables(vars), **kwargs)

    class Adapted(OfaProblem, Listed):  # type: ignore[misc]
        """OFA²'s problem on the genes of the space."""

        def __init__(self, predictor: Any) -> None:
            n_blocks, n_stages, choices = _ofa2_form(arena.space)
            super().__init__(predictor, predictor, n_blocks, n_stages, choices)  # type: ignore[call-arg]
            if n_stages == 0:  # the network does not have MobileNetV3's form
                self.vars = Variables(Choice(options=list(gene.choices)) for gene in arena.space.genes)
                self.n_var, self.blocks = len(self.vars), len(self.vars)

    def run(seed: int) -> None:
        np.random.seed(seed)  # noqa: NPY002 - OfaSampling draws from the global generator
        problem = Adapted(_Ofa2Predictor(arena, recorder, limited))
        own = {
            "sampling": OfaSampling(),
            "crossover": UniformCrossover(),
            "mutation": ChoiceRandomMutation(),
        }
        searching = NSGA2(pop_size=POPULATION, **own, eliminate_duplicates=True)
        minimise(minimize, problem, searching, seed, recorder.budget)

    return run


def _ofa2_form(space: Space) -> tuple[int, int, dict[str, list[float]]]:
    """Return blocks, stages and choices in the form of OFA²'s problem; no stages if the space has another
    form.
    """
    if not space.indices("kernel"):
        return 0, 0, {"r": list(space.resolutions)}
    of_kind = {"ks": "kernel", "e": "expand", "d": "depth", "r": "resolution"}
    choices = {key: list(space.genes[space.indices(kind)[0]].choices) for key, kind in of_kind.items()}
    return len(space.blocks), len(space.indices("depth")), choices


class _Ofa2Predictor:
    """Both predictors of OFA²'s problem: architectures as its dictionaries -> cost, top-1 in per cent."""

    def __init__(self, arena: Arena, recorder: Recorder, limited: bool) -> None:
        self.recorder, self.limit = recorder, arena.targets[0] if limited else np.inf
        self.choices = [np.array(gene.choices, dtype=float) for gene in arena.space.genes]

    def predict_efficiency(self, archs: list[dict[str, Any]]) -> Array:
        """The cost of architectures."""
        cost = self.recorder.cost(self._genes_of(archs)).numpy()
        return np.where(cost <= self.limit, cost, 100 * cost)

    def predict_accuracy(self, archs: list[dict[str, Any]]) -> Array:
        """The recorded top-1 of architectures."""
        accuracy, cost = self.recorder.score(self._genes_of(archs))
        return np.where(cost <= self.limit, 100 * accuracy, 0.0)

    def _genes_of(self, archs: list[dict[str, Any]]) -> torch.Tensor:
        lists = [np.concatenate([arch["ks"], arch["e"], arch["d"], arch["r"]]) for arch in archs]
        # in the form of another space, the last gene also takes the place of the resolution
        values = np.array(lists, dtype=float)[:, : len(self.choices)]
        places = [np.searchsorted(own, column) for own, column in zip(self.choices, values.T, strict=True)]
        return genes_of(np.stack(places, axis=1))


# --- DyNAS-T ------------------------------------------------------------------------------------------------


def dynast(algorithm: str, arena: Arena, recorder: Recorder) -> Run:
    """DyNAS-T's evolutionary search by its ``nsga2`` or ``age``."""
    evolutionary = _dynast_evolutionary()

    class Batched(evolutionary.EvolutionaryMultiObjective):  # type: ignore[misc, name-defined]
        """DyNAS-T's problem, a population at once."""

        def _evaluate(self, x: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
            accuracy, cost = self.evaluation_interface.score(genes_of(x))
            out["F"] = np.stack([cost, -accuracy], axis=1)

    def run(seed: int) -> None:
        upper = np.array(arena.space.sizes) - 1
        problem = Batched(evaluation_interface=recorder, param_count=arena.space.G, param_upperbound=upper)
        manager = evolutionary.EvolutionaryManager(algorithm=algorithm, seed=seed, n_obj=2)
        configure = {"nsga2": manager.configure_nsga2, "age": manager.configure_age}[algorithm]
        configure(num_evals=recorder.budget)
        manager.run_search(problem)

    return run


def _dynast_evolutionary() -> Any:
    """Import the module ``dynast.search.evolutionary`` without the package's ``__init__``. The root logger,
    which DyNAS-T reconfigures, keeps its settings.
    """
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    spec = importlib.util.find_spec("dynast") if "dynast" not in sys.modules else None
    if spec is not None:
        sys.modules["dynast"] = importlib.util.module_from_spec(spec)  # not executed
    try:
        return importlib.import_module("dynast.search.evolutionary")
    finally:
        for handler in [*root.handlers]:
            root.removeHandler(handler)
        root.setLevel(before[0])
        for handler in before[1]:
            root.addHandler(handler)
