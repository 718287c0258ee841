"""Report improvements of the best accuracies of a sweep, as events :class:`Improved`."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from topdown_ray.store.answers import best_accuracies, read_best_accuracies
from topdown_ray.store.place import Place
from topdown_ray.sweeps.events import Improved, Observer, ShardDone, Started, SweepEvent

_KEYS = ("space", "predictor_space", "strategy", "label", "cost_name", "target", "limits")


def observed_by(observers: Sequence[Observer], place: Place) -> Observer:
    """Return an observer that passes all events on to these, followed by what has improved. After
    :class:`Started`, it first reports the best accuracies of the result folder. Raises UserError if that
    cannot be read.
    """
    best: dict[tuple[object, ...], float] = {}

    def tell(event: SweepEvent) -> None:
        for observer in observers:
            observer(event)

    def compare(answers: pa.Table, done: int) -> None:
        for answer in answers.select([*_KEYS, "accuracy"]).to_pylist():
            key = tuple(answer[name] for name in _KEYS)
            if answer["accuracy"] > best.get(key, -1.0):
                best[key] = answer["accuracy"]
                tell(Improved(**answer, done=done))

    def observe(event: SweepEvent) -> None:
        tell(event)
        if isinstance(event, Started):
            compare(read_best_accuracies(place), event.done)
        elif isinstance(event, ShardDone):
            compare(best_accuracies(event.rows), event.done)

    return observe
