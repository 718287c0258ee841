"""End the work on a target, or a joint search, after a number of generations without a better answer.

Searches of one call advance in lock step, but each of them ends as it would if it ran alone: neither its
answer nor its trace depends on how long the others run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from topdown_ray.algorithms import rng
from topdown_ray.algorithms.evolution import EvolutionState
from topdown_ray.algorithms.joint import Joint
from topdown_ray.algorithms.memory import Memo
from topdown_ray.algorithms.problem import Problem

#: Runs one generation, given a problem, random numbers, the state before it and its number.
Step = Callable[[Problem, rng.Draws, EvolutionState, int], EvolutionState]


def run_patiently(
    problem: Problem,
    memo: Memo,
    draws: rng.Draws,
    whole: EvolutionState,
    generations: int,
    patience: int,
    step: Step,
    accuracies: list[torch.Tensor],
) -> tuple[EvolutionState, torch.Tensor]:
    """Run S searches until each has ended. Return their states at their ends, and the generation after which
    each ended, int64 (S,).

    memo: the object behind ``problem.accuracy``. accuracies: the best ones (S,) after each generation are
    appended to it. A search that has ended leaves the batch.
    """
    device, state, all_draws, all_of_memo = whole.best.device, whole, draws, memo
    ended = torch.full((len(draws.seeds),), generations, dtype=torch.int64, device=device)
    index = torch.arange(len(ended), device=device)  # the searches that still run
    quiet = torch.zeros_like(ended)
    for number in range(1, generations + 1):
        before = state.best_accuracy
        state = step(problem, draws, state, number)
        quiet = (quiet + 1).masked_fill_(state.best_accuracy > before, 0)
        accuracies.append(accuracies[-1].index_copy(0, index, state.best_accuracy))
        over, on = ((quiet >= patience) == value for value in (True, False))
        if not over.any():
            continue
        ended.index_fill_(0, index[over], number)
        whole = whole.with_part(index, state)
        if memo is not all_of_memo:
            all_of_memo.put_back(index, memo)
        index, quiet = index[on], quiet[on]
        if not len(index):
            return whole, ended
        state, draws, memo = whole.part(index), all_draws.part(index), all_of_memo.part(index)
        problem = replace(problem, accuracy=memo)
    if memo is not all_of_memo:
        all_of_memo.put_back(index, memo)
    return whole.with_part(index, state), ended


class JointEnd:
    """The results of the searches of a joint run at the moment when each ran out of patience."""

    def __init__(self, run: Joint, patience: int | None, generations: int):
        self._run, self._patience = run, patience
        S, device = run.scored.shape[0], run.scored.device
        self._quiet = torch.zeros(S, dtype=torch.int64, device=device)
        self.running = torch.ones(S, dtype=torch.bool, device=device)  # changed in place
        self._ended = torch.full((S,), generations, dtype=torch.int64, device=device)
        self._kept: tuple[torch.Tensor, ...] = ()

    def reached(self, number: int, before: torch.Tensor, after: torch.Tensor) -> bool:
        """Return whether every search has ended with this generation. before, after: the best accuracies (S,
        K).
        """
        if self._patience is None:
            return False
        self._quiet = (self._quiet + 1).masked_fill_((after > before).any(dim=1), 0)
        over = self.running & (self._quiet >= self._patience)
        if over.any():
            self._keep()
            self.running &= ~over
            self._ended.masked_fill_(over, number)
        return not self.running.any()

    def _keep(self) -> None:
        """Record the current state of the searches that still run."""
        now = (*self._run.best, self._run.scored, self._run.gradients)
        if not self._kept:
            self._kept = tuple(value.clone() for value in now)
            return
        index = self.running.nonzero().view(-1)
        for kept, value in zip(self._kept, now, strict=True):
            kept.index_copy_(0, index, value.index_select(0, index))

    def answers(
        self,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return genes (S, K, G), accuracies, predictor rows and gradients (S, K), and the generation after
        which each search ended (S,), or None if no search may end early.
        """
        self._keep()
        genes, accuracy, scored, gradients = self._kept
        return genes, accuracy, scored, gradients, None if self._patience is None else self._ended
