"""The searches of a sweep that have no rows yet, taken from in shards of any size.

Made one at a time, so that a sweep of millions of searches needs no memory and starts at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from topdown_ray.algorithms.strategies import find_strategy
from topdown_ray.sweeps.groups import Group, Shard
from topdown_ray.sweeps.identities import identities_of
from topdown_ray.sweeps.spec import SweepSpec


def evaluations_of(group: Group) -> int:
    """Predictor evaluations of one search of a group."""
    return find_strategy(group.strategy).evaluations(group.params, len(group.targets))


@dataclass(frozen=True)
class _Next:
    group: Group
    seed: int
    identities: tuple[str, ...]  # of each part of the group


class Pending:
    """The pending searches, group after group, seed after seed.

    artefacts: of each space, the hashes that are part of a search's identity. finished: identities that have
    rows. chosen: the identities that are wanted; None for all."""

    def __init__(
        self,
        spec: SweepSpec,
        artefacts: Mapping[str, Mapping[str, str]],
        finished: Set[str] = frozenset(),
        chosen: Set[str] | None = None,
    ):
        self._spec = spec
        self._artefacts = artefacts
        self._finished = finished
        self._chosen = chosen
        self._met = 0  # of the finished, those passed by
        self._ahead = spec.n_searches()  # not looked at yet
        self._each: dict[Group, int] = {group: evaluations_of(group) for group in spec.groups()}
        self._ahead_evaluations = len(spec.seeds) * sum(self._each.values())
        self._walk = self._searches()
        self._next = next(self._walk, None)

    def _searches(self) -> Iterator[_Next]:
        for group in self._spec.groups():
            of = identities_of(group, self._spec.protocol, self._artefacts[group.space])
            each = self._each[group]
            for seed in self._spec.seeds:
                identities = of(seed)
                self._ahead -= len(identities)
                self._ahead_evaluations -= each
                if all(map(self._finished.__contains__, identities)):
                    self._met += len(identities)
                elif self._chosen is None or not self._chosen.isdisjoint(identities):
                    yield _Next(group, seed, identities)

    @property
    def group(self) -> Group | None:
        """The group that the next shard is of; None when nothing is pending."""
        return self._next.group if self._next else None

    @property
    def evaluations(self) -> float:
        """Predictor evaluations still to be taken; as if what is finished were spread evenly over what was
        not looked at yet.
        """
        first = self._each[self._next.group] if self._next else 0
        unmet = max(len(self._finished) - self._met, 0)
        share = 1 - unmet / self._ahead if self._ahead else 0.0
        return first + self._ahead_evaluations * max(share, 0.0)

    def evaluations_of(self, group: Group) -> int:
        """Predictor evaluations of one search of a group."""
        return self._each[group]

    def take(self, size: int) -> Shard:
        """The next shard: at most this many seeds, all of one group. Call it only while :attr:`group` is not
        None.
        """
        assert self._next is not None
        group = self._next.group
        seeds: list[int] = []
        identities: list[str] = []
        while self._next is not None and self._next.group == group and len(seeds) < size:
            seeds.append(self._next.seed)
            identities.extend(self._next.identities)
            self._next = next(self._walk, None)
        return Shard(group, tuple(seeds), tuple(identities))
