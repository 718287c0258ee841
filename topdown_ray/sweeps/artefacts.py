"""Find the costs and predictors that a sweep names, and check them as far as that is possible without
torch."""

from __future__ import annotations

from topdown_ray.errors import UserError
from topdown_ray.spaces import predictor_names
from topdown_ray.spaces.cost import AnyCost, any_cost, at_least
from topdown_ray.spaces.limits import find_limits
from topdown_ray.spaces.registry import searched_space
from topdown_ray.sweeps.groups import Device
from topdown_ray.sweeps.spec import SweepSpec
from topdown_ray.sweeps.targets import repeated

Costs = dict[str, tuple[AnyCost, ...]]  # the costs of each space, one for each device


def find_costs(spec: SweepSpec) -> Costs:
    """Find all costs of a sweep, and check that an architecture can meet every target. Also looks for the
    predictors and the costs of limits, so that mistakes are reported before they, and torch, are loaded.
    Raises UserError.
    """
    found = {}
    for space in spec.spaces:
        genes_space = searched_space(space, spec.protocol)
        devices = spec.devices(space)
        costs = tuple(any_cost(device.cost, genes_space) for device in devices)
        _check_distinct(space, devices, costs)
        if not predictor_names.is_plugin(spec.predictor[space]):
            predictor_names.find_file(spec.predictor[space], genes_space)
        find_limits(spec.limit_names(space), genes_space)
        for device, cost in zip(devices, costs, strict=True):
            _check_targets(space, device, cost)
        found[space] = costs
    return found


def _check_distinct(space: str, devices: tuple[Device, ...], costs: tuple[AnyCost, ...]) -> None:
    """Raise UserError if two costs of a space are the same."""
    for field in ("name", "sha256"):
        values = [getattr(cost, field) for cost in costs]
        if len(set(values)) != len(values):
            same = [
                device.cost
                for device, value in zip(devices, values, strict=True)
                if value == repeated(values)
            ]
            what = "the same name" if field == "name" else "the same table"
            raise UserError(f"cost: {space}: expected distinct costs, found {' and '.join(same)} with {what}")


def _check_targets(space: str, device: Device, cost: AnyCost) -> None:
    """Raise UserError for a target below the cheapest architecture."""
    lowest, _ = cost.cheapest()
    for target in (target for targets in device.sets for target in targets):
        if target < lowest:
            raise UserError(
                f"targets: {space}: expected at least {at_least(lowest, cost.unit)}, the cost of the "
                f"cheapest architecture under {cost.name}, found {target:g}"
            )
