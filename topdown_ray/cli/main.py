"""The command line: parse and wire; no logic.

A user's mistake is one line on stderr that names the field or file, what was expected and what was found, and
exit status 2. A sweep in which some shard finally failed exits 1; a fault of this program is one line too,
and exit status 70."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from topdown_ray.cli import assets, front, hardware, networks, status, supervisor
from topdown_ray.cli.display import Address, AsJson
from topdown_ray.errors import StartError, StoreError, UserError, one_line
from topdown_ray.files import brief_path, check_output, written
from topdown_ray.spaces.registry import DEFAULT_SPACE, in_words
from topdown_ray.terminal import end_on_signals, say

if TYPE_CHECKING:
    from topdown_ray.progress import Progress
    from topdown_ray.sweeps.driver import Plan, Summary

app = typer.Typer(
    name="topdown-ray",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Actors = Annotated[
    int | None,
    typer.Option(
        min=0, help="Search actors; default: all CPUs of the cluster, those of nodes that join later too."
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Before the command: print the traceback of an internal error.")
]
LogJson = Annotated[
    str | None,
    typer.Option(
        "--log-json", metavar="FILE|-", help="Also write a JSON line an event to a file, or - for stderr."
    ),
]


@app.callback()
def options(debug: Debug = False) -> None:
    """Large, repeated Once-for-All (OFA) architecture searches with many latency targets, on Ray."""
    _debug.set(debug)


class Workers(NamedTuple):
    """Where a sweep runs, and on how many actors."""

    address: str
    actors: int | None
    gpus: int = 0


@app.command()
def demo(
    out: Annotated[
        str | None, typer.Option(help="The result folder; default: results/demo-PREDICTOR.")
    ] = None,
    address: Address = "local",
    actors: Actors = None,
) -> None:
    """A small but true sweep on all three spaces: top-down over five targets, two seeds."""
    supervisor.supervise(address)
    from topdown_ray.addresses import shown
    from topdown_ray.cli import present
    from topdown_ray.store.results import load
    from topdown_ray.sweeps import demo as demo_module
    from topdown_ray.sweeps.driver import make_plan

    spec, used = demo_module.demo_spec()
    print(used)
    out = f"results/demo-{spec.predictor[spec.spaces[0]]}" if out is None else out
    summary = _sweep(make_plan(spec), out, Workers(address, actors), resume=True)
    results = load(out)
    present.print_best(results)
    present.print_winner(results)
    print(f"Results: {shown(out)}/ ({summary.progress.done} searches, {summary.wall_s:.1f} s)")
    _exit_status(summary)


@app.command()
def sweep(
    file: Annotated[
        str, typer.Argument(help="The sweep file (YAML), or a result folder: the sweep that it holds.")
    ],
    out: Annotated[
        str, typer.Option(help="The result folder or URI (s3://...); one with the same sweep is continued.")
    ],
    address: Address = "local",
    actors: Actors = None,
    gpus: Annotated[
        int, typer.Option(min=0, help="Search actors with a GPU each, beside them; rows say their device.")
    ] = 0,
    resume: Annotated[bool, typer.Option(help="Continue a folder that holds the same sweep.")] = True,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this search, or this shard of failures/; repeat for more."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the numbers of searches, evaluations and shards.")
    ] = False,
    log_json: LogJson = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep: every combination of space, strategy, target set and seed."""
    supervisor.supervise("none" if dry_run else address)
    from topdown_ray.addresses import shown
    from topdown_ray.store.failures import failed_searches
    from topdown_ray.sweeps.driver import make_plan
    from topdown_ray.sweeps.spec import read_spec

    plan = make_plan(read_spec(file))
    if only:
        plan = plan.only(only, failed_searches(out))
    if dry_run:
        _print_plan(plan, actors, as_json)
        return
    summary = _sweep(plan, out, Workers(address, actors, gpus), resume, log_json)
    progress = summary.progress
    facts = {
        "out": shown(out),
        "run_id": plan.run_id,
        "searches": progress.total,
        "done": progress.done,
        "failed": progress.failures,
        "wall_s": round(summary.wall_s, 3),
    }
    if as_json:
        print(json.dumps(facts))
    else:
        new = progress.done - progress.before
        print(
            f"{shown(out)}: {progress.done} of {progress.total} searches, {new} of them now in "
            f"{summary.wall_s:.1f} s"
        )
    _exit_status(summary)


