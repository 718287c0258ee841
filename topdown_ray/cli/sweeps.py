"""The commands that search: demo, sweep, search, status, merge."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from topdown_ray.cli import supervisor
from topdown_ray.cli.display import no_progress, status_line, sweep_progress
from topdown_ray.cli.options import Actors, Address, AsJson, PredictorName, SpaceName, read_limit, read_part
from topdown_ray.errors import UserError
from topdown_ray.spaces.registry import DEFAULT_SPACE
from topdown_ray.terminal import say

if TYPE_CHECKING:
    from topdown_ray.progress import Progress
    from topdown_ray.store.folder import ResultFolder
    from topdown_ray.sweeps.api import Workers
    from topdown_ray.sweeps.driver import Plan, SweepSummary
    from topdown_ray.sweeps.tracking.options import Track


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (demo, sweep, search, status, merge):
        app.command()(command)


def demo(
    out: Annotated[
        str | None, typer.Option(help="The result folder; default: results/demo-PREDICTOR.")
    ] = None,
    address: Address = "local",
    actors: Actors = None,
) -> None:
    """A small sweep on all three spaces: top-down over five targets, two seeds."""
    supervisor.supervise(address)
    from topdown_ray.cli.present import sweeps as present
    from topdown_ray.sweeps.api import Workers
    from topdown_ray.sweeps.demo import plan_demo

    plan, used, folder = plan_demo(out)
    present.print_demo_begins(used)
    summary = _run(plan, folder, Workers(address, actors), resume=True)
    present.print_demo(summary, folder)
    _exit(summary)


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
        int,
        typer.Option(
            min=0,
            help="Number of additional search actors with one GPU each. The device column records where "
            "each search ran.",
        ),
    ] = 0,
    resume: Annotated[bool, typer.Option(help="Continue a folder that holds the same sweep.")] = True,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this search, or this shard of failures/; repeat for more."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Run only the K-th of N parts of the seeds, in a folder of its own; merge joins the parts.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the numbers of searches, evaluations and shards.")
    ] = False,
    log_json: Annotated[
        str | None,
        typer.Option(
            "--log-json",
            metavar="FILE|-",
            help="Also write one line of JSON per event to a file, or to stderr (-).",
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Follow the sweep in tensorboard:DIR, mlflow:URI or mlflow (MLFLOW_TRACKING_URI); repeat "
            "for more.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep: every combination of space, strategy, target set and seed."""
    supervisor.supervise("none" if dry_run else address)
    from topdown_ray.sweeps import api
    from topdown_ray.sweeps.tracking.options import read_tracks

    tracks = read_tracks(track or ())
    plan = api.plan_sweep(file, out, only or (), None if part is None else read_part(part))
    from topdown_ray.cli.present import sweeps as present

    if dry_run:
        present.print_forecast(api.forecast(plan, actors), as_json)
        return
    summary = _run(plan, out, api.Workers(address, actors, gpus), resume, log_json, tracks)
    present.print_summary(summary, plan.run_id, out, as_json)
    _exit(summary)


