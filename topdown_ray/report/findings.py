"""The top of a report: who is best, what a reader must know before reading on, and what letters stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topdown_ray import stats
from topdown_ray.report.comparisons import unlike
from topdown_ray.report.context import Context
from topdown_ray.report.durations import duration
from topdown_ray.report.page import Top


def top(context: Context) -> Top:
    """What stands above the sections."""
    return Top(_title(context), findings(context), warnings(context), _legend(context))


def findings(context: Context) -> list[str]:
    """One sentence for each setting: which strategy is best, by how much, and at which share of the time."""
    return [
        sentence(str(setting), rows.to_dict("records"))
        for setting, rows in context.overview.groupby("setting", sort=False, observed=True)
    ]


def sentence(setting: str, rows: Sequence[Mapping[Any, Any]]) -> str:
    """The finding of a setting. rows: of ``whole_sets.overview``, best first."""
    best, *others = rows
    over = "for its target" if best["k"] == 1 else f"on average over {best['k']} targets"
    seeds = "one seed" if best["n"] == 1 else f"{best['n']} seeds"
    reached = f"{100 * best['mean']:.2f} %{_interval(best['low'], best['high'])} {over} ({seeds})"
    if not others:
        return f"{setting}: {best['strategy']} reaches {reached}."
    name = best["strategy"]
    second = others[0]
    ahead = -100 * second["difference"]
    by = f"{ahead:.2f}{_interval(-second['difference_high'], -second['difference_low'])} points"
    if math.isnan(ahead):
        told = f"{name} has the highest mean, {reached}; it shares no seeds with {second['strategy']}"
    elif second["difference_high"] < 0:
        told = f"{name} is best with {reached}, {by} above {second['strategy']}"
    elif math.isnan(second["difference_high"]):
        told = f"{name} has the highest mean, {reached}, {by} above {second['strategy']} (no interval)"
    else:
        told = f"{name} ({reached}) and {second['strategy']} are level: they differ by {by}"
    return f"{setting}: {told}{_time(best, second)}."


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f" [{100 * low:.2f}, {100 * high:.2f}]"


def _time(best: Mapping[Any, Any], second: Mapping[Any, Any]) -> str:
    if not math.isnan(best["time_share"]):
        times = f"{duration(best['seconds'])} against {duration(second['seconds'])} a search"
        return f"; {best['strategy']} takes {best['time_share']:.2g} times the time ({times})"
    if not math.isnan(best["rows_share"]):
        return f"; {best['strategy']} takes {best['rows_share']:.2g} times the predictor rows"
    return ""


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
        str(source.results.manifest.get("spec", {}).get("name", Path(source.name).name))
        for source in context.sources
    ]
    return "Architecture search: " + ", ".join(dict.fromkeys(names))


def _legend(context: Context) -> list[tuple[str, str]]:
    return [(mark.letter, f"{Path(mark.folder).name}: {mark.text}") for mark in context.data.marks]


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
        f"{Path(source.name).name} is {source.results.manifest.get('status', 'unfinished')}: "
        f"{int(source.missing['missing'].sum())} of {int(source.missing['promised'].sum())} searches are "
        "missing, and the report covers the others. Provenance lists the missing ones."
        for source in context.sources
        if len(source.missing)
    ]
