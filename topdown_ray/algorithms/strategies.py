"""Strategies: in which order the targets of a search are served, and how each search is seeded from the one
before.

A strategy takes the targets loosest first and yields one :class:`Outcome` a target, in the order in which it
serves them. All S searches of a call advance in lock step and share nothing but the wall clock. Register a
new one with :func:`strategy`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from topdown_ray import plugins, strategy_styles
from topdown_ray.algorithms import evolution, rng
from topdown_ray.algorithms.clock import Laps, Seconds
from topdown_ray.algorithms.evolution import EvolutionState
from topdown_ray.algorithms.front import Front
from topdown_ray.algorithms.gradients import Gradient, gradient_of
from topdown_ray.algorithms.joint import Joint, JointParams
from topdown_ray.algorithms.memory import Memo
from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.patience import JointEnd, Step, run_patiently
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.pruning import prune
from topdown_ray.errors import UserError, brief

Trace = list[tuple[int, int, torch.Tensor]]  # (generation, evaluations within the target, best accuracy (S,))


@dataclass
class Outcome:
    """The answers of S searches for one target."""

    target_index: int
    genes: torch.Tensor  # int8 (S, G)
    accuracy: torch.Tensor  # float32 (S,)
    generations: int
    evaluations: int  # children scored, each search
    # int64 (S,), of these the ones that the search had not scored before: predictor rows
    unique_evaluations: torch.Tensor
    seconds: Seconds  # of the whole batch, for this target
    trace: Trace = field(repr=False)
    gradients: torch.Tensor | None = None  # int64 (S,), gradients of the predictor, each search
    # int64 (S,), the generations after which each search ended, where some ended before ``generations``; the
    # trace holds a point for each of them
    ended: torch.Tensor | None = None

    def length(self, s: int) -> tuple[int, int]:
        """The generations and the evaluations of one search."""
        if self.ended is None:
            return self.generations, self.evaluations
        generations = int(self.ended[s])
        return generations, next(point[1] for point in self.trace if point[0] == generations)


class Searches:
    """S searches over the same targets: what they search, how, and their random numbers.

    ``problem.accuracy`` remembers what each search has scored. ``predictor`` is the predictor itself, and
    ``predict`` computes its accuracies anew. ``fronts`` take in what a strategy scores, one for each device;
    a strategy may leave them empty."""

    def __init__(
        self,
        problem: Problem,
        params: EvolutionParams,
        targets: Sequence[float],
        draws: rng.Draws,
        fronts: Sequence[Front] = (),
        gradient_of: Callable[..., Gradient | None] = gradient_of,
    ) -> None:
        """targets: loosest first, of each device. gradient_of: as :func:`gradients.gradient_of`."""
        device = draws.seeds.device
        memo = Memo(problem.space, problem.accuracy, len(draws.seeds), device)
        self.problem = replace(problem, accuracy=memo)
        self.predictor = problem.accuracy
        self.predict = memo.predict
        self.params, self.sizes = params, params.sizes()
        self.targets, self.draws, self.fronts = targets, draws, fronts
        self.gradient_of = gradient_of
        self.lap = Laps(device)  # each outcome takes the seconds since the one before it
        self._memo = memo

    def evolve(
        self, target_index: int, state: EvolutionState | None, generations: int, seed_evaluations: int
    ) -> _Served:
        """Evolve for one target, from a fresh random population where ``state`` is None."""
        limit, problem = self.targets[target_index], self.problem.at(target_index)
        evaluations = seed_evaluations
        if state is None:
            state = evolution.initial(problem, self.sizes, limit, self.draws, target_index)
            evaluations += self.sizes.population
        elif self.problem.by_target:
            _check_fits(problem, state, limit)

        def step(problem: Problem, draws: rng.Draws, state: EvolutionState, number: int) -> EvolutionState:
            return evolution.generation(problem, self.sizes, state, limit, draws, target_index, number)

        return self.run(target_index, state, generations, evaluations, step)

    def run(
        self, target_index: int, state: EvolutionState, generations: int, evaluations: int, step: Step
    ) -> _Served:
        """Take steps until there are no more generations, or until every search has run out of patience.

        evaluations: of each search before the first step."""
        accuracies, ended, problem = [state.best_accuracy], None, self.problem.at(target_index)
        if self.params.patience is None:
            for number in range(1, generations + 1):
                state = step(problem, self.draws, state, number)
                accuracies.append(state.best_accuracy)
        else:
            state, ended = run_patiently(
                problem,
                self._memo,
                self.draws,
                state,
                generations,
                self.params.patience,
                step,
                accuracies,
            )
        counts = [evaluations + number * self.sizes.population for number in range(len(accuracies))]
        trace = list(zip(range(len(accuracies)), counts, accuracies, strict=True))
        outcome = Outcome(
            target_index,
            state.best,
            state.best_accuracy,
            len(accuracies) - 1,
            counts[-1],
            self._memo.take_count(),
            self.lap(),
            trace,
            ended=ended,
        )
        return _Served(state, outcome)

    def pruned(self, target_index: int, genes: torch.Tensor) -> EvolutionState:
        """A population of copies of the previous answer, pruned until it fits; costs one evaluation."""
        slots = rng.slots(self.draws.stream(rng.PRUNING, target_index, 1), 1)
        problem, limit = self.problem.at(target_index), self.targets[target_index]
        lowered = prune(problem.space, problem.cost, genes, limit, slots, problem.cheapest)
        return evolution.copies(self.sizes, lowered, problem.accuracy(lowered))


def _check_fits(problem: Problem, state: EvolutionState, limit: float) -> None:
    """Raise UserError where a population that is carried over to another target breaks its limits."""
    for genes in (state.parents.view(-1, problem.space.G), state.best):
        if not bool((problem.cost(genes) <= limit).all()):
            raise UserError(
                "limits: expected limits that a population meets when it is carried over to the next target, "
                "found one that breaks them; use a strategy that prunes (top_down) or starts afresh"
            )


@dataclass(frozen=True)
class _Served:
    state: EvolutionState
    outcome: Outcome


Serve = Callable[[Searches], Iterator[Outcome]]
# predictor evaluations of one search over k targets, from the strategy's parameters and k
EvaluationCount = Callable[[Any, int], int]


class Strategy(NamedTuple):
    """A registered strategy, what it costs and what it reads."""

    serve: Serve
    evaluations: EvaluationCount
    parameters: type[EvolutionParams] = EvolutionParams
    defaults: Mapping[str, Any] = {}  # of hyper-parameters that differ from those which all strategies share
    sha256: str = ""  # of a plug-in, see :mod:`topdown_ray.plugins`
    carries: bool = False  # a tighter target's population to a looser one, as it is
    several_costs: bool = False  # whether one search serves targets of several costs at once


STRATEGIES: dict[str, Strategy] = {}


def find_strategy(name: Any) -> Strategy:
    """The strategy that is registered under this name, or the plug-in of this name. Raises UserError."""
    if not isinstance(name, str) or name not in STRATEGIES:
        plugin = plugins.find("strategies", name) if isinstance(name, str) else None
        if plugin is None:
            known = ", ".join([*STRATEGIES, *plugins.entry_points("strategies")])
            raise UserError(f"strategies: expected one of {known}, or module:function, found {brief(name)}")
        found = next((known for known in STRATEGIES.values() if known.serve is plugin.value), None)
        if found is None:
            raise UserError(
                f"strategies: {name}: expected a function that is registered with @strategy, found "
                f"{type(plugin.value).__name__}"
            )
        STRATEGIES[name] = found._replace(sha256=plugin.sha256)
    return STRATEGIES[name]


def strategy(
    name: str,
    later: Callable[[int, int], int] | None = None,
    *,
    evaluations: EvaluationCount | None = None,
    parameters: type[EvolutionParams] = EvolutionParams,
    defaults: Mapping[str, Any] | None = None,
    carries: bool = False,
    several_costs: bool = False,
    label: str | None = None,
    colour: str | None = None,
) -> Callable[[Serve], Serve]:
    """Register a strategy under a name.

    later: the evaluations of each target after the first, from those of a full and of a warm search, where
    the first takes a full search; any other count is a function ``evaluations`` of the parameters and the
    number of targets. parameters: the hyper-parameters that it reads. defaults: values that they have where
    neither a sweep's mapping ``search`` nor its entry of ``strategies`` states any of these. carries: whether
    the population of a tighter target serves a looser one as it is, so that it has to meet its limits.
    several_costs: whether one search serves the targets of all costs of a sweep; other strategies search cost
    by cost. label, colour: how reports show it; by default its name and a colour that is still free. Raises
    ValueError: no count or two, or ``parameters`` changes a default that all strategies share."""
    if later is not None and evaluations is None:
        evaluations = _full_then(later)
    elif later is not None or evaluations is None:
        raise ValueError(
            f"{name}: expected one of later and evaluations, found {'both' if later else 'none'}"
        )
    for key, shared in EvolutionParams.model_fields.items():
        if (own := parameters.model_fields[key].default) != shared.default:
            raise ValueError(f"{name}: {key}: expected the shared default {shared.default}, found {own}")

    def register(function: Serve) -> Serve:
        own = dict(defaults or {})
        STRATEGIES[name] = Strategy(
            function, evaluations, parameters, own, carries=carries, several_costs=several_costs
        )
        strategy_styles.choose(name, label, colour)
        return function

    return register


def _full_then(later: Callable[[int, int], int]) -> EvaluationCount:
    """The evaluations where the first target takes a full search, and each further one ``later``."""

    def evaluations(params: EvolutionParams, k: int) -> int:
        full = params.population * (1 + params.generations)
        return full + (k - 1) * later(full, params.population * params.warm_generations)

    return evaluations


@strategy("independent", lambda full, warm: full)
def independent(searches: Searches) -> Iterator[Outcome]:
    """A full search for every target: the baseline of Once-for-All (Cai et al. 2020)."""
    for index in range(len(searches.targets)):
        yield searches.evolve(index, None, searches.params.generations, 0).outcome


@strategy("bottom_up", lambda full, warm: warm, carries=True)
def bottom_up(searches: Searches) -> Iterator[Outcome]:
    """A full search for the tightest target; the population carries over as it is to each looser one (arXiv
    2012.06748).
    """
    state = None
    for index in reversed(range(len(searches.targets))):
        generations = searches.params.generations if state is None else searches.params.warm_generations
        served = searches.evolve(index, state, generations, 0)
        state = served.state
        yield served.outcome


@strategy("top_down", lambda full, warm: 1 + warm)
def top_down(searches: Searches) -> Iterator[Outcome]:
    """A full search for the loosest target; each tighter one starts from the answer before, pruned (arXiv
    2012.06748).
    """
    yield from _downwards(searches, searches.params.warm_generations)


@strategy("prune", lambda full, warm: 1)
def prune_only(searches: Searches) -> Iterator[Outcome]:
    """As top_down, without the generations after pruning."""
    yield from _downwards(searches, 0)


@strategy("random", lambda full, warm: full)
def random(searches: Searches) -> Iterator[Outcome]:
    """Random search: for every target as many uniform feasible architectures as ``independent`` scores, and
    the best of them.
    """
    P = searches.sizes.population
    for index, limit in enumerate(searches.targets):
        problem = searches.problem.at(index)
        state = evolution.initial(problem, searches.sizes, limit, searches.draws, index)

        def step(
            problem: Problem,
            draws: rng.Draws,
            state: EvolutionState,
            number: int,
            index: int = index,
            limit: float = limit,
        ) -> EvolutionState:
            best, accuracy = evolution.random_draw(
                problem, P, limit, draws, index, number, state.best, state.best_accuracy
            )
            return state._replace(best=best, best_accuracy=accuracy)

        yield searches.run(index, state, searches.params.generations, P, step).outcome


# chosen beside top_down at the paper's lengths: "The default lengths" of docs/joint.md
@strategy(
    "joint",
    lambda full, warm: warm,
    parameters=JointParams,
    defaults={"generations": 20, "warm_generations": 4},
    several_costs=True,
)
def joint(searches: Searches) -> Iterator[Outcome]:
    """All targets at once: an archive for each, every child offered to all of them
    (:mod:`topdown_ray.algorithms.joint`).

    As many children as a search that warms up for each further target; each target draws its share of them.
    """
    params, K = searches.params.read_as(JointParams), len(searches.targets)
    generations = params.generations + (K - 1) * params.warm_generations
    costs, _ = searches.problem.constraints(searches.targets)
    gradient = searches.gradient_of(searches.predictor, *costs)
    problem = replace(searches.problem, accuracy=searches.predict)  # next to no child is drawn twice
    run = Joint(
        problem,
        params.sizes(),
        params.moves(),
        searches.targets,
        searches.draws,
        gradient,
        generations,
        searches.fronts,
    )
    curve = [run.best[1].clone()]  # a view would keep the whole archive
    end = JointEnd(run, params.patience, generations)
    if params.patience is not None:
        run.running = end.running
    for number in range(1, generations + 1):
        run.generation(number)
        curve.append(run.best[1].clone())
        if end.reached(number, curve[-2], curve[-1]):
            break
    genes, accuracy, scored, drawn_gradients, ended = end.answers()
    generations = len(curve) - 1
    best = torch.stack(curve)  # (generations + 1, S, K)
    spent = run.children_by(generations)  # (generations + 1, K)
    for front in searches.fronts:
        front.sift()
    taken = searches.lap()
    seconds = Seconds(taken.wall / K, taken.cpu / K)
    # where any search gained; first and last
    better = torch.ones(generations + 1, K, dtype=torch.bool, device=best.device)
    better[1:] = (best[1:] > best[:-1]).any(dim=1)
    better[-1] = True
    if ended is not None:
        better[ended] = True
    for k in range(K):
        points = better[:, k].nonzero().view(-1).tolist()
        trace = [(number, int(spent[number, k]), best[number, :, k]) for number in points]
        evaluations, unique, gradients = int(spent[-1, k]), scored[:, k], drawn_gradients[:, k]
        answer = (k, genes[:, k], accuracy[:, k], generations, evaluations, unique, seconds, trace, gradients)
        yield Outcome(*answer, ended=ended)


def _downwards(searches: Searches, warm_generations: int) -> Iterator[Outcome]:
    answer = None
    for index in range(len(searches.targets)):
        if answer is None:
            outcome = searches.evolve(index, None, searches.params.generations, 0).outcome
        else:
            outcome = searches.evolve(index, searches.pruned(index, answer), warm_generations, 1).outcome
        answer = outcome.genes
        yield outcome
