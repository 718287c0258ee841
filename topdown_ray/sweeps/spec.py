"""Specifications: what a sweep is, validated and frozen, and the identity of each of its searches.

A search's identity is the hash of all that decides its result: space, cost table, predictor, strategy,
targets, hyper-parameters, seed. A sweep file is YAML; unknown keys are errors; every mistake is one line that
names the field, what was expected and what was found."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

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

from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.strategies import find_strategy
from topdown_ray.errors import UserError, brief
from topdown_ray.files import compact_json, digest, first_mistake, read_yaml, short_hash, validated
from topdown_ray.spaces.registry import SPACES
from topdown_ray.store.manifest import read_manifest
from topdown_ray.store.place import Place
from topdown_ray.store.schema import SCHEMA_VERSION
from topdown_ray.sweeps import targets
from topdown_ray.sweeps.hyperparameters import (
    Budget,
    SearchParams,
    StrategyEntry,
    check_entries,
    entries_of,
    within,
)
from topdown_ray.sweeps.targets import SetLimits, Targets, repeated

# Part of every search's identity: raise it when the same search would give another result. 2: random
# architectures that are not found by redrawing are drawn uniformly from the feasible ones instead of pruned,
# so searches near the cheapest cost changed.
ALGORITHM_VERSION = 2

MAX_SEEDS = 10_000_000

# in front of the name of a limit's cost, and of the number of one of several costs, among the hashes of a
# space's artefacts
LIMIT, COST = "limit:", "cost:"

Protocol = Literal["default", "notebook"]
#: The limits of a target besides itself, as (cost, limit).
TargetLimits = tuple[tuple[str, float], ...]
GroupLimits = tuple[TargetLimits, ...]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_Metaclass: Any = type(BaseModel)


class _OneLine(_Metaclass):  # type: ignore[misc]
    """Makes models whose construction raises UserError, of one line with the field."""

    def __call__(cls: type[BaseModel], **fields: Any) -> Any:  # noqa: N805
        try:
            return type(BaseModel).__call__(cls, **fields)
        except pydantic.ValidationError as error:
            raise UserError(f"sweep: {first_mistake(error, cls)}") from None


class SweepSpec(_Frozen, metaclass=_OneLine):
    """A sweep: every combination of space, strategy, target set and seed is one search.

    ``targets`` are in ms for a latency table and in 1e6 MACs for ``macs``: a list of target sets, or one set.
    A set is a list, or a range ``{from, to, step}``; its order has no meaning, it is kept loosest first.
    ``limits`` are on other costs, for all targets: ``{params: 6.0}``; a target with limits of its own is a
    mapping with the sweep's cost: ``{note10: 30, params: 5.0}``.
    ``cost`` may be a list, for several devices; ``targets`` is then a mapping with those of each.
    ``cost``, ``predictor`` and ``targets`` are one value for all spaces, or a mapping with one for each."""

    name: Annotated[str, Field(min_length=1)]
    spaces: tuple[str, ...]
    strategies: tuple[StrategyEntry, ...]
    cost: dict[str, str | tuple[str, ...]]
    predictor: dict[str, str]
    targets: dict[str, tuple[Targets, ...] | dict[str, tuple[Targets, ...]]]
    # of each target, besides itself
    limits: dict[str, tuple[SetLimits, ...] | dict[str, tuple[SetLimits, ...]]] | None = None
    seeds: tuple[int, ...]
    search: Annotated[SearchParams, Field(validate_default=True)] = SearchParams()
    batch: Literal["auto"] | int = "auto"
    protocol: Protocol = "default"
    budget: Budget | None = None  # of every search; it decides the numbers of generations

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
        """Without what came after the first version where it is not set, so that specifications compare."""
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
        """cost, predictor and targets: one value for all spaces, or one for each."""
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
        """How many searches the sweep has."""
        sets = sum(len(device.sets) for space in self.spaces for device in self.devices(space))
        return sets * len(self.strategies) * len(self.seeds)

    def devices(self, space: str) -> tuple[Device, ...]:
        """The costs of a space, each with its targets."""
        cost, sets = self.cost[space], self.targets[space]
        limits = () if self.limits is None else self.limits[space]
        if isinstance(cost, str):
            return (Device(cost, cast("Any", sets), cast("Any", limits)),)
        of = cast("Any", sets), cast("Any", limits)
        return tuple(Device(name, of[0][name], of[1][name] if limits else ()) for name in cost)

    def groups(self) -> Iterator[Group]:
        """The sweep's searches, those that can run in lock step together."""
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
        """A group whose searches are as long as the budget lets them be: on several devices, that of each."""
        spent = self._budget_of(group)
        if spent is None:
            return group
        params = within(group.strategy, group.params, len(group.targets), spent * len(group.each))
        parts = tuple(replace(part, params=params) for part in group.parts)
        return replace(group, params=params, parts=parts)

    def limit_names(self, space: str) -> list[str]:
        """The costs that limits of a space name."""
        found = [part for device in self.devices(space) for part in device.limits]
        return sorted({name for part in found for one in part for name in one})

    def _budget_of(self, group: Group) -> int | None:
        """The evaluations that a search may spend; None: there is no budget. Raises ValueError before the
        seconds of a budget are calibrated.
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
    """``limits`` of each space: one mapping of costs for all, or one for each."""
    if isinstance(value, Mapping) and value and set(value) <= set(spaces):
        return {space: value.get(space) for space in spaces}
    return dict.fromkeys(spaces, value)


def _has_several(cost: Any) -> bool:
    """Whether this is a list of costs, for all spaces or for one."""
    values = cost.values() if isinstance(cost, Mapping) else [cost]
    return any(isinstance(value, list | tuple) for value in values)


def _has_any(value: Any, spaces: Sequence[str]) -> bool:
    return isinstance(value, Mapping) and any(space in value for space in spaces)


def calibration_key(group: Group) -> str:
    """The entry of ``budget.calibrated`` for the searches of a group."""
    further = f"/{COST}{group.device}" if group.device else ""
    return f"{group.space}/{group.label}/{len(group.targets)}{further}"


class Device(NamedTuple):
    """A cost of a sweep, and what is asked for under it."""

    cost: str  # a name or a path
    sets: tuple[Targets, ...]
    limits: tuple[SetLimits, ...]  # of each target of each set; empty where the sweep has none

    def limits_of(self, i: int) -> GroupLimits:
        """The limits of each target of a set, besides itself; empty where no target of the set has any."""
        limits = self.limits[i] if self.limits else ()
        return tuple(tuple(sorted(one.items())) for one in limits) if any(limits) else ()


@dataclass(frozen=True)
class Group:
    """Searches that differ in their seed only.

    A search that serves several devices at once is a group of ``parts``, one for each device: its targets are
    theirs in their order, and its tables hold each part as a search of its own."""

    space: str
    strategy: str
    targets: Targets
    params: EvolutionParams
    label: str = ""  # of the entry of ``strategies``
    sha256: str = ""  # of a strategy that is a plug-in
    limits: GroupLimits = ()  # of each target, besides itself; empty where no target has any
    device: int = 0  # which of the space's costs the targets limit
    parts: tuple[Group, ...] = ()

    @property
    def each(self) -> tuple[Group, ...]:
        """The group for each device that its searches serve."""
        return self.parts or (self,)


def joined(parts: tuple[Group, ...]) -> Group:
    """The group whose searches serve the devices of all these groups at once."""
    limits = [one for part in parts for one in part.limits or ((),) * len(part.targets)]
    targets = tuple(target for part in parts for target in part.targets)
    return replace(parts[0], targets=targets, limits=tuple(limits) if any(limits) else (), parts=parts)


@dataclass(frozen=True)
class Shard:
    """A batch of searches of one group that run in lock step."""

    group: Group
    seeds: tuple[int, ...]
    search_ids: tuple[str, ...]  # seed after seed, of each of the group's parts

    @functools.cached_property
    def shard_id(self) -> str:
        """The shard's name: it follows from its searches alone."""
        return digest(self.search_ids)


