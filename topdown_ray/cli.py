"""The command line: parse and wire; no logic.

A user's mistake is one line on stderr that names the field or file, what was expected and what was found, and exit status 2. A
sweep in which some shard finally failed exits 1.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topdown_ray import cli_assets, cli_measure
from topdown_ray.errors import StartError, UserError

if TYPE_CHECKING:
    from topdown_ray.sweep import Plan, Summary

app = typer.Typer(
    name="topdown-ray",
    help="Large, repeated Once-for-All (OFA) architecture searches with many latency targets, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

cli_assets.register(app)

Address = Annotated[str, typer.Option(help="none (this process, no Ray), local, auto or HOST:PORT.")]
Actors = Annotated[int | None, typer.Option(min=1, help="Search actors; default: all CPUs of the cluster.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="The result folder; default: results/demo-PREDICTOR.")] = None,
    address: Address = "local",
    actors: Actors = None,
) -> None:
    """A small but true sweep on all three spaces: top-down over five targets, two seeds."""
    from topdown_ray import demo as demo_module
    from topdown_ray import present
    from topdown_ray.store import load
    from topdown_ray.sweep import make_plan

    spec, used = demo_module.demo_spec()
    print(used)
    out = Path(f"results/demo-{spec.predictor[spec.spaces[0]]}") if out is None else out
    summary = _sweep(make_plan(spec), out, address, actors, resume=True)
    results = load(out)
    present.print_best(results)
    present.print_winner(results)
    print(f"Results: {out}/ ({summary.progress.done} searches, {summary.wall_s:.1f} s)")
    _exit_status(summary)


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep file (YAML).")],
    out: Annotated[Path, typer.Option(help="The result folder; one that holds the same sweep is continued.")],
    address: Address = "local",
    actors: Actors = None,
    resume: Annotated[bool, typer.Option(help="Continue a folder that holds the same sweep.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the numbers of searches, evaluations and shards.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a sweep: every combination of space, strategy, target set and seed."""
    from topdown_ray.spec import load_spec
    from topdown_ray.sweep import make_plan

    plan = make_plan(load_spec(file))
    if dry_run:
        _print_plan(plan, actors, as_json)
        return
    summary = _sweep(plan, out, address, actors, resume)
    progress = summary.progress
    facts = {
        "out": str(out),
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
        print(f"{out}: {progress.done} of {progress.total} searches, {new} of them now in {summary.wall_s:.1f} s")
    _exit_status(summary)


@app.command()
def search(
    space: Annotated[str, typer.Option(help="mobilenet_v3, resnet50d or proxyless.")] = "mobilenet_v3",
    cost: Annotated[str, typer.Option(help="note10, macs, a measured table's name or file, or a folder of tables.")] = "note10",
    target: Annotated[list[float] | None, typer.Option(help="A target (ms, or 1e6 MACs); repeat for more.")] = None,
    strategy: Annotated[str, typer.Option(help="independent, bottom_up, top_down, prune or random.")] = "top_down",
    seed: Annotated[int, typer.Option(min=0, help="The search's seed.")] = 0,
    predictor: Annotated[str, typer.Option(help="published, embedded, or the path of a checkpoint.")] = "published",
    population: Annotated[int, typer.Option(help="Children a generation.")] = 100,
    generations: Annotated[int, typer.Option(help="Generations of a full search.")] = 500,
    warm_generations: Annotated[int, typer.Option(help="Generations after a warm start.")] = 100,
    as_json: AsJson = False,
) -> None:
    """One search in this process, without Ray."""
    from topdown_ray import present
    from topdown_ray.sweep import search as run_search

    params = {"population": population, "generations": generations, "warm_generations": warm_generations}
    targets = [35.0, 30.0, 25.0] if target is None else target
    frame = run_search(space, cost, targets, strategy, [seed], predictor, **params)
    present.print_search(frame, as_json)


@app.command()
def describe(
    source: Annotated[str, typer.Argument(help="A result folder, a JSON file, or an architecture as JSON text.")],
    space: Annotated[str | None, typer.Option(help="Of a folder: rows of this space only.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Of a folder: rows of this strategy only.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of a folder: the seed; default: the most accurate row.")] = None,
    target: Annotated[float | None, typer.Option(help="Of a folder: the target.")] = None,
    as_json: AsJson = False,
) -> None:
    """An architecture as OFA's layer list, with MACs and parameters of the OFA network."""
    from topdown_ray import present

    present.print_architecture(source, {"space": space, "strategy": strategy, "seed": seed, "target": target}, as_json)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A result folder.")],
    as_json: AsJson = False,
) -> None:
    """Recompute every row's accuracy and cost from its architecture, through OFA's own classes."""
    from topdown_ray import present
    from topdown_ray.store import load
    from topdown_ray.verify import verify as verify_results

    verification = verify_results(load(folder))
    present.print_verification(verification, as_json)
    if not verification.passed:
        raise typer.Exit(1)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Result folders; several are put together.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; default: the folder report in the first DIR.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Lay the original notebook's figures beside ours.")] = False,
    reference: Annotated[Path | None, typer.Option(help="A reference front: CSV with the columns cost, accuracy.")] = None,
    reach: Annotated[list[float] | None, typer.Option(help="An accuracy to be reached (a fraction); repeat for more.")] = None,
    floor: Annotated[float, typer.Option(help="The hypervolume's reference accuracy (a fraction).")] = 0.75,
    as_json: AsJson = False,
) -> None:
    """Statistics and pictures of sweeps: one self-contained report.html, figures as SVG and PDF, tables as CSV and Markdown."""
    from topdown_ray.report import Options, write_report

    options = Options(published, reference, tuple(reach or ()), floor)
    written = write_report(folders, folders[0] / "report" if out is None else out, options)
    if as_json:
        print(json.dumps({**dataclasses.asdict(written), "path": str(written.path)}))
        return
    print(f"{written.path}: {written.tables} tables, {written.figures} figures", end="")
    print(f", {written.missing} searches missing" if written.missing else "")


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller searches, under a minute.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the table here (Parquet).")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only contestants whose name begins so; repeat for more.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Repeats after the warm-up; default: 5, quick: 2.")] = None,
    as_json: AsJson = False,
) -> None:
    """Side by side on this machine: OFA's finder, the scalar top-down search, Ray tasks of it, and this project."""
    from topdown_ray import bench as benchmark
    from topdown_ray import present

    scale = benchmark.QUICK if quick else benchmark.FULL
    scale = scale if repeats is None else dataclasses.replace(scale, repeats=repeats)
    with present.laps_display() as show:
        table = benchmark.run(scale, only or (), show)
    if out is not None:
        table.to_parquet(out)
    present.print_bench(table, as_json)


