"""Specifications: what a sweep is, validated and frozen, and the identity of each of its searches.

A search's identity is the hash of all that decides its result: space, cost table, predictor, strategy,
targets, hyper-parameters, seed. A sweep file is YAML; unknown keys are errors; every mistake is one line that
names the field, what was expected and what was found."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.errors import brief, one_line
from topdown_ray.files import compact_json, digest, first_mistake, read_yaml, short_hash, validated
from topdown_ray.spaces.registry import SPACES
from topdown_ray.store.place import Place
from topdown_ray.store.results import read_manifest

# Part of every search's identity: raise it when the same search would give another result. 2: random
# architectures that are not found by redrawing are drawn uniformly from the feasible ones instead of pruned,
# so searches near the cheapest cost changed.
ALGORITHM_VERSION = 2

MAX_SEEDS = 10_000_000

Protocol = Literal["default", "notebook"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SearchParams(EvolutionParams):
    """The mapping ``search`` of a sweep: what every strategy reads, and as further fields what some of them
    read besides. :meth:`of` gives each strategy its own parameters.
    """

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _known_to_some_strategy(self) -> SearchParams:
        known = _known_keys()
        for key in self.model_extra or {}:
            if key not in known:
                raise ValueError(
                    f"search.{one_line(key, 60)}: expected one of the keys {', '.join(known)}, found an "
                    "unknown key"
                )
        return self

    def of(self, strategy: str) -> EvolutionParams:
        """What a strategy reads."""
        return self.read_as(STRATEGIES[strategy].parameters)

    def of_sweep(self, strategies: Sequence[str]) -> SearchParams:
        """These parameters, valid for the strategies of a sweep; further fields only where they differ from
        their defaults. Raises ValueError: one line with the field.

        A field that none of these strategies reads is validated as the others read it, and has no effect."""
        for model in _models(strategies):
            self._read_by(model)
        own: dict[str, Any] = {}
        for key in _known_keys():
            if key in (self.model_extra or {}):
                readers = _readers(key, strategies) or _readers(key, STRATEGIES)
                values = [getattr(self._read_by(model), key) for model in readers]
                if values != [model.model_fields[key].default for model in readers]:
                    own[key] = values[0]
        return SearchParams(**self.shared(), distinct_parents=self.distinct_parents, **own)

    def _read_by(self, model: type[EvolutionParams]) -> EvolutionParams:
        try:
            return self.read_as(model)
        except pydantic.ValidationError as error:
            at = "search." if error.errors()[0]["loc"] else "search: "
            raise ValueError(f"{at}{first_mistake(error, model)}") from error

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came after the first version is written only where it differs from its default, so that old
        and new specifications compare; of further fields :meth:`of_sweep` keeps only these.
        """
        values: dict[str, Any] = dump(self)
        if values["distinct_parents"] is None:
            del values["distinct_parents"]
        return values


def _models(strategies: Iterable[str]) -> list[type[EvolutionParams]]:
    """The distinct parameter models of these strategies."""
    return list(dict.fromkeys(STRATEGIES[name].parameters for name in strategies))


def _readers(key: str, strategies: Iterable[str]) -> list[type[EvolutionParams]]:
    """Those of these strategies' models that have this field."""
    return [model for model in _models(strategies) if key in model.model_fields]


def _known_keys() -> list[str]:
    """The hyper-parameters that some registered strategy reads."""
    return list(dict.fromkeys(key for model in _models(STRATEGIES) for key in model.model_fields))


Targets = tuple[float, ...]


def _repeated(values: Sequence[Any]) -> Any:
    """The first value that there is more than once."""
    counts = Counter(values)
    return next(value for value in values if counts[value] > 1)


def _target_set(values: Any, where: str) -> Targets:
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{where}: expected a non-empty list of positive numbers, found {brief(values)}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
            raise ValueError(f"{where}: expected positive numbers, found {brief(value)}")
    if len(set(values)) != len(values):
        raise ValueError(
            f"{where}: expected distinct targets, found {brief(_repeated(values))} more than once"
        )
    return tuple(sorted((float(value) for value in values), reverse=True))


