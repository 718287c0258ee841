"""Write the report of ``topdown-ray report``: one self-contained page, and its tables and pictures as files.

It reads complete and incomplete result folders, and lists missing searches. Several folders are combined. A
search in more than one of them counts once for accuracy, and once for each folder for time."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from topdown_ray.errors import UserError
from topdown_ray.files import check_output, written_folder
from topdown_ray.report import comparisons, findings, notebook, tables
from topdown_ray.report.context import Context, Options, ReportSource
from topdown_ray.report.labelling import REPORT_COLUMNS, TRACE_COLUMNS, Data, prepare
from topdown_ray.report.page import page
from topdown_ray.report.pen import Beside, Drawing
from topdown_ray.report.sections import SECTIONS
from topdown_ray.report.sections.explorer import bundle
from topdown_ray.store.place import Place, is_uri
from topdown_ray.store.results import Results, load_columns


@dataclass(frozen=True)
class Report:
    """The files that were written, and the findings."""

    path: Path
    tables: int
    figures: int
    missing: int  # searches of the sweeps that the folders do not have
    findings: tuple[str, ...]  # for each setting, which strategy is best


def report_folder(folder: str) -> Path:
    """Return the default folder for the report of a result folder. Raises UserError for a URI."""
    if is_uri(folder):
        raise UserError(
            f"--out: expected a local folder for the report, because {Place(folder).name} is a URI, "
            "found none"
        )
    return Path(folder) / "report"


def write_report(
    folders: Sequence[str | Path], out: Path | None = None, options: Options | None = None
) -> Report:
    """Write report.html, figures/ and tables/ into ``out``, by default the folder ``report`` in the first
    folder. Raises UserError.
    """
    out = report_folder(str(folders[0])) if out is None else out
    check_output(out, "--out", folder=True)
    options = Options() if options is None else options
    _check(options)
    sources, data = _load(folders)
    bundle()  # in a thread, while the other sections are made
    if options.published and notebook.comparable(data.searches).empty:
        raise UserError(
            "--published: expected MobileNetV3 or the notebook protocol on the Note10 table, found neither"
        )
    reference = None if options.reference is None else comparisons.read_reference(options.reference)
    with written_folder(out) as new, contextlib.ExitStack() as stack:
        # a second process is not worth its start-up time for a few pictures
        several = data.searches["setting"].nunique() > 1 and (os.cpu_count() or 1) > 1
        pen = stack.enter_context(Beside()).draw if several else Drawing.drawn
        for name in ("figures", "tables"):
            (new / name).mkdir()
        context = Context(sources, data, options, reference, new / "figures", pen)
        sections = [section for make in SECTIONS if (section := make(context)) is not None]
        shown = [table for section in sections for table in section.tables]
        for table in shown:
            table.write(new / "tables")
        # the other process draws from the first picture on, this one from the last, until they meet
        for picture in reversed([picture for section in sections for picture in section.pictures]):
            _ = picture.svg
        top = findings.top(context)
        (new / "report.html").write_text(page(top, sections), encoding="utf-8")
    return Report(
        path=out / "report.html",
        tables=len(shown),
        figures=sum(len(section.pictures) for section in sections),
        missing=sum(int(source.missing["missing"].sum()) for source in sources),
        findings=tuple(top.findings),
    )


def _check(options: Options) -> None:
    if not 0 <= options.floor < 1:
        raise UserError(f"--floor: expected a fraction from 0 to below 1, found {options.floor:g}")
    for level in options.levels:
        if not 0 < level < 1:
            raise UserError(f"--reach: expected a fraction between 0 and 1, found {level:g}")


def _load(folders: Sequence[str | Path]) -> tuple[list[ReportSource], Data]:
    results = [_results(folder) for folder in folders]
    names = [Place(folder).name for folder in folders]
    data = prepare(results, names)
    sources = []
    for folder, name, part in zip(folders, names, results, strict=True):
        lean = dataclasses.replace(part, trace=part.trace.head(0).copy())  # data has the curves
        sources.append(ReportSource(folder, name, lean, tables.missing(part)))
    return sources, data


def _results(folder: str | Path) -> Results:
    results = load_columns(folder, REPORT_COLUMNS, TRACE_COLUMNS)
    if results.searches.empty:
        raise UserError(f"{Place(folder).name}: expected at least one finished search, found none")
    return results
