"""Prepare the data of a report's explorer: answers, fronts, and the layers and costs of architectures.

The data are embedded in the page and are therefore kept small: texts are stored by index, architectures as
the digits of their genes, and the number of points is limited."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from topdown_ray.errors import UserError
from topdown_ray.files import parse_json
from topdown_ray.report.context import Context
from topdown_ray.report.layers import DIGITS, LayerTables, config_pattern, layer_tables, term_costs
from topdown_ray.report.subnets import known_space
from topdown_ray.spaces.space import Space
from topdown_ray.store.place import Place
from topdown_ray.store.reading import read_front

MOST_ANSWERS = 5000  # answers of all settings in the page
MOST_OF_FRONT = 300  # points of the front of a strategy and target set
MOST_OF_FRONTS = 2000  # points of all fronts
MOST_SEARCHES = 64  # searches of a strategy and target set whose fronts (up to 1,024 points each) are read

_CODE = "0123456789abcdefghijklmnopqrstuvwxyz"  # the digit of a gene's choice, by index
_CELL = ["setting", "strategy", "targets", "target"]
_GROUP = ["setting", "strategy", "targets"]
# the columns that decide the layers of a row's architecture and their costs
_SUBJECT = ["space", "protocol", "cost_name", "cost_sha256", "cost_unit", "folder"]


def payload(context: Context) -> dict[str, Any] | None:
    """Return the data of the explorer for JSON, or None if no search met its target.

    ``points`` has the columns cell, subject, seed, cost (in the unit of the subject), accuracy (top-1 in %),
    macs and params (1e6, None if not known) and arch. A cell without a target belongs to a front."""
    rows = context.data.distinct()
    good = rows["feasible"] & rows["accuracy"].notna() & np.isfinite(rows["cost"])
    answers = rows[good]
    if answers.empty:
        return None
    front = union_fronts(context, rows)
    shown = pd.concat([thinned(answers, MOST_ANSWERS), front["rows"]], ignore_index=True)
    subjects, subject = _coded(shown, _SUBJECT)
    cells, cell = _coded(shown, _CELL)
    spaces, described = _subjects(context, subjects)
    archs, arch = _architectures(shown["arch"], subject, described, spaces)
    return {
        "settings": list(dict.fromkeys(shown["setting"])),
        "strategies": list(dict.fromkeys(rows["strategy"])),
        "sets": list(dict.fromkeys(rows["targets"])),
        "answers": {
            "shown": int(shown["target"].notna().sum()),
            "of": len(answers),
            "missed": int((~good).sum()),
        },
        "fronts": {"shown": len(front["rows"]), "of": front["of"]},
        "files": [source.name for source in context.sources],
        "cells": _cells(context, cells),
        "spaces": [_space(space, tables) for space, tables in spaces],
        "subjects": described,
        "points": {
            "cell": cell.tolist(),
            "subject": subject.tolist(),
            "seed": shown["seed"].astype(int).tolist(),
            "cost": _numbers(shown["cost"], DIGITS),
            "accuracy": _numbers(100 * shown["accuracy"], 6),
            "macs": _numbers(shown["macs_m"], 3) if "macs_m" in shown else [None] * len(shown),
            "params": _numbers(shown["params_m"], 4) if "params_m" in shown else [None] * len(shown),
            "arch": arch,
        },
        "archs": archs,
    }


def embedded(value: Any) -> str:
    """Return JSON for a script element, in which no text can end the element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


# --- selection of points ------------------------------------------------------------------------------------


def thinned(answers: pd.DataFrame, most: int) -> pd.DataFrame:
    """Select at most this many answers and keep their order. First come those that no other answer of their
    setting beats in both cost and accuracy, then those that none of their strategy and target set beats, then
    the most accurate ones of each strategy and target.
    """
    if len(answers) <= most:
        return answers
    best = answers.groupby(_CELL, observed=True)["accuracy"].rank(method="first", ascending=False)
    rank = best.mask(_undominated(answers), 0.0).mask(_undominated(answers, ["setting"]), -1.0).to_numpy()
    return answers.iloc[np.sort(np.argsort(rank, kind="stable")[:most])]


