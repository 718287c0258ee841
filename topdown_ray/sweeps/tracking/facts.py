"""Collect what every tracker logs of a sweep: its parameters, its metrics and its final tables."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from topdown_ray.store.answers import BEST, CENTRE, KEYS, read_best_answers
from topdown_ray.store.place import Place
from topdown_ray.sweeps.events import Ended, Improved, ShardDone, SweepEvent

#: Called with the events since the last call, in their order.
Log = Callable[[Sequence[SweepEvent]], None]

LONGEST = 500  # characters of a parameter, whose full text is in run.json


@dataclass(frozen=True)
class TrackedSweep:
    """The sweep that is tracked: its manifest (the content of run.json), and its result folder or URI."""

    manifest: Mapping[str, Any]
    out: str

    @property
    def run_id(self) -> str:
        """The run id of the sweep, which stays the same when it is continued."""
        return str(self.manifest["run_id"])

    @property
    def title(self) -> str:
        """The name in the sweep file."""
        return str(self.manifest["spec"]["name"])

    @property
    def parameters(self) -> dict[str, str]:
        """The fields of the sweep file, with nested names joined by dots. Seeds are replaced by their
        number.
        """
        spec = dict(self.manifest["spec"])
        flat = _flat({**spec, "seeds": len(spec["seeds"])})
        return {_allowed(name, "/"): value for name, value in flat}

    def final_table(self) -> pa.Table:
        """Return a row for each space, strategy, cost, target and its limits: how many searches met the
        target, the mean and standard deviation of their predicted top-1, and the most accurate architecture.
        Raises UserError.
        """
        answers = read_best_answers(Place(self.out))
        n, above = answers["searches"], pc.divide(answers["total"], answers["searches"])
        spread = pc.subtract(answers["squares"], pc.multiply(above, answers["total"]))
        variance = pc.divide(pc.max_element_wise(spread, 0.0), pc.subtract(n, 1).cast(pa.float64()))
        sd = pc.if_else(pc.greater(n, 1), pc.sqrt(variance), pa.scalar(None, pa.float64()))
        statistics = {"searches": n, "mean_accuracy": pc.add(above, CENTRE), "sd_accuracy": sd}
        columns = {name: answers[name] for name in (*KEYS, *BEST)}
        order = [
            ("space", "ascending"),
            ("cost_name", "ascending"),
            ("label", "ascending"),
            ("target", "descending"),
        ]
        return pa.table({**columns, **statistics}).select([*KEYS, *statistics, *BEST]).sort_by(order)


def as_csv(table: pa.Table) -> str:
    """Return a table as text."""
    text = io.BytesIO()
    csv.write_csv(table, text)
    return text.getvalue().decode()


def metrics(events: Sequence[SweepEvent]) -> dict[str, tuple[float, int]]:
    """Return the last value of each metric in these events, and the number of finished searches at which it
    was measured.
    """
    found: dict[str, tuple[float, int]] = {}
    for event in events:
        values: dict[str, float] = {}
        if isinstance(event, ShardDone):
            values = {"searches_done": event.done, "searches_per_second": event.rate}
        elif isinstance(event, Improved):
            found[metric_name(event)] = (event.accuracy, event.done)
        elif isinstance(event, Ended):
            values = {"searches_done": event.done, "searches_failed": event.failed}
            values |= {"workers_lost": event.lost, "wall_s": event.wall_s}
        if isinstance(event, ShardDone | Ended):
            found |= {name: (float(value), event.done) for name, value in values.items()}
    return found


def metric_name(event: Improved) -> str:
    """Return ``best/SPACE/LABEL/COST/TARGET``, with ``COST NUMBER`` for each further limit of the target.

    Characters that MLflow does not allow (it allows letters, digits, ``_ - . : /`` and spaces) are written as
    ``_`` and their hexadecimal number.
    """
    limits: Mapping[str, float] = json.loads(event.limits) if event.limits else {}
    target = " ".join([f"{event.target:g}", *(f"{cost} {most:g}" for cost, most in limits.items())])
    return "/".join(["best", *map(_allowed, (event.space, event.label, event.cost_name, target))])


def _allowed(text: str, also: str = "") -> str:
    """Return a name without characters that MLflow rejects. also: further characters that are allowed."""
    return re.sub(rf"[^A-Za-z0-9_\-. :{also}]|^\.", lambda found: f"_{ord(found[0]):x}", text)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
        return
    text = value if isinstance(value, str) else json.dumps(value)
    yield name, text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