def _sweep(plan: Plan, out: Path, address: str, actors: int | None, resume: bool) -> Summary:
    """Open the folder, start the executor, run with a progress display."""
    from topdown_ray import sweep as driver
    from topdown_ray.present import progress_display
    from topdown_ray.store import ResultFolder

    folder = ResultFolder(out)
    folder.check(plan.run_id, resume)
    with _executor(plan, address, actors) as executor:
        folder.open(plan.manifest(), resume)
        signal.signal(signal.SIGTERM, _interrupt)  # after ray.init, which installs its own
        with progress_display() as show:
            try:
                return driver.run(plan, folder, executor, show)
            except KeyboardInterrupt:
                print(f"Interrupted. Finished shards are in {out}; run the same command again to go on.", file=sys.stderr)
                raise typer.Exit(130) from None


@contextlib.contextmanager
def _executor(plan: Plan, address: str, actors: int | None) -> Iterator[Any]:
    from topdown_ray import sweep as driver

    if address == "none":
        if actors not in (None, 1):
            raise UserError(f"--actors: expected 1 with --address none, found {actors}")
        yield driver.in_process(plan)
        return
    from topdown_ray.actors import RayPool, connected

    with connected(address):
        pool = RayPool(actors, plan.run_id, plan.setups, plan.spec.search)
        try:
            yield pool
        finally:
            pool.close()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _print_plan(plan: Plan, actors: int | None, as_json: bool) -> None:
    import os

    workers = actors or os.cpu_count() or 1
    facts = {
        "searches": plan.spec.n_searches(),
        "evaluations": plan.evaluations(),
        "shards": sum(1 for _ in plan.shards(set(), workers)),
        "actors": workers,
    }
    if as_json:
        print(json.dumps(facts))
    else:
        print(f"{facts['searches']:,} searches, {facts['evaluations']:,} predictor evaluations, ", end="")
        print(f"{facts['shards']:,} shards on {workers} actors")


def _exit_status(summary: Summary) -> None:
    if summary.given_up:
        for shard, reason in summary.given_up.items():
            print(f"shard {shard} failed: {reason.strip().splitlines()[-1]}", file=sys.stderr)
        raise typer.Exit(1)


cli_measure.register(app)

# typer brings its own copy of click or uses the installed one; the base of what it exports is right in either case
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """The console script."""
    try:
        status = app(standalone_mode=False)
    except _UsageError as error:
        if len(sys.argv) == 1:
            sys.argv.append("--help")
            return main()
        status = _fail(error.format_message())
    except UserError as error:
        status = _fail(str(error))
    except StartError as error:
        status = _fail(str(error), 1)
    except (typer.Abort, KeyboardInterrupt):
        status = _fail("interrupted", 130)
    sys.exit(status)


def _fail(message: str, status: int = 2) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status
