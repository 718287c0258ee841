"""Read the hyper-parameters of a sweep: those that its strategies share, and those of single strategies.

An entry of ``strategies`` is a name, or a mapping with the name, a label and hyper-parameters. An entry takes
the values that it does not state from the mapping ``search``. The defaults of a strategy apply if neither of
them states any of these values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import pydantic
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from topdown_ray.algorithms.parameters import LATER, EvolutionParams
from topdown_ray.algorithms.strategies import STRATEGIES, find_strategy
from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import first_mistake, unknown_key


class SearchParams(EvolutionParams):
    """The mapping ``search`` of a sweep: the hyper-parameters that every strategy reads and, as further
    fields, those that only some strategies read. :meth:`of` gives each strategy its own parameters.
    """

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _known_to_some_strategy(self) -> SearchParams:
        known = _known_keys()
        for key in self.model_extra or {}:
            if key not in known:
                raise ValueError(f"search.{one_line(key, 60)}: {unknown_key(key, known)}")
        return self

    def of(self, strategy: str, own: Mapping[str, Any] | None = None) -> EvolutionParams:
        """Return the hyper-parameters that a strategy reads. own: the values of its entry, which take
        precedence.

        Raises ``pydantic.ValidationError``."""
        model = find_strategy(strategy).parameters
        if not own:
            return self.read_as(model)
        shared = {name: value for name, value in self if name in model.model_fields}
        return model(**{**shared, **own})

    def of_sweep(self, strategies: Sequence[str]) -> SearchParams:
        """Return these parameters, validated for the strategies of a sweep. Further fields are kept only if
        they differ from their defaults. Raises ValueError with one line that names the field.

        A field that none of these strategies reads is validated as other strategies read it, and has no
        effect."""
        for model in _models(strategies):
            self._read_by(model)
        own: dict[str, Any] = {}
        for key in _known_keys():
            if key in (self.model_extra or {}):
                readers = _readers(key, strategies) or _readers(key, STRATEGIES)
                values = [getattr(self._read_by(model), key) for model in readers]
                if values != [model.model_fields[key].default for model in readers]:
                    own[key] = values[0]
        later = {name: getattr(self, name) for name in LATER}
        return SearchParams(**self.shared(), **later, **own)

    def _read_by(self, model: type[EvolutionParams]) -> EvolutionParams:
        try:
            return self.read_as(model)
        except pydantic.ValidationError as error:
            at = "search." if error.errors()[0]["loc"] else "search: "
            raise ValueError(f"{at}{first_mistake(error, model)}") from error

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later fields that are not set, so that old and new specifications compare.
        :meth:`of_sweep` does the same for further fields.
        """
        values: dict[str, Any] = dump(self)
        return {name: value for name, value in values.items() if name not in LATER or value is not None}


def _models(strategies: Iterable[str]) -> list[type[EvolutionParams]]:
    """Return the distinct parameter models of these strategies."""
    return list(dict.fromkeys(find_strategy(name).parameters for name in strategies))


def _readers(key: str, strategies: Iterable[str]) -> list[type[EvolutionParams]]:
    """Return the models of these strategies that have this field."""
    return [model for model in _models(strategies) if key in model.model_fields]


def _known_keys() -> list[str]:
    """Return the hyper-parameters that at least one registered strategy reads."""
    return list(dict.fromkeys(key for model in _models(STRATEGIES) for key in model.model_fields))