def search(
    space: SpaceName = DEFAULT_SPACE,
    cost: Annotated[
        str, typer.Option(help="note10, macs, params, peak_activation, a table, or module:object.")
    ] = "note10",
    target: Annotated[
        list[float] | None,
        typer.Option(
            help="A target (ms, or 1e6 MACs); repeat for more. Default: five over the range of the cost."
        ),
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="independent, bottom_up, top_down, prune, random or joint.")
    ] = "top_down",
    seed: Annotated[int, typer.Option(min=0, help="The search's seed.")] = 0,
    predictor: PredictorName = "published",
    population: Annotated[int, typer.Option(help="Children of a generation.")] = 100,
    generations: Annotated[
        int | None, typer.Option(help="Generations of a full search; default: the strategy's (500).")
    ] = None,
    warm_generations: Annotated[
        int | None, typer.Option(help="Generations after a warm start; default: the strategy's (100).")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COST=NUMBER",
            help="A limit on another cost, such as params=6.0 (1e6); repeat for more.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """One search in this process, without Ray."""
    from topdown_ray.sweeps import api

    lengths = {"generations": generations, "warm_generations": warm_generations}
    params = {"population": population, **{name: n for name, n in lengths.items() if n is not None}}
    try:
        limits = dict(map(read_limit, limit or ()))
        found = api.search(space, cost, target, strategy, [seed], predictor, limits or None, **params)
    except UserError as error:
        raise UserError(_as_option(str(error))) from None
    from topdown_ray.cli.present import sweeps as present

    present.print_search(found, as_json)


def _as_option(mistake: str) -> str:
    """A message about an argument of ``topdown_ray.search`` as one about the command's option."""
    argument, colon, rest = mistake.removeprefix("search: ").partition(":")
    names = {"targets": "target", "seeds": "seed", "limits": "limit"}
    known = (
        "space",
        "cost",
        "targets",
        "strategy",
        "seeds",
        "predictor",
        "limits",
        "population",
        "generations",
    )
    if argument not in (*known, "warm_generations"):
        return mistake
    return f"--{names.get(argument, argument).replace('_', '-')}{colon}{rest}"


def status(
    out: Annotated[str, typer.Argument(metavar="DIR_OR_URI", help="A result folder, or its URI.")],
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until the sweep no longer runs.")] = False,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Show it as a page in the browser, on loopback only, until Ctrl-C. From another machine: "
            "ssh -L PORT:127.0.0.1:PORT HOST.",
        ),
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of --serve; 0: one that is free.")
    ] = 0,
    every: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks at the folder of --watch and --serve.")
    ] = 2.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --watch, one line per update.")
    ] = False,
) -> None:
    """How far a sweep is, from its files alone: done, rate, time left, failures, whether it runs."""
    if serve:
        if watch or as_json:
            found = "--watch" if watch else "--json"
            raise UserError(f"--serve: expected neither --watch nor --json beside it, found {found}")
        from topdown_ray.cli import live

        live.serve(out, port, every)
        return
    if port:
        raise UserError("--port: expected --serve beside it, found none")
    from topdown_ray.cli.present.status import print_updates
    from topdown_ray.sweeps.status import updates

    print_updates(updates(out, every if watch else None), live=watch, as_json=as_json)


def merge(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The result folder or URI to write.")],
    folders: Annotated[
        list[str],
        typer.Argument(metavar="DIR", help="Result folders or URIs of one sweep, each with its own seeds."),
    ],
    as_json: AsJson = False,
) -> None:
    """Merge the result folders of several drivers, each of which ran its own seeds of one sweep."""
    from topdown_ray.store.manifest import read_manifest

    for folder in folders:  # before anything slow is imported
        read_manifest(folder)
    with status_line("starting") as line:
        from topdown_ray.cli.present import sweeps as present
        from topdown_ray.sweeps.merge import merge_folders

        merged = merge_folders(out, folders, line.update)
    present.print_merged(merged, out, len(folders), as_json)


def _run(
    plan: Plan, out: str, workers: Workers, resume: bool, log: str | None = None, tracks: Sequence[Track] = ()
) -> SweepSummary:
    """Run a sweep as the terminal follows it."""
    from topdown_ray.cli.present.sweeps import print_dashboard
    from topdown_ray.sweeps.api import run_sweep, unsaid

    return run_sweep(
        plan,
        out,
        workers,
        resume,
        log,
        tracks,
        lambda folder: _follow(folder, out, log),
        on_dashboard=print_dashboard,
        on_step=say if log != "-" else unsaid,
    )


@contextlib.contextmanager
def _follow(folder: ResultFolder, out: str, log: str | None) -> Iterator[Callable[[Progress], None]]:
    """Keep the supervisor and the terminal informed; an interrupt says how to continue."""
    from topdown_ray.addresses import shown
    from topdown_ray.cli.present.sweeps import print_opened

    supervisor.sweep_begins(out, log)
    try:
        print_opened(out, folder.damaged, folder.rebuilt)
        with sweep_progress() if log != "-" else no_progress() as show:

            def on_progress(state: Progress) -> None:
                supervisor.sweep_goes_on(state.done, state.total, state.failures, state.losses)
                show(state)

            yield on_progress
    except KeyboardInterrupt:
        say(f"Interrupted. Finished shards are in {shown(out)}; run the same command again to go on.")
        raise typer.Exit(130) from None
    finally:
        supervisor.sweep_ends()


def _exit(summary: SweepSummary) -> None:
    """Exit status 1, and the reasons, where shards failed for good."""
    if summary.given_up:
        from topdown_ray.cli.present.sweeps import print_given_up

        print_given_up(summary.given_up)
        raise typer.Exit(1)
