"""Run searches and sweeps for Python code and for the command line.

Mistakes in a specification are reported before anything slow is imported. The modules that search, and torch
with them, are imported when a plan is made."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from topdown_ray.addresses import check_address
from topdown_ray.errors import UserError, brief
from topdown_ray.spaces.registry import DEFAULT_SPACE, find_space
from topdown_ray.sweeps.events import Connected, Observer, ignore, json_lines
from topdown_ray.sweeps.following import Follow, counted, progress_bar, unfollowed
from topdown_ray.sweeps.spec import SweepSpec, make_spec, read_fields, read_spec
from topdown_ray.sweeps.tracking.options import Track, read_tracks
from topdown_ray.terminal import handlers_kept, say

if TYPE_CHECKING:
    import pandas as pd

    from topdown_ray.store.results import Results
    from topdown_ray.sweeps.driver import Plan, SweepSummary
    from topdown_ray.sweeps.executors import ShardExecutor
    from topdown_ray.sweeps.groups import Group

OnStep = Callable[[str], None]  # is called with the name of each slow step, before the step begins


def unsaid(step: str) -> None:
    """Ignore the step."""


@dataclass(frozen=True)
class Workers:
    """Where a sweep runs, and on how many actors."""

    address: str = "local"  # none: in this process, without Ray
    actors: int | None = None  # None: all CPUs of the cluster
    gpus: int = 0


class Forecast(NamedTuple):
    """The amount of work of a sweep."""

    searches: int
    evaluations: int  # of the predictor
    shards: int | None  # None: of some seconds each
    actors: int


def search(
    space: str = DEFAULT_SPACE,
    cost: str = "note10",
    targets: Sequence[float] | None = None,
    strategy: str = "top_down",
    seeds: int | Sequence[int] = 1,
    predictor: str = "published",
    limits: Mapping[str, float] | None = None,
    **params: Any,
) -> pd.DataFrame:
    """Run searches in this process, without Ray.

    Args:
        space: The design space: any value that the option `--space` of `topdown-ray search` accepts. The
            default is MobileNetV3.
        cost: The cost that the targets limit: `note10`, `macs`, `params`, `peak_activation`, another latency
            table, the path of a table, or `package.module:object`.
        targets: The target set, in ms for a latency table and in 1e6 MACs for `macs`. By default, five
            targets are spread over the range of the cost.
        strategy: The name of the strategy, or `package.module:function`.
        seeds: The number of seeds, which then count from 0, or a list of seeds. Each seed is one search.
        predictor: `published`, `embedded`, the path of a checkpoint, or `package.module:object`.
        limits: Limits on other costs that apply to all targets, such as `{"params": 6.0}`.
        **params: Hyper-parameters of the strategy, such as `population` and `generations`.

    Returns:
        A frame with one row for each search and target, with the columns of the table `searches`.

    Raises:
        UserError: An argument has a wrong value, or a file is missing. The message is one line.
    """
    if not isinstance(cost, str):
        raise UserError(
            f"search: cost: expected one name or path (use sweep for several), found {brief(cost)}"
        )
    try:
        if targets is None:
            from topdown_ray.spaces.cost import any_cost, typical_targets

            targets = typical_targets(*any_cost(cost, find_space(space)).range())
        data = {
            "name": "search",
            "spaces": [space],
            "strategies": [strategy],
            "cost": cost,
            "predictor": predictor,
            "targets": [list(targets)],
            "limits": limits,
            "seeds": seeds if isinstance(seeds, int) else list(seeds),
            "search": params,
        }
        plan = _plan(make_spec(data, "search"), None)
    except UserError as error:
        raise UserError(_of_arguments(str(error))) from None
    import pyarrow as pa

    from topdown_ray.algorithms.compiling import compiling_told
    from topdown_ray.store.schema import to_tables
    from topdown_ray.sweeps.runner import Worker

    with compiling_told(say):
        worker = Worker(plan.setups, plan.spec.groups())
    tables = [to_tables(plan.run_id, *worker.run(shard))[0] for shard in plan.shards()]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return frame


#: The arguments of :func:`search` that stand for fields of a sweep at the beginning of messages.
_ARGUMENTS = {"spaces": "space", "strategies": "strategy", "targets[0]": "targets"}


def _of_arguments(mistake: str) -> str:
    """Return a message about a field of a sweep as one about an argument of :func:`search`."""
    if mistake.startswith("--space: "):  # of find_space
        return f"search: {mistake.removeprefix('--')}"
    if not mistake.startswith("search: "):
        return mistake
    text = mistake.removeprefix("search: ").removeprefix("search.")
    for field, argument in _ARGUMENTS.items():
        if text.startswith(f"{field}:"):
            text = argument + text.removeprefix(field)
    return f"search: {text}"


def sweep(
    spec: SweepSpec | Mapping[str, Any] | str | Path | None = None,
    out: str | Path | None = None,
    *,
    address: str = "local",
    actors: int | None = None,
    gpus: int = 0,
    resume: bool = True,
    on_event: Observer | None = None,
    track: str | Sequence[str] = (),
    progress: bool = True,
    live: bool = False,
    **fields: Any,
) -> Results:
    """Run a sweep and load its results. If the result folder holds part of the same sweep, run the rest.

    In a process that is already connected to Ray, the sweep uses that connection and leaves it open.

    Args:
        spec: A `SweepSpec`, a mapping with the keys of a sweep file, the path of a sweep file, or a result
            folder whose sweep is to run. Leave it out to describe the sweep by `fields` alone.
        out: The result folder or URI. The default is `results/NAME`.
        address: Where the search actors run: `local` (Ray on this machine), `auto`, `HOST:PORT` or
            `ray://HOST:PORT` (a Ray cluster), or `none` (this process, without Ray).
        actors: The number of search actors on CPUs. By default, one for each CPU of the cluster.
        gpus: The number of additional search actors with one GPU each.
        resume: Whether to continue a folder that holds the same sweep. If false, such a folder is an error.
        on_event: A function that is called with each event of the sweep, see `topdown_ray.events`.
        track: One tracker or several: `tensorboard:DIR`, `mlflow:URI` or `mlflow`.
        progress: Whether to show a progress bar.
        live: Whether to show progress and the best accuracies in the output of a notebook cell, instead of
            the progress bar.
        **fields: Keys of a sweep file, which override those of `spec`.

    Returns:
        The results of the whole sweep, including those that the folder held before.

    Raises:
        UserError: An argument, a file or the result folder is not as expected. The message is one line.
        StartError: No actor starts.
        StoreError: Results cannot be written, for example because the disk is full.

    Warns:
        RuntimeWarning: Shards failed permanently. Their tracebacks are in `failures/` of the result folder.
    """
    if not isinstance(address, str):
        raise UserError(
            f"address: expected local, auto, none, HOST:PORT or ray://HOST:PORT, found {brief(address)}"
        )
    tracks = _tracks_of(track)
    read = _spec_of(spec, fields)
    folder = f"results/{read.name}" if out is None else str(out)
    follow, on_step = (progress_bar, say) if progress else (unfollowed, unsaid)
    followers = [on_event] if on_event else []
    if live:
        from topdown_ray.sweeps.live_cell import LiveCell

        cell = LiveCell()
        follow, on_step = cell.follow, cell.step
        followers.append(cell.observe)
    plan = _plan(read, folder, on_step)
    try:
        workers = Workers(check_address(address), actors, gpus)
        with handlers_kept():
            summary = run_sweep(
                plan, folder, workers, resume, None, tracks, follow, followers, on_step=on_step
            )
    except UserError as error:
        raise UserError(_as_argument(str(error))) from None
    if summary.given_up:
        reason = next(iter(summary.given_up.values()))
        warnings.warn(
            f"{folder}: {len(summary.given_up)} shards failed permanently (see failures/), the first with "
            f"{reason}",
            RuntimeWarning,
            stacklevel=2,
        )
    from topdown_ray.store.results import load

    return load(folder)


def _plan(spec: SweepSpec, folder: str | None, on_step: OnStep = unsaid) -> Plan:
    """Do as :func:`topdown_ray.sweeps.driver.make_plan` does, but check costs and names before importing
    it.
    """
    from topdown_ray.sweeps.artefacts import find_costs

    costs = find_costs(spec)
    from topdown_ray.sweeps.driver import make_plan

    return make_plan(spec, folder, on_step, costs)


def _tracks_of(track: str | Sequence[str]) -> list[Track]:
    try:
        return read_tracks([track] if isinstance(track, str) else track)
    except UserError as error:
        raise UserError(_as_argument(str(error))) from None


def _as_argument(mistake: str) -> str:
    """Return a message about options of a command as one about arguments of :func:`sweep`."""
    text = mistake.replace("(--no-resume)", "(resume=False)").replace("--address none", "address='none'")
    return re.sub(r"(?<![\w-])--([a-z]+(?:-[a-z]+)*)", lambda found: found[1].replace("-", "_"), text)


def _plain(value: Any) -> Any:
    """Return values as a sweep file has them, without numpy's types, ranges and paths."""
    import numpy as np

    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | range | np.ndarray):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def _spec_of(spec: SweepSpec | Mapping[str, Any] | str | Path | None, fields: Mapping[str, Any]) -> SweepSpec:
    if isinstance(spec, SweepSpec) and not fields:
        return spec
    data: Mapping[str, Any] = {}
    if isinstance(spec, SweepSpec):
        data = spec.model_dump(mode="json")
    elif isinstance(spec, Mapping):
        data = spec
    elif isinstance(spec, str | Path):
        data = read_fields(spec)
    elif spec is not None:
        raise UserError(f"spec: expected a SweepSpec, a mapping or a path, found {brief(spec)}")
    where = str(spec) if isinstance(spec, str | Path) else "sweep"
    return make_spec(_plain({"name": "sweep", **data, **fields}), where)


