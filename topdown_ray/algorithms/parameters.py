"""Hyper-parameters of the strategies, validated.

Each strategy reads a model of its own: :class:`EvolutionParams`, or a class derived from it that adds what
only this strategy reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator


@dataclass(frozen=True)
class Sizes:
    """Sizes and rates of the evolution."""

    population: int  # P, children a generation
    parents: int  # Q, survivors
    mutations: int  # children by mutation; the others by crossover
    mutate_prob: float
    distinct_parents: bool = False  # an architecture survives once at most, in its canonical form


class EvolutionParams(BaseModel):
    """What every strategy reads; the defaults are those of OFA and of the top-down paper.

    A derived model adds fields with defaults and bounds of their own; their values are numbers, booleans or
    text, as JSON holds them. It may narrow the bounds of the fields that are here, but not change their
    defaults: a sweep has one value of them for all its strategies."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    population: Annotated[int, Field(ge=4, le=2**20)] = 100
    generations: Annotated[int, Field(ge=0, le=2**31)] = 500
    warm_generations: Annotated[int, Field(ge=0, le=2**31)] = 100
    parent_ratio: Annotated[float, Field(gt=0, le=1)] = 0.25
    mutation_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    mutate_prob: Annotated[float, Field(gt=0, le=1)] = 0.1
    distinct_parents: bool | None = None  # None: as the strategy has it, here no
    # a search stops after so many generations in which its best answers have not moved; None: it does not
    patience: Annotated[int, Field(ge=1, le=2**31)] | None = None

    @model_validator(mode="after")
    def _at_least_one_parent(self) -> EvolutionParams:
        if self.sizes().parents < 1:
            raise ValueError(
                f"parent_ratio: expected at least one parent, found {self.parent_ratio} x {self.population}"
            )
        return self

    def sizes(self) -> Sizes:
        """The whole numbers that the ratios stand for."""
        return Sizes(
            population=self.population,
            parents=round(self.parent_ratio * self.population),
            mutations=round(self.mutation_ratio * self.population),
            mutate_prob=self.mutate_prob,
            distinct_parents=bool(self.distinct_parents),
        )

    def shared(self) -> dict[str, Any]:
        """The fields that every strategy reads and that every identity holds."""
        return {name: getattr(self, name) for name in SHARED}

    def identity(self) -> dict[str, Any]:
        """What of a search's identity follows from its hyper-parameters."""
        own = {name: value for name, value in self if name not in EvolutionParams.model_fields}
        distinct = {"distinct_parents": True} if self.distinct_parents else {}
        patience = {} if self.patience is None else {"patience": self.patience}
        return {**self.shared(), **distinct, **patience, **own}

    def read_as(self, model: type[P]) -> P:
        """These hyper-parameters as a strategy's own model reads them: its fields, and no others.

        Raises ``pydantic.ValidationError``: a value is out of the model's bounds."""
        if type(self) is model:
            return self
        return model(**{name: value for name, value in self if name in model.model_fields})


P = TypeVar("P", bound=EvolutionParams)
LATER = ("distinct_parents", "patience")  # fields that identities hold only where they are set
SHARED = tuple(name for name in EvolutionParams.model_fields if name not in LATER)
