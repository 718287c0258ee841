"""``topdown-ray report``: one self-contained page of a sweep's tables and pictures, with every one of them as
a file.

Reads finished and half-finished result folders; says which searches are missing. Several folders are put
together: searches that more than one of them holds count once for accuracy, and under their own clock for
time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from topdown_ray import stats
from topdown_ray.errors import UserError
from topdown_ray.figures import Picture, draw, file_name
from topdown_ray.files import written_folder
from topdown_ray.report import comparisons, measured, notebook, plots, regret, running_time, tables
from topdown_ray.report.labelling import SEARCH_COLUMNS, TRACE_COLUMNS, Data, prepare
from topdown_ray.report.page import Column, Section, Table, interval, number, page, text
from topdown_ray.report.provenance import missing, provenance
from topdown_ray.store.place import Place, is_uri
from topdown_ray.store.results import Results, load_columns

_PERCENT: dict[str, Any] = {"digits": ".2f", "scale": 100.0}
_POINTS: dict[str, Any] = {"digits": "+.2f", "scale": 100.0}
_ANYTIME_PANELS = 3  # of a setting's targets: the loosest, one between, the tightest


@dataclass(frozen=True)
class Options:
    """What a report shows beside the sweep itself."""

    published: bool = False  # the original notebook's figures beside ours
    reference: Path | None = None  # a reference front, CSV
    levels: tuple[float, ...] = ()  # accuracies to be reached, fractions
    floor: float = comparisons.FLOOR  # the hypervolume's reference accuracy


@dataclass(frozen=True)
class Report:
    """What was written."""

    path: Path
    tables: int
    figures: int
    missing: int  # searches that the sweeps promise and the folders lack


def report_folder(folder: str) -> Path:
    """Where the report of a result folder goes unless told otherwise. Raises UserError for a URI."""
    if is_uri(folder):
        raise UserError(
            f"--out: expected a local folder for the report, since {Place(folder).name} is a URI, found none"
        )
    return Path(folder) / "report"


def write_report(folders: Sequence[str | Path], out: Path, options: Options | None = None) -> Report:
    """Write report.html, figures/ and tables/ into ``out``. Raises UserError."""
    options = Options() if options is None else options
    if not 0 <= options.floor < 1 or not all(0 < level < 1 for level in options.levels):
        raise UserError(
            f"floor, reach: expected fractions from 0 to 1, found {[options.floor, *options.levels]}"
        )
    parts = [_load(folder) for folder in folders]
    reference = None if options.reference is None else comparisons.read_reference(options.reference)
    names = [Place(folder).name for folder in folders]
    data = prepare(parts, names)
    parts = [
        dataclasses.replace(part, trace=part.trace.head(0).copy()) for part in parts
    ]  # what data holds of it is enough
    lacking = [missing(part) for part in parts]
    local = [
        Path(folder) for folder in folders if not is_uri(str(folder))
    ]  # measured accuracies lie in local folders
    with written_folder(out) as new:
        figures = new / "figures"
        for folder in (figures, new / "tables"):
            folder.mkdir()
        builder = _Builder(data, figures, options, reference)
        sections = [
            *builder.sections(),
            *measured.sections(local, figures),
            provenance(parts, names, lacking),
        ]
        for section in sections:
            for table in section.tables:
                table.write(new / "tables")
        warnings = [
            *data.notes,
            *regret.unlike(data, reference),
            *builder.warnings(),
            *_gaps(parts, names, lacking),
        ]
        titles = [
            str(part.manifest.get("spec", {}).get("name", Path(name).name))
            for name, part in zip(names, parts, strict=True)
        ]
        title = "Architecture search: " + ", ".join(dict.fromkeys(titles))
        (new / "report.html").write_text(page(title, builder.lead(), warnings, sections), encoding="utf-8")
    n_missing = sum(int(frame["missing"].sum()) for frame in lacking)
    n_tables, n_figures = (
        sum(len(getattr(section, kind)) for section in sections) for kind in ("tables", "pictures")
    )
    return Report(out / "report.html", n_tables, n_figures, n_missing)


def _gaps(parts: Sequence[Results], names: Sequence[str], lacking: Sequence[pd.DataFrame]) -> list[str]:
    """A warning for each folder that lacks searches which its sweep promised."""
    return [
        f"{Path(name).name} is {part.manifest.get('status', 'unfinished')}: {int(frame['missing'].sum())} of "
        f"{int(frame['promised'].sum())} searches are missing, and the report covers the others. Provenance "
        "lists the missing ones."
        for name, part, frame in zip(names, parts, lacking, strict=True)
        if len(frame)
    ]


def _load(folder: str | Path) -> Results:
    results = load_columns(folder, SEARCH_COLUMNS, TRACE_COLUMNS)
    if results.searches.empty:
        raise UserError(f"{Place(folder).name}: expected at least one finished search, found none")
    return results


class _Builder:
    """Computes every table once and lays out the sections from them."""

    def __init__(self, data: Data, figures: Path, options: Options, reference: pd.DataFrame | None):
        self.data, self.figures, self.options, self.reference = data, figures, options, reference
        self.accuracy = tables.accuracy(data)
        self.time = tables.time(data)
        self.growth = tables.growth(data)
        self.single = tables.single_target(data)
        self.differences = comparisons.differences(data)
        self.curves = comparisons.curves(data)
        self.reach = comparisons.reach(data, options.levels)
        self.fronts = comparisons.fronts(data, options.floor, reference)
        self.settings = list(self.accuracy["setting"].unique())
        self.widest = tables.widest(self.accuracy)
        if options.published and notebook.comparable(data.searches).empty:
            raise UserError(
                "--published: expected MobileNetV3 or the notebook protocol on the Note10 table, found "
                "neither"
            )

    def sections(self) -> list[Section]:
        """All sections but the provenance."""
        return [
            self._accuracy(),
            self._time(),
            self._differences(),
            self._anytime(),
            self._fronts(),
            self._baselines(),
        ]

    def warnings(self) -> list[str]:
        """What a reader must know first: too few seeds."""
        n = int(self.accuracy["n"].max())
        if n == 1:
            return [
                "One seed only: no standard deviations, intervals or tests, because one search shows no "
                "spread."
            ]
        if n < stats.LEAST:
            return [
                f"{n} seeds at most: no intervals, because {stats.LEAST} values is the least that a 95 % "
                "interval can rest on."
            ]
        return []

    def lead(self) -> list[str]:
        """The main findings as sentences with their numbers."""
        lines = []
        overall = self.differences[self.differences["target"].isna()]
        for setting in self.settings:
            rows = overall[(overall["setting"] == setting) & (overall["targets"] == self.widest[setting])]
            for row in rows[rows["against"] == "independent"].to_dict("records"):
                reach = (
                    f" [{100 * row['low']:+.2f}, {100 * row['high']:+.2f}]"
                    if row["low"] == row["low"]
                    else " (no interval)"
                )
                lines.append(
                    f"{setting}, {row['k']} targets: {row['strategy']} differs from independent searches by "
                    f"{100 * row['mean']:+.2f}{reach} points of predicted top-1, mean over the targets "
                    f"({row['n']} pairs)."
                )
        fitted = self.growth[(self.growth["unit"] == "s") & self.growth["exponent_low"].notna()]
        for (setting, clock), rows in fitted.groupby(["setting", "clock"], sort=False):
            exponents = [
                f"{row['strategy']} {row['exponent']:.2f} [{row['exponent_low']:.2f}, "
                f"{row['exponent_high']:.2f}]"
                for row in rows.to_dict("records")
            ]
            lines.append(
                f"{setting}: time grows with the number of targets as k^p ({clock}), p: "
                f"{', '.join(exponents)}."
            )
        return lines

    @property
    def _set(self) -> list[Column]:
        """The first columns of most tables; the setting only where there are several."""
        return [*self._setting, text("targets", "target set")]

    @property
    def _setting(self) -> list[Column]:
        return [text("setting")] if len(self.settings) > 1 else []

    def _draw(
        self, name: str, caption: str, plot: Callable[..., Axes], table: pd.DataFrame, **options: Any
    ) -> Picture:
        return draw(self.figures, name, caption, lambda ax: plot(table, ax, **options))

    def _accuracy(self) -> Section:
        show = self.options.published
        theirs = notebook.for_settings(self.data.searches, "accuracy") if show else None
        pictures = []
        for setting in self.settings:
            beside = None if theirs is None else theirs[theirs["setting"] == setting]
            caption = (
                f"{setting}: inter-quartile mean of the predicted top-1 for each target of the widest set; "
                "bands: 95 %."
            )
            if beside is not None and len(beside):
                caption += " Hollow: published with the original notebook, single runs."
            name = file_name("accuracy", setting)
            pictures.append(
                self._draw(name, caption, plots.accuracy, self.accuracy, setting=setting, published=beside)
            )
        columns = [*self._set, number("target", digits="g"), text("cost_unit", "unit"), text("strategy")]
        columns += [number("mean", "mean (%)", **_PERCENT), number("sd", "sd (points)", **_PERCENT)]
        columns += [number("median", "median (%)", **_PERCENT), number("iqm", "IQM (%)", **_PERCENT)]
        columns += [interval("low", "high", "95 % of IQM", **_PERCENT), number("n"), number("infeasible")]
        shown = [
            Table(
                "accuracy",
                "Predicted top-1 for each target",
                self.accuracy,
                columns,
                "n: searches, one a seed.",
            )
        ]
        if show:
            beside_table = notebook.accuracy_beside(self.data.searches, self.accuracy)
            columns = [*self._setting, text("strategy"), number("target", "target (ms)", "g")]
            columns += [
                number("published", "published (%)", **_PERCENT),
                number("mean", "ours, mean (%)", **_PERCENT),
            ]
            columns += [
                number("sd", "sd (points)", **_PERCENT),
                interval("low", "high", "95 % of our IQM", **_PERCENT),
            ]
            columns += [number("difference", "ours - published", **_POINTS), number("n")]
            note = (
                "Published values are single runs; the architectures printed with them for top_down were "
                "pruned on after scoring."
            )
            shown.append(
                Table("accuracy_published", "Published and ours (experiment 2)", beside_table, columns, note)
            )
        words = [
            "Accuracy is the predictor's top-1 of the architecture found, not a measured one. IQM: the "
            "inter-quartile mean, without "
            "the lowest and highest quarter of the seeds. Its interval is a percentile bootstrap, "
            "stratified: searches are resampled "
            "within each space, strategy, target set and target; its levels are widened for small samples, "
            "so that it covers as "
            "Student's t does. Target sets are not pooled: the same seed can give the same answer in two of "
            "them.",
        ]
        return Section("accuracy", "Accuracy per target", words, pictures, shown)

    def _time(self) -> Section:
        shown = running_time.Tables(self.time, self.growth, self.single)
        return running_time.section(
            shown, self.data.searches if self.options.published else None, self._setting, self._draw
        )

    def _differences(self) -> Section:
        strategies = set(self.accuracy["strategy"])
        pictures = []
        for against in [name for name in ("independent", *sorted(strategies)) if name in strategies][:1]:
            for setting in self.settings:
                if len(strategies) > 1 and (self.differences["setting"] == setting).any():
                    caption = (
                        f"{setting}: paired difference from {against}; lines: 95 %. Above zero is better "
                        f"than {against}."
                    )
                    name, options = (
                        file_name("differences", setting),
                        {"setting": setting, "against": against},
                    )
                    pictures.append(self._draw(name, caption, plots.differences, self.differences, **options))
        words = [
            "Pairs share seed, target set and target. The mean difference has Student's interval below "
            f"{stats.STUDENT} pairs, a "
            "bootstrap interval over pairs from there on; the probability of "
            "improvement is the share of pairs in which the first strategy is better, a tie counting half, "
            "with Wilson's interval; "
            "p is that of the paired permutation test (random signs), corrected by Holm for the targets of "
            "the set. With n pairs no "
            "p is below 2^(1-n). The row \"all\" is the mean over the set's targets in each search.",
            "Ties are often no accident: strategies that begin with the same full search give the same "
            "answer for its target.",
        ]  # fmt: skip
        if len(strategies) < 2:
            words.append("There is only one strategy in these folders: nothing to compare.")
        return Section(
            "differences",
            "Differences between strategies",
            words,
            pictures,
            [self._difference_table(self.differences)],
        )

    def _difference_table(
        self, frame: pd.DataFrame, name: str = "differences", title: str = "Paired differences"
    ) -> Table:
        label = np.where(frame["target"].isna(), "all", frame["target"].map("{:g}".format))
        columns = [
            *self._set,
            text("strategy"),
            text("against"),
            text("target_label", "target"),
            text("cost_unit", "unit"),
        ]
        columns += [number("mean", "difference (points)", **_POINTS), interval("low", "high", **_POINTS)]
        columns.append(text("interval", "interval by"))
        columns += [
            number("improvement", "P(improvement)", ".2f"),
            interval("improvement_low", "improvement_high", digits=".2f"),
        ]
        columns += [
            number("p", digits=".4f"),
            number("p_holm", "p (Holm)", ".4f"),
            number("n", "pairs"),
            number("ties"),
        ]
        return Table(name, title, frame.assign(target_label=label), columns)

    def _anytime(self) -> Section:
        pictures = []
        for setting in self.settings:
            rows = self.curves[self.curves["setting"] == setting]
            found = np.sort(rows["target"].unique())[::-1]
            chosen = found[
                np.unique(
                    np.linspace(0, len(found) - 1, min(_ANYTIME_PANELS, len(found))).round().astype(int)
                )
            ]
            for target in chosen:
                caption = (
                    f"{setting}, target {target:g}: inter-quartile mean of the best accuracy so far; bands: "
                    "95 %."
                )
                name, options = (
                    file_name("anytime", setting, f"{target:g}"),
                    {"setting": setting, "target": target},
                )
                pictures.append(self._draw(name, caption, plots.anytime, self.curves, **options))
        columns = [
            *self._set,
            number("target", digits="g"),
            text("cost_unit", "unit"),
            number("level", "top-1 to reach (%)", **_PERCENT),
        ]
        columns += [
            text("strategy"),
            number("reached"),
            number("n", "of"),
            number("evaluations", "evaluations, median", ",.0f"),
        ]
        columns += [number("seconds", "seconds, median"), text("clock", "time of")]
        gaps = " and ".join(
            [", ".join(f"{100 * gap:g}" for gap in comparisons.GAPS[:-1]), f"{100 * comparisons.GAPS[-1]:g}"]
        )
        note = (
            ""
            if self.options.levels
            else f"Levels: {gaps} points below the best accuracy that any search found. "
        )
        note += (
            "The median is left out where half or more of the searches never got there; seconds at the "
            "target's mean rate."
        )
        table = Table("reach", "Evaluations and seconds to reach an accuracy", self.reach, columns, note)
        words = [
            "Of each setting's widest target set. Evaluations count within the target: a strategy that "
            "starts from the answer for "
            "another target has paid for that before, which the section on running time counts.",
        ]
        return Section("anytime", "Anytime curves", words, pictures, [table])

    def _fronts(self) -> Section:
        words = [
            "The answers of one search for all its targets form a front. Its hypervolume is the area between "
            "the front and the "
            f"reference point printed in the table ({comparisons.BEYOND:g} times the set's loosest target); "
            "larger is better. An "
            "answer that stays below its target gains area too: a front of cheaper architectures can win "
            "with less accurate ones.",
        ]
        if self.fronts.empty:
            return Section(
                "fronts", "Fronts", [*words, "No search here has two or more targets: there are no fronts."]
            )
        pictures = []
        for setting in self.fronts["setting"].unique():
            known = self.reference
            if known is not None and "space" in known:
                space = self.fronts.loc[self.fronts["setting"] == setting, "space"].iloc[0]
                known = known[known["space"] == space]
            caption = (
                f"{setting}: every answer of the widest set (at most {plots.MOST_POINTS} drawn for each "
                "strategy)."
            )
            name, rows = file_name("front", setting), self.data.distinct()
            pictures.append(self._draw(name, caption, plots.front, rows, setting=setting, reference=known))
            caption = f"{setting}: mean hypervolume of a search of the widest set; lines: 95 %."
            name = file_name("hypervolume", setting)
            pictures.append(self._draw(name, caption, plots.hypervolume, self.fronts, setting=setting))
        columns = [
            *self._set,
            text("strategy"),
            number("reference_cost", "reference cost"),
            text("cost_unit", "unit"),
        ]
        columns += [
            number("reference_accuracy", "reference top-1 (%)", **_PERCENT),
            number("hypervolume", digits=".2f"),
        ]
        columns += [
            number("sd", digits=".2f"),
            interval("low", "high", digits=".2f"),
            text("interval", "interval by"),
        ]
        shown = []
        if self.reference is not None:
            words.append(
                "Distance: IGD+ to the given reference front, both axes divided by its range; 0 is nowhere "
                "behind it."
            )
            columns += [number("distance"), interval("distance_low", "distance_high")]
            words.append(
                "Regret: what an answer lacks to the front's most accurate architecture that meets the "
                "target."
            )
            shown.append(regret.table(regret.regret(self.data, self.reference), self._set))
        table = Table(
            "fronts",
            "Hypervolume of a search's front (cost unit x points)",
            self.fronts,
            [*columns, number("n")],
        )
        return Section("fronts", "Fronts", words, pictures, [table, *shown])

    def _baselines(self) -> Section:
        words = [
            "Random search scores as many uniformly drawn feasible architectures for every target as an "
            "independent search does, and "
            "keeps the best: what a strategy has over it is what evolution buys.",
        ]
        gain = comparisons.gain_over_random(self.differences)
        if gain.empty:
            words.append(
                "These folders hold no pairs with random search: add the strategy `random` to a sweep with "
                "the same settings."
            )
            return Section("baselines", "Baselines", words)
        pictures = []
        for setting in gain["setting"].unique():
            caption = f"{setting}: paired difference from random search; lines: 95 %."
            name = file_name("gain_over_random", setting)
            pictures.append(
                self._draw(name, caption, plots.differences, gain, setting=setting, against="random")
            )
        table = self._difference_table(gain, "gain_over_random", "Gain over random search")
        return Section(
            "baselines", "Baselines", words, pictures, [dataclasses.replace(table, note="As in Differences.")]
        )
