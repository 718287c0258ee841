"""Make groups of searches that run in lock step from a specification, and split them into shards."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import NamedTuple

from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.files import digest
from topdown_ray.sweeps.targets import SetLimits, Targets

# prefixes of the name of a limit's cost, and of the number of one of several costs, among the hashes of a
# space's artefacts
LIMIT, COST = "limit:", "cost:"

#: The further limits of a target, as (cost, limit).
TargetLimits = tuple[tuple[str, float], ...]
GroupLimits = tuple[TargetLimits, ...]


class Device(NamedTuple):
    """A cost of a sweep with its targets and limits."""

    cost: str  # a name or a path
    sets: tuple[Targets, ...]
    limits: tuple[SetLimits, ...]  # for each target of each set; empty if the sweep has none

    def limits_of(self, i: int) -> GroupLimits:
        """Return the further limits of each target of a set; empty if no target of the set has any."""
        limits = self.limits[i] if self.limits else ()
        return tuple(tuple(sorted(one.items())) for one in limits) if any(limits) else ()


@dataclass(frozen=True)
class Group:
    """Searches that differ only in their seed.

    A search that serves several devices at once is a group with ``parts``, one for each device: its targets
    are theirs in their order, and its tables record each part as a search of its own.
    """

    space: str
    strategy: str
    targets: Targets
    params: EvolutionParams
    label: str = ""  # of the entry of ``strategies``
    sha256: str = ""  # of a strategy that is a plug-in
    limits: GroupLimits = ()  # further limits of each target; empty if no target has any
    device: int = 0  # which of the space's costs the targets limit
    parts: tuple[Group, ...] = ()

    @property
    def each(self) -> tuple[Group, ...]:
        """The group of each device that its searches serve."""
        return self.parts or (self,)


def joined(parts: tuple[Group, ...]) -> Group:
    """Return the group whose searches serve the devices of all these groups at once."""
    limits = [one for part in parts for one in part.limits or ((),) * len(part.targets)]
    targets = tuple(target for part in parts for target in part.targets)
    return replace(parts[0], targets=targets, limits=tuple(limits) if any(limits) else (), parts=parts)


def calibration_key(group: Group) -> str:
    """Return the key of ``budget.calibrated`` for the searches of a group."""
    further = f"/{COST}{group.device}" if group.device else ""
    return f"{group.space}/{group.label}/{len(group.targets)}{further}"


@dataclass(frozen=True)
class Shard:
    """A batch of searches of one group that run in lock step."""

    group: Group
    seeds: tuple[int, ...]
    search_ids: tuple[str, ...]  # seed after seed, for each of the group's parts

    @functools.cached_property
    def shard_id(self) -> str:
        """The shard's name, which follows from its searches alone."""
        return digest(self.search_ids)
