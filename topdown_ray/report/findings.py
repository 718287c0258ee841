"""The top of a report: who is best, what a reader must know before reading on, and what letters stand for."""

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

_MANY = 1.5  # the ratio from which on it is told in times, and not in percent


def top(context: Context) -> Top:
    """What stands above the sections."""
    return Top(_title(context), findings(context), warnings(context), _legend(context))


def findings(context: Context) -> list[str]:
    """One sentence for each setting: which strategy is best, by how much, and at which share of the time."""
    by_setting = dict(tuple(context.overview.groupby("setting", sort=False, observed=True)))
    return [
        sentence(setting, by_setting[setting].to_dict("records"))
        if setting in by_setting
        else f"{setting}: no search met all targets of the widest set, so that no strategy is named best."
        for setting in context.settings
    ]


def sentence(setting: str, rows: Sequence[Mapping[Any, Any]]) -> str:
    """The finding of a setting: the best strategy beside the next one of another label. rows: of
    ``whole_sets.overview``, best first.
    """
    best, *others = rows
    name = best["strategy"]
    over = "for its target" if best["k"] == 1 else f"on average over {best['k']} targets"
    reached = f"{100 * best['mean']:.2f} %{_interval(best['low'], best['high'])} {over} ({_seeds(best)})"
    if not others:
        return f"{setting}: {name} reaches {reached}."
    second = next((row for row in others if row["label"] != best["label"]), others[0])
    other = second["strategy"]
    ahead = -100 * second["difference"]
    by = f"{_points(ahead)}{_interval(-second['difference_high'], -second['difference_low'])} points"
    by += f" on {second['pairs']} shared seeds" if second["pairs"] < best["n"] else ""
    # on shared seeds a strategy can be ahead of one whose mean, over other seeds too, is higher
    leads = "has the highest mean" if best["mean"] >= max(row["mean"] for row in others) else "leads"
    if math.isnan(ahead):
        told = f"{name} {leads}, {reached}; it shares no seeds with {other}"
    elif math.isnan(second["difference_high"]):
        told = f"{name} {leads}, {reached}, {by} above {other} (no interval)"
    elif second["difference_high"] < 0:
        told = f"{name} is best with {reached}, {by} above {other}"
    elif (second["difference_low"], second["difference_high"]) == (0, 0):
        told = f"{name} and {other} have the same answers, {reached}"
    else:
        told = f"{name} {leads}, {reached}, but it is not clearly better than {other}: {by} ahead"
    partial = [_partial(row) for row in (best, second) if row["n"] < row["searches"]]
    return f"{setting}: {'; '.join([told, *_work(best, second), *partial])}."


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
    """What the best one spends beside the second: time where it compares, else predictor rows."""
    name = best["strategy"]
    time = best["seconds"] / second["seconds"] if second["seconds"] else math.nan
    if not math.isnan(time):
        times = f"({duration(best['seconds'])} against {duration(second['seconds'])} a search)"
        return [f"{name} takes {_share(time)} the time {times}"]
    rows = best["predictor_rows"] / second["predictor_rows"] if second["predictor_rows"] else math.nan
    return [] if math.isnan(rows) else [f"{name} uses {_share(rows)} the predictor rows"]


def _share(ratio: float) -> str:
    return f"{100 * ratio:.0f} % of" if ratio < _MANY else f"{ratio:.2g} times"


def warnings(context: Context) -> list[str]:
    """Limits of the data: disagreement, a reference front that does not compare, few seeds, missing
    searches.
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
    """The letters, and as a folder that has none also says something, all folders where there are letters."""
    known = {mark.letter: mark.text for mark in context.data.marks}
    if not known:
        return []
    letters = [letter_of(i) for i in range(len(context.names))]
    return [
        (letter, f"{name}: {known.get(letter, 'its labels are in no other folder, or the same searches')}")
        for letter, name in zip(letters, context.names, strict=True)
    ]


def _few_seeds(n: int) -> list[str]:
    if n == 1:
        return [
            "One seed only: no standard deviations, intervals or tests, because one search shows no spread."
        ]
    if n < stats.LEAST:
        return [
            f"No intervals: a 95 % interval needs at least {stats.LEAST} seeds, and these results have at "
            f"most {n}."
        ]
    return []


def _missing(context: Context) -> list[str]:
    """A warning for each folder that lacks searches which its sweep promised."""
    return [
        f"{name} lacks {int(source.missing['missing'].sum())} of {int(source.missing['promised'].sum())} "
        f"searches (status: {source.results.manifest.get('status', 'unfinished')}). The report covers the "
        "searches that are there, and its section on provenance lists the missing ones."
        for name, source in zip(context.names, context.sources, strict=True)
        if len(source.missing)
    ]
