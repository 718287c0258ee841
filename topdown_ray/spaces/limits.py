"""Apply further limits to a target, such as at most 6 x 1e6 parameters, and prove that they can be met.

The smallest cost under limits is a multiple-choice knapsack problem over the costs' terms, which HiGHS solves
through ``scipy.optimize.milp``. Its dual bound proves that no architecture costs less. Its solution is an
architecture, whose costs are then computed exactly. The proof covers only costs that are sums over terms;
limits on other costs are only tried on random architectures."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from topdown_ray.errors import UserError
from topdown_ray.spaces.cost import AnyCost, CostModel, any_cost, at_least, with_unit
from topdown_ray.spaces.space import Genes, Space
from topdown_ray.spaces.terms import Array, FlatSum

if TYPE_CHECKING:
    import torch

_TRIED = 4096  # random architectures, if a limit is on a cost that is not a sum over terms
_SECONDS = 60.0  # time limit of a proof
_TOLERANCE = 1e-6  # relative tolerance of the solver


@dataclass(frozen=True, eq=False)
class LimitedCost:
    """A cost that is infinite for architectures that break one of the limits.

    Calling it: genes int8 (N, G) -> cost float64 (N,) in the unit of ``main``."""

    main: AnyCost
    limits: tuple[tuple[AnyCost, float], ...]

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Return costs: genes int8 (N, G) -> float64 (N,)."""
        return self.main(genes).masked_fill_(self.meets(genes).logical_not_(), np.inf)

    def meets(self, genes: torch.Tensor) -> torch.Tensor:
        """Return which architectures meet the limits: genes int8 (N, G) -> bool (N,)."""
        import torch

        good = torch.ones(len(genes), dtype=torch.bool, device=genes.device)
        for cost, most in self.limits:
            good &= cost(genes) <= most
        return good

    @functools.cached_property
    def flat(self) -> FlatSum | None:
        """Return the same for compiled code, or None if one of the costs is not a sum over terms."""
        sums = [(self.main, np.inf), *self.limits]
        known = [(cost.terms, cost.tick, most) for cost, most in sums if isinstance(cost, CostModel)]
        return FlatSum.of(known) if len(known) == len(sums) else None


class Lowest(NamedTuple):
    """The smallest cost of architectures that meet some limits."""

    bound: float  # no architecture costs less
    cost: float  # the cost of ``genes``; infinite if no architecture was found
    genes: Genes | None  # (G,)
    exact: bool  # no architecture costs less than ``genes``, or none meets the limits


def lowest_under(cost: AnyCost, limits: Sequence[tuple[AnyCost, float]], space: Space) -> Lowest:
    """Return the smallest cost under limits, with a proof for the costs that are sums over terms."""
    sums = [(other, most) for other, most in limits if isinstance(other, CostModel)]
    if not isinstance(cost, CostModel):
        return _tried(LimitedCost(cost, tuple(limits)), space, 0.0)
    bound, genes = _solved(cost, sums)
    if bound == np.inf:
        return Lowest(bound, np.inf, None, True)
    if genes is not None:
        import torch

        found = torch.from_numpy(genes)[None]
        value = float(LimitedCost(cost, tuple(limits))(found)[0])
        if value < np.inf:
            return Lowest(min(bound, value), value, genes, value <= bound * (1 + 2 * _TOLERANCE))
    return _tried(LimitedCost(cost, tuple(limits)), space, bound)


def _tried(cost: LimitedCost, space: Space, bound: float) -> Lowest:
    """The best of the smallest architecture and random ones, which is no proof."""
    import torch

    rows = torch.cat([torch.zeros(1, space.G, dtype=torch.int8), space.random(_TRIED, 0)])
    values = cost(rows)
    best = int(values.argmin())
    value = float(values[best])
    return Lowest(bound, value, rows[best].numpy() if value < np.inf else None, False)


