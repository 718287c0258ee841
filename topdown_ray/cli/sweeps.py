"""Define the commands that run searches: ``demo``, ``sweep``, ``search``, ``status`` and ``merge``."""

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
    out: Annotated[str | None, typer.Option(help="Result folder (default: results/demo-PREDICTOR).")] = None,
    address: Address = "local",
    actors: Actors = None,
) -> None:
    """Run a small sweep on all three spaces. It uses the strategy top_down with five targets and two seeds,
    and the published predictors if they are available.
    """
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
        str,
        typer.Argument(
            help="Sweep file (YAML), or a result folder whose sweep you want to continue or repeat."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            help="Result folder or URI (s3://...). If it has the same sweep, the sweep is continued."
        ),
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
    resume: Annotated[bool, typer.Option(help="Continue a result folder that has the same sweep.")] = True,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Run only this search, or this shard in failures/. Repeat for more."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Run only the K-th of N parts of the seeds, into a folder of its own. The command merge "
            "joins the parts.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the numbers of searches, evaluations and shards, and run nothing."
        ),
    ] = False,
    log_json: Annotated[
        str | None,
        typer.Option(
            "--log-json",
            metavar="FILE|-",
            help="Also write one line of JSON for each event to a file, or to stderr (-).",
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Log the sweep to tensorboard:DIR, mlflow:URI or mlflow (the server in "
            "MLFLOW_TRACKING_URI). Repeat for more.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep, or continue one. A sweep has one search for each combination of space, strategy, target
    set and seed.
    """
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
        str,
        typer.Option(help="Cost: note10, macs, params, peak_activation, a latency table, or module:object."),
    ] = "note10",
    target: Annotated[
        list[float] | None,
        typer.Option(
            help="Target (ms, or 1e6 MACs). Repeat for more (default: five over the range of the cost)."
        ),
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="Strategy: independent, bottom_up, top_down, prune, random or joint.")
    ] = "top_down",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    predictor: PredictorName = "published",
    population: Annotated[int, typer.Option(help="Number of children per generation.")] = 100,
    generations: Annotated[
        int | None,
        typer.Option(
            help="Generations of a full search (default: 500; for joint 20, if --warm-generations "
            "is not given either)."
        ),
    ] = None,
    warm_generations: Annotated[
        int | None,
        typer.Option(
            help="Generations after a warm start (default: 100; for joint 4, if --generations is "
            "not given either)."
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COST=NUMBER",
            help="Limit on another cost, such as params=6.0 (1e6). Repeat for more.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run one search in this process, without Ray."""
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
    """Rewrite a message about an argument of ``topdown_ray.search`` so that it names the option of the
    command.
    """
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
    out: Annotated[str, typer.Argument(metavar="DIR_OR_URI", help="Result folder, or its URI.")],
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until the sweep has ended.")] = False,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Show the progress on a web page until you press Ctrl-C. The page is on loopback only; from "
            "another machine, use ssh -L PORT:127.0.0.1:PORT HOST.",
        ),
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of --serve (0: any free port).")] = 0,
    every: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two updates of --watch and --serve.")
    ] = 2.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON (with --watch, one line for each update).")
    ] = False,
) -> None:
    """Show the progress of a sweep. You can run this from another terminal, because it only reads the result
    folder.
    """
    if serve:
        if watch or as_json:
            found = "--watch" if watch else "--json"
            raise UserError(f"--serve: expected neither --watch nor --json, found {found}")
        from topdown_ray.cli import live

        live.serve(out, port, every)
        return
    if port:
        raise UserError("--port: expected the option --serve, found none")
    from topdown_ray.cli.present.status import print_updates
    from topdown_ray.sweeps.status import updates

    print_updates(updates(out, every if watch else None), live=watch, as_json=as_json)


def merge(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Result folder or URI to write.")],
    folders: Annotated[
        list[str],
        typer.Argument(metavar="DIR", help="Result folders or URIs of one sweep, each with its own seeds."),
    ],
    as_json: AsJson = False,
) -> None:
    """Merge the result folders of several drivers. Each driver must have run its own seeds of the same
    sweep.
    """
    from topdown_ray.store.manifest import read_manifest

    for folder in folders:  # before anything slow is imported
        read_manifest(folder)
    with status_line("Starting ...") as line:
        from topdown_ray.cli.present import sweeps as present
        from topdown_ray.sweeps.merge import merge_folders

        merged = merge_folders(out, folders, line.update)
    present.print_merged(merged, out, len(folders), as_json)


def _run(
    plan: Plan, out: str, workers: Workers, resume: bool, log: str | None = None, tracks: Sequence[Track] = ()
) -> SweepSummary:
    """Run a sweep and show its progress at the terminal."""
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
    """Keep the supervisor and the terminal informed. Print how to continue after an interrupt."""
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
        say(f"Interrupted. Finished shards are in {shown(out)}. Run the same command again to continue.")
        raise typer.Exit(130) from None
    finally:
        supervisor.sweep_ends()


def _exit(summary: SweepSummary) -> None:
    """Exit with status 1, and print the reasons, if shards failed permanently."""
    if summary.given_up:
        from topdown_ray.cli.present.sweeps import print_given_up

        print_given_up(summary.given_up)
        raise typer.Exit(1)
