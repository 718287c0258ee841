"""Run a batch of searches in this process, without Ray, and turn its answers into rows.

A :class:`Setup` is everything that the searches of one space share. A :class:`Worker` has the setups and the
device, and runs shards. Actors and ``--address none`` use the same worker.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from topdown_ray.algorithms.front import Front
from topdown_ray.algorithms.gradients import gradient_of, rows_a_gradient
from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.rng import Draws
from topdown_ray.algorithms.strategies import Outcome, Searches, find_strategy
from topdown_ray.errors import UserError, brief
from topdown_ray.spaces.cost import AnyCost, SubnetCounts, any_cost
from topdown_ray.spaces.limits import LimitedCost, find_limits, witness
from topdown_ray.spaces.plugged_in import PluginCost, PluginPredictor
from topdown_ray.spaces.predictor_files import AnyPredictor, any_predictor
from topdown_ray.spaces.registry import plugin_hash, searched_space
from topdown_ray.spaces.space import Genes, Space
from topdown_ray.spaces.tiles import one_thread
from topdown_ray.sweeps.groups import COST, LIMIT, Group, Shard, TargetLimits
from topdown_ray.sweeps.sizing import LARGEST_ROWS
from topdown_ray.sweeps.spec import Protocol, SweepSpec

SearchRow = dict[str, Any]
FrontColumns = dict[str, Any]  # sequences of one length

WARM_GENERATIONS = 3  # length of the searches that warm a worker up
WARM_BATCH = 8  # searches in lock step in the larger of them


class ShardRows(NamedTuple):
    """The rows of a shard."""

    searches: list[SearchRow]
    trace: list[SearchRow]
    front: list[FrontColumns]  # for each search that kept one


@dataclass(frozen=True)
class Setup:
    """Everything that the searches of one space share. ``genes_space`` is the space that is searched, which
    with ``protocol: notebook`` is MobileNetV3.
    """

    genes_space: Space
    protocol: Protocol
    costs: tuple[AnyCost, ...]  # of each device
    predictor: AnyPredictor
    limits: Mapping[str, AnyCost] = field(default_factory=dict)  # the costs of further limits, by name
    #: For each device and target with further limits, an architecture that meets them: genes (G,).
    witnesses: Mapping[tuple[int, float, TargetLimits], Genes] = field(default_factory=dict)

    @property
    def cost(self) -> AnyCost:
        """The cost of the first device."""
        return self.costs[0]

    @property
    def named_costs(self) -> dict[str, AnyCost]:
        """All costs by their names among the artefacts. The names of limits begin with ``LIMIT``."""
        several = len(self.costs) > 1
        own = {f"{COST}{i}" if several else "cost": cost for i, cost in enumerate(self.costs)}
        return own | {f"{LIMIT}{name}": cost for name, cost in self.limits.items()}

    @property
    def artefacts(self) -> dict[str, str]:
        """The hashes that are part of every search's identity."""
        own = plugin_hash(self.genes_space.name)
        hashes = {"predictor": self.predictor.sha256}
        hashes |= {name: cost.sha256 for name, cost in self.named_costs.items()}
        return {**hashes, "space": own} if own else hashes

    def problem(self, group: Group, device: str) -> Problem:
        """Return the problem that the searches of a group solve."""
        targets = [problem for part in group.each for problem in self._of_targets(part, device)]
        plain = self._plain(group.each[0], device)
        return dataclasses.replace(plain, by_target=tuple(targets) if group.limits or group.parts else ())

    def _of_targets(self, group: Group, device: str) -> Iterator[Problem]:
        """Return the problem of each target of a group on one device."""
        plain = self._plain(group, device)
        for target, limits in zip(group.targets, group.limits or ((),) * len(group.targets), strict=True):
            if not limits:
                yield plain
                continue
            others = tuple((self.limits[name], most) for name, most in limits)
            cheapest = torch.from_numpy(self.witnesses[group.device, target, limits]).to(device)
            limited = LimitedCost(self.costs[group.device], others)
            yield dataclasses.replace(plain, cost=limited, cheapest=cheapest)

    def front_costs(self, group: Group) -> list[AnyCost]:
        """Return the costs that the front of a group's searches distinguishes: the cost of its device, those
        of its limits, and the parameters if the space has an OFA network.
        """
        named = {name for one in group.limits for name, _ in one}
        costs = [self.costs[group.device], *(self.limits[name] for name in sorted(named))]
        known = self.params is None or "params" in {*named, costs[0].name}
        return costs if self.params is None or known else [*costs, self.params]

    @functools.cached_property
    def params(self) -> AnyCost | None:
        """The parameters as a cost on the device of the setup, or None for a space without an OFA network."""
        if self.genes_space.provides is None:
            return None
        return dataclasses.replace(any_cost("params", self.genes_space), device=self.cost.device)

    def _plain(self, group: Group, device: str) -> Problem:
        cost = self.costs[group.device]
        cheapest = torch.from_numpy(cost.cheapest()[1]).to(device)
        return Problem(self.genes_space, self.predictor, cost, cheapest)

    def on(self, device: str) -> Setup:
        """This setup with its tensors on a device."""
        costs = tuple(dataclasses.replace(cost, device=device) for cost in self.costs)
        predictor = dataclasses.replace(self.predictor, device=device)
        limits = {name: dataclasses.replace(other, device=device) for name, other in self.limits.items()}
        return dataclasses.replace(self, costs=costs, predictor=predictor, limits=limits)


