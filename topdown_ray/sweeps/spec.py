"""Validate and freeze the specification of a sweep.

A sweep file is YAML, and unknown keys are errors. Each mistake is reported in one line that names the field,
what was expected and what was found, without importing torch or pandas. The text below each field is its
entry in ``docs/reference/sweep-file.md``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import pydantic
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from topdown_ray.addresses import check_local, is_uri
from topdown_ray.algorithms.strategies import find_strategy
from topdown_ray.errors import UserError, brief
from topdown_ray.files import first_mistake, read_yaml, validated
from topdown_ray.spaces.registry import SPACES
from topdown_ray.sweeps import targets
from topdown_ray.sweeps.groups import Device, Group, calibration_key, joined
from topdown_ray.sweeps.hyperparameters import (
    Budget,
    SearchParams,
    StrategyEntry,
    check_entries,
    entries_of,
    within,
)
from topdown_ray.sweeps.targets import SetLimits, Targets, repeated

MAX_SEEDS = 10_000_000

Protocol = Literal["default", "notebook"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_Metaclass: Any = type(BaseModel)


class _OneLine(_Metaclass):  # type: ignore[misc]
    """Makes models whose construction raises UserError with one line that names the field."""

    def __call__(cls: type[BaseModel], **fields: Any) -> Any:  # noqa: N805
        try:
            return type(BaseModel).__call__(cls, **fields)
        except pydantic.ValidationError as error:
            raise UserError(f"sweep: {first_mistake(error, cls)}") from None


class SweepSpec(_Frozen, metaclass=_OneLine):
    """The specification of a sweep: every combination of space, strategy, target set and seed is one search.

    The fields are the keys of a sweep file, in normal form: ``cost``, ``predictor`` and ``targets`` have an
    entry for each space, target sets are sorted loosest first, and ``seeds`` lists all seeds. The reference
    of the sweep file describes the shorter forms that you can write.

    Raises:
        UserError: A field is unknown or has a wrong value.
    """

    name: Annotated[str, Field(min_length=1)]
    """Name of the sweep. It appears in reports, and `topdown_ray.sweep` writes to `results/NAME` by
    default.
    """
    spaces: tuple[str, ...]
    """Design spaces to search: names of this package, entry points, or `package.module:object`."""
    strategies: tuple[StrategyEntry, ...]
    """Strategies to compare. Each one is a name, or a mapping with a name, a label, a colour and
    hyper-parameters of its own."""
    cost: dict[str, str | tuple[str, ...]]
    """Cost that the targets limit. Write one value for all spaces, or a mapping with a value for each space.
    A list of costs describes several devices, and `targets` is then a mapping with the targets of each."""
    predictor: dict[str, str]
    """Predictor of the accuracy. Write one value for all spaces, or a mapping with a value for each space."""
    targets: dict[str, tuple[Targets, ...] | dict[str, tuple[Targets, ...]]]
    """Target sets, in the unit of the cost. Each set is one search for each space, strategy and seed. Write
    one value for all spaces, or a mapping with a value for each space."""
    limits: dict[str, tuple[SetLimits, ...] | dict[str, tuple[SetLimits, ...]]] | None = None
    """Limits on other costs that apply to all targets, as a mapping of costs to numbers. Write one mapping
    for all spaces, or a mapping with one for each space.
    """
    seeds: tuple[int, ...]
    """Seeds of the searches. Each seed is one search for each space, strategy and target set."""
    search: Annotated[SearchParams, Field(validate_default=True)] = SearchParams()
    """Hyper-parameters of all strategies. Those of an entry of `strategies` take precedence."""
    batch: Literal["auto"] | int = "auto"
    """Number of searches in a shard, which run in lock step, from 1 to 4096. With `auto`, the sweep chooses
    it from the measured speed. It changes no result.
    """
    protocol: Protocol = "default"
    """Use `notebook` to reproduce the comparison of the original notebook: every space is searched with the
    genes, the predictor and the table of MobileNetV3. The column `protocol` of the results records this."""
    budget: Budget | None = None
    """Equal budget of each search, which decides the numbers of generations: `generations` is the largest
    number that the budget allows, and the ratio of `warm_generations` to it stays the same."""

    @field_validator("spaces", mode="before")
    @classmethod
    def _known_spaces(cls, values: Any) -> Any:
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"expected a non-empty list of {', '.join(SPACES)}, found {brief(values)}")
        for value in values:
            if not isinstance(value, str) or value not in SPACES:
                known = ", ".join(SPACES)
                raise ValueError(f"expected one of {known}, or module:object, found {brief(value)}")
        if len(set(values)) != len(values):
            raise ValueError(f"expected distinct names, found {brief(list(values))}")
        return tuple(values)

    @field_validator("batch", mode="before")
    @classmethod
    def _batch_size(cls, value: Any) -> Any:
        if value != "auto" and (type(value) is not int or not 1 <= value <= 4096):
            raise ValueError(f"expected auto, or a whole number from 1 to 4096, found {brief(value)}")
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _seed_list(cls, value: Any) -> Any:
        if isinstance(value, bool) or (isinstance(value, int) and not 1 <= value <= MAX_SEEDS):
            raise ValueError(f"expected from one to {MAX_SEEDS} seeds, found {brief(value)}")
        if isinstance(value, int):
            return tuple(range(value))
        if isinstance(value, Mapping):
            if set(value) != {"start", "count"} or not all(type(part) is int for part in value.values()):
                raise ValueError(f"expected a count, a list, or {{start, count}}, found {brief(dict(value))}")
            if not (1 <= value["count"] <= MAX_SEEDS and 0 <= value["start"] < 2**63 - MAX_SEEDS):
                raise ValueError(
                    f"expected start >= 0 and count from 1 to {MAX_SEEDS}, found {brief(dict(value))}"
                )
            return tuple(range(value["start"], value["start"] + value["count"]))
        if not isinstance(value, list | tuple) or not value:
            raise ValueError(f"expected a count, a non-empty list, or {{start, count}}, found {brief(value)}")
        for seed in value:
            if type(seed) is not int or not 0 <= seed < 2**63:
                raise ValueError(f"expected whole numbers from 0 to 2^63 - 1, found {brief(seed)}")
        if len(set(value)) != len(value):
            raise ValueError(f"expected distinct seeds, found {brief(repeated(value))} more than once")
        return tuple(value)

    @field_validator("search")
    @classmethod
    def _read_by_the_strategies(cls, value: SearchParams, info: pydantic.ValidationInfo) -> SearchParams:
        entries: tuple[StrategyEntry, ...] = info.data.get("strategies", ())
        return value.of_sweep([entry.name for entry in entries])

    @model_validator(mode="after")
    def _sound_entries(self) -> SweepSpec:
        check_entries(self.strategies, self.search, has_budget=self.budget is not None)
        for name in (entry.name for entry in self.strategies if find_strategy(entry.name).carries):
            for device in (device for space in self.spaces for device in self.devices(space)):
                for i, of_set in enumerate(device.sets):
                    targets.check_carried(name, of_set, device.limits_of(i))
        if self.budget is None or self.budget.seconds is None or self.budget.calibrated is not None:
            for _ in self.groups():  # raises ValueError for a budget that is too small
                pass
        return self

    @model_serializer(mode="wrap")
    def _without_no_budget(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later fields that are not set, so that old and new specifications compare."""
        values: dict[str, Any] = dump(self)
        for field in ("budget", "limits"):
            if values.get(field) is None:
                values.pop(field, None)
        return values

    @model_validator(mode="before")
    @classmethod
    def _labelled_strategies(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "strategies" not in data:
            return data
        return {**data, "strategies": entries_of(data["strategies"], data.get("search"))}

    @model_validator(mode="before")
    @classmethod
    def _of_each_space(cls, data: Any) -> Any:
        """Give cost, predictor, targets and limits an entry for each space."""
        if not isinstance(data, Mapping) or not isinstance(data.get("spaces"), list | tuple):
            return data
        spaces = [space for space in data["spaces"] if isinstance(space, str)]
        normal: dict[str, Any] = {**data, "predictor": data.get("predictor", "published")}
        for field in ("cost", "predictor", "targets"):
            value = normal.get(field)
            for_all = field == "targets" and (
                targets.is_range(value) or (_has_several(normal.get("cost")) and not _has_any(value, spaces))
            )
            if isinstance(value, Mapping) and not for_all:
                if set(value) != set(spaces):
                    found = ", ".join(map(str, value)) or "nothing"
                    raise ValueError(
                        f"{field}: expected one entry for each of {', '.join(spaces)}, found {found}"
                    )
            elif field in normal:
                normal[field] = dict.fromkeys(spaces, value)
        for field in ("cost", "predictor"):
            for value in (normal.get(field) or {}).values():
                names = value if field == "cost" and isinstance(value, list | tuple) and value else [value]
                for name in names:
                    if not isinstance(name, str) or not name:
                        several = ", or a list of these" if field == "cost" else ""
                        raise ValueError(f"{field}: expected a name or a path{several}, found {brief(name)}")
                if len(set(names)) != len(names):
                    raise ValueError(f"{field}: expected distinct costs, found {repeated(names)} twice")
        if normal.get("cost"):  # a list of one is that one
            for space, value in normal["cost"].items():
                if not isinstance(value, str) and len(value) == 1:
                    normal["cost"] = {**normal["cost"], space: value[0]}
                    for name in ("targets", "limits"):
                        own = (
                            (normal.get(name) or {}).get(space)
                            if isinstance(normal.get(name), Mapping)
                            else None
                        )
                        if isinstance(own, Mapping) and set(own) == {value[0]}:
                            normal[name] = {**normal[name], space: own[value[0]]}
        if normal.get("targets") and normal.get("cost"):
            shared = _limits_of_each(normal.get("limits"), spaces)
            read_of: dict[str, tuple[Any, Any]] = {}
            for space, value in normal["targets"].items():
                cost = normal["cost"][space]
                read: Callable[..., tuple[Any, Any]] = (
                    targets.read if isinstance(cost, str) else targets.read_each
                )
                read_of[space] = read(value, cost, shared[space], space)
            normal["targets"] = {space: sets for space, (sets, _) in read_of.items()}
            each = [own for _, own in read_of.values()]
            flat = [part for own in each for part in (own.values() if isinstance(own, dict) else [own])]
            has_some = any(one for sets in flat for part in sets for one in part)
            normal["limits"] = {space: own for space, (_, own) in read_of.items()} if has_some else None
        return normal

    def n_searches(self) -> int:
        """Return the number of searches of the sweep."""
        sets = sum(len(device.sets) for space in self.spaces for device in self.devices(space))
        return sets * len(self.strategies) * len(self.seeds)

    def part(self, number: int, of: int) -> SweepSpec:
        """Return the sweep of one part of the seeds. The parts are in order, and their sizes differ by at
        most one seed.

        Args:
            number: The number of the part, from 1.
            of: The number of parts.

        Raises:
            UserError: There is no such part, or the budget is in seconds, which each part would calibrate
                for itself.
        """
        seeds = len(self.seeds)
        if not 1 <= number <= of <= seeds:
            raise UserError(
                f"--part: expected K/N with 1 <= K <= N <= {seeds}, the number of seeds, found {number}/{of}"
            )
        if self.budget is not None and self.budget.seconds is not None and self.budget.calibrated is None:
            raise UserError(
                "--part: expected a budget in evaluations, found one in seconds, which every part would "
                "calibrate for itself"
            )
        own = self.seeds[(number - 1) * seeds // of : number * seeds // of]
        return self.model_copy(update={"seeds": own})

    def devices(self, space: str) -> tuple[Device, ...]:
        """Return the costs of a space, each with its target sets and limits."""
        cost, sets = self.cost[space], self.targets[space]
        limits = () if self.limits is None else self.limits[space]
        if isinstance(cost, str):
            return (Device(cost, cast("Any", sets), cast("Any", limits)),)
        of = cast("Any", sets), cast("Any", limits)
        return tuple(Device(name, of[0][name], of[1][name] if limits else ()) for name in cost)

    def groups(self) -> Iterator[Group]:
        """Yield the searches of the sweep, grouped by what they can run in lock step with."""
        for space in self.spaces:
            for entry in self.strategies:
                params, known = self.search.of(entry.name, entry.own), find_strategy(entry.name)
                devices = self.devices(space)
                for i in range(len(devices[0].sets)):
                    parts = tuple(
                        Group(
                            space,
                            entry.name,
                            device.sets[i],
                            params,
                            entry.label,
                            known.sha256,
                            device.limits_of(i),
                            number,
                        )
                        for number, device in enumerate(devices)
                    )
                    together = [joined(parts)] if known.several_costs and len(parts) > 1 else parts
                    yield from map(self._within_budget, together)

    def _within_budget(self, group: Group) -> Group:
        """Return the group with searches as long as the budget allows. A search over several devices has the
        budget of each of them.
        """
        spent = self._budget_of(group)
        if spent is None:
            return group
        params = within(group.strategy, group.params, len(group.targets), spent * len(group.each))
        parts = tuple(replace(part, params=params) for part in group.parts)
        return replace(group, params=params, parts=parts)

    def limit_names(self, space: str) -> list[str]:
        """Return the names of the costs that the limits of a space are on, sorted."""
        found = [part for device in self.devices(space) for part in device.limits]
        return sorted({name for part in found for one in part for name in one})

    def _budget_of(self, group: Group) -> int | None:
        """Return the number of evaluations that a search may spend, or None without a budget. Raises
        ValueError if the budget is in seconds that are not calibrated yet.
        """
        if self.budget is None:
            return None
        if self.budget.evaluations is not None:
            return self.budget.evaluations
        if self.budget.calibrated is None:
            raise ValueError("budget: expected calibrated seconds, found a sweep that was not planned yet")
        key = calibration_key(group)
        if key not in self.budget.calibrated:
            raise ValueError(f"budget.calibrated: expected an entry {key}, found none")
        return self.budget.calibrated[key]


def _limits_of_each(value: Any, spaces: Sequence[str]) -> dict[str, Any]:
    """Return ``limits`` for each space. They are one mapping of costs for all spaces, or one for each."""
    if isinstance(value, Mapping) and value and set(value) <= set(spaces):
        return {space: value.get(space) for space in spaces}
    return dict.fromkeys(spaces, value)


def _has_several(cost: Any) -> bool:
    """Return whether this is a list of costs, for all spaces or for one."""
    values = cost.values() if isinstance(cost, Mapping) else [cost]
    return any(isinstance(value, list | tuple) for value in values)


def _has_any(value: Any, spaces: Sequence[str]) -> bool:
    return isinstance(value, Mapping) and any(space in value for space in spaces)


def load_spec(path: Path) -> SweepSpec:
    """Read a sweep file. Raises UserError with one line that names the file, the field, what was expected and
    what was found.
    """
    return make_spec(read_yaml(path, "a sweep file", "keys"), str(path))


def read_spec(source: str | Path) -> SweepSpec:
    """Return the sweep of a sweep file or of a result folder. Raises UserError."""
    if (file := _sweep_file(source)) is not None:
        return load_spec(file)
    from topdown_ray.store.place import Place

    return make_spec(read_fields(source), f"{Place(source).of('run.json')}: spec")


def read_fields(source: str | Path) -> dict[str, Any]:
    """Return the fields of a sweep file or of a result folder's sweep, not validated. Raises UserError."""
    if (file := _sweep_file(source)) is not None:
        return dict(read_yaml(file, "a sweep file", "keys"))
    from topdown_ray.store.manifest import read_manifest

    return dict(read_manifest(source)["spec"])


def _sweep_file(source: str | Path) -> Path | None:
    """Return the path of a sweep file, or None for a result folder or its URI. Raises UserError."""
    if is_uri(source):
        from topdown_ray.store.place import Place

        local = Place(source).local
        return None if local is None or local.is_dir() else local
    if os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises for a long name
        return None
    check_local(source)
    return Path(source)


def make_spec(data: Mapping[str, Any], where: str) -> SweepSpec:
    """Return a specification made from plain data. ``where`` begins the message of a UserError."""
    return validated(SweepSpec, dict(data), where)
