"""Define the strategies: the order in which a search serves its targets, and how it starts each one from the
one before.

A strategy receives the targets loosest first and yields one :class:`Outcome` for each target, in the order in
which it serves them. All S searches of a call advance in lock step and share nothing but the wall clock.
Register a new one with :func:`strategy`.

Commands need the names, hyper-parameters and costs of strategies long before anything is searched, for
example to print help or to report a mistake in a sweep file. Therefore this module imports torch only in
the functions that search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from topdown_ray import plugins, strategy_styles
from topdown_ray.algorithms.joint_parameters import JointParams
from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.errors import UserError, brief

if TYPE_CHECKING:
    from topdown_ray.algorithms.evolution import EvolutionState
    from topdown_ray.algorithms.problem import Problem
    from topdown_ray.algorithms.rng import Draws
    from topdown_ray.algorithms.searches import Outcome as Outcome
    from topdown_ray.algorithms.searches import Searches as Searches


def __getattr__(name: str) -> Any:
    """Import the classes that the module of a strategy may use when they are first used."""
    if name in ("Outcome", "Searches"):
        from topdown_ray.algorithms import searches

        return getattr(searches, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


Serve = Callable[["Searches"], Iterator["Outcome"]]
# predictor evaluations of one search over k targets, from the strategy's parameters and k
EvaluationCount = Callable[[Any, int], int]


class Strategy(NamedTuple):
    """A registered strategy, see :func:`strategy`."""

    serve: Serve
    evaluations: EvaluationCount
    parameters: type[EvolutionParams] = EvolutionParams
    defaults: Mapping[str, Any] = {}  # of hyper-parameters that differ from the defaults of all strategies
    sha256: str = ""  # of a plug-in, see :mod:`topdown_ray.plugins`
    carries: bool = False  # whether the population of a tighter target is used unchanged for a looser one
    several_costs: bool = False  # whether one search serves targets of several costs at once


STRATEGIES: dict[str, Strategy] = {}


def find_strategy(name: Any) -> Strategy:
    """Return the strategy that is registered under this name, or the plug-in of this name. Raises
    UserError.
    """
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
    """Register a generator function as a strategy.

    The function receives a `Searches` and yields one `Outcome` for each target, in the order in which it
    serves them. Give the number of its evaluations as either `later` or `evaluations`, because sweeps size
    their shards by it and `verify` checks it.

    Args:
        name: The name of the strategy in sweeps.
        later: A function that returns the evaluations of each target after the first, given those of a full
            and of a warm search. Use it if the first target takes a full search.
        evaluations: A function that returns the evaluations of a whole search, given its parameters and its
            number of targets.
        parameters: The model of the hyper-parameters that the strategy reads.
        defaults: Defaults of this strategy for hyper-parameters that all strategies share. They apply
            together, if neither `search` nor the entry of `strategies` states any of them.
        carries: Whether the population of a tighter target is used unchanged for a looser one, so that it has
            to meet the limits of that target, too.
        several_costs: Whether one search serves the targets of all costs of a sweep. Other strategies search
            one cost after another.
        label: The name in reports. The default is `name`.
        colour: The colour in reports, as `#rrggbb`. By default, a colour that is still free.

    Returns:
        A decorator that registers the function and returns it.

    Raises:
        ValueError: Not exactly one of `later` and `evaluations` is given, or `parameters` changes a default
            that all strategies share.
    """
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
    """Return the count of evaluations if the first target takes a full search, and each further one
    ``later``.
    """

    def evaluations(params: EvolutionParams, k: int) -> int:
        full = params.population * (1 + params.generations)
        return full + (k - 1) * later(full, params.population * params.warm_generations)

    return evaluations


@strategy("independent", lambda full, warm: full)
def independent(searches: Searches) -> Iterator[Outcome]:
    """Run a full search for every target: the baseline of Once-for-All (Cai et al. 2020)."""
    for index in range(len(searches.targets)):
        yield searches.evolve(index, None, searches.params.generations, 0).outcome


@strategy("bottom_up", lambda full, warm: warm, carries=True)
def bottom_up(searches: Searches) -> Iterator[Outcome]:
    """Search for the tightest target first, and carry the population over to each looser target (arXiv
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
    """Search for the loosest target first, and start each tighter target from the pruned answer of the one
    before (arXiv 2012.06748).
    """
    yield from _downwards(searches, searches.params.warm_generations)


@strategy("prune", lambda full, warm: 1)
def prune_only(searches: Searches) -> Iterator[Outcome]:
    """Do the same as ``top_down``, without the generations after pruning."""
    yield from _downwards(searches, 0)


@strategy("random", lambda full, warm: full)
def random(searches: Searches) -> Iterator[Outcome]:
    """Draw as many uniform feasible architectures for each target as ``independent`` draws children, and keep
    the best.
    """
    from topdown_ray.algorithms import evolution

    P = searches.sizes.population
    for index, limit in enumerate(searches.targets):
        problem = searches.problem.at(index)
        state = evolution.initial(problem, searches.sizes, limit, searches.draws, index)

        def step(
            problem: Problem,
            draws: Draws,
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


# the lengths were chosen by comparison with top_down: "The default lengths" in docs/results/joint.md
@strategy(
    "joint",
    lambda full, warm: warm,
    parameters=JointParams,
    defaults={"generations": 20, "warm_generations": 4},
    several_costs=True,
)
def joint(searches: Searches) -> Iterator[Outcome]:
    """Search for all targets at once: keep an archive for each target, and offer each child to all of them
    (:mod:`topdown_ray.algorithms.joint`).

    It draws as many children as a search that starts warm for each further target, and each target draws its
    share of them.
    """
    import torch

    from topdown_ray.algorithms.clock import Seconds
    from topdown_ray.algorithms.joint import Joint
    from topdown_ray.algorithms.patience import JointEnd
    from topdown_ray.algorithms.searches import Outcome

    params, K = searches.params.read_as(JointParams), len(searches.targets)
    generations = params.generations + (K - 1) * params.warm_generations
    costs, _ = searches.problem.constraints(searches.targets)
    gradient = searches.gradient_of(searches.predictor, *costs)
    problem = replace(searches.problem, accuracy=searches.predict)  # no cache: children hardly repeat
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
