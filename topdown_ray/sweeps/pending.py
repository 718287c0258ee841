"""List the searches of a sweep that have no rows yet, and take them in shards of any size.

They are made one at a time, so that a sweep of millions of searches needs little memory and starts at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from topdown_ray.algorithms.strategies import find_strategy
from topdown_ray.store.identities import Identities
from topdown_ray.sweeps.groups import Group, Shard
from topdown_ray.sweeps.identities import identities_of
from topdown_ray.sweeps.spec import SweepSpec

TOGETHER = 1024  # number of searches that are looked up at once
NONE = Identities()


def evaluations_of(group: Group) -> int:
    """Return the predictor evaluations of one search of a group."""
    return find_strategy(group.strategy).evaluations(group.params, len(group.targets))


@dataclass(frozen=True)
class _Next:
    group: Group
    seed: int
    identities: tuple[str, ...]  # one for each part of the group


class Pending:
    """The pending searches, group after group and seed after seed.

    artefacts: for each space, the hashes that are part of a search's identity. finished: identities that have
    rows. chosen: the identities that are wanted; None for all.
    """

    def __init__(
        self,
        spec: SweepSpec,
        artefacts: Mapping[str, Mapping[str, str]],
        finished: Identities = NONE,
        chosen: Set[str] | None = None,
    ):
        self._spec = spec
        self._artefacts = artefacts
        self._finished = finished
        self._chosen = chosen
        self._met = 0  # number of finished searches that were passed
        self._ahead = spec.n_searches()  # number of searches that were not looked up yet
        self._each: dict[Group, int] = {group: evaluations_of(group) for group in spec.groups()}
        self._ahead_evaluations = len(spec.seeds) * sum(self._each.values())
        self._walk = self._searches()
        self._next = next(self._walk, None)

    def _searches(self) -> Iterator[_Next]:
        for group in self._spec.groups():
            of = identities_of(group, self._spec.protocol, self._artefacts[group.space])
            each, parts = self._each[group], len(group.each)
            for start in range(0, len(self._spec.seeds), TOGETHER):
                seeds = self._spec.seeds[start : start + TOGETHER]
                named = [of(seed) for seed in seeds]
                known = self._finished.has([*itertools.chain(*named)]).reshape(-1, parts)
                there = [all(each) for each in known.tolist()]
                for seed, identities, finished in zip(seeds, named, there, strict=True):
                    self._ahead -= parts
                    self._ahead_evaluations -= each
                    if finished:
                        self._met += parts
                    elif self._chosen is None or not self._chosen.isdisjoint(identities):
                        yield _Next(group, seed, identities)

    @property
    def group(self) -> Group | None:
        """The group of the next shard, or None if nothing is pending."""
        return self._next.group if self._next else None

    @property
    def evaluations(self) -> float:
        """An estimate of the predictor evaluations that are still to be taken, as if finished searches were
        spread evenly over those that were not looked up yet.
        """
        first = self._each[self._next.group] if self._next else 0
        unmet = max(len(self._finished) - self._met, 0)
        share = 1 - unmet / self._ahead if self._ahead else 0.0
        return first + self._ahead_evaluations * max(share, 0.0)

    def evaluations_of(self, group: Group) -> int:
        """Return the predictor evaluations of one search of a group."""
        return self._each[group]

    def take(self, size: int) -> Shard:
        """Return the next shard, with at most this many seeds, all of one group. Call it only while
        :attr:`group` is not None.
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
