"""Read the targets of a specification as a user writes them, and their limits on other costs.

A target set is a list of numbers, or a range ``{from, to, step}``. A target with limits of its own is a
mapping of costs, ``{note10: 30, params: 6.0}``, which includes the sweep's cost. ``limits`` apply to all
targets. If a sweep has several costs, ``targets`` is a mapping with the target sets of each. The functions
here return the normal form: sets with the loosest target first, and the limits of each target."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from topdown_ray.errors import brief

Targets = tuple[float, ...]
#: Of each target of a set, its limits by the names of their costs.
SetLimits = tuple[dict[str, float], ...]

RANGE = ("from", "to", "step")
MAX_TARGETS = 1000  # of a range


def repeated(values: Sequence[Any]) -> Any:
    """Return the first value that occurs more than once."""
    counts = Counter(values)
    return next(value for value in values if counts[value] > 1)


def is_range(value: Any) -> bool:
    """Return whether this is meant as a range."""
    return isinstance(value, Mapping) and bool(set(value) & set(RANGE))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_target(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1e15


def read_each(
    values: Any, costs: Sequence[str], limits: Any, space: str
) -> tuple[dict[str, tuple[Targets, ...]], dict[str, tuple[SetLimits, ...]]]:
    """Do as :func:`read` does, for each of several costs. The sets at one index belong together."""
    if not isinstance(values, Mapping) or set(values) != set(costs):
        found = ", ".join(map(str, values)) if isinstance(values, Mapping) else brief(values)
        raise ValueError(
            f"targets: {space}: expected a mapping with the targets of each of {', '.join(costs)}, found "
            f"{found or 'nothing'}"
        )
    normal = isinstance(limits, Mapping) and all(isinstance(limits.get(cost), list | tuple) for cost in costs)
    found_for = {
        cost: read(values[cost], cost, limits[cost] if normal else limits, space, f"targets.{cost}")
        for cost in costs
    }
    numbers = [len(sets) for sets, _ in found_for.values()]
    if len(set(numbers)) > 1:
        raise ValueError(
            f"targets: {space}: expected the same number of target sets for each of {', '.join(costs)}, "
            f"found {', '.join(map(str, numbers))}"
        )
    return (
        {cost: sets for cost, (sets, _) in found_for.items()},
        {cost: own for cost, (_, own) in found_for.items()},
    )


def read(
    values: Any, cost: str, limits: Any, space: str, field: str = "targets"
) -> tuple[tuple[Targets, ...], tuple[SetLimits, ...]]:
    """Return the target sets of a space and the limits of each target.

    Args:
        values: One target set or a list of them, as the user writes them.
        cost: The cost that the targets limit.
        limits: The limits of all targets, or the normal form.
        space: The space, for messages.
        field: The name of the field, for messages.

    Raises:
        ValueError: A value is wrong; the message is one line that names the field.
    """
    sets = _sets(values, field)
    alone = sets == [values]  # one set, which is not written as a list of sets
    normal = isinstance(limits, list | tuple)
    shared = {} if normal or limits is None else _limits(limits, "limits", cost)
    names = [field] if alone else [f"{field}[{i}]" for i in range(len(sets))]
    found = [_set(value, name, cost, shared) for name, value in zip(names, sets, strict=True)]
    targets, own = tuple(part[0] for part in found), tuple(part[1] for part in found)
    if len(set(targets)) != len(targets):
        raise ValueError(f"{field}: expected distinct target sets, found {brief(sets)}")
    if not normal:
        return targets, own
    sizes = [len(part) if isinstance(part, list | tuple) else 0 for part in limits]
    if sizes != [len(part) for part in targets]:
        raise ValueError(
            f"limits: expected a mapping for each target of {space}, found {brief(list(limits))}"
        )
    return targets, tuple(tuple(_limits(one, "limits", cost) for one in part) for part in limits)


def _sets(value: Any, field: str) -> list[Any]:
    """Return the target sets of a space as a list. One set, a flat list or a range, becomes a list of one."""
    if is_range(value) or (
        isinstance(value, list | tuple)
        and value
        and all(_is_number(one) or (isinstance(one, Mapping) and not is_range(one)) for one in value)
    ):
        return [value]
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(
            f"{field}: expected a list of numbers, a range {{from, to, step}}, or a list of these, found "
            f"{brief(value)}"
        )
    return list(value)


def _range(values: Mapping[Any, Any], where: str) -> list[float]:
    """Return the targets of a range, including its ends."""
    if set(values) != set(RANGE) or not all(map(_is_target, values.values())):
        raise ValueError(
            f"{where}: expected {{from, to, step}}, positive numbers, found {brief(dict(values))}"
        )
    low, high = sorted((float(values["from"]), float(values["to"])))
    n = math.floor((high - low) / values["step"] + 1e-9) + 1
    if n > MAX_TARGETS:
        raise ValueError(f"{where}: expected at most {MAX_TARGETS} targets, found {n}")
    return [round(low + i * values["step"], 9) for i in range(n)]


def _set(values: Any, where: str, cost: str, shared: Mapping[str, float]) -> tuple[Targets, SetLimits]:
    """Return a target set, loosest first, and the limits of each of its targets."""
    if is_range(values):
        values = _range(values, where)
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{where}: expected a non-empty list of positive numbers, found {brief(values)}")
    found: dict[float, dict[str, float]] = {}
    for i, value in enumerate(values):
        target, own = _target(value, f"{where}[{i}]", cost) if isinstance(value, Mapping) else (value, {})
        if not _is_target(target):
            raise ValueError(f"{where}: expected positive numbers, found {brief(value)}")
        if float(target) in found:
            raise ValueError(f"{where}: expected distinct targets, found {brief(target)} more than once")
        found[float(target)] = {**shared, **own}
    ordered = sorted(found, reverse=True)
    return tuple(ordered), tuple(dict(sorted(found[target].items())) for target in ordered)


def _target(value: Mapping[Any, Any], where: str, cost: str) -> tuple[Any, dict[str, float]]:
    """Return the target and the limits of a target that has limits of its own."""
    if cost not in value:
        found = ", ".join(map(str, value)) or "nothing"
        raise ValueError(f"{where}: expected the sweep's cost {cost} among the keys, found {found}")
    others = {key: most for key, most in value.items() if key != cost}
    return value[cost], _limits(others, where, cost)


def _limits(value: Any, where: str, cost: str) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ValueError(  # noqa: TRY004 - pydantic collects these
            f"{where}: expected a mapping of costs to numbers, found {brief(value)}"
        )
    for name, most in value.items():
        if name == cost:
            raise ValueError(f"{where}: expected costs besides {cost}, which the targets limit, found {cost}")
        if not isinstance(name, str) or not _is_target(most):
            raise ValueError(f"{where}.{name}: expected a positive number, found {brief(most)}")
    return {name: float(most) for name, most in sorted(value.items())}


def check_carried(strategy: str, targets: Targets, limits: Sequence[Sequence[tuple[str, float]]]) -> None:
    """Raise ValueError if a looser target has a tighter limit than the target before it, because the strategy
    carries the population of that target over.
    """
    for k, (looser, tighter) in enumerate(itertools.pairwise(map(dict, limits))):
        for name, most in looser.items():
            if tighter.get(name, math.inf) > most:
                raise ValueError(
                    f"strategies: {strategy}: expected limits that do not tighten from one target to the "
                    f"next looser one, found {name} <= {most:g} at {targets[k]:g} and "
                    f"{f'{tighter[name]:g}' if name in tighter else 'none'} at {targets[k + 1]:g}"
                )