def _undominated(rows: pd.DataFrame, group: Sequence[str] = _GROUP) -> pd.Series:
    """A mask of the rows that are more accurate than every cheaper row of their group."""
    inside = rows.sort_values(["cost", "accuracy"], ascending=[True, False], kind="stable")
    groups = inside.groupby(list(group), observed=True)["accuracy"]
    before = groups.cummax().groupby([inside[key] for key in group], observed=True).shift()
    return (before.isna() | (inside["accuracy"] > before)).reindex(rows.index)


def union_fronts(context: Context, rows: pd.DataFrame) -> dict[str, Any]:
    """Combine the fronts that searches kept into one for each setting, strategy and target set.

    Returns ``rows`` with the columns of the answers, and ``of``, the number of points before thinning. Points
    are thinned evenly along the cost, except those that no other point of the setting beats. For a strategy
    and target set with many searches, only the fronts of the first ``MOST_SEARCHES`` seeds are read.
    """
    searches = rows.drop_duplicates("search_id").sort_values("seed", kind="stable")
    facts = searches.groupby(_GROUP, observed=True).head(MOST_SEARCHES)
    facts = facts[["search_id", *_GROUP, *_SUBJECT, "seed"]]
    own = ["search_id", "place", "cost", "accuracy", "arch", "macs_m", "params_m"]
    read = [read_front(Place(source.where), facts["search_id"])[own] for source in context.sources]
    kept = pd.concat(read, ignore_index=True)
    kept = kept.drop_duplicates(["search_id", "place"]).merge(facts, on="search_id")
    kept = kept[kept["accuracy"].notna() & np.isfinite(kept["cost"])].reset_index(drop=True)
    if kept.empty:
        return {"rows": kept.assign(target=math.nan), "of": 0}
    best = _undominated(kept, ["setting"])  # all of them, because the slider may name them
    union = kept[best | _undominated(kept)].assign(best=best).sort_values([*_GROUP, "cost"], kind="stable")
    groups = union.groupby(_GROUP, observed=True, sort=False)
    most = max(2, min(MOST_OF_FRONT, MOST_OF_FRONTS // groups.ngroups))
    few = [group[group["best"] | _evenly(len(group), most)] for _, group in groups]
    return {"rows": pd.concat(few, ignore_index=True).assign(target=math.nan), "of": len(kept)}


def _evenly(n: int, most: int) -> npt.NDArray[np.bool_]:
    """A mask that selects at most this many of n rows, evenly spread."""
    chosen = np.zeros(n, dtype=bool)
    chosen[np.linspace(0, n - 1, min(n, most)).round().astype(int)] = True
    return chosen


# --- columns ------------------------------------------------------------------------------------------------


def _coded(rows: pd.DataFrame, columns: Sequence[str]) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """The different rows of these columns, and for each row its place among them."""
    codes = rows.groupby(list(columns), sort=False, dropna=False, observed=True).ngroup().to_numpy()
    distinct, first = np.unique(codes, return_index=True)
    assert (distinct == np.arange(len(distinct))).all()
    return rows.iloc[first][list(columns)].reset_index(drop=True), codes


def _numbers(values: pd.Series, digits: int) -> list[float | int | None]:
    rounded = [round(float(value), digits) for value in values]
    whole: list[float | int | None] = [int(x) if math.isfinite(x) and x == int(x) else x for x in rounded]
    return [None if x is None or math.isnan(x) else x for x in whole]


def _cells(context: Context, cells: pd.DataFrame) -> list[list[Any]]:
    """setting, strategy, target set (all as shown), target, and low, high and n of the accuracy (in %)."""
    known = context.accuracy[[*_CELL, "low", "high", "n"]]
    merged = cells.merge(known, on=_CELL, how="left")
    scaled = merged.assign(low=100 * merged["low"], high=100 * merged["high"])
    columns = [_numbers(scaled[name], 6) for name in ("target", "low", "high", "n")]
    words = [scaled[name].astype(str) for name in _GROUP]
    return [list(row) for row in zip(*words, *columns, strict=True)]


# --- architectures ------------------------------------------------------------------------------------------


def _subjects(
    context: Context, subjects: pd.DataFrame
) -> tuple[list[tuple[Space, LayerTables | None]], list[dict[str, Any]]]:
    """The known spaces, and for each subject its space among them (-1: unknown) and the costs of its terms
    (None if not available).
    """
    spaces: dict[Space, LayerTables | None] = {}
    described = []
    for row in subjects.to_dict("records"):
        space = known_space(row["space"], row["protocol"])
        costs = None
        if space is not None:
            if space not in spaces:
                spaces[space] = layer_tables(space)
            tables = spaces[space]
            if tables is not None:
                names = _names(context.sources[row["folder"]].results.manifest, row)
                costs = term_costs(tables, names, row["cost_sha256"])
        described.append(
            {
                "space": -1 if space is None else list(spaces).index(space),
                "cost": row["cost_name"],
                "unit": row["cost_unit"],
                "costs": costs,
            }
        )
    return list(spaces.items()), described


def _names(manifest: Mapping[str, Any], row: Mapping[Any, Any]) -> list[str]:
    """The possible names of a row's cost: its own name, and the files that the sweep names."""
    named = manifest.get("spec", {}).get("cost", {}).get(row["space"], [])
    return [row["cost_name"], *([named] if isinstance(named, str) else named)]


def _space(space: Space, tables: LayerTables | None) -> dict[str, Any]:
    return {
        "name": space.name,
        "pattern": config_pattern(space),
        "choices": [gene.choices for gene in space.genes],
        "tables": None if tables is None else tables.payload(),
    }


def _architectures(
    texts: pd.Series,
    subject: np.ndarray[Any, Any],
    described: Sequence[Mapping[str, Any]],
    spaces: Sequence[tuple[Space, LayerTables | None]],
) -> tuple[list[str], list[int]]:
    """The different architectures, and each row's place among them. An architecture is written as the codes
    of its genes, or as JSON (which begins with ``{``) if the genes are not known.
    """

    rows = texts.fillna("{}").astype(str).to_numpy(object)
    space_of = np.array([one["space"] for one in described])[subject]
    written = rows.copy()
    for place, (space, _) in enumerate(spaces):
        if max(space.sizes) <= len(_CODE):
            own = np.flatnonzero(space_of == place)
            codes, different = pd.factorize(rows[own])
            written[own] = np.array(_written(space, different.tolist()))[codes]
    places, archs = pd.factorize(written)
    return list(archs), places.tolist()


def _written(space: Space, texts: Sequence[str]) -> list[str]:
    """The codes of the genes of different architectures. A text that is not an architecture of the space is
    returned as it is.
    """
    places = [(gene.key, gene.position) for gene in space.genes]
    indices = [{choice: i for i, choice in enumerate(gene.choices)} for gene in space.genes]

    def guessed(text: str) -> list[int]:
        with contextlib.suppress(ValueError, TypeError, LookupError):
            config = json.loads(text)
            values = (config[key] if key == "image_size" else config[key][at] for key, at in places)
            return [of[value] for of, value in zip(indices, values, strict=True)]
        return [0] * space.G

    genes = np.array([guessed(text) for text in texts], np.int8).reshape(-1, space.G)
    codes = np.array(list(_CODE))[genes]
    return [
        "".join(row) if text == again else _checked(space, text)
        for text, again, row in zip(texts, space.texts(genes), codes, strict=True)
    ]


def _checked(space: Space, text: str) -> str:
    """The same for one text that does not have this package's format of architectures."""
    try:
        return "".join(_CODE[gene] for gene in space.from_config(parse_json(text, "architecture")))
    except UserError:
        return text
