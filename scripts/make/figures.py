"""Make the tables and pictures of the results pages (docs/results, docs/figures).

    python scripts/make/figures.py                     # run the sweeps, write tables, pictures and pages
    python scripts/make/figures.py --only NAME         # one table of them
    python scripts/make/figures.py --only race --from race.parquet
    python scripts/make/figures.py --stored            # run nothing: pictures and pages from stored tables

The numbers are stored in docs/results/data, one file for each table, with the command, the sweeps and, where
the numbers depend on it, the machine. The sweeps have fixed seeds, so only times differ between machines, and
with them the predictor rows that a gradient costs. They run in this process and take about a quarter of an
hour. Run them on a quiet machine. Their result folders are in results/figures: an interrupted sweep
continues, and a finished one is only read. To measure its times again, remove its folder.

Longer measurements (--only race, floor, profile, scaling, driver, driver_ray, fronts, fronts_intervals,
deviations, latency_check) are read from the file that you pass with --from. Without it, the script prints the
command that writes this file.
"""

import argparse
from pathlib import Path

from results_pages import pages, pictures, stored
from results_pages.measurements import FROM_FILES
from results_pages.sweeps import FROM_SWEEPS, here


def measured(name: str, files: list[Path], machine: str) -> None:
    """Store the table of a measurement from its files."""
    source = FROM_FILES[name]
    if not files:
        raise SystemExit(
            f"--only {name}: expected --from FILE, found none\n"
            f"Run `{source.command}` on a quiet machine, and pass {source.keep}."
        )
    stored.write(name, stored.Stored(source.command, source.read(files), machine if source.clock else ""))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*FROM_SWEEPS, *FROM_FILES]
    parser.add_argument(
        "--only",
        choices=names,
        action="append",
        metavar="NAME",
        help=f"table to make, repeat for more: {', '.join(names)}",
    )
    parser.add_argument(
        "--from", dest="files", type=Path, nargs="+", metavar="FILE", help="files of a measurement"
    )
    parser.add_argument(
        "--machine", metavar="TEXT", help="the machine of a measurement in words (default: this one)"
    )
    parser.add_argument("--stored", action="store_true", help="run nothing, use the stored tables")
    options = parser.parse_args()
    if options.files and (not options.only or len(options.only) > 1 or options.only[0] in FROM_SWEEPS):
        parser.error(f"--from: expected --only with one of {', '.join(FROM_FILES)}")
    for name in [] if options.stored else options.only or FROM_SWEEPS:
        if name in FROM_FILES:
            measured(name, options.files or [], options.machine or here())
            continue
        for table, content in FROM_SWEEPS[name]().items():
            stored.write(table, content)
    tables = stored.Tables()
    for name in pictures.PICTURES:
        (pictures.FOLDER / f"{name}.svg").write_text(pictures.drawn(name, tables))
    for page, text in pages.written(tables).items():
        page.write_text(text)


if __name__ == "__main__":
    main()