def _solved(cost: CostModel, limits: Sequence[tuple[CostModel, float]]) -> tuple[float, Genes | None]:
    """A lower bound of the smallest cost under limits, and an architecture that reaches it up to the solver's
    tolerance; infinity and None if the solver proves that there is none.

    The problem has a variable for each choice of each gene and for each entry of each term. The entries of a
    term that contain a choice add up to the variable of that choice."""
    import scipy.sparse
    from scipy.optimize import Bounds, LinearConstraint, milp

    sizes, begins = cost.sizes, np.concatenate([[0], np.cumsum(cost.sizes)])
    scopes = list(
        dict.fromkeys(term.genes for model in (cost, *(m for m, _ in limits)) for term in model.terms)
    )
    entries: dict[tuple[int, ...], int] = {}
    n = int(begins[-1])
    for scope in scopes:
        entries[scope] = n
        n += int(np.prod([sizes[g] for g in scope]))
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    right: list[float] = []
    n_rows = 0

    def equation(places: Sequence[int], factors: Sequence[float], value: float) -> None:
        nonlocal n_rows
        rows.extend([n_rows] * len(places))
        columns.extend(places)
        values.extend(factors)
        right.append(value)
        n_rows += 1

    for g, size in enumerate(sizes):
        equation(range(begins[g], begins[g] + size), [1.0] * size, 1.0)
    for scope, begin in entries.items():
        places = np.arange(begin, begin + np.prod([sizes[g] for g in scope])).reshape(
            [sizes[g] for g in scope]
        )
        for axis, g in enumerate(scope):
            for choice in range(sizes[g]):
                own = places.take(choice, axis=axis).reshape(-1).tolist()
                equation([*own, int(begins[g]) + choice], [1.0] * len(own) + [-1.0], 0.0)
    equations = scipy.sparse.csr_array((values, (rows, columns)), shape=(n_rows, n))

    def weights(model: CostModel) -> Array:
        of_entries = np.zeros(n)
        for term in model.terms:
            begin = entries[term.genes]
            of_entries[begin : begin + term.values.size] += term.values.reshape(-1) * model.tick
        return of_entries

    constraints = [LinearConstraint(equations, right, right)]
    constraints += [LinearConstraint(weights(model)[None], -np.inf, most) for model, most in limits]
    whole = np.zeros(n)
    whole[: begins[-1]] = 1  # the entries follow from the choices
    found = milp(
        weights(cost),
        integrality=whole,
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"time_limit": _SECONDS, "mip_rel_gap": 0.0},
    )
    if found.status == 2:
        return np.inf, None
    bound = max(float(found.mip_dual_bound or 0.0), 0.0) * (1 - _TOLERANCE)
    if found.x is None:
        return bound, None
    chosen = [int(np.argmax(found.x[begins[g] : begins[g + 1]])) for g in range(len(sizes))]
    return bound, np.array(chosen, dtype=np.int8)


def find_limits(names: Sequence[str], space: Space) -> dict[str, AnyCost]:
    """Return the costs of limits by name. Raises UserError that names the field."""
    found = {}
    for name in names:
        try:
            found[name] = any_cost(name, space)
        except UserError as error:
            raise UserError(f"limits: {str(error).removeprefix('cost: ')}") from error
    return found


def witness(cost: AnyCost, target: float, limits: Mapping[str, tuple[AnyCost, float]], space: Space) -> Genes:
    """Return an architecture that meets a target and its limits, given by the names of their costs. Raises
    UserError if there is none, or if none was found.
    """
    lowest = lowest_under(cost, list(limits.values()), space)
    if lowest.genes is not None and lowest.cost <= target:
        return lowest.genes
    under = " and ".join(f"{name} <= {most:g}" for name, (_, most) in limits.items())
    if lowest.bound == np.inf:
        lowest_of_each = " and ".join(
            f"{name} >= {at_least(model.cheapest()[0], model.unit)}" for name, (model, _) in limits.items()
        )
        raise UserError(
            f"limits: {space.name}: expected limits that an architecture can meet (each alone: "
            f"{lowest_of_each}), found {under}"
        )
    if lowest.bound > target or lowest.exact:
        least = lowest.cost if lowest.exact else lowest.bound
        raise UserError(
            f"targets: {space.name}: expected at least {at_least(least, cost.unit)}, the lowest "
            f"cost under {under}, found {target:g}"
        )
    most = with_unit(f"{target:g}", cost.unit)
    raise UserError(
        f"targets: {space.name}: expected an architecture of at most {most} under {under}, found none among "
        f"{_TRIED:,} random ones; this is no proof, because some of these costs are not sums over terms"
    )