def plan_sweep(file: str, out: str, only: Sequence[str] = (), part: tuple[int, int] | None = None) -> Plan:
    """Return the plan of a sweep file, or of the sweep that a result folder holds.

    Args:
        file: The sweep file or result folder.
        out: The result folder to write, whose failed shards `only` can name.
        only: The searches or shards to run, see :meth:`Plan.only`.
        part: The part of the seeds to run, see :meth:`SweepSpec.part`.

    Raises:
        UserError: The sweep, or one of these selections, has a mistake.
    """
    spec = read_spec(file)
    plan = dataclasses.replace(_plan(spec if part is None else spec.part(*part), out, say), part=part)
    if not only:
        return plan
    from topdown_ray.store.failures import failed_searches

    return plan.only(only, failed_searches(out))


def forecast(plan: Plan, actors: int | None = None) -> Forecast:
    """Return the amount of work of a plan, as if none of its searches had run yet."""
    spec = plan.spec
    shards = None
    if spec.batch != "auto":
        shards = sum(1 for _ in spec.groups()) * math.ceil(len(spec.seeds) / spec.batch)
    return Forecast(spec.n_searches(), plan.evaluations(), shards, actors or os.cpu_count() or 1)


def run_sweep(
    plan: Plan,
    out: str,
    workers: Workers,
    resume: bool = True,
    log: str | None = None,
    tracks: Sequence[Track] = (),
    follow: Follow = unfollowed,
    followers: Sequence[Observer] = (),
    on_dashboard: Callable[[str], None] = lambda url: None,
    on_step: OnStep = unsaid,
) -> SweepSummary:
    """Open the folder, start the workers, and run the searches that have no rows yet.

    Args:
        plan: The searches.
        out: The result folder or URI.
        workers: Where they run.
        resume: Whether to continue a folder that holds the same sweep.
        log: A file for the events as JSON lines, or `-` for stderr.
        tracks: Trackers that receive the events.
        follow: Shows the progress.
        followers: Observers that receive the events.
        on_dashboard: Is called with the address of Ray's dashboard, if there is one.
        on_step: Is called with the name of each slow step before the first shard.

    Raises:
        UserError: An argument or the folder is not as expected.
        StartError: No actor starts.
        StoreError: Results cannot be written.
    """
    from topdown_ray.store.folder import ResultFolder
    from topdown_ray.store.manifest import read_manifest
    from topdown_ray.sweeps import driver
    from topdown_ray.sweeps.identities import check_known_identities
    from topdown_ray.sweeps.improvements import observed_by
    from topdown_ray.sweeps.tracking.background import trackers
    from topdown_ray.sweeps.tracking.facts import TrackedSweep

    folder = ResultFolder(out)
    manifest = plan.manifest()
    folder.check(manifest, resume)
    if folder.place.exists("run.json"):
        check_known_identities(plan.spec, read_manifest(out), folder.place.of("run.json"))
    with (
        json_lines(log) as write,
        trackers(tracks, TrackedSweep(manifest, out)) as tracked,
        _executor(plan, workers, on_step) as executor,
    ):
        told = [observer for observer in (write, *tracked, *followers) if observer is not ignore]
        observe = counted(observed_by(told, folder.place) if told else ignore, workers.address)
        announce(workers.address, _dashboard(workers.address), observe, on_dashboard)
        folder.open(manifest, resume)
        with follow(folder) as on_progress:
            return driver.run(plan, folder, executor, on_progress, observe=observe)


