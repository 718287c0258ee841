"""Hyper-parameters of the strategy ``joint``, which decide how its children are made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from topdown_ray.algorithms.parameters import EvolutionParams


@dataclass(frozen=True)
class Moves:
    """How children are made. Defaults: chosen on the tuning cases of the ablation in ``docs/explanation/joint.md``."""

    gradient_share: float = 0.5  # of the children that are gradient-informed moves
    temperature: float = 3e-4  # top-1 units: a change that promises this much less is e times less likely
    changes: int = 4  # at most so many single changes a move
    neighbour_rate: float = 0.2  # how often a parent comes from the archive of a neighbouring target
    archive: int = 0  # places of each archive; 0: as many as the search's length bears
    share_archive: bool = (
        True  # offer each child to every target it fits, not only to the one it was drawn for
    )
    distinct_parents: bool = True
    front_share: float = 0.0  # of the children that serve the front below the tightest target


class JointParams(EvolutionParams):
    """What the strategy ``joint`` reads. ``distinct_parents``: yes unless it is switched off; an archive then
    holds no architecture twice, and none is drawn twice.
    """

    gradient_share: Annotated[float, Field(ge=0, le=1)] = Moves.gradient_share
    temperature: Annotated[float, Field(gt=0, le=1)] = Moves.temperature
    changes: Annotated[int, Field(ge=1, le=16)] = Moves.changes
    neighbour_rate: Annotated[float, Field(ge=0, le=1)] = Moves.neighbour_rate
    archive: Annotated[int, Field(ge=0, le=4096)] = Moves.archive
    share_archive: bool = Moves.share_archive
    front_share: Annotated[float, Field(ge=0, le=0.9)] = Moves.front_share

    def moves(self) -> Moves:
        """How children are made."""
        own = {name: value for name, value in self if name not in EvolutionParams.model_fields}
        return Moves(**own, distinct_parents=self.distinct_parents is not False)

    def identity(self) -> dict[str, Any]:
        """What of a search's identity follows from its hyper-parameters."""
        moves = dataclasses.asdict(self.moves())
        if not self.front_share:  # it came later
            del moves["front_share"]
        patience = {} if self.patience is None else {"patience": self.patience}
        return {**self.shared(), **patience, "moves": moves}
