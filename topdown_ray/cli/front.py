"""The command ``front``: parse and wire."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topdown_ray.cli.display import AsJson, status_line
from topdown_ray.errors import UserError, brief
from topdown_ray.files import brief_path, check_output, written
from topdown_ray.spaces.registry import DEFAULT_SPACE, in_words


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(front)


def front(
    targets: Annotated[str, typer.Option(help="Targets (ms, or 1e6 MACs), with commas between them.")],
    space: Annotated[str, typer.Option(help=f"{in_words()}.")] = DEFAULT_SPACE,
    cost: Annotated[str, typer.Option(help="note10, macs, or a folder of tables.")] = "note10",
    predictor: Annotated[
        str, typer.Option(help="published, embedded, or the path of a checkpoint.")
    ] = "published",
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default: front-SPACE-COST.csv.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Searches; the best of all counts.")] = 8,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of their seeds.")] = 0,
    children: Annotated[int, typer.Option(min=1, help="Children of each search.")] = 200_000,
    population: Annotated[int, typer.Option(min=4, help="Children a generation.")] = 200,
    start: Annotated[
        list[str] | None, typer.Option(help="Polish a result folder's answers too; repeat for more.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A reference front for `report --reference`: long joint searches, then the best single and double
    changes until none helps.
    """
    from topdown_ray.sweeps.reference_front import FrontEffort, make_front

    path = Path(f"front-{space}-{Path(cost).name}.csv") if out is None else out
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out: expected a file in an existing folder, found {brief_path(path)}")
    check_output(path, "--out")
    effort = FrontEffort(seeds, first_seed, children, population)
    with status_line("starting") as status:
        frame, text = make_front(
            space, cost, predictor, _numbers(targets), effort, start or (), status.update
        )
    with written(path) as temporary:
        temporary.write_text(text)
    if as_json:
        print(frame.to_json(orient="records"))
        return
    for row in frame.to_dict("records"):
        print(f"{row['target']:g} {row['cost_unit']}: {100 * row['accuracy']:.3f} % at {row['cost']:.3f}")
    print(path)


def _numbers(targets: str) -> list[float]:
    try:
        return [float(part) for part in targets.split(",")]
    except ValueError as error:
        raise UserError(
            f"--targets: expected numbers with commas between them, found {brief(targets)}"
        ) from error
