"""Define and validate the hyper-parameters of the strategies.

Each strategy reads a model of its own: :class:`EvolutionParams`, or a class derived from it that adds the
hyper-parameters that only this strategy reads. The text below each field is its entry in
``docs/reference/sweep-file.md``."""

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
    """Hyper-parameters that every strategy reads. The defaults are those of OFA and of the top-down paper.

    Derive a model from this class to give a strategy hyper-parameters of its own. Each new field needs a
    default and, if it is a number, bounds; its values are numbers, booleans or text. A derived model may
    narrow the bounds of the shared fields, but it must not change their defaults, because a sweep has one
    value of them for all its strategies."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    population: Annotated[int, Field(ge=4, le=2**20)] = 100
    """Number of children in each generation."""
    generations: Annotated[int, Field(ge=0, le=2**31)] = 500
    """Number of generations of a full search."""
    warm_generations: Annotated[int, Field(ge=0, le=2**31)] = 100
    """Number of generations for a target whose search starts from the answer or population of another
    target. For `joint`, the number of generations that each further target adds to the search."""
    parent_ratio: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the population that survives as parents of the next generation."""
    mutation_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the children that are made by mutation. The other children are made by crossover."""
    mutate_prob: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Probability with which a mutation redraws each gene or group of genes."""
    distinct_parents: bool | None = None
    """Whether an architecture can be among the parents only once. If it is not set, `joint` uses distinct
    parents and the other strategies do not, so that they stay the published algorithms."""
    patience: Annotated[int, Field(ge=1, le=2**31)] | None = None
    """Number of generations without a better answer after which a search stops working on a target. `joint`
    works on all targets at once, and stops when none of them has had a better answer for this long. If it is
    not set, every search runs all of its generations."""

    @model_validator(mode="after")
    def _at_least_one_parent(self) -> EvolutionParams:
        if self.sizes().parents < 1:
            raise ValueError(
                f"parent_ratio: expected at least one parent in a population of {self.population}, found "
                f"{self.parent_ratio}"
            )
        return self

    def sizes(self) -> Sizes:
        """Return the sizes of the evolution as whole numbers, computed from the ratios."""
        return Sizes(
            population=self.population,
            parents=round(self.parent_ratio * self.population),
            mutations=round(self.mutation_ratio * self.population),
            mutate_prob=self.mutate_prob,
            distinct_parents=bool(self.distinct_parents),
        )

    def shared(self) -> dict[str, Any]:
        """Return the values of the fields that every strategy reads and that are part of every identity."""
        return {name: getattr(self, name) for name in SHARED}

    def identity(self) -> dict[str, Any]:
        """Return the part of a search's identity that follows from its hyper-parameters."""
        own = {name: value for name, value in self if name not in EvolutionParams.model_fields}
        distinct = {"distinct_parents": True} if self.distinct_parents else {}
        patience = {} if self.patience is None else {"patience": self.patience}
        return {**self.shared(), **distinct, **patience, **own}

    def read_as(self, model: type[P]) -> P:
        """Return these hyper-parameters as the model of a strategy, which holds its own fields only.

        Args:
            model: The strategy's model, derived from `EvolutionParams`.

        Raises:
            pydantic.ValidationError: A value is out of the model's bounds.
        """
        if type(self) is model:
            return self
        return model(**{name: value for name, value in self if name in model.model_fields})


P = TypeVar("P", bound=EvolutionParams)
LATER = ("distinct_parents", "patience")  # fields that identities hold only where they are set
SHARED = tuple(name for name in EvolutionParams.model_fields if name not in LATER)
