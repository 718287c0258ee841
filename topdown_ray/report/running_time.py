"""The report's section on running time: seconds of a search, what it spends, and how both grow with the
number of targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from topdown_ray import stats
from topdown_ray.figures import Picture, file_name
from topdown_ray.report import notebook, plots
from topdown_ray.report.labelling import AMORTISED, LONE, PUBLISHED
from topdown_ray.report.page import Column, Section, Table, interval, number, text


class Tables(NamedTuple):
    """The tables of :mod:`topdown_ray.report.tables` on time."""

    time: pd.DataFrame
    growth: pd.DataFrame
    single: pd.DataFrame


def section(
    shown: Tables, searches: pd.DataFrame | None, setting: Sequence[Column], paint: Callable[..., Picture]
) -> Section:
    """The section. searches: labelled rows, for the published figures beside ours; setting: the columns that
    name it; paint: draws.
    """
    settings = list(shown.time["setting"].unique())
    growth, by_k, single = shown.growth, [shown.time], [shown.single]
    if searches is not None:
        growth = pd.concat([growth, notebook.growth(searches)], ignore_index=True)
        for experiment, frames in (("running_time", by_k), ("single_target_time", single)):
            theirs = notebook.for_settings(searches, experiment).rename(columns={"value": "mean"})
            frames.append(theirs.assign(clock=PUBLISHED, n=1, cost_unit="ms", targets=""))
    pictures: list[Picture] = []
    for title, frames, plot in (
        ("time_by_k", by_k, plots.time_by_k),
        ("single_target", single, plots.single_target),
    ):
        for label in settings:
            for frame in frames:
                for clock in frame.loc[frame["setting"] == label, "clock"].unique():
                    name = file_name(title, label, clock.split(" (")[0] if clock == PUBLISHED else clock)
                    foreign = "published with the original notebook: another machine's seconds"
                    words = (
                        foreign
                        if clock == PUBLISHED
                        else f"{_clock_words(clock, frame)}; bars: mean, lines: 95 %"
                    )
                    caption = f"{label}: {_MEANING[title]}; {words}."
                    pictures.append(paint(name, caption, plot, frame, setting=label, clock=clock))
    clock_columns = [
        *setting,
        text("targets", "target set"),
        text("clock", "time of"),
        text("batch_size", "batch size"),
        text("strategy"),
    ]
    seconds = [number("mean", "mean (s)"), number("sd", "sd (s)"), number("median", "median (s)")]
    seconds += [interval("low", "high", "95 % of mean (s)"), text("interval", "interval by")]
    seconds += [number("n", "timings"), number("searches")]
    dash: dict[str, Any] = {"digits": ",.0f", "missing": _DASH}
    counted = [number("cpu_s", "CPU (s)", missing=_DASH), number("predictor_rows", "predictor rows", **dash)]
    counted += [
        number("evaluations", "evaluations", **dash),
        number("unique_evaluations", "unique evaluations", **dash),
    ]
    if shown.time["gradients"].any():
        counted.append(number("gradients", "gradients", **dash))
    fitted = [*setting, text("strategy"), text("clock", "time of"), text("unit")]
    for name, heading in (("slope", "a further target"), ("intercept", "intercept")):
        fitted += [number(name, heading, ".6g"), interval(f"{name}_low", f"{name}_high", digits=".6g")]
    fitted += [number("further", "further / first"), interval("further_low", "further_high")]
    fitted += [
        number("exponent", "exponent p", ".3f"),
        interval("exponent_low", "exponent_high", digits=".3f"),
    ]
    fitted += [
        text("sublinear", "sub-linear in k"),
        text("interval", "interval by"),
        number("n"),
        number("n_k", "values of k"),
    ]
    target = [number("k"), number("target", digits="g"), text("cost_unit", "unit")]
    listed = [
        Table("time_by_k", "Time of a search by the number of targets (experiment 1)", shown.time,
              [*clock_columns, number("k"), *seconds, *counted],
              "Means a search. Compare by CPU seconds (one core) and by predictor rows: unique evaluations "
              "and gradients, a gradient "
              "counted as the rows that it was measured to cost. Evaluations count children, remembered ones "
              "too, which cost next "
              "to nothing. A dash: the folder does not tell."),
        Table("growth", "Growth with the number of targets", growth, fitted,
              "Cost = intercept + k x (a further target); cost ~ k^p; sub-linear where the interval of p "
              "lies below 1."),
        Table("single_target", "Time of a single target (experiment 3)", shown.single,
              [*clock_columns, *target, *seconds],
              "k = 1: searched alone; k > 1: the target's share of the search."),
    ]  # fmt: skip
    return Section("time", "Running time", [_what_time_means(shown.time)], pictures, listed)


_DASH = "\N{EN DASH}"
_MEANING = {
    "time_by_k": "time of a whole search by its number of targets",
    "single_target": "time of each target",
}


def _clock_words(clock: str, frame: pd.DataFrame) -> str:
    if clock.startswith(LONE):
        return "each search ran alone"
    sizes = (
        frame[frame["clock"] == clock]
        .groupby("strategy")["batch_size"]
        .agg(lambda sizes: " or ".join(dict.fromkeys(sizes)))
    )
    same = sizes.nunique() == 1
    batches = sizes.iloc[0] if same else ", ".join(f"{strategy} {size}" for strategy, size in sizes.items())
    return f"amortised: a batch's time divided by its searches ({batches})"


def _what_time_means(time: pd.DataFrame) -> str:
    clocks = list(time["clock"].unique())
    words = "Time is the search loop on one thread, without start-up, loading and writing. "
    if any(clock.startswith(LONE) for clock in clocks):
        words += f'"{LONE}": one search had its process to itself. '
    if any(clock.startswith(AMORTISED) for clock in clocks):
        words += (
            f'"{AMORTISED}": several searches ran in lock step, and each is given an equal share of the '
            "batch's time; a batch is one timing, so n counts batches. Compare it with throughput, not with "
            "the time that one search would take. "
        )
    words += "The two are shown apart and never averaged together. " if len(clocks) > 1 else ""
    words += "Target sets differ in more than k: a tight target takes more redraws than a loose one. "
    return words + (
        f"Intervals are of the mean, where there are at least {stats.LEAST} timings: Student's below "
        f"{stats.STUDENT}, by bootstrap from there on; they hold the spread between repetitions, not what "
        "else the machine may have been doing."
    )
