"""Choose the number of searches in a shard from measured speed, so that a shard lasts some seconds and all
workers finish together at the end of a sweep.

Speed is measured in seconds per predictor evaluation, for each device and group of searches. In a larger
batch each search costs less, because the operations of a generation are shared. The first aim is therefore a
batch that is large enough, and the second one its duration.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from topdown_ray.sweeps.groups import Group

AIM_S = 10.0  # duration of a shard
SHORTEST_S = 2.0  # duration of a shard at the end of a sweep
SHARDS_PER_S = 50.0  # most shards that one driver handles: with more workers, shards are longer
# searches in lock step; with so many, a search is a quarter slower than in a large batch. Shards of long
# searches have as many even if they then take minutes
ENOUGH = 16
LARGEST = 1024  # largest number of searches in lock step
LARGEST_ROWS = 25_600  # largest searches x population, which bounds memory
PRIOR_S = 4e-6  # seconds per evaluation on a CPU core until the first shard is measured
MEMORY = 0.7  # weight of all earlier shards relative to the latest one


@dataclass
class Speeds:
    """Measured seconds per predictor evaluation: of a group on a device, else of its strategy and label, its
    space, the device, any device.
    """

    # (seconds, evaluations), in which older shards count less
    _of: dict[Hashable, tuple[float, float]] = field(default_factory=dict)

    @staticmethod
    def _keys(device: str, group: Group) -> tuple[Hashable, ...]:
        alike = (device, group.space, group.strategy, group.label)
        return (device, group), alike, (device, group.space), (device,), ()

    def record(self, device: str, group: Group, evaluations: int, seconds: float) -> None:
        """Record how long a shard of a group took on a device."""
        for key in self._keys(device, group):
            s, e = self._of.get(key, (0.0, 0.0))
            self._of[key] = MEMORY * s + seconds, MEMORY * e + evaluations

    def of(self, device: str, group: Group) -> float:
        """Return the best guess of seconds per evaluation."""
        for key in self._keys(device, group):
            if key in self._of:
                return self._of[key][0] / self._of[key][1]
        return PRIOR_S

    def of_peers(self, device: str, group: Group) -> float | None:
        """Return the seconds per evaluation of shards with the same space and strategy on the same device, or
        None before the first.
        """
        for key in self._keys(device, group)[:2]:
            if key in self._of:
                return self._of[key][0] / self._of[key][1]
        return None


def batch_size(
    speeds: Speeds,
    device: str,
    group: Group,
    each: int,
    pending: float,
    workers: Mapping[str, int],
) -> int:
    """Return the number of searches in the next shard for a worker. each: evaluations of one search. pending:
    evaluations not taken yet.

    While much is pending, a shard has as many searches as last :data:`AIM_S`, and at least :data:`ENOUGH`.
    Towards the end, it lasts half of the time that all workers together need for the rest (guided
    self-scheduling: Polychronopoulos and Kuck 1987), down to :data:`SHORTEST_S`.
    """
    each_s = speeds.of(device, group) * each
    together = sum(n / speeds.of(kind, group) for kind, n in workers.items())  # evaluations per second
    share_s = pending / together  # until all is done
    aim_s = max(AIM_S, sum(workers.values()) / SHARDS_PER_S, ENOUGH * each_s)
    seconds = min(aim_s, max(share_s / 2, min(SHORTEST_S, share_s)))
    return max(1, min(round(seconds / each_s), LARGEST, LARGEST_ROWS // group.params.population))