def search_identity(
    group: Group, protocol: Protocol, artefacts: Mapping[str, str], part: int = 0
) -> Callable[[int], str]:
    """The identity of each search of a group as a function of its seed. artefacts: the hashes of the space's
    costs and of the predictor. part: which of the group's parts.

    The hash is that of a mapping as JSON, of which only the seed differs between the searches of a group: the
    text around it is made once, so that a million searches are named in seconds."""
    own = group.each[part]
    used = {f"{LIMIT}{name}" for one in group.limits for name, _ in one}
    others = {
        key: value for key, value in artefacts.items() if not key.startswith((LIMIT, COST)) or key in used
    }
    costs = [artefacts.get(f"{COST}{each.device}") or artefacts["cost"] for each in group.each]
    described: dict[str, Any] = {
        **({"limits": own.limits} if own.limits else {}),
        "version": ALGORITHM_VERSION,
        "space": group.space,
        "strategy": group.strategy,
        "targets": own.targets,
        "params": group.params.identity(),
        "protocol": protocol,
        "artefacts": {
            **others,
            "cost": costs[part],
            **({"strategy": group.sha256} if group.sha256 else {}),
        },
    }
    if group.parts:
        described["devices"] = [
            (cost, each.targets, each.limits) for cost, each in zip(costs, group.parts, strict=True)
        ]
    before = compact_json({key: value for key, value in described.items() if key < "seed"}).removesuffix("}")
    after = compact_json({key: value for key, value in described.items() if key > "seed"}).removeprefix("{")
    return lambda seed: short_hash(f'{before},"seed":{seed},{after}')


