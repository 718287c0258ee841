"""Measure a latency table in rounds over all layers of a space, until every median is precise enough or a
limit is reached.

A round runs every layer once, in a new random order, so that drift of the machine spreads evenly. The
interval of a median is that of order statistics (95 %, without assumptions about the distribution). Finished
rounds are kept next to the output, and an interrupted measurement continues after them.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pydantic
from scipy import stats

from topdown_ray.errors import UserError
from topdown_ray.files import brief_path, check_output, parse_json, read_bytes, validated, written
from topdown_ray.spaces.latency_table import Conditions, LatencyTable, read
from topdown_ray.spaces.layers import Layer
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Config

Array = npt.NDArray[np.float64]

PARTIAL = ".partial"
LEVEL = 0.95
# the machine slowed down if the last third of the rounds took this many times as long as the first third
THROTTLED = 1.05
_PART = 64  # number of layers between two readings of the clock


@dataclass(frozen=True)
class Effort:
    """When to stop: all intervals are within ``precision`` (half width over median), or after ``most`` rounds
    or ``minutes``.
    """

    precision: float = 0.02
    least: int = 11
    most: int = 300
    minutes: float = 5.0
    warm: int = 2  # first rounds, which do not count
    strict: bool = (
        False  # raise an error after the first round if ``least`` rounds do not fit into the minutes
    )


FULL = Effort()
QUICK = Effort(precision=0.05, least=7, most=50, minutes=1.0)


class LayerWatch(Protocol):
    """A timer of layers: ``stopwatch.Stopwatch``, or one on another node."""

    def facts(self) -> dict[str, Any]:
        """Return the name and hardware of the device, the clock and the versions."""
        ...

    def contention(self) -> float | None:
        """Return the wall time divided by the clock's time, which is 1 on a quiet machine; None if
        unknown.
        """
        ...

    def hold_layers(self, layers: Sequence[Layer]) -> None:
        """Prepare these layers to be timed."""
        ...

    def hold_subnets(self, configs: Sequence[Config]) -> None:
        """Prepare these subnets to be timed."""
        ...

    def laps(self, order: Sequence[int]) -> list[float]:
        """Return the times in ms, in this order."""
        ...


class RoundsState(NamedTuple):
    """The progress of a measurement: the share that is done (0 to 1), the rounds, and the share of intervals
    that are narrow enough.
    """

    done: float
    rounds: int
    tight: float


OnState = Callable[[RoundsState], None]


def median_interval(samples: Array) -> tuple[Array, Array]:
    """Return the 95 % interval of each column's median by order statistics: samples (R, n) -> low (n,), high
    (n,).

    With fewer than six samples the interval is the range, and its level is lower.
    """
    rounds = len(samples)
    # P(fewer than rank + 1 below the median) <= 2.5 %
    rank = max(int(stats.binom.ppf((1 - LEVEL) / 2, rounds, 0.5)) - 1, 0)
    ordered = np.sort(samples, axis=0)
    return ordered[rank], ordered[rounds - 1 - rank]


def half_widths(samples: Array) -> Array:
    """Return half of the interval divided by the median, for each column."""
    low, high = median_interval(samples)
    return (high - low) / 2 / np.median(samples, axis=0)


def rounds(
    watch: LayerWatch, n: int, effort: Effort, journal: Journal, on_state: OnState
) -> tuple[Array, float]:
    """Return all samples (R, n) in ms, those of the journal first, and the seconds they took."""
    samples, seconds = journal.load(n)
    limit = 60 * effort.minutes
    warm = effort.warm
    tight = 0.0
    on_state(RoundsState(0.0, len(samples), tight))
    while True:
        if samples:
            tight = float((half_widths(np.array(samples)) <= effort.precision).mean())
        enough = len(samples) >= effort.least and (tight == 1 or seconds >= limit)
        if enough or len(samples) >= effort.most:
            break
        generator = np.random.default_rng([len(samples), warm])
        begun = time.perf_counter()
        lap = np.empty(n)
        order = generator.permutation(n)
        for start in range(0, n, _PART):
            part = order[start : start + _PART]
            lap[part] = watch.laps(part.tolist())
            counts = 0.0 if warm else 1.0
            parts = len(samples) + counts * min(start + _PART, n) / n
            elapsed = (seconds + counts * (time.perf_counter() - begun)) / limit
            on_state(
                RoundsState(
                    min(max(min(elapsed, parts / effort.least), parts / effort.most), 1.0),
                    len(samples),
                    tight,
                )
            )
        if warm:  # takes most of the time in compile mode, and does not count towards the limit
            warm -= 1
            needed = seconds + (effort.least - len(samples)) * (time.perf_counter() - begun)
            if effort.strict and warm == 0 and needed > limit:
                raise UserError(
                    f"--minutes: expected at least {needed / 60:.2g}, which {effort.least} rounds take, "
                    f"found {effort.minutes:g}"
                )
        else:
            seconds += time.perf_counter() - begun
            samples.append(lap.tolist())
            journal.add(lap.tolist(), seconds)
    on_state(RoundsState(1.0, len(samples), tight))
    return np.array(samples), seconds


class _Round(pydantic.BaseModel):
    """A line of a journal."""

    ms: list[Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]]
    seconds: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]


class Journal:
    """The finished rounds of a measurement, kept next to its output: one line of JSON that describes the
    measurement, then one line for each round.

    A torn last line (the machine stopped) is dropped. If ``path`` is None, nothing is kept.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]):
        self.path, self.identity = path, json.loads(json.dumps(identity))

    def load(self, n: int) -> tuple[list[list[float]], float]:
        """Return the rounds (of n times each) and the seconds so far. Raises UserError for a file of another
        measurement.
        """
        if self.path is None or not self.path.exists():
            self._append({"identity": self.identity})
            return [], 0.0
        lines = list(_whole_lines(self.path))
        found = lines[0].get("identity") if lines else None
        if not isinstance(found, dict):
            raise UserError(
                f"{self.path}: expected an unfinished measurement, found another file; delete it to start "
                "again"
            )
        for name, value in self.identity.items():
            if found.get(name) != value:
                where = f"{self.path}: expected an unfinished measurement with {name} {value}"
                raise UserError(f"{where}, found {found.get(name)}; delete it to start again")
        kept = [line for line in lines[1:] if len(validated(_Round, line, f"{self.path}: round").ms) == n]
        with written(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in [lines[0], *kept]))
        return [line["ms"] for line in kept], kept[-1]["seconds"] if kept else 0.0

    def add(self, ms: Sequence[float], seconds: float) -> None:
        """Keep a round."""
        self._append({"ms": list(ms), "seconds": seconds})

    def remove(self) -> None:
        """Delete the journal, because the measurement is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _append(self, line: Mapping[str, Any]) -> None:
        if self.path is None:
            return
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UserError(
                f"{self.path}: expected a path that can be written, found none ({error.strerror})"
            ) from error


def _whole_lines(path: Path) -> Iterator[Any]:
    for line in read_bytes(path, "an unfinished measurement").decode(errors="replace").splitlines():
        try:
            value = parse_json(line, str(path))
        except UserError:  # the line that was being written when the process died
            return
        yield value if isinstance(value, dict) else {}


def noise(samples: Array, effort: Effort) -> dict[str, Any]:
    """Describe what the samples (R, n) show about the machine: outliers, the slowest round, whether it slowed
    down, and which medians are not precise enough.
    """
    speed = np.median(samples / np.median(samples, axis=0), axis=1)  # of each round
    third = max(len(samples) // 3, 1)
    slowdown = float(np.median(speed[-third:]) / np.median(speed[:third]))
    widths = half_widths(samples)
    return {
        "rounds": len(samples),
        "precision": effort.precision,
        "not_tight": int((widths > effort.precision).sum()),
        "half_width_median": float(np.median(widths)),
        "half_width_largest": float(widths.max()),
        "outlier_share": float(outliers(samples).sum() / samples.size),
        "slowest_round": float(speed.max()),
        "slowdown": slowdown,
        "throttled": slowdown > THROTTLED,
    }


def outliers(samples: Array) -> npt.NDArray[np.int64]:
    """Return the number of samples of each column that are more than three inter-quartile ranges above its
    third quartile. They are not removed.
    """
    first, third = np.quantile(samples, [0.25, 0.75], axis=0)
    return np.asarray((samples > third + 3 * (third - first)).sum(axis=0))


def measure_layers(
    watch: LayerWatch,
    space: str,
    conditions: Conditions,
    out: Path,
    effort: Effort = FULL,
    on_state: OnState = lambda state: None,
) -> LatencyTable:
    """Measure every layer of a space and write the table to ``out``. Raises UserError.

    A file ``out.partial`` of the same measurement is continued, and removed at the end.
    """
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out: expected a file in an existing folder, found {brief_path(out)}")
    check_output(out, "--out")
    if out.exists():
        read(out)  # an existing table is replaced, any other file is not
    layers = SPACES[space].distinct_layers()
    facts = watch.facts()
    identity = {"space": space, "layers": len(layers), **dataclasses.asdict(conditions), **facts}
    journal = Journal(out.with_name(out.name + PARTIAL), identity)
    if journal.path is not None and journal.path.exists():
        journal.load(len(layers))  # a journal of another measurement raises an error before anything is built
    watch.hold_layers(layers)
    samples, seconds = rounds(watch, len(layers), effort, journal, on_state)
    low, high = median_interval(samples)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    table = LatencyTable(
        space=space,
        conditions=conditions,
        layers=layers,
        median_ms=np.median(samples, axis=0),
        low_ms=low,
        high_ms=high,
        count=np.full(len(layers), len(samples)),
        outliers=outliers(samples),
        facts={
            **facts,
            "created_at": now,
            "seconds": seconds,
            "noise": {**noise(samples, effort), "contention": watch.contention()},
        },
    )
    table.write(out)
    journal.remove()
    return table
