"""Measure and check latency tables, on this machine or on one reserved node of each kind in a Ray cluster.

Different hardware is never mixed: each kind of node gets its own file, named after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from topdown_ray.cluster import connected
from topdown_ray.errors import StartError, UserError
from topdown_ray.files import brief_path, check_output
from topdown_ray.hardware import whole_subnets
from topdown_ray.hardware.nodes import RemoteWatch, node_kinds
from topdown_ray.hardware.rounds import FULL, QUICK, Effort, OnState, measure_layers
from topdown_ray.hardware.stopwatch import Stopwatch, check_conditions, check_words
from topdown_ray.spaces import latency_table
from topdown_ray.spaces.latency_table import Conditions, LatencyTable
from topdown_ray.spaces.registry import find_space
from topdown_ray.terminal import say

# called with what is measured, and its file
MeasureDisplay = Callable[[str, Path | None], AbstractContextManager[OnState]]


@contextlib.contextmanager
def silent(what: str, out: Path | None) -> Iterator[OnState]:
    """Show nothing."""
    yield lambda state: None


@dataclass(frozen=True)
class Thoroughness:
    """How much effort a user asks for. None: the default."""

    quick: bool = False
    minutes: float | None = None
    precision: float | None = None

    def effort(self, usual: Effort, strict: bool) -> Effort:
        """Return the effort of a measurement whose default is ``usual``. strict: whether too few minutes are
        an error.
        """
        effort = QUICK if self.quick else usual
        if self.minutes is not None:
            effort = replace(effort, minutes=self.minutes, strict=strict)
        return effort if self.precision is None else replace(effort, precision=self.precision)


def measure_space(
    address: str,
    space: str,
    conditions: Conditions,
    out: Path,
    thoroughness: Thoroughness,
    display: MeasureDisplay = silent,
) -> dict[Path, LatencyTable]:
    """Measure a space on this machine (address none) or on a cluster. Return the files and their tables.
    Raises UserError and StartError.
    """
    if out.suffix != latency_table.SUFFIX:
        raise UserError(f"--out: expected a {latency_table.SUFFIX} file, found {out}")
    check_output(out, "--out")
    effort = thoroughness.effort(FULL, strict=True)
    if address == "none":
        tables = measure_here(space, conditions, out, effort, display)
    else:
        tables = measure_cluster(address, space, conditions, out, effort, display)
    return {path: latency_table.read(path) for path in tables}  # read back from the files


def measure_here(
    space: str, conditions: Conditions, out: Path, effort: Effort, display: MeasureDisplay = silent
) -> dict[Path, LatencyTable]:
    """Measure a space on this machine. Return the file and its table. Raises UserError."""
    find_space(space)
    watch = Stopwatch(space, conditions)
    with display(space, out) as show:
        return {out: measure_layers(watch, space, conditions, out, effort, show)}


def measure_cluster(
    address: str,
    space: str,
    conditions: Conditions,
    out: Path,
    effort: Effort,
    display: MeasureDisplay = silent,
) -> dict[Path, LatencyTable]:
    """Measure a space on one node of each kind, one after another, each reserved as a whole. Writes a file
    ``OUT-KIND`` for each.

    Raises UserError, or StartError at the end for the kinds that could not be measured.
    """
    find_space(space)
    check_words(conditions)
    tables: dict[Path, LatencyTable] = {}
    failed: list[str] = []
    with connected(address, say):
        kinds = [kind for kind in node_kinds() if not conditions.device.startswith("cuda") or kind.gpus]
        if not kinds:
            raise UserError(
                f"--device: expected a cluster with {conditions.device}, found no node that offers it to Ray"
            )
        for kind in kinds:
            path = out.with_name(f"{out.stem}-{kind.label}{out.suffix}")
            watch = RemoteWatch(kind, space, conditions)
            try:
                with display(f"{kind.label} (1 of {kind.nodes})", path) as show:
                    tables[path] = measure_layers(watch, space, conditions, path, effort, show)
            except StartError as error:
                failed.append(str(error))
            finally:
                watch.close()
    if failed:
        raise StartError(f"measured {len(tables)} of {len(kinds)} kinds of nodes; {'; '.join(failed)}")
    return tables


def picture_of(path: Path) -> Path:
    """Return the default path of the picture that compares a table with whole subnets."""
    return path.with_name(f"{path.stem}.check.svg")


def check_table(
    path: Path, n: int, thoroughness: Thoroughness, picture: Path, display: MeasureDisplay = silent
) -> whole_subnets.SubnetComparison:
    """Compare a table with whole subnets on this machine, under the table's conditions. Write the times next
    to the picture of the comparison. Raises UserError.
    """
    table = latency_table.read(path)
    check_conditions(table.conditions)
    if picture.suffix != ".svg" or not picture.parent.is_dir():
        raise UserError(f"--picture: expected a .svg file in an existing folder, found {brief_path(picture)}")
    check_output(picture, "--picture")
    check_output(picture.with_suffix(".csv"), "--picture")
    watch = Stopwatch(table.space, table.conditions)
    with display("subnets", None) as show:
        effort = thoroughness.effort(whole_subnets.EFFORT, strict=False)
        comparison = whole_subnets.compare(watch, path, n, effort, on_state=show)
    whole_subnets.write_comparison(comparison, table, picture.parent, picture.stem)
    return comparison
