"""Name the series of a report. A series has one line and colour in pictures, and one row in tables.

A series is an entry of a sweep's ``strategies``, by its label. If several folders have the same label with
different hyper-parameters or from different versions of the algorithm, each of them is a series of its own
and is marked with the letter of its folder: ``top_down (A)``. A legend explains the letters."""

from __future__ import annotations

import json
import string
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from topdown_ray import strategy_styles
from topdown_ray.store.manifest import labelled
from topdown_ray.store.reading import words

#: The columns that distinguish the series of one label, in addition to the setting.
HOW = ("search", "algorithm")


class Mark(NamedTuple):
    """The meaning of a letter in the names of series."""

    letter: str
    folder: str
    text: str  # how its searches differ from those of other letters


def hyper_parameters(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the hyper-parameters of the searches of each label as JSON: those of the sweep, overridden by
    the entry's own.
    """
    spec, plugins = manifest.get("spec", {}), manifest.get("strategies", {})
    shared = dict(spec.get("search", {}))
    if spec.get("budget"):
        shared["budget"] = spec["budget"]
    found = {}
    for entry in spec.get("strategies", []):
        name, label, _ = labelled(entry)
        own = {} if isinstance(entry, str) else {k: v for k, v in entry.items() if k not in _OF_ENTRY}
        code = {"code": plugins[name][:8]} if name in plugins else {}
        found[label] = json.dumps({**shared, **own, **code}, sort_keys=True)
    return found


_OF_ENTRY = ("name", "label", "colour")


def letter_of(folder: int) -> str:
    """Return the letter of a folder of the report, by its place."""
    return string.ascii_uppercase[folder] if folder < 26 else str(folder + 1)


def series(rows: pd.DataFrame, names: Sequence[str]) -> tuple[pd.Series, list[Mark]]:
    """Return the series of each row, and the legend of the letters in them.

    rows: have the columns setting, strategy (the label), search_id, folder and ``HOW``. names: those of the
    folders."""
    codes, cells = representatives(rows, ["setting", "strategy", *HOW])
    of_label = cells.groupby(["setting", "strategy"], sort=False, observed=True).indices
    several = [list(map(int, places)) for places in of_label.values() if len(places) > 1]
    if not several:
        return rows["strategy"], []
    searches = _searches(rows, codes, {place for places in several for place in places})
    labels = cells["strategy"].astype(object).to_numpy().copy()
    told: dict[int, dict[str, str]] = defaultdict(dict)
    taken = set(labels)
    for places in several:
        roots = _without_copies(places, searches)
        if len(set(roots.values())) == 1:
            continue
        chosen = sorted(set(roots.values()), key=lambda place: cells["folder"].iloc[place])
        facts = _differing(cells.iloc[chosen])
        for rank, (root, text) in enumerate(zip(chosen, facts, strict=True)):
            folder, label = int(cells["folder"].iloc[root]), str(cells["strategy"].iloc[root])
            name = _new(label, letter_of(folder), taken)
            taken.add(name)
            strategy_styles.vary(name, label, rank)
            told[folder][label] = text
            for place, other in roots.items():
                if other == root:
                    labels[place] = name
    marks = [Mark(letter_of(folder), names[folder], _joined(told[folder])) for folder in sorted(told)]
    return words(labels, codes).set_axis(rows.index), marks


def _new(label: str, letter: str, taken: Collection[str]) -> str:
    """Make a name for a series that is not a label, because labels may look like names of series."""
    name = f"{label} ({letter})"
    while name in taken:
        name += "'"
    return name


def _searches(rows: pd.DataFrame, codes: NDArray[Any], wanted: set[int]) -> dict[int, set[str]]:
    ids = rows["search_id"].to_numpy()
    return {place: set(ids[codes == place]) for place in wanted}


def _without_copies(places: Sequence[int], searches: Mapping[int, set[str]]) -> dict[int, int]:
    """Map each cell to the first one that has some of the same searches, because parameters that a strategy
    does not read do not make another series.
    """
    roots: dict[int, int] = {}
    for place in places:
        same = (root for root in dict.fromkeys(roots.values()) if searches[root] & searches[place])
        roots[place] = next(same, place)
    return roots


def _differing(cells: pd.DataFrame) -> list[str]:
    """The hyper-parameters and versions in which these cells differ, in words."""
    parsed = [
        {**json.loads(row["search"]), "algorithm": row["algorithm"]} for row in cells.to_dict("records")
    ]
    keys = list(dict.fromkeys(key for one in parsed for key in one))
    varying = [key for key in keys if len({str(one.get(key)) for one in parsed}) > 1]
    return [", ".join(f"{key} {_value(one.get(key))}" for key in varying) for one in parsed]


def _value(value: Any) -> str:
    return (
        "default"
        if value is None
        else json.dumps(value).strip('"')
        if isinstance(value, dict)
        else str(value)
    )


def _joined(told: Mapping[str, str]) -> str:
    """Join the differences of all labels; if they are the same for all, return them once."""
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    return "; ".join(f"{label}: {text}" for label, text in told.items())


def representatives(rows: pd.DataFrame, columns: Sequence[str]) -> tuple[NDArray[Any], pd.DataFrame]:
    """Return a code for each row, and a row for each code. Rows that agree in these columns share a code."""
    codes = rows.groupby(list(columns), sort=False, dropna=False, observed=True).ngroup().to_numpy()
    first = np.unique(codes, return_index=True)[1]
    return codes, rows.iloc[first].reset_index(drop=True)
