"""Write the top of a report: the best strategy of each setting, warnings, and the meaning of letters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from topdown_ray import stats
from topdown_ray.report.comparisons import unlike
from topdown_ray.report.context import Context
from topdown_ray.report.durations import duration
from topdown_ray.report.page import Top
from topdown_ray.report.series import letter_of

_MANY = 1.5  # ratios from here on are shown as multiples, smaller ones in percent


def top(context: Context) -> Top:
    """Return the part of the page above the sections."""
    return Top(_title(context), findings(context), warnings(context), _legend(context))


def findings(context: Context) -> list[str]:
    """Return one finding for each setting: which strategy is best, by how much, and at what share of the
    time.
    """
    by_setting = dict(tuple(context.overview.groupby("setting", sort=False, observed=True)))
    return [
        sentence(setting, by_setting[setting].to_dict("records"))
        if setting in by_setting
        else f"{setting}: no search met all targets of the widest set, so no strategy is named best."
        for setting in context.settings
    ]


def sentence(setting: str, rows: Sequence[Mapping[Any, Any]]) -> str:
    """Return the finding of a setting, which compares the best strategy with the next one of another label.
    rows: those of ``whole_sets.overview``, best first.
    """
    best, *others = rows
    name = best["strategy"]
    over = "for its target" if best["k"] == 1 else f"on average over {best['k']} targets"
    mean = f"{100 * best['mean']:.2f} %{_interval(best['low'], best['high'])}"
    reached = f"{mean} predicted top-1 {over} ({_seeds(best)})"
    if not others:
        return f"{setting}: {name} reaches {reached}."
    second = next((row for row in others if row["label"] != best["label"]), others[0])
    other = second["strategy"]
    ahead = -100 * second["difference"]
    by = f"{_points(ahead)}{_interval(-second['difference_high'], -second['difference_low'])}"
    by += " percentage points"
    shared = f" on {second['pairs']} shared seeds" if second["pairs"] < best["n"] else ""
    # a strategy can be ahead on shared seeds although another one has the higher mean over all its seeds
    highest = best["mean"] >= max(row["mean"] for row in others)
    leads = "has the highest mean with" if highest else "leads with"
    if math.isnan(ahead):
        told = f"{name} {leads} {reached}. It shares no seeds with {other}"
    elif math.isnan(second["difference_high"]):
        told = f"{name} {leads} {reached}, {by} above {other}{shared} (no interval)"
    elif second["difference_high"] < 0:
        told = f"{name} is best with {reached}, {by} above {other}{shared}"
    elif (second["difference_low"], second["difference_high"]) == (0, 0):
        told = f"{name} and {other} found equally accurate answers{shared}, with {reached}"
    else:
        told = f"{name} {leads} {reached}, but is not clearly better than {other}: it is {by} ahead{shared}"
    partial = [_partial(row) for row in (best, second) if row["n"] < row["searches"]]
    return f"{setting}: {'. '.join([told, *_work(best, second), *partial])}."


def _seeds(row: Mapping[Any, Any]) -> str:
    return "one seed" if row["n"] == 1 else f"{row['n']} seeds"


def _partial(row: Mapping[Any, Any]) -> str:
    return f"{row['strategy']} met all targets in {row['n']} of {row['searches']} searches"


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f" [{_points(100 * low)}, {_points(100 * high)}]"


def _points(value: float) -> str:
    text = f"{value:.2f}"
    return text if text.strip("-0.") else text.lstrip("-")


def _work(best: Mapping[Any, Any], second: Mapping[Any, Any]) -> list[str]:
    """Return the work of the best strategy relative to the second, as time if it is comparable, or as
    predictor rows.
    """
    name, other = best["strategy"], second["strategy"]
    time = best["seconds"] / second["seconds"] if second["seconds"] else math.nan
    if not math.isnan(time) and best["n"] >= stats.LEAST:  # the times of few searches are mostly noise
        share = f"{_percent(time)} of the time of" if time < _MANY else f"{time:.2g} times as long as"
        times = f"({duration(best['seconds'])} against {duration(second['seconds'])} for each search)"
        return [f"{name} takes {share} {other} {times}"]
    rows = best["predictor_rows"] / second["predictor_rows"] if second["predictor_rows"] else math.nan
    if math.isnan(rows):
        return []
    share = f"{_percent(rows)} of the" if rows < _MANY else f"{rows:.2g} times the"
    return [f"{name} uses {share} predictor rows of {other}"]


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.0f} %"


def warnings(context: Context) -> list[str]:
    """Return warnings about the data: folders that disagree, a reference front of another predictor or cost,
    few seeds, missing searches.
    """
    return [
        *context.data.notes,
        *unlike(context.data, context.reference),
        *_few_seeds(int(context.accuracy["n"].max())),
        *_missing(context),
    ]


def _title(context: Context) -> str:
    names = [
        str(source.results.manifest.get("spec", {}).get("name", name))
        for name, source in zip(context.names, context.sources, strict=True)
    ]
    return "Architecture search: " + ", ".join(dict.fromkeys(names))


def _legend(context: Context) -> list[tuple[str, str]]:
    """The letters with their meaning. If there are any, a folder without a letter is explained as well."""
    known = {mark.letter: mark.text for mark in context.data.marks}
    if not known:
        return []
    unused = "no strategy in this report is marked with this letter"
    letters = [letter_of(i) for i in range(len(context.names))]
    return [
        (letter, f"{name}: {known.get(letter, unused)}")
        for letter, name in zip(letters, context.names, strict=True)
    ]


def _few_seeds(n: int) -> list[str]:
    if n == 1:
        return [
            "This report has no standard deviations, intervals or tests, because the results have only one "
            "seed."
        ]
    if n < stats.LEAST:
        return [f"A 95 % interval needs at least {stats.LEAST} seeds; these results have {n}."]
    return []


def _missing(context: Context) -> list[str]:
    """A warning for each folder without all searches of its sweep."""
    return [
        f"{name} does not have {int(source.missing['missing'].sum())} of its "
        f"{int(source.missing['promised'].sum())} searches (status: "
        f"{source.results.manifest.get('status', 'unfinished')}). The report covers the remaining searches. "
        "The section “Provenance” lists the missing ones."
        for name, source in zip(context.names, context.sources, strict=True)
        if len(source.missing)
    ]