def resolve(spec: SweepSpec, space: str, costs: tuple[AnyCost, ...]) -> Setup:
    """Find and check what else the searches of a space need. costs: see
    :func:`topdown_ray.sweeps.artefacts.find_costs`. Raises UserError if something is not available or wrong,
    or if no architecture meets the limits.
    """
    genes_space = searched_space(space, spec.protocol)
    predictor = any_predictor(spec.predictor[space], genes_space)
    limits = find_limits(spec.limit_names(space), genes_space)
    witnesses: dict[tuple[int, float, TargetLimits], Genes] = {}
    for number, (device, cost) in enumerate(zip(spec.devices(space), costs, strict=True)):
        for i, targets in enumerate(device.sets):
            for target, own in zip(targets, device.limits_of(i), strict=False):
                if own and (number, target, own) not in witnesses:
                    others = {name: (limits[name], most) for name, most in own}
                    witnesses[number, target, own] = witness(cost, target, others, genes_space)
    return Setup(genes_space, spec.protocol, costs, predictor, limits, witnesses)


class Worker:
    """Runs shards. It holds the predictor, the cost table and the counts of every space of a sweep."""

    def __init__(
        self,
        setups: Mapping[str, Setup],
        groups: Iterable[Group] = (),
        device: str = "cpu",
    ):
        """groups: what the worker will run. It is warmed up for them, so that its first search takes no
        longer than the others.
        """
        self.device = device
        self.setups = {space: setup.on(device) for space, setup in setups.items()}
        for setup in self.setups.values():
            costs = [("costs", cost) for cost in setup.named_costs.values()]
            for kind, model in [*costs, ("predictors", setup.predictor)]:
                if isinstance(model, PluginCost | PluginPredictor):
                    model.check_here(kind)
        self.counts = {
            space: None if setup.genes_space.provides is None else SubnetCounts(setup.genes_space)
            for space, setup in self.setups.items()
        }
        self.host = socket.gethostname()
        self.gradient_rows: dict[str, float] = {}
        self._warm(groups)

    def _warm(self, groups: Iterable[Group]) -> None:
        """Run a few generations of every strategy, space and number of targets among these groups, and time
        gradients.

        The first call of compiled code compiles it or reads it from Numba's cache, and tables are built when
        they are first used.
        """
        firsts = {(group.space, group.strategy, len(group.targets)): group for group in groups}
        # once for each space and strategy, because an actor has to start in bounded time
        batched: set[tuple[str, str]] = set()
        with one_thread(), torch.inference_mode():
            for group in firsts.values():
                short = dataclasses.replace(group, params=_short(group.params))
                batch = max(1, min(WARM_BATCH, LARGEST_ROWS // group.params.population))
                try:
                    outcomes, _ = self._serve(short, (0,))
                    if (group.space, group.strategy) not in batched:
                        outcomes, _ = self._serve(short, range(batch))
                        batched.add((group.space, group.strategy))
                except Exception:
                    # the shard that raises the same error reports it, and the other groups still run
                    continue
                setup = self.setups[group.space]
                gradient = gradient_of(setup.predictor, setup.cost)
                if gradient is not None and any(outcome.gradients is not None for outcome in outcomes):
                    self.gradient_rows[group.space] = rows_a_gradient(gradient, setup.predictor)

    def _serve(self, group: Group, seeds: Sequence[int]) -> tuple[list[Outcome], list[Front]]:
        """Return the outcomes of a group's searches with these seeds, loosest target of each device first,
        and the front of each device.
        """
        setup = self.setups[group.space]
        fronts = [Front(setup.front_costs(part), len(seeds)) for part in group.each]
        searches = Searches(
            problem=setup.problem(group, self.device),
            params=group.params,
            targets=group.targets,
            draws=Draws(seeds, group.space, self.device),
            fronts=fronts,
        )
        strategy = find_strategy(group.strategy)
        if strategy.sha256 != group.sha256:
            raise UserError(
                f"strategies: {group.strategy}: expected the plug-in of the driver, SHA-256 {group.sha256}, "
                f"found {strategy.sha256} on {self.host}"
            )
        outcomes = sorted(strategy.serve(searches), key=lambda outcome: outcome.target_index)
        found = [outcome.target_index for outcome in outcomes]
        if found != list(range(len(group.targets))):
            raise UserError(
                f"strategies: {group.strategy}: expected one outcome for each of {len(group.targets)} "
                f"targets, found outcomes for the targets {brief(found)}"
            )
        return outcomes, fronts

    def run(self, shard: Shard) -> ShardRows:
        """Run a shard, and return its rows by part, seed and target."""
        setup, group = self.setups[shard.group.space], shard.group
        started_at = datetime.datetime.now(datetime.UTC)
        with one_thread(), torch.inference_mode():
            served, fronts = self._serve(group, shard.seeds)
            outcomes = iter(served)
            common = {
                "shard_id": shard.shard_id,
                "space": group.space,
                "strategy": group.strategy,
                "label": group.label or group.strategy,
                "protocol": setup.protocol,
                "predictor_name": setup.predictor.name,
                "predictor_space": setup.predictor.predictor_space,
                "predictor_sha256": setup.predictor.sha256,
                "batch_size": len(shard.seeds),
                "device": self.device,
                "threads": 1,
                "host": self.host,
                "started_at": started_at,
            }
            rows: list[SearchRow] = []
            trace: list[SearchRow] = []
            front: list[FrontColumns] = []
            for number, part in enumerate(group.each):
                own = [
                    dataclasses.replace(outcome, target_index=index)
                    for index, outcome in zip(range(len(part.targets)), outcomes, strict=False)
                ]
                identities = shard.search_ids[number :: len(group.each)]
                searches = list(zip(shard.seeds, identities, strict=True))
                of_part = self._rows(part, searches, own)
                points = self._front(part, identities, fronts[number]) if fronts[number].searched else []
                front += [{"shard_id": [shard.shard_id] * len(one["arch"]), **one} for one in points]
                held = dict(zip(identities, (len(one["arch"]) for one in points), strict=False))
                rows += [{**common, "front_rows": held.get(row["search_id"], 0), **row} for row in of_part[0]]
                trace += [{"shard_id": shard.shard_id, **point} for point in of_part[1]]
        return ShardRows(rows, trace, front)

    def _rows(
        self, group: Group, searches: Sequence[tuple[int, str]], outcomes: Sequence[Outcome]
    ) -> tuple[list[SearchRow], list[SearchRow]]:
        """Return the rows of a group on one device. searches: their seeds and identities."""
        setup, cost_model, S = self.setups[group.space], self._cost_of(group), len(searches)
        costs = [cost_model(outcome.genes).tolist() for outcome in outcomes]
        others = [_other_costs(setup, group, outcome) for outcome in outcomes]
        # (S, points) of each outcome
        curves = [torch.stack([best for *_, best in outcome.trace], 1).tolist() for outcome in outcomes]
        common = {
            "cost_name": cost_model.name,
            "cost_unit": cost_model.unit,
            "cost_sha256": cost_model.sha256,
            "k": len(group.targets),
            "targets": list(group.targets),
            "search_wall_s": sum(outcome.seconds.wall for outcome in outcomes) / S,
            "search_cpu_s": sum(outcome.seconds.cpu for outcome in outcomes) / S,
        }
        counts = self.counts[group.space]
        rows, trace = [], []
        for s, (seed, identity) in enumerate(searches):
            for outcome, cost, spent, curve in zip(outcomes, costs, others, curves, strict=True):
                target = group.targets[outcome.target_index]
                limits = dict(group.limits[outcome.target_index]) if group.limits else {}
                also = {name: values[s] for name, values in spent.items()}
                rows.append(
                    {
                        **common,
                        "search_id": identity,
                        "seed": seed,
                        **_answer(setup, counts, outcome, s),
                        "target": target,
                        "limits": json.dumps(limits) if limits else None,
                        "feasible": cost[s] <= target and all(also[name] <= limits[name] for name in limits),
                        "cost": cost[s],
                        "costs": json.dumps(also) if also else None,
                        "wall_s": outcome.seconds.wall / S,
                        "cpu_s": outcome.seconds.cpu / S,
                        "gradient_rows": None
                        if outcome.gradients is None
                        else self.gradient_rows.get(group.space),
                    }
                )
                points = _anytime(outcome, s, curve[s])
                trace += [{"search_id": identity, "seed": seed, **point} for point in points]
        return rows, trace

    def _cost_of(self, group: Group) -> AnyCost:
        return self.setups[group.space].costs[group.device]

    def _front(self, group: Group, identities: Sequence[str], front: Front) -> list[FrontColumns]:
        """Return the columns of each search's front on one device."""
        setup, counts, found = self.setups[group.space], self.counts[group.space], []
        others = _others(setup, group, {name for one in group.limits for name, _ in one})
        for s, identity in enumerate(identities):
            points = front.points(s)
            n = len(points.accuracy)
            none: list[Any] = [None] * n
            macs, parameters = (none, none) if counts is None else (x.numpy() for x in counts(points.genes))
            genes = points.genes.to(self.device)
            also = {name: cost(genes).tolist() for name, cost in others.items()}
            costs = [
                json.dumps(dict(zip(also, values, strict=True)))
                for values in zip(*also.values(), strict=True)
            ]
            found.append(
                {
                    "search_id": [identity] * n,
                    "place": range(n),
                    "cost": points.costs[:, 0],
                    "costs": costs or none,
                    "accuracy": points.accuracy,
                    "epsilon": [points.epsilon] * n,
                    "arch": setup.genes_space.texts(points.genes.numpy()),
                    "macs_m": macs,
                    "params_m": parameters,
                }
            )
        return found


def _others(setup: Setup, group: Group, limits: Iterable[str]) -> dict[str, AnyCost]:
    """Return the costs of the sweep's other devices, and those of these limits."""
    others = {cost.name: cost for i, cost in enumerate(setup.costs) if i != group.device}
    return others | {name: setup.limits[name] for name in sorted(limits)}


def _other_costs(setup: Setup, group: Group, outcome: Outcome) -> dict[str, list[float]]:
    """Return the costs of the answers of S searches on the sweep's other devices and under the limits of
    their target: S values for each cost.
    """
    limits = group.limits[outcome.target_index] if group.limits else ()
    others = _others(setup, group, (name for name, _ in limits))
    return {name: cost(outcome.genes).tolist() for name, cost in others.items()}


def _short(params: EvolutionParams) -> EvolutionParams:
    """Return the parameters of a search of a few generations."""
    lengths = {"generations": params.generations, "warm_generations": params.warm_generations}
    return params.model_copy(update={name: min(n, WARM_GENERATIONS) for name, n in lengths.items()})


def _answer(setup: Setup, counts: SubnetCounts | None, outcome: Outcome, s: int) -> SearchRow:
    genes = setup.genes_space.canonical(outcome.genes[s : s + 1].cpu())
    macs, parameters = (None, None) if counts is None else map(float, counts(genes))
    generations, evaluations = outcome.length(s)
    return {
        "target_index": outcome.target_index,
        "accuracy": float(outcome.accuracy[s]),
        "arch": json.dumps(setup.genes_space.to_config(genes[0])),
        "genes": genes[0].tolist(),
        "macs_m": macs,
        "params_m": parameters,
        "generations": generations,
        "evaluations": evaluations,
        "unique_evaluations": int(outcome.unique_evaluations[s]),
        "gradients": 0 if outcome.gradients is None else int(outcome.gradients[s]),
    }


def _anytime(outcome: Outcome, s: int, accuracies: Sequence[float]) -> Sequence[SearchRow]:
    """Return the anytime curve of one search: a point at every improvement and one at the end.

    accuracies: its best ones at the points of the trace.
    """
    points: list[SearchRow] = []
    last, _ = outcome.length(s)
    for (number, evaluations, _), accuracy in zip(outcome.trace, accuracies, strict=True):
        if number > last:
            break
        if not points or accuracy > points[-1]["best_accuracy"] or number == last:
            points.append(
                {
                    "target_index": outcome.target_index,
                    "generation": number,
                    "evaluations": evaluations,
                    "best_accuracy": accuracy,
                }
            )
    return points
