"""Define the commands that read results: ``describe``, ``pick``, ``verify``, ``report``, ``compare`` and
``front``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from topdown_ray.cli.display import status_line
from topdown_ray.cli.options import AsJson, OfCost, OfStrategy, PredictorName, SpaceName, read_limit
from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.spaces.registry import DEFAULT_SPACE


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (describe, pick, verify, report, compare, front):
        app.command()(command)


def describe(
    source: Annotated[
        str, typer.Argument(help="A result folder, a JSON file, or an architecture as JSON text.")
    ],
    space: Annotated[str | None, typer.Option(help="For a result folder: use only this space.")] = None,
    strategy: OfStrategy = None,
    cost: OfCost = None,
    seed: Annotated[
        int | None,
        typer.Option(help="For a result folder: use only this seed (default: the most accurate row)."),
    ] = None,
    target: Annotated[float | None, typer.Option(help="For a result folder: use only this target.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show an architecture layer by layer. Print OFA's list of layers, with the MACs and parameters of the
    OFA network.
    """
    from topdown_ray.networks import api

    filters = {"space": space, "strategy": strategy, "cost_name": cost, "seed": seed, "target": target}
    described = api.describe(source, filters)
    from topdown_ray.cli.present import results as present

    present.print_architecture(described, as_json)


def pick(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A result folder, or its URI.")],
    at: Annotated[
        float,
        typer.Option(help="Highest cost of the architecture. It does not have to be a target of the sweep."),
    ],
    cost: Annotated[str | None, typer.Option(help="Cost that --at limits, if the sweep has several.")] = None,
    params: Annotated[float | None, typer.Option(help="Highest number of parameters (1e6).")] = None,
    macs: Annotated[float | None, typer.Option(help="Highest number of MACs (1e6).")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="COST=NUMBER", help="Limit on another cost of the sweep. Repeat for more."),
    ] = None,
    space: Annotated[str | None, typer.Option(help="Space to choose from, if the sweep has several.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Use only searches of this strategy (its name or label).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pick the best architecture for any cost. The command chooses from the fronts and answers in a result
    folder, without a new search.
    """
    limits = dict(map(read_limit, limit or ()))
    limits |= {name: most for name, most in (("params", params), ("macs", macs)) if most is not None}
    _check_folders(folder)
    from topdown_ray.cli.present import results as present
    from topdown_ray.store.results import load

    try:
        found = load(folder).pick(at, cost, limits, space, strategy)
    except UserError as error:
        raise UserError(_as_option(str(error))) from None
    present.print_pick(found, at, as_json)


def _as_option(mistake: str) -> str:
    """Rewrite a message about an argument of ``Results.pick`` so that it names the option of the command."""
    argument, colon, rest = mistake.partition(":")
    if argument not in ("at", "cost", "limits", "space", "strategy"):
        return mistake
    return f"--{argument.removesuffix('s') if argument == 'limits' else argument}{colon}{rest}"


def verify(
    folder: Annotated[str, typer.Argument(help="A result folder, or its URI.")],
    rerun: Annotated[
        int, typer.Option(min=0, help="Number of random rows to search again and compare bit by bit.")
    ] = 0,
    rerun_seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of rows for --rerun.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Recompute and check the rows of a sweep. The command recomputes what follows from each architecture
    with OFA's own classes, and checks the rest against run.json. It exits with status 1 if a check fails.
    """
    _check_folders(folder)
    from topdown_ray.cli.present import results as present
    from topdown_ray.store.results import load
    from topdown_ray.sweeps.verify import verify as verify_results

    verification = verify_results(load(folder), rerun, rerun_seed)
    present.print_verification(verification, as_json)
    if not verification.passed:
        raise typer.Exit(1)


def report(
    folders: Annotated[
        list[str],
        typer.Argument(metavar="DIR", help="Result folders or URIs. Several are reported together."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write (default: report in the first DIR).")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Also show the figures of the original notebook.")
    ] = False,
    reference: Annotated[
        str | None, typer.Option(help="Reference front: a name, or a CSV file with cost and accuracy.")
    ] = None,
    reach: Annotated[
        list[float] | None, typer.Option(help="Accuracy to reach, as a fraction. Repeat for more.")
    ] = None,
    floor: Annotated[
        float, typer.Option(help="Reference accuracy of the hypervolume, as a fraction.")
    ] = 0.75,
    as_json: AsJson = False,
) -> None:
    """Write a report with statistics and pictures. The report is one self-contained HTML file. Its figures
    are also written as SVG and PDF, and its tables as CSV and Markdown.
    """
    if out is not None:
        from topdown_ray.files import check_output

        check_output(out, "--out", folder=True)
    _check_folders(*folders)
    from topdown_ray.cli.present import results as present
    from topdown_ray.report.build import write_report
    from topdown_ray.report.context import Options

    front = None
    if reference is not None:
        from topdown_ray.sweeps.reference_front import find_front

        front = find_front(reference)
    options = Options(published, front, tuple(reach or ()), floor)
    present.print_report(write_report(folders, out, options), as_json)


def compare(
    before: Annotated[str, typer.Argument(metavar="A", help="Result folder or URI to compare with.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Result folder or URI to judge.")],
    fail_below: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Exit with status 1 if the mean difference B - A of a strategy and target set is below this "
            "number of percentage points of top-1 (-0.05 allows a loss of 0.05). Also exit with status 1 if "
            "B does not have a strategy and target set of A, or has no feasible answer where A has one, for "
            "a seed of B's sweep. Without this option the status is 0.",
        ),
    ] = None,
    per_target: Annotated[
        bool, typer.Option("--per-target", help="Show each target, not only the mean over targets.")
    ] = False,
    as_json: AsJson = False,
    csv: Annotated[
        Path | None, typer.Option(help="CSV file to write all rows to, with accuracies as fractions.")
    ] = None,
) -> None:
    """Compare two result folders, A and B. The tables show how accuracy, time and predictor rows changed from
    A to B for each strategy and target set. Searches with the same seed are paired.
    """
    from topdown_ray.files import check_output, written
    from topdown_ray.terminal import say

    if fail_below is not None and not math.isfinite(fail_below):
        raise UserError(f"--fail-below: expected a finite number of percentage points, found {fail_below}")
    if csv is not None:
        check_output(csv, "--csv")
    _check_folders(before, after)
    from topdown_ray.cli.present import results as present
    from topdown_ray.report.compare import compare_folders, regressions
    from topdown_ray.report.page import csv_of

    comparison = compare_folders(before, after)
    worse = [] if fail_below is None else regressions(comparison, fail_below / 100)
    if csv is not None:
        with written(csv) as path:
            path.write_text(csv_of(comparison.rows))
    present.print_comparison(comparison, per_target, as_json)
    if worse:
        wanted = f"differences of at least {fail_below:+g} percentage points, and every answer of A in B"
        say(one_line(f"compare: B is worse than A: expected {wanted}, found {'; '.join(worse)}", 2000))
        raise typer.Exit(1)