def announce(
    address: str, dashboard: str | None, observe: Observer, on_dashboard: Callable[[str], None]
) -> None:
    """Report that the cluster of the workers is connected, and the address of its dashboard."""
    observe(Connected(address, dashboard))
    if dashboard:
        on_dashboard(dashboard)


@contextlib.contextmanager
def _executor(plan: Plan, workers: Workers, on_step: OnStep) -> Iterator[ShardExecutor]:
    if workers.address == "none":
        if workers.actors not in (None, 1):
            raise UserError(f"--actors: expected 1 with --address none, found {workers.actors}")
        if workers.gpus:
            raise UserError(f"--gpus: expected 0 with --address none, found {workers.gpus}")
        from topdown_ray.algorithms.compiling import compiling_told
        from topdown_ray.sweeps.driver import in_process

        with compiling_told(on_step):
            executor = in_process(plan)
        yield executor
        return
    if workers.actors == 0 and workers.gpus == 0:
        raise UserError("--actors: expected at least 1 if --gpus is 0, found 0")
    if workers.address == "local":
        _compile(plan, on_step)
    from topdown_ray.cluster import connected
    from topdown_ray.sweeps.executors import shard_pool

    with connected(workers.address, on_step):
        pool = shard_pool(workers.actors, plan.run_id, plan.setups, workers.gpus, list(plan.spec.groups()))
        try:
            yield pool
        finally:
            pool.close()


def _compile(plan: Plan, on_step: OnStep) -> None:
    """Compile everything that the actors on this machine will call into the machine's cache, so that each
    actor does not compile it again without telling the user. This takes a moment if the cache has it already.
    """
    from topdown_ray.algorithms.compiling import compiling_told
    from topdown_ray.sweeps.runner import Worker

    # the compiled code depends on the strategy and on the kinds of costs and predictor, not on the space
    first: dict[tuple[str, frozenset[type], type], Group] = {}
    for group in plan.spec.groups():
        setup = plan.setups[group.space]
        kinds = {type(cost) for cost in setup.named_costs.values()}
        first.setdefault((group.strategy, frozenset(kinds), type(setup.predictor)), group)
    spaces = {group.space for group in first.values()}
    with compiling_told(on_step):
        Worker({space: plan.setups[space] for space in spaces}, first.values())


def _dashboard(address: str) -> str | None:
    if address == "none":
        return None
    from topdown_ray.cluster import dashboard_url

    return dashboard_url()
