"""Running time: seconds of a search, what it spends, and how both grow with the number of targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from topdown_ray import stats
from topdown_ray.figures import Picture, file_name
from topdown_ray.report import notebook, plots, tables
from topdown_ray.report.context import OF_SET, OF_SETTING, Context
from topdown_ray.report.durations import unit_of
from topdown_ray.report.labelling import AMORTISED, LONE, PUBLISHED
from topdown_ray.report.page import COUNT, DASH, Column, Section, Table, interval, number, text


def running_time(context: Context) -> Section:
    """Times by the number of targets, their growth, and times of a single target."""
    single = tables.single_target(context.data)
    pictures = [
        *_pictures(context, "time_by_k", "running_time", plots.time_by_k, context.time),
        *_pictures(context, "single_target", "single_target_time", plots.single_target, single),
    ]
    shown = [_by_k(context), _growth(context), _single(single)]
    words = [_what_time_means(context.time), *context.data.timing_notes, *_how_it_grows(context.growth)]
    return Section("time", "Running time", words, pictures, [table for table in shown if table is not None])


def _how_it_grows(growth: pd.DataFrame) -> list[str]:
    """A sentence for each setting and clock in which the growth has an interval."""
    lines = []
    fitted = growth[(growth["unit"] == "s") & growth["exponent_low"].notna()]
    for (setting, clock), rows in fitted.groupby(["setting", "clock"], sort=False):
        exponents = ", ".join(
            f"{row['strategy']} {row['exponent']:.2f} [{row['exponent_low']:.2f}, {row['exponent_high']:.2f}]"
            for row in rows.to_dict("records")
        )
        lines.append(f"{setting}: time grows with the number of targets as k^p ({clock}), p: {exponents}.")
    return lines


def _pictures(
    context: Context, name: str, experiment: str, plot: Callable[..., Axes], ours: pd.DataFrame
) -> list[Picture]:
    """A picture for each setting and clock; the published times as another machine's."""
    frames = [ours]
    if context.options.published:
        theirs = notebook.for_settings(context.data.searches, experiment).rename(columns={"value": "mean"})
        frames.append(theirs.assign(clock=PUBLISHED, n=1, cost_unit="ms", targets=""))
    pictures = []
    for setting in context.time["setting"].unique():
        for frame in frames:
            for clock in frame.loc[frame["setting"] == setting, "clock"].unique():
                own = frame[(frame["setting"] == setting) & (frame["clock"] == clock)]
                if len(own[["strategy", _ALONG[name]]].drop_duplicates()) < 2:
                    continue  # one bar shows no more than the table
                file = file_name(name, setting, clock.split(" (")[0] if clock == PUBLISHED else clock)
                caption = f"{setting}: {_MEANING[name]}; {_clock_words(clock, own)}."
                pictures.append(context.draw(file, caption, plot, frame, setting=setting, clock=clock))
    return pictures


#: What the bars of a picture stand along.
_ALONG = {"time_by_k": "k", "single_target": "target"}
_BY = (*OF_SET, text("clock"))


def _seconds_columns(frame: pd.DataFrame) -> list[Column]:
    """Columns of seconds, in the unit that suits the longest mean."""
    seconds, unit = unit_of(float(frame["mean"].max()))
    scale: dict[str, Any] = {"scale": 1 / seconds}
    columns = [number(name, f"{name} ({unit})", **scale) for name in ("mean", "sd", "median")]
    columns += [interval("low", "high", f"95 % of mean ({unit})", **scale), text("interval", "interval by")]
    return [*columns, number("n", "timings"), number("searches"), text("batch_size", "batch size")]


def _by_k(context: Context) -> Table:
    columns = [text("strategy"), *_seconds_columns(context.time)]
    scale, unit = unit_of(float(context.time["cpu_s"].max()))
    columns += [number("cpu_s", f"CPU ({unit})", scale=1 / scale, missing=DASH)]
    columns += [number("predictor_rows", **COUNT)]
    columns += [number("evaluations", **COUNT), number("unique_evaluations", **COUNT)]
    if context.time["gradients"].any():
        columns.append(number("gradients", **COUNT))
    title = "Time of a search by the number of targets (experiment 1)"
    note = (
        "Means per search. Compare by CPU seconds (one core) and by predictor rows: unique evaluations "
        "and gradients, a gradient counted as the rows that it was measured to cost. Evaluations count "
        "children, remembered ones too, which cost next to nothing. A dash: the folder does not tell. "
        "The file gives seconds."
    )
    return Table("time_by_k", title, context.time, columns, note, _BY)


def _growth(context: Context) -> Table | None:
    """The fits over k; None where no strategy has searches of several k."""
    frame = context.growth[context.growth["n_k"] > 1]
    if context.options.published:
        frame = pd.concat([frame, notebook.growth(context.data.searches)], ignore_index=True)
    if frame.empty:
        return None
    columns = [text("strategy"), text("clock", "time of"), text("unit")]
    for name, heading in (("slope", "a further target"), ("intercept", "intercept")):
        columns += [number(name, heading, ".6g"), interval(f"{name}_low", f"{name}_high", digits=".6g")]
    columns += [number("further", "further / first"), interval("further_low", "further_high")]
    columns += [number("exponent", "exponent p", ".3f")]
    columns += [interval("exponent_low", "exponent_high", digits=".3f"), text("sublinear", "sub-linear in k")]
    columns += [text("interval", "interval by"), number("n"), number("n_k", "values of k")]
    note = (
        "Cost = intercept + k x (a further target); cost ~ k^p; sub-linear where the interval of p "
        "lies below 1."
    )
    return Table("growth", "Growth with the number of targets", frame, columns, note, OF_SETTING)


def _single(frame: pd.DataFrame) -> Table:
    columns = [number("target", digits="g"), text("cost_unit", "unit"), text("strategy")]
    columns += _seconds_columns(frame)
    note = "k = 1: searched alone; k > 1: the target's share of the search."
    return Table("single_target", "Time of a single target (experiment 3)", frame, columns, note, _BY)


_MEANING = {
    "time_by_k": "time of a whole search by its number of targets",
    "single_target": "time of each target",
}


def _clock_words(clock: str, frame: pd.DataFrame) -> str:
    if clock == PUBLISHED:
        return "published with the original notebook: another machine's seconds"
    lines = ", lines: 95 %" if frame["low"].notna().any() else ""
    return f"{_batch_words(clock, frame)}; bars: mean{lines}"


def _batch_words(clock: str, frame: pd.DataFrame) -> str:
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
