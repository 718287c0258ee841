"""How many searches a shard holds, from measured speed: a shard lasts seconds, and at the end of a sweep the
workers finish together.

Speed is seconds a predictor evaluation, by device and group of searches. A larger batch costs less a search
(the operations of a generation are shared), so the aim is a batch that is large enough first, and a duration
second."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from topdown_ray.sweeps.groups import Group

AIM_S = 10.0  # a shard's duration
SHORTEST_S = 2.0  # at the end of a sweep
SHARDS_PER_S = 50.0  # that one driver is asked to handle: the more workers, the longer a shard
# searches in lock step: a quarter off the speed of a large batch; long searches run so even for minutes
ENOUGH = 16
LARGEST = 1024  # searches in lock step
LARGEST_ROWS = 25_600  # searches x population: memory
PRIOR_S = 4e-6  # seconds an evaluation on a CPU core, until the first shard has been measured
MEMORY = 0.7  # weight of all earlier shards against the latest


@dataclass
class Speeds:
    """Seconds a predictor evaluation, measured: of a group on a device, else of its strategy and label, its
    space, the device, any device.
    """

    _of: dict[Hashable, tuple[float, float]] = field(default_factory=dict)  # (seconds, evaluations), fading

    @staticmethod
    def _keys(device: str, group: Group) -> tuple[Hashable, ...]:
        alike = (device, group.space, group.strategy, group.label)
        return (device, group), alike, (device, group.space), (device,), ()

    def record(self, device: str, group: Group, evaluations: int, seconds: float) -> None:
        """A shard of a group took so long on a device."""
        for key in self._keys(device, group):
            s, e = self._of.get(key, (0.0, 0.0))
            self._of[key] = MEMORY * s + seconds, MEMORY * e + evaluations

    def of(self, device: str, group: Group) -> float:
        """The best guess of seconds an evaluation."""
        for key in self._keys(device, group):
            if key in self._of:
                return self._of[key][0] / self._of[key][1]
        return PRIOR_S

    def of_peers(self, device: str, group: Group) -> float | None:
        """Seconds an evaluation as shards of the same space and strategy took on the same device; None before
        the first.
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
    """Searches in the next shard for a worker. each: evaluations of one search. pending: evaluations not
    taken yet.

    While much is pending: as many as last :data:`AIM_S`, at least :data:`ENOUGH`. Then half of what the
    workers could do together until all is done (guided self-scheduling: Polychronopoulos and Kuck 1987), down
    to :data:`SHORTEST_S`."""
    each_s = speeds.of(device, group) * each
    together = sum(n / speeds.of(kind, group) for kind, n in workers.items())  # evaluations a second
    share_s = pending / together  # until all is done
    aim_s = max(AIM_S, sum(workers.values()) / SHARDS_PER_S, ENOUGH * each_s)
    seconds = min(aim_s, max(share_s / 2, min(SHORTEST_S, share_s)))
    return max(1, min(round(seconds / each_s), LARGEST, LARGEST_ROWS // group.params.population))
