"""The command line of the artefacts: ``topdown-ray assets list|fetch|verify|where``; no logic."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topdown_ray.addresses import shown
from topdown_ray.cli.display import AsJson, print_table, progress_bar
from topdown_ray.files import check_output

if TYPE_CHECKING:
    from topdown_ray.assets import Asset
    from topdown_ray.download import Progress

_app = typer.Typer(
    help="Predictors, latency tables and weights: what there is, fetching it, checking it, where it lies.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(_app, name="assets")


@_app.command("list")
def list_(as_json: AsJson = False) -> None:
    """All predictors, tables and weights, with unit, range over the space, source, size and place."""
    from topdown_ray.spaces.catalogue import entries

    found = entries()
    if as_json:
        print(json.dumps([entry._asdict() for entry in found], indent=1))
        return
    rows = []
    for entry in found:
        extent = "" if entry.low is None or entry.high is None else f"{entry.low:.4g} to {entry.high:.4g}"
        size = "" if entry.size is None else f"{entry.size / 1000:,.0f} kB"
        rows.append(
            [entry.name, entry.kind, entry.space, entry.unit, extent, entry.source, size, entry.where]
        )
    _print(
        ["name", "kind", "space", "unit", "range (predictor: of a sample)", "source", "size", "where"], rows
    )


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

    wanted = assets.named(names or [])
    if to is not None:
        check_output(to, "--to", folder=True)
    with _progress() as begin:
        for asset in wanted:
            path = assets.present(asset, to)
            if path is None:
                path = assets.fetch(asset, assets.cache_folder() if to is None else to, show=begin(asset))
                print(f"{path}: fetched")
            else:
                print(f"{path}: was here")


@_app.command()
def verify(as_json: AsJson = False) -> None:
    """Hash every published file on this machine; exit status 1 if one is not what it should be."""
    from topdown_ray import assets

    checks = list(assets.verify())
    if as_json:
        print(json.dumps([{**check._asdict(), "path": str(check.path)} for check in checks], indent=1))
    for check in [] if as_json else checks:
        print(f"{check.path}: {'WRONG: ' if check.right is False else ''}{check.finding}")
    if not checks and not as_json:
        print("no published file is on this machine")
    if any(check.right is False for check in checks):
        raise typer.Exit(1)


@_app.command()
def where(as_json: AsJson = False) -> None:
    """The folders that are searched, in order, and where missing files are fetched from."""
    from topdown_ray import assets

    origin = "nowhere (TOPDOWN_RAY_OFFLINE)" if assets.offline() else shown(assets.upstream())
    folders = [
        {"folder": str(folder.path), "why": folder.why, "there": folder.path.is_dir()}
        for folder in assets.folders()
    ]
    if as_json:
        print(json.dumps({"folders": folders, "upstream": origin}, indent=1))
        return
    for number, folder in enumerate(folders, 1):
        print(f"{number}. {folder['folder']} ({folder['why']}{'' if folder['there'] else '; not there yet'})")
    print(f"{len(folders) + 1}. fetched from {origin}")


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """A bar for each file: bytes, rate, time left."""
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress_bar(*columns) as display:

        def begin(asset: Asset) -> Progress:
            task = display.add_task(asset.path, total=None, visible=False)  # until bytes come

            def show(done: int, total: int | None) -> None:
                display.start()
                display.update(task, completed=done, total=total, visible=True)

            return show

        yield begin


def _print(header: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table

    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    print_table(table)
