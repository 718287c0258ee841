"""The top of a report: its main findings, and what a reader must know before reading on."""

from __future__ import annotations

from pathlib import Path

from topdown_ray import stats
from topdown_ray.report.comparisons import unlike
from topdown_ray.report.context import Context
from topdown_ray.report.tables import widest


def findings(context: Context) -> list[str]:
    """The main findings as sentences with their numbers."""
    return [*_differences(context), *_growth(context)]


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


def title(context: Context) -> str:
    """The report's title: the names of its sweeps."""
    names = [
        str(source.results.manifest.get("spec", {}).get("name", Path(source.name).name))
        for source in context.sources
    ]
    return "Architecture search: " + ", ".join(dict.fromkeys(names))


def _differences(context: Context) -> list[str]:
    lines = []
    sets = widest(context.accuracy)
    overall = context.differences[context.differences["target"].isna()]
    for setting in context.settings:
        rows = overall[(overall["setting"] == setting) & (overall["targets"] == sets[setting])]
        for row in rows[rows["against"] == "independent"].to_dict("records"):
            interval = (
                f" [{100 * row['low']:+.2f}, {100 * row['high']:+.2f}]"
                if row["low"] == row["low"]
                else " (no interval)"
            )
            lines.append(
                f"{setting}, {row['k']} targets: {row['strategy']} differs from independent searches by "
                f"{100 * row['mean']:+.2f}{interval} points of predicted top-1, mean over the targets "
                f"({row['n']} pairs)."
            )
    return lines


def _growth(context: Context) -> list[str]:
    lines = []
    growth = context.growth
    fitted = growth[(growth["unit"] == "s") & growth["exponent_low"].notna()]
    for (setting, clock), rows in fitted.groupby(["setting", "clock"], sort=False):
        exponents = ", ".join(
            f"{row['strategy']} {row['exponent']:.2f} [{row['exponent_low']:.2f}, {row['exponent_high']:.2f}]"
            for row in rows.to_dict("records")
        )
        lines.append(f"{setting}: time grows with the number of targets as k^p ({clock}), p: {exponents}.")
    return lines


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
