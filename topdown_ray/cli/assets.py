"""Define the commands ``topdown-ray assets list|fetch|verify|where`` for published files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topdown_ray.cli.display import download_progress
from topdown_ray.cli.options import AsJson

_app = typer.Typer(
    help="List, download and verify published files. These are predictors, latency tables and weights.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(_app, name="assets")


@_app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List predictors, tables and weights. Show the unit, range, source, size and location of each."""
    from topdown_ray.cli.present import assets as present
    from topdown_ray.spaces.catalogue import entries

    present.print_entries(entries(), as_json)


@_app.command()
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME...]", help="Files to download (default: all except supernet weights)."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder to download to (default: the cache). Name it in TOPDOWN_RAY_ASSETS to use it."
        ),
    ] = None,
) -> None:
    """Download published files that are missing. Downloads are verified, resumed and retried, and use the
    proxies that the environment names.
    """
    from topdown_ray import assets

    for path, fetched in assets.provide(names or [], to, download_progress):
        print(f"{path}: {'downloaded' if fetched else 'already on this machine'}")


@_app.command()
def verify(as_json: AsJson = False) -> None:
    """Check the hashes of published files. Check every file on this machine, and exit with status 1 if one is
    wrong.
    """
    from topdown_ray import assets
    from topdown_ray.cli.present import assets as present

    checks = list(assets.verify())
    present.print_checks(checks, as_json)
    if any(check.right is False for check in checks):
        raise typer.Exit(1)


@_app.command()
def where(as_json: AsJson = False) -> None:
    """Show where published files are searched for. List the folders in order, and the address that missing
    files are downloaded from.
    """
    from topdown_ray import assets
    from topdown_ray.cli.present import assets as present

    present.print_folders(assets.folders(), None if assets.offline() else assets.upstream(), as_json)