def identities_of(
    group: Group, protocol: Protocol, artefacts: Mapping[str, str]
) -> Callable[[int], tuple[str, ...]]:
    """The identities of a group's searches of one seed, one for each of its parts."""
    each = [search_identity(group, protocol, artefacts, part) for part in range(len(group.each))]
    return lambda seed: tuple(identity(seed) for identity in each)


def search_id(group: Group, seed: int, protocol: Protocol, artefacts: Mapping[str, str]) -> str:
    """The identity of one search, see :func:`search_identity`."""
    return search_identity(group, protocol, artefacts)(seed)


def check_known_identities(spec: SweepSpec, manifest: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a folder whose searches have other identities by now: those of ``joint`` with
    patience, which did not count before schema 7.
    """
    if manifest.get("schema", SCHEMA_VERSION) >= 7:
        return
    for group in spec.groups():
        if group.strategy == "joint" and group.params.patience is not None:
            raise UserError(
                f"{where}: schema: expected at least 7, which this version continues and verifies where "
                f"joint has patience, found {manifest['schema']}; load and report still read this folder"
            )


def sweep_identity(spec: SweepSpec, artefacts: Mapping[str, Mapping[str, str]]) -> str:
    """The identity of a sweep: what decides its tables, not its name, its batching, its colours or where
    files lie.

    artefacts: of each space, the hashes of its cost table, its predictor and the costs of its limits.
    """
    decisive = spec.model_dump(exclude={"name", "batch", "cost", "predictor"}, mode="json")
    decisive["strategies"] = [
        {key: value for key, value in entry.items() if key != "colour"} if isinstance(entry, dict) else entry
        for entry in decisive["strategies"]
    ]
    for field in ("targets", "limits"):  # files of costs may be moved: their order counts, not their names
        if decisive.get(field):
            decisive[field] = {
                space: list(value.values()) if isinstance(value, dict) else value
                for space, value in decisive[field].items()
            }
    plugged_in = plugin_hashes(spec)
    return digest([ALGORITHM_VERSION, decisive, artefacts, *([plugged_in] if plugged_in else [])])


def plugin_hashes(spec: SweepSpec) -> dict[str, str]:
    """The identities of the sweep's strategies that are plug-ins, by name."""
    own = {entry.name: find_strategy(entry.name).sha256 for entry in spec.strategies}
    return {name: sha256 for name, sha256 in own.items() if sha256}


def load_spec(path: Path) -> SweepSpec:
    """Read a sweep file. Raises UserError: one line with the file, the field, what was expected and what was
    found.
    """
    return make_spec(read_yaml(path, "a sweep file", "keys"), str(path))


def read_spec(source: str | Path) -> SweepSpec:
    """The sweep of a sweep file, or of a result folder. Raises UserError."""
    local = Place(source).local
    if local is None or local.is_dir():
        return make_spec(read_fields(source), f"{Place(source).of('run.json')}: spec")
    return load_spec(local)


def read_fields(source: str | Path) -> dict[str, Any]:
    """The fields of a sweep file, or of the sweep of a result folder, not validated yet. Raises UserError."""
    local = Place(source).local
    if local is None or local.is_dir():
        return dict(read_manifest(source)["spec"])
    return dict(read_yaml(local, "a sweep file", "keys"))


def make_spec(data: Mapping[str, Any], where: str) -> SweepSpec:
    """A specification from plain data; ``where`` begins the message of a UserError."""
    return validated(SweepSpec, dict(data), where)