@app.command()
def search(
    space: Annotated[str, typer.Option(help=f"{in_words()}.")] = DEFAULT_SPACE,
    cost: Annotated[
        str, typer.Option(help="note10, macs, a measured table's name or file, or a folder of tables.")
    ] = "note10",
    target: Annotated[
        list[float] | None, typer.Option(help="A target (ms, or 1e6 MACs); repeat for more.")
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="independent, bottom_up, top_down, prune, random or joint.")
    ] = "top_down",
    seed: Annotated[int, typer.Option(min=0, help="The search's seed.")] = 0,
    predictor: Annotated[
        str, typer.Option(help="published, embedded, or the path of a checkpoint.")
    ] = "published",
    population: Annotated[int, typer.Option(help="Children a generation.")] = 100,
    generations: Annotated[int, typer.Option(help="Generations of a full search.")] = 500,
    warm_generations: Annotated[int, typer.Option(help="Generations after a warm start.")] = 100,
    as_json: AsJson = False,
) -> None:
    """One search in this process, without Ray."""
    from topdown_ray.cli import present
    from topdown_ray.sweeps.driver import search as run_search

    params = {"population": population, "generations": generations, "warm_generations": warm_generations}
    targets = [35.0, 30.0, 25.0] if target is None else target
    frame = run_search(space, cost, targets, strategy, [seed], predictor, **params)
    present.print_search(frame, as_json)


@app.command()
def describe(
    source: Annotated[
        str, typer.Argument(help="A result folder, a JSON file, or an architecture as JSON text.")
    ],
    space: Annotated[str | None, typer.Option(help="Of a folder: rows of this space only.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Of a folder: rows of this strategy only.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of a folder: the seed; default: the most accurate row.")
    ] = None,
    target: Annotated[float | None, typer.Option(help="Of a folder: the target.")] = None,
    as_json: AsJson = False,
) -> None:
    """An architecture as OFA's layer list, with MACs and parameters of the OFA network."""
    from topdown_ray.cli import present

    present.print_architecture(
        source, {"space": space, "strategy": strategy, "seed": seed, "target": target}, as_json
    )


