"""Make the section "Running time": the time and work of a search, and how they grow with the targets."""

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
    """Show times by the number of targets, their growth, and times of a single target."""
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
            f"{row['exponent']:.2f} [{row['exponent_low']:.2f}, {row['exponent_high']:.2f}] for "
            f"{row['strategy']}"
            for row in rows.to_dict("records")
        )
        lines.append(
            f"{setting} ({clock}): time grows with the number of targets k as k^p, where p is {exponents}."
        )
    return lines


def _pictures(
    context: Context, name: str, experiment: str, plot: Callable[..., Axes], ours: pd.DataFrame
) -> list[Picture]:
    """A picture for each setting and clock. The published times have a clock of their own."""
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
                    continue  # a picture of one bar shows no more than the table
                file = file_name(name, setting, clock.split(" (")[0] if clock == PUBLISHED else clock)
                caption = f"{setting}: {_MEANING[name]}, {_clock_words(clock, own)}"
                pictures.append(context.draw(file, caption, plot, frame, setting=setting, clock=clock))
    return pictures


#: The column along the horizontal axis of a picture.
_ALONG = {"time_by_k": "k", "single_target": "target"}
_BY = (*OF_SET, text("clock"))


def _seconds_columns(frame: pd.DataFrame) -> list[Column]:
    """Columns of times, in the unit that suits the longest mean."""
    seconds, unit = unit_of(float(frame["mean"].max()))
    scale: dict[str, Any] = {"scale": 1 / seconds}
    columns = [number(name, f"{name} ({unit})", **scale) for name in ("mean", "sd", "median")]
    columns.append(interval("low", "high", f"95 % interval of the mean ({unit})", **scale))
    columns.append(text("interval", "interval by"))
    return [*columns, number("n", "timings"), number("searches"), text("batch_size", "batch size")]


def _by_k(context: Context) -> Table:
    columns = [text("strategy"), *_seconds_columns(context.time)]
    scale, unit = unit_of(float(context.time["cpu_s"].max()))
    columns += [number("cpu_s", f"CPU ({unit})", scale=1 / scale, missing=DASH)]
    columns += [number("predictor_rows", **COUNT)]
    columns += [number("evaluations", **COUNT), number("unique_evaluations", **COUNT)]
    if context.time["gradients"].any():
        columns.append(number("gradients", **COUNT))
    title = "Time of a search by the number of targets"
    note = (
        "CPU time, predictor rows and evaluations are means over the searches. Compare strategies by CPU "
        "time (one core) and by predictor rows. Predictor rows are the unique evaluations plus the "
        "gradients, where a gradient counts as the number of rows that take the same time. Evaluations count "
        "all children, including those that were in the search's cache and cost almost nothing. A dash means "
        "that the folder does not record the value. Times in the CSV file are in seconds."
    )
    return Table("time_by_k", title, context.time, columns, note, _BY)


def _growth(context: Context) -> Table | None:
    """The fits over k; None if no strategy has searches for several k."""
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
        "The time or work of a search for k targets is fitted in two ways: as intercept + k x (a further "
        "target), and as a multiple of k^p. The column “further / first” has the time or work of a further "
        "target relative to that of the first. Growth is sub-linear if the whole interval of p is below 1."
    )
    return Table("growth", "Growth with the number of targets", frame, columns, note, OF_SETTING)


def _single(frame: pd.DataFrame) -> Table:
    columns = [number("target", digits="g"), text("cost_unit", "unit"), text("strategy")]
    columns += _seconds_columns(frame)
    note = (
        "For a set of one target, the time is that of a search for this target alone. For a larger set, it "
        "is the target's share of the time of a search."
    )
    return Table("single_target", "Time of a single target", frame, columns, note, _BY)


_MEANING = {
    "time_by_k": "time of a whole search by its number of targets",
    "single_target": "time of each target",
}


def _clock_words(clock: str, frame: pd.DataFrame) -> str:
    if clock == PUBLISHED:
        return "published with the original notebook, and measured on another machine."
    lines = ", and lines show its 95 % interval" if frame["low"].notna().any() else ""
    return f"{_batch_words(clock, frame)}. Bars show the mean{lines}."


def _batch_words(clock: str, frame: pd.DataFrame) -> str:
    if clock.startswith(LONE):
        return "with each search in a batch of its own"
    sizes = (
        frame[frame["clock"] == clock]
        .groupby("strategy")["batch_size"]
        .agg(lambda sizes: " or ".join(dict.fromkeys(sizes)))
    )
    same = sizes.nunique() == 1
    batches = sizes.iloc[0] if same else ", ".join(f"{strategy} {size}" for strategy, size in sizes.items())
    return f"as the time of a batch divided by its number of searches (batch size: {batches})"


def _what_time_means(time: pd.DataFrame) -> str:
    clocks = list(time["clock"].unique())
    words = "Times are those of the search loop on one thread, without start-up, loading and writing. "
    if any(clock.startswith(LONE) for clock in clocks):
        words += f"In “{LONE}”, each search ran in a batch of its own. "
    if any(clock.startswith(AMORTISED) for clock in clocks):
        words += (
            f"In “{AMORTISED}”, several searches ran together in lock step, and each has an equal share of "
            "the batch's time. A batch is one timing, so n counts batches. Such a time describes the "
            "throughput, not the time that one search would take on its own. "
        )
    words += "Different ways of timing are shown separately and never averaged. " if len(clocks) > 1 else ""
    words += "Target sets differ in more than k: a tight target needs more redraws than a loose one. "
    return words + (
        f"A mean of at least {stats.LEAST} timings has a 95 % interval: Student's for fewer than "
        f"{stats.STUDENT} timings, a bootstrap interval for more. The intervals cover the spread between "
        "repetitions, but not the effect of other programs on the machine."
    )
