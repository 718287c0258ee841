"""Define the hyper-parameters of the strategy ``joint``, which decide how its children are made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from topdown_ray.algorithms.parameters import EvolutionParams


@dataclass(frozen=True)
class Moves:
    """How children are made; :class:`JointParams` describes the fields. The defaults were chosen on the
    tuning cases of the ablation in ``docs/results/joint.md``.
    """

    gradient_share: float = 0.5
    temperature: float = 3e-4
    changes: int = 4
    neighbour_rate: float = 0.2
    archive: int = 0
    share_archive: bool = True
    distinct_parents: bool = True
    front_share: float = 0.0


class JointParams(EvolutionParams):
    """Hyper-parameters of the strategy `joint`.

    With ``distinct_parents``, which `joint` uses unless you set it to false, an archive holds no architecture
    twice, and the search hardly ever draws one twice."""

    gradient_share: Annotated[float, Field(ge=0, le=1)] = Moves.gradient_share
    """Share of the children that are gradient-informed moves. It has no effect if the predictor has no
    gradient or the cost is not a sum over terms."""
    temperature: Annotated[float, Field(gt=0, le=1)] = Moves.temperature
    """Temperature of the gradient-informed moves, as a fraction of top-1 accuracy: a change that promises
    this much less accuracy than another is drawn e times less often."""
    changes: Annotated[int, Field(ge=1, le=16)] = Moves.changes
    """Largest number of single changes in a gradient-informed move."""
    neighbour_rate: Annotated[float, Field(ge=0, le=1)] = Moves.neighbour_rate
    """Probability that a parent comes from the archive of a neighbouring target."""
    archive: Annotated[int, Field(ge=0, le=4096)] = Moves.archive
    """Number of architectures that each archive holds. 0 stands for a sixtieth of the children of a target,
    but at least 6 and at most 128."""
    share_archive: bool = Moves.share_archive
    """Whether each child is offered to every target that it fits, and not only to the target that it was
    drawn for."""
    front_share: Annotated[float, Field(ge=0, le=0.9)] = Moves.front_share
    """Share of the children that serve the front below the tightest target."""

    def moves(self) -> Moves:
        """Return the parameters that decide how children are made."""
        own = {name: value for name, value in self if name not in EvolutionParams.model_fields}
        return Moves(**own, distinct_parents=self.distinct_parents is not False)

    def identity(self) -> dict[str, Any]:
        """Return the part of a search's identity that follows from its hyper-parameters."""
        moves = dataclasses.asdict(self.moves())
        if not self.front_share:  # added later; identities contain it only if it is set
            del moves["front_share"]
        patience = {} if self.patience is None else {"patience": self.patience}
        return {**self.shared(), **patience, "moves": moves}