@app.command()
def verify(
    folder: Annotated[str, typer.Argument(help="A result folder, or its URI.")],
    rerun: Annotated[
        int, typer.Option(min=0, help="Search this many random rows again and compare all bits.")
    ] = 0,
    rerun_seed: Annotated[int, typer.Option(min=0, help="Which rows are searched again.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Derive every column again: from the architecture through OFA's own classes, and from run.json."""
    from topdown_ray.cli import present
    from topdown_ray.store.results import load
    from topdown_ray.sweeps.verify import verify as verify_results

    verification = verify_results(load(folder), rerun, rerun_seed)
    present.print_verification(verification, as_json)
    if not verification.passed:
        raise typer.Exit(1)


@app.command()
def report(
    folders: Annotated[
        list[str], typer.Argument(metavar="DIR...", help="Result folders or URIs; several are put together.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; default: the folder report in the first DIR.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Lay the original notebook's figures beside ours.")
    ] = False,
    reference: Annotated[
        str | None, typer.Option(help="A reference front: its name, or a CSV with cost, accuracy.")
    ] = None,
    reach: Annotated[
        list[float] | None, typer.Option(help="An accuracy to be reached (a fraction); repeat for more.")
    ] = None,
    floor: Annotated[float, typer.Option(help="The hypervolume's reference accuracy (a fraction).")] = 0.75,
    as_json: AsJson = False,
) -> None:
    """Statistics and pictures of sweeps: one self-contained report.html, figures as SVG and PDF, tables as
    CSV and Markdown.
    """
    from topdown_ray.report.build import Options, report_folder, write_report
    from topdown_ray.sweeps.reference_front import find_front

    out = report_folder(folders[0]) if out is None else out
    check_output(out, "--out", folder=True)
    options = Options(
        published, None if reference is None else find_front(reference), tuple(reach or ()), floor
    )
    made = write_report(folders, out, options)
    if as_json:
        print(json.dumps({**dataclasses.asdict(made), "path": str(made.path)}))
        return
    print(f"{made.path}: {made.tables} tables, {made.figures} figures", end="")
    print(f", {made.missing} searches missing" if made.missing else "")


@app.command()
def bench(
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Smaller searches, a minute or two; not comparable with the full ones."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the table here (Parquet).")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only contestants whose name begins so; repeat for more.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Repeats after the warm-up; default: 5, quick: 2.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Side by side on this machine: OFA's finder, the scalar top-down search, Ray tasks of it, and this
    project.
    """
    from topdown_ray.cli import present
    from topdown_ray.sweeps import bench as benchmark

    if out is not None:
        check_output(out, "--out")
    scale = benchmark.QUICK if quick else benchmark.FULL
    scale = scale if repeats is None else dataclasses.replace(scale, repeats=repeats)
    with present.laps_display() as show:
        table = benchmark.run(scale, only or (), show)
    if out is not None:
        with written(out) as temporary:
            table.to_parquet(temporary)
    present.print_bench(table, as_json)


def _sweep(plan: Plan, out: str, workers: Workers, resume: bool, log_json: str | None = None) -> Summary:
    """Open the folder, start the executor, run with a progress display."""
    from topdown_ray.addresses import shown
    from topdown_ray.cli.present import no_display, print_cluster, print_damaged, progress_display
    from topdown_ray.store.folder import ResultFolder
    from topdown_ray.sweeps import driver as driver
    from topdown_ray.sweeps.events import json_lines

    folder = ResultFolder(out)
    folder.check(plan.manifest(), resume)
    with json_lines(log_json) as observe, _executor(plan, workers) as executor:
        print_cluster(workers.address, _dashboard(workers.address), observe)
        folder.open(plan.manifest(), resume)
        supervisor.sweep_begins(out, log_json)
        try:
            print_damaged(folder.damaged)
            if folder.rebuilt:
                say(
                    f"{shown(out)}: run.json was missing; it has been written anew for the parts of this "
                    "sweep"
                )
            with progress_display() if log_json != "-" else no_display() as show:

                def on_progress(state: Progress) -> None:
                    supervisor.sweep_goes_on(state.done, state.total, state.failures, state.losses)
                    show(state)

                return driver.run(plan, folder, executor, on_progress, observe=observe)
        except KeyboardInterrupt:
            say(f"Interrupted. Finished shards are in {shown(out)}; run the same command again to go on.")
            raise typer.Exit(130) from None
        finally:
            supervisor.sweep_ends()


@contextlib.contextmanager
def _executor(plan: Plan, workers: Workers) -> Iterator[Any]:
    from topdown_ray.sweeps import driver as driver

    if workers.address == "none":
        if workers.actors not in (None, 1):
            raise UserError(f"--actors: expected 1 with --address none, found {workers.actors}")
        if workers.gpus:
            raise UserError(f"--gpus: expected 0 with --address none, found {workers.gpus}")
        yield driver.in_process(plan)
        return
    if workers.actors == 0 and workers.gpus == 0:
        raise UserError("--actors: expected at least 1, or --gpus, found 0")
    from topdown_ray.cluster import connected
    from topdown_ray.sweeps.executors import shard_pool

    with connected(workers.address):
        pool = shard_pool(
            workers.actors, plan.run_id, plan.setups, plan.spec.search, workers.gpus, list(plan.spec.groups())
        )
        try:
            yield pool
        finally:
            pool.close()


def _dashboard(address: str) -> str | None:
    if address == "none":
        return None
    from topdown_ray.cluster import dashboard_url

    return dashboard_url()


def _print_plan(plan: Plan, actors: int | None, as_json: bool) -> None:
    import math

    spec, workers = plan.spec, actors or os.cpu_count() or 1
    fixed = (
        None
        if spec.batch == "auto"
        else sum(1 for _ in spec.groups()) * math.ceil(len(spec.seeds) / spec.batch)
    )
    facts = {
        "searches": spec.n_searches(),
        "evaluations": plan.evaluations(),
        "shards": fixed,
        "actors": workers,
    }
    if as_json:
        print(json.dumps(facts))
    else:
        print(f"{facts['searches']:,} searches, {facts['evaluations']:,} predictor evaluations, ", end="")
        print(
            f"{fixed:,} shards on {workers} actors"
            if fixed
            else f"shards of some seconds on {workers} actors"
        )


def _exit_status(summary: Summary) -> None:
    if summary.given_up:
        for shard, reason in summary.given_up.items():
            record = f"failures/{shard}.json"
            print(
                f"shard {shard} failed: {reason}; {record} has the traceback and the command to rerun it",
                file=sys.stderr,
            )
        raise typer.Exit(1)


for topic in (assets, front, status, hardware, networks):
    topic.register(app)

_debug = contextvars.ContextVar("debug", default=False)

# typer brings its own copy of click or uses the installed one; the base of what it exports is right in either
# case
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """The console script."""
    end_on_signals()
    status = _status()
    try:
        sys.stdout.flush()  # a full disk shows here
    except OSError as error:
        _drop_output()  # else Python tries again as it ends, and complains
        if status == 0:
            status = (
                1
                if isinstance(error, BrokenPipeError)
                else _fail(f"stdout: expected room to write, found {error.strerror}")
            )
    supervisor.farewell(status)
    sys.exit(status)


def _status() -> int:
    """Run the command that the arguments name. Returns its exit status, after at most one line of error."""
    try:
        return int(app(standalone_mode=False) or 0)
    except _UsageError as error:
        if len(sys.argv) == 1:
            sys.argv.append("--help")
            return _status()
        return _fail(error.format_message())
    except UserError as error:
        return _fail(str(error))
    except StartError as error:
        return _fail(str(error), 1)
    except StoreError as error:
        return _fail(
            f"{error}; finished shards are kept: mend this and run the same command again to go on", 1
        )
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except BrokenPipeError:  # whoever read the output has gone
        return 1
    except OSError as error:  # of a disk, a name or a permission: the environment's fault, not ours
        if _debug.get():
            traceback.print_exception(error)
        where = "output" if error.filename is None else brief_path(str(error.filename))
        return _fail(
            f"{where}: expected leave and room to read and write, found {error.strerror or one_line(error)}"
        )
    except Exception as error:  # a fault of ours, whatever it is
        return _internal(error)


def _drop_output() -> None:
    """Let go of what can no longer be written to stdout."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _internal(error: Exception) -> int:
    """Status 70 (EX_SOFTWARE of sysexits.h): one line, and the traceback where --debug asks for it."""
    if _debug.get():
        traceback.print_exception(error)
    advice = "please report it with the command" + (
        "" if _debug.get() else "; topdown-ray --debug COMMAND prints the traceback"
    )
    return _fail(f"internal error: {type(error).__name__}: {one_line(error)}; {advice}", 70)


def _fail(message: str, status: int = 2) -> int:
    from topdown_ray.addresses import hidden

    say(f"error: {one_line(hidden(message), 2000)}")
    return status