class StrategyEntry(BaseModel):
    """One of the strategies that a sweep compares. Its further fields are hyper-parameters of its own."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str
    """Name of the strategy: a name of this package, an entry point, or `package.module:function`."""
    label: str = ""
    """Name of the entry in tables and pictures, from 1 to 60 characters. The default is the name of the
    strategy. Labels are distinct within a sweep, and a label must not be the name of another entry."""
    colour: str | None = None
    """Colour of the entry in pictures, as `#rrggbb`. By default the report chooses one."""

    @property
    def own(self) -> dict[str, Any]:
        """The hyper-parameters of this entry alone."""
        return dict(self.model_extra or {})

    @model_serializer
    def _as_short_as_it_can_be(self) -> str | dict[str, Any]:
        """Return only the name if nothing else is stated, so that old and new specifications compare."""
        label = {} if self.label == self.name else {"label": self.label}
        colour = {} if self.colour is None else {"colour": self.colour}
        more = {**label, **colour, **self.own}
        return {"name": self.name, **more} if more else self.name


_TEXTS = {
    "label": (r"\S(.{0,58}\S)?", "text of 1 to 60 characters without spaces at its ends"),
    "colour": (r"#[0-9a-fA-F]{6}", "a colour as #rrggbb"),
}


def entries_of(values: Any, search: Any) -> list[dict[str, Any]]:
    """Return the field ``strategies`` of a sweep as plain mappings with labels. A mapping has its strategy's
    defaults if neither the entry nor the mapping ``search`` states any of them. Raises ValueError with one
    line.
    """
    known = ", ".join(STRATEGIES)
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"strategies: expected a list of names ({known}) or mappings, found {brief(values)}")
    stated = dict(search) if isinstance(search, Mapping) else {}
    entries = [_entry(value, f"strategies[{i}]", stated) for i, value in enumerate(values)]
    names = {entry["name"] for entry in entries}
    for i, entry in enumerate(entries):
        if entry["label"] != entry["name"] and entry["label"] in names:
            raise ValueError(
                f"strategies[{i}].label: expected a label that is not the name of another entry, found "
                f"{brief(entry['label'])}"
            )
    labels = Counter(entry["label"] for entry in entries)
    label, times = labels.most_common(1)[0]
    if times > 1:
        raise ValueError(
            f"strategies: expected distinct labels, found {brief(label)} {times} times; give each entry a "
            "label"
        )
    return entries


def _entry(value: Any, where: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(value) if isinstance(value, Mapping) else {"name": value}
    if "name" not in given:
        raise ValueError(f"{where}.name: expected the name of a strategy, found none")
    name = given.get("name")
    try:
        known = find_strategy(name)
    except UserError as error:
        at = where if isinstance(value, Mapping) else "strategies"
        raise ValueError(str(error).replace("strategies", at, 1)) from error
    assert isinstance(name, str)
    model = known.parameters
    allowed = ("name", "label", "colour", *model.model_fields)
    for key in given:
        if key not in allowed:
            raise ValueError(f"{where}.{one_line(key, 60)}: {unknown_key(key, allowed)}")
    for key, (pattern, expected) in _TEXTS.items():
        if key in given and not (isinstance(given[key], str) and re.fullmatch(pattern, given[key])):
            raise ValueError(f"{where}.{key}: expected {expected}, found {brief(given[key])}")
    own = {key: value for key, value in given.items() if key in model.model_fields}
    if not set(known.defaults) & ({*stated, *own}):  # they belong together
        own |= known.defaults
    shared = {key: stated.get(key, field.default) for key, field in model.model_fields.items()}
    own = {key: value for key, value in own.items() if brief(value) != brief(shared[key])}
    more = {"colour": given["colour"]} if "colour" in given else {}
    return {"name": name, "label": given.get("label", name), **more, **own}


def check_entries(entries: Sequence[StrategyEntry], search: SearchParams, has_budget: bool = False) -> None:
    """Raise ValueError with one line if the hyper-parameters of an entry are not valid, or if two entries are
    the same searches. has_budget: a budget decides the lengths, and keeps only their ratio.
    """
    seen: dict[tuple[str, EvolutionParams, float], str] = {}
    for i, entry in enumerate(entries):
        try:
            params = search.of(entry.name, entry.own)
        except pydantic.ValidationError as error:
            mistake = first_mistake(error, find_strategy(entry.name).parameters)
            raise ValueError(f"strategies[{i}].{mistake}") from error
        ratio = 0.0
        if has_budget:
            ratio, params = (
                _ratio(params),
                params.model_copy(update={"generations": 0, "warm_generations": 0}),
            )
        other = seen.setdefault((entry.name, params, ratio), entry.label)
        if other != entry.label:
            but = " except for their lengths, which the budget decides" if has_budget else ""
            raise ValueError(
                f"strategies: expected entries with different searches, found {brief(other)} and "
                f"{brief(entry.label)} with the same hyper-parameters{but}"
            )


class Budget(BaseModel):
    """The budget of each search for all its targets. Set either ``evaluations`` or ``seconds``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    evaluations: Annotated[int, Field(ge=1, le=2**40)] | None = None
    """Number of evaluations of each search, which are the children that it draws."""
    seconds: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Seconds of one CPU core for each search. The evaluations that take these seconds are measured once,
    when the sweep is planned."""
    calibrated: dict[str, Annotated[int, Field(ge=1)]] | None = None
    """Measured number of evaluations that take `seconds`, by `SPACE/LABEL/NUMBER OF TARGETS`. The sweep
    writes it to `run.json`. State it in a sweep file only to repeat a sweep with the same lengths."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Budget:
        if (self.evaluations is None) == (self.seconds is None):
            found = "none" if self.seconds is None else "both"
            raise ValueError(f"budget: expected one of evaluations and seconds, found {found}")
        if self.calibrated is not None and self.seconds is None:
            raise ValueError("budget.calibrated: expected the field seconds as well, found none")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value is not None}


def _ratio(params: EvolutionParams) -> float:
    return params.warm_generations / params.generations if params.generations else 0.0


def within(strategy: str, params: EvolutionParams, k: int, evaluations: int) -> EvolutionParams:
    """Return the parameters of the longest search over k targets that spends no more evaluations.

    ``generations`` is chosen, and the ratio of ``warm_generations`` to it stays the same. Raises ValueError
    if even the shortest search spends more.
    """
    ratio = _ratio(params)
    count = find_strategy(strategy).evaluations

    def of(generations: int) -> EvolutionParams:
        lengths = {"generations": generations, "warm_generations": round(ratio * generations)}
        return params.model_copy(update=lengths)

    least = count(of(0), k)
    if least > evaluations:
        raise ValueError(
            f"budget: expected at least {least} evaluations for {strategy} with {k} targets and a population "
            f"of {params.population}, found {evaluations}"
        )
    low, high = 0, evaluations // params.population + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(of(middle), k) <= evaluations else (low, middle)
    return of(low)
