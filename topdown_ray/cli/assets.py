"""The commands of the published artefacts: ``topdown-ray assets list|fetch|verify|where``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topdown_ray.cli.display import download_progress
from topdown_ray.cli.options import AsJson

_app = typer.Typer(
    help="Predictors, latency tables and weights: list them, fetch them, check them, say where they are.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(_app, name="assets")


@_app.command("list")
def list_(as_json: AsJson = False) -> None:
    """All predictors, tables and weights, with unit, range over the space, source, size and place."""
    from topdown_ray.cli.present import assets as present
    from topdown_ray.spaces.catalogue import entries

    present.print_entries(entries(), as_json)


@_app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Default: all whose hash is pinned.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="A folder to fill, for TOPDOWN_RAY_ASSETS; default: the cache.")
    ] = None,
) -> None:
    """Fetch published files that are not here: checked, resumed, retried, through the proxies of the
    environment.
    """
    from topdown_ray import assets

    for path, fetched in assets.provide(names or [], to, download_progress):
        print(f"{path}: {'fetched' if fetched else 'was here'}")


@_app.command()
def verify(as_json: AsJson = False) -> None:
    """Hash every published file on this machine; exit status 1 if one is not what it should be."""
    from topdown_ray import assets
    from topdown_ray.cli.present import assets as present

    checks = list(assets.verify())
    present.print_checks(checks, as_json)
    if any(check.right is False for check in checks):
        raise typer.Exit(1)


@_app.command()
def where(as_json: AsJson = False) -> None:
    """The folders that are searched, in order, and where missing files are fetched from."""
    from topdown_ray import assets
    from topdown_ray.cli.present import assets as present

    present.print_folders(assets.folders(), None if assets.offline() else assets.upstream(), as_json)
