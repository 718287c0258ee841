"""Specifications: what a sweep is, validated and frozen, and the identity of each of its searches.

A search's identity is the hash of all that decides its result: space, cost table, predictor, strategy,
targets, hyper-parameters, seed. A sweep file is YAML; unknown keys are errors; every mistake is one line that
names the field, what was expected and what was found."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

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
from topdown_ray.store.place import Place
from topdown_ray.store.results import read_manifest
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

LIMIT = "limit:"  # in front of the name of a limit's cost, among the hashes of a space's artefacts

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
    ``cost``, ``predictor`` and ``targets`` are one value for all spaces, or a mapping with one for each."""

    name: Annotated[str, Field(min_length=1)]
    spaces: tuple[str, ...]
    strategies: tuple[StrategyEntry, ...]
    cost: dict[str, str]
    predictor: dict[str, str]
    targets: dict[str, tuple[Targets, ...]]
    limits: dict[str, tuple[SetLimits, ...]] | None = None  # of each target, besides itself
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
            for space in self.spaces:
                for i, of_set in enumerate(self.targets[space]):
                    targets.check_carried(name, of_set, self.limits_of(space, i))
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
            if isinstance(value, Mapping) and not (field == "targets" and targets.is_range(value)):
                if set(value) != set(spaces):
                    found = ", ".join(map(str, value)) or "nothing"
                    raise ValueError(
                        f"{field}: expected one entry for each of {', '.join(spaces)}, found {found}"
                    )
            elif field in normal:
                normal[field] = dict.fromkeys(spaces, value)
        for field in ("cost", "predictor"):
            for value in (normal.get(field) or {}).values():
                if not isinstance(value, str) or not value:
                    raise ValueError(f"{field}: expected a name or a path, found {brief(value)}")
        if normal.get("targets") and normal.get("cost"):
            shared = _limits_of_each(normal.get("limits"), spaces)
            sets_of = {
                space: targets.read(value, normal["cost"][space], shared[space], space)
                for space, value in normal["targets"].items()
            }
            normal["targets"] = {space: sets for space, (sets, _) in sets_of.items()}
            has_some = any(one for _, own in sets_of.values() for part in own for one in part)
            normal["limits"] = {space: own for space, (_, own) in sets_of.items()} if has_some else None
        return normal

    def n_searches(self) -> int:
        """How many searches the sweep has."""
        return sum(len(self.targets[space]) for space in self.spaces) * len(self.strategies) * len(self.seeds)

    def groups(self) -> Iterator[Group]:
        """The sweep's searches, those that can run in lock step together."""
        for space in self.spaces:
            for entry in self.strategies:
                params, sha256 = self.search.of(entry.name, entry.own), find_strategy(entry.name).sha256
                for i, of_set in enumerate(self.targets[space]):
                    spent = self._budget_of(space, entry.label, len(of_set))
                    own = params if spent is None else within(entry.name, params, len(of_set), spent)
                    limits = self.limits_of(space, i)
                    yield Group(space, entry.name, of_set, own, entry.label, sha256, limits)

    def limits_of(self, space: str, i: int) -> GroupLimits:
        """The limits of each target of a set, besides itself; empty where no target of the set has any."""
        limits = () if self.limits is None else self.limits[space][i]
        return tuple(tuple(sorted(one.items())) for one in limits) if any(limits) else ()

    def limit_names(self, space: str) -> list[str]:
        """The costs that limits of a space name."""
        found = () if self.limits is None else self.limits[space]
        return sorted({name for part in found for one in part for name in one})

    def _budget_of(self, space: str, label: str, k: int) -> int | None:
        """The evaluations that a search may spend; None: there is no budget. Raises ValueError before the
        seconds of a budget are calibrated.
        """
        if self.budget is None:
            return None
        if self.budget.evaluations is not None:
            return self.budget.evaluations
        if self.budget.calibrated is None:
            raise ValueError("budget: expected calibrated seconds, found a sweep that was not planned yet")
        key = calibration_key(space, label, k)
        if key not in self.budget.calibrated:
            raise ValueError(f"budget.calibrated: expected an entry {key}, found none")
        return self.budget.calibrated[key]


def _limits_of_each(value: Any, spaces: Sequence[str]) -> dict[str, Any]:
    """``limits`` of each space: one mapping of costs for all, or one for each."""
    if isinstance(value, Mapping) and value and set(value) <= set(spaces):
        return {space: value.get(space) for space in spaces}
    return dict.fromkeys(spaces, value)


def calibration_key(space: str, label: str, k: int) -> str:
    """The entry of ``budget.calibrated`` for the searches of an entry of ``strategies`` over k targets."""
    return f"{space}/{label}/{k}"


@dataclass(frozen=True)
class Group:
    """Searches that differ in their seed only."""

    space: str
    strategy: str
    targets: Targets
    params: EvolutionParams
    label: str = ""  # of the entry of ``strategies``
    sha256: str = ""  # of a strategy that is a plug-in
    limits: GroupLimits = ()  # of each target, besides itself; empty where no target has any


@dataclass(frozen=True)
class Shard:
    """A batch of searches of one group that run in lock step."""

    group: Group
    seeds: tuple[int, ...]
    search_ids: tuple[str, ...]

    @functools.cached_property
    def shard_id(self) -> str:
        """The shard's name: it follows from its searches alone."""
        return digest(self.search_ids)


def search_identity(group: Group, protocol: Protocol, artefacts: Mapping[str, str]) -> Callable[[int], str]:
    """The identity of each search of a group as a function of its seed. artefacts: the hashes of the cost
    table and the predictor.

    The hash is that of a mapping as JSON, of which only the seed differs between the searches of a group: the
    text around it is made once, so that a million searches are named in seconds."""
    used = {f"{LIMIT}{name}" for one in group.limits for name, _ in one}
    artefacts = {key: value for key, value in artefacts.items() if not key.startswith(LIMIT) or key in used}
    described: dict[str, Any] = {
        **({"limits": group.limits} if group.limits else {}),
        "version": ALGORITHM_VERSION,
        "space": group.space,
        "strategy": group.strategy,
        "targets": group.targets,
        "params": group.params.identity(),
        "protocol": protocol,
        "artefacts": {**artefacts, **({"strategy": group.sha256} if group.sha256 else {})},
    }
    before = compact_json({key: value for key, value in described.items() if key < "seed"}).removesuffix("}")
    after = compact_json({key: value for key, value in described.items() if key > "seed"}).removeprefix("{")
    return lambda seed: short_hash(f'{before},"seed":{seed},{after}')


def search_id(group: Group, seed: int, protocol: Protocol, artefacts: Mapping[str, str]) -> str:
    """The identity of one search, see :func:`search_identity`."""
    return search_identity(group, protocol, artefacts)(seed)


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