class SweepSpec(_Frozen):
    """A sweep: every combination of space, strategy, target set and seed is one search.

    ``targets`` are in ms for a latency table and in 1e6 MACs for ``macs``; the order within a set has no
    meaning, it is kept loosest first. ``cost``, ``predictor`` and ``targets`` are one value for all spaces,
    or a mapping with one for each."""

    name: Annotated[str, Field(min_length=1)]
    spaces: tuple[str, ...]
    strategies: tuple[str, ...]
    cost: dict[str, str]
    predictor: dict[str, str]
    targets: dict[str, tuple[Targets, ...]]
    seeds: tuple[int, ...]
    search: SearchParams = SearchParams()
    batch: Literal["auto"] | int = "auto"
    protocol: Protocol = "default"

    @field_validator("spaces", "strategies", mode="before")
    @classmethod
    def _known_names(cls, values: Any, info: pydantic.ValidationInfo) -> Any:
        known = SPACES if info.field_name == "spaces" else STRATEGIES
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"expected a non-empty list of {', '.join(known)}, found {brief(values)}")
        for value in values:
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"expected one of {', '.join(known)}, found {brief(value)}")
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
            raise ValueError(f"expected distinct seeds, found {brief(_repeated(value))} more than once")
        return tuple(value)

    @field_validator("search")
    @classmethod
    def _read_by_the_strategies(cls, value: SearchParams, info: pydantic.ValidationInfo) -> SearchParams:
        return value.of_sweep(info.data.get("strategies", ()))

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
            if isinstance(value, Mapping):
                if set(value) != set(spaces):
                    found = ", ".join(map(str, value)) or "nothing"
                    raise ValueError(
                        f"{field}: expected one entry for each of {', '.join(spaces)}, found {found}"
                    )
            elif field in normal:
                normal[field] = dict.fromkeys(spaces, value)
        for space, sets in (normal.get("targets") or {}).items():
            if not isinstance(sets, list | tuple) or not sets:
                raise ValueError(f"targets: expected a non-empty list of lists, found {brief(sets)}")
            normal["targets"] = {
                **normal["targets"],
                space: tuple(_target_set(values, f"targets[{i}]") for i, values in enumerate(sets)),
            }
            if len(set(normal["targets"][space])) != len(sets):
                raise ValueError(f"targets: expected distinct target sets, found {brief(sets)}")
        for field in ("cost", "predictor"):
            for value in (normal.get(field) or {}).values():
                if not isinstance(value, str) or not value:
                    raise ValueError(f"{field}: expected a name or a path, found {brief(value)}")
        return normal

    def n_searches(self) -> int:
        """How many searches the sweep has."""
        return sum(len(self.targets[space]) for space in self.spaces) * len(self.strategies) * len(self.seeds)

    def groups(self) -> Iterator[Group]:
        """The sweep's searches, those that can run in lock step together."""
        for space in self.spaces:
            for strategy in self.strategies:
                for targets in self.targets[space]:
                    yield Group(space, strategy, targets)


@dataclass(frozen=True)
class Group:
    """Searches that differ in their seed only."""

    space: str
    strategy: str
    targets: Targets


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


def search_identity(
    group: Group, params: SearchParams, protocol: Protocol, artefacts: Mapping[str, str]
) -> Callable[[int], str]:
    """The identity of each search of a group as a function of its seed. artefacts: the hashes of the cost
    table and the predictor.

    The hash is that of a mapping as JSON, of which only the seed differs between the searches of a group: the
    text around it is made once, so that a million searches are named in seconds."""
    described = {
        "version": ALGORITHM_VERSION,
        "space": group.space,
        "strategy": group.strategy,
        "targets": group.targets,
        "params": params.of(group.strategy).identity(),
        "protocol": protocol,
        "artefacts": dict(artefacts),
    }
    before = compact_json({key: value for key, value in described.items() if key < "seed"}).removesuffix("}")
    after = compact_json({key: value for key, value in described.items() if key > "seed"}).removeprefix("{")
    return lambda seed: short_hash(f'{before},"seed":{seed},{after}')


def search_id(
    group: Group, seed: int, params: SearchParams, protocol: Protocol, artefacts: Mapping[str, str]
) -> str:
    """The identity of one search, see :func:`search_identity`."""
    return search_identity(group, params, protocol, artefacts)(seed)


def sweep_identity(spec: SweepSpec, artefacts: Mapping[str, Mapping[str, str]]) -> str:
    """The identity of a sweep: what decides its results, not its name, its batching or where files lie.

    artefacts: of each space, the hashes of its cost table and its predictor.
    """
    decisive = spec.model_dump(exclude={"name", "batch", "cost", "predictor"}, mode="json")
    return digest([ALGORITHM_VERSION, decisive, artefacts])


def load_spec(path: Path) -> SweepSpec:
    """Read a sweep file. Raises UserError: one line with the file, the field, what was expected and what was
    found.
    """
    return make_spec(read_yaml(path, "a sweep file", "keys"), str(path))


def read_spec(source: str | Path) -> SweepSpec:
    """The sweep of a sweep file, or of a result folder. Raises UserError."""
    local = Place(source).local
    if local is None or local.is_dir():
        return make_spec(read_manifest(source)["spec"], f"{Place(source).of('run.json')}: spec")
    return load_spec(local)


def make_spec(data: Mapping[str, Any], where: str) -> SweepSpec:
    """A specification from plain data; ``where`` begins the message of a UserError."""
    return validated(SweepSpec, dict(data), where)