def front(
    targets: Annotated[str, typer.Option(help="Targets (ms, or 1e6 MACs), separated by commas.")],
    space: SpaceName = DEFAULT_SPACE,
    cost: Annotated[
        str, typer.Option(help="Cost: note10, macs, params, a latency table, or module:object.")
    ] = "note10",
    predictor: PredictorName = "published",
    out: Annotated[
        Path | None, typer.Option(help="CSV file to write (default: front-SPACE-COST.csv).")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of searches. The front has their best answers.")
    ] = 8,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first search.")] = 0,
    children: Annotated[int, typer.Option(min=1, help="Number of children of each search.")] = 200_000,
    population: Annotated[int, typer.Option(min=4, help="Number of children per generation.")] = 200,
    start: Annotated[
        list[str] | None,
        typer.Option(help="Result folder whose answers and fronts are improved as well. Repeat for more."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a reference front. The command runs long joint searches, then applies the best single and double
    changes to their answers until none helps. Use the file with `report --reference`.
    """
    wanted = _numbers(targets)
    with status_line("Starting ...") as line:
        from topdown_ray.cli.present import results as present
        from topdown_ray.sweeps.reference_front import FrontEffort, write_front

        effort = FrontEffort(seeds, first_seed, children, population)
        made = write_front(out, space, cost, predictor, wanted, effort, start or (), line.update)
    present.print_front(*made, as_json)


def _check_folders(*folders: str) -> None:
    """Raise UserError if one of these is not a result folder, before anything slow is imported."""
    from topdown_ray.store.manifest import read_manifest

    for folder in folders:
        read_manifest(folder)


def _numbers(targets: str) -> list[float]:
    try:
        return [float(part) for part in targets.split(",")]
    except ValueError as error:
        raise UserError(f"--targets: expected numbers separated by commas, found {brief(targets)}") from error
