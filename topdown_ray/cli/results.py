"""The commands that read results: describe, pick, verify, report, compare, front."""

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
    space: Annotated[str | None, typer.Option(help="Of a folder: rows of this space only.")] = None,
    strategy: OfStrategy = None,
    cost: OfCost = None,
    seed: Annotated[
        int | None, typer.Option(help="Of a folder: the seed; default: the most accurate row.")
    ] = None,
    target: Annotated[float | None, typer.Option(help="Of a folder: the target.")] = None,
    as_json: AsJson = False,
) -> None:
    """An architecture as OFA's layer list, with MACs and parameters of the OFA network."""
    from topdown_ray.networks import api

    filters = {"space": space, "strategy": strategy, "cost_name": cost, "seed": seed, "target": target}
    described = api.describe(source, filters)
    from topdown_ray.cli.present import results as present

    present.print_architecture(described, as_json)


def pick(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A result folder, or its URI.")],
    at: Annotated[
        float,
        typer.Option(help="The most that the architecture may cost; it need not be a target of the sweep."),
    ],
    cost: Annotated[str | None, typer.Option(help="Which cost, where the sweep has several.")] = None,
    params: Annotated[float | None, typer.Option(help="At most so many parameters (1e6).")] = None,
    macs: Annotated[float | None, typer.Option(help="At most so many MACs (1e6).")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="COST=NUMBER", help="A limit on another cost of the sweep; repeat for more."),
    ] = None,
    space: Annotated[str | None, typer.Option(help="Which space, where the sweep has several.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Only searches of this strategy, by its name or label.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The most accurate architecture for any cost, at once, from the fronts and answers of a sweep."""
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
    """A message about an argument of ``Results.pick`` as one about the command's option."""
    argument, colon, rest = mistake.partition(":")
    if argument not in ("at", "cost", "limits", "space", "strategy"):
        return mistake
    return f"--{argument.removesuffix('s') if argument == 'limits' else argument}{colon}{rest}"


def verify(
    folder: Annotated[str, typer.Argument(help="A result folder, or its URI.")],
    rerun: Annotated[
        int, typer.Option(min=0, help="Repeat the searches of this many random rows and compare all bits.")
    ] = 0,
    rerun_seed: Annotated[int, typer.Option(min=0, help="Which rows are searched again.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Derive every column again: from the architecture through OFA's own classes, and from run.json."""
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
        list[str], typer.Argument(metavar="DIR", help="Result folders or URIs; several are put together.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; default: the folder report in the first DIR.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Show the original notebook's figures beside ours.")
    ] = False,
    reference: Annotated[
        str | None, typer.Option(help="A reference front: its name, or a CSV file with cost and accuracy.")
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
    before: Annotated[
        str, typer.Argument(metavar="A", help="The result folder, or its URI, that B is judged against.")
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="The result folder, or its URI, that is judged.")],
    fail_below: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Exit with status 1 if the mean difference B - A of some strategy and target set is below "
            "this number of points of top-1 (-0.05 allows a loss of 0.05), or if B lacks such a group of A, "
            "or a feasible answer of A although B's sweep has its seed. Without it the status is 0.",
        ),
    ] = None,
    per_target: Annotated[
        bool, typer.Option("--per-target", help="Show every target, not only the mean over them.")
    ] = False,
    as_json: AsJson = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write all rows to this file too, accuracies as fractions.")
    ] = None,
) -> None:
    """What changed from one result folder (A) to another (B): accuracy, time and predictor rows, by strategy
    and target set. B is judged against A; searches with the same seed are paired.
    """
    from topdown_ray.files import check_output, written
    from topdown_ray.terminal import say

    if fail_below is not None and not math.isfinite(fail_below):
        raise UserError(f"--fail-below: expected a finite number of points, found {fail_below}")
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
        wanted = f"differences of at least {fail_below:+g} points, and every answer of A in B"
        say(one_line(f"compare: B is worse than A: expected {wanted}, found {'; '.join(worse)}", 2000))
        raise typer.Exit(1)


def front(
    targets: Annotated[str, typer.Option(help="Targets (ms, or 1e6 MACs), with commas between them.")],
    space: SpaceName = DEFAULT_SPACE,
    cost: Annotated[str, typer.Option(help="note10, macs, params, a table, or module:object.")] = "note10",
    predictor: PredictorName = "published",
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default: front-SPACE-COST.csv.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="The number of searches; the best answers count.")] = 8,
    first_seed: Annotated[int, typer.Option(min=0, help="The seed of the first search.")] = 0,
    children: Annotated[int, typer.Option(min=1, help="Children of each search.")] = 200_000,
    population: Annotated[int, typer.Option(min=4, help="Children of a generation.")] = 200,
    start: Annotated[
        list[str] | None,
        typer.Option(help="Polish a result folder's answers and fronts too; repeat for more."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A reference front for `report --reference`: long joint searches, then the best single and double
    changes until none helps.
    """
    wanted = _numbers(targets)
    with status_line("starting") as line:
        from topdown_ray.cli.present import results as present
        from topdown_ray.sweeps.reference_front import FrontEffort, write_front

        effort = FrontEffort(seeds, first_seed, children, population)
        made = write_front(out, space, cost, predictor, wanted, effort, start or (), line.update)
    present.print_front(*made, as_json)


def _check_folders(*folders: str) -> None:
    """Raise UserError for what is no result folder, before anything slow is imported."""
    from topdown_ray.store.manifest import read_manifest

    for folder in folders:
        read_manifest(folder)


def _numbers(targets: str) -> list[float]:
    try:
        return [float(part) for part in targets.split(",")]
    except ValueError as error:
        raise UserError(
            f"--targets: expected numbers with commas between them, found {brief(targets)}"
        ) from error
