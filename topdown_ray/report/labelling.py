"""Label the rows of result folders with their setting, series and clock, so that they can be compared.

Accuracies are comparable within a *setting*: the same space, protocol, cost table, predictor and limits. The
*series* of a setting (see :mod:`topdown_ray.report.series`) are compared with each other. A *clock* is the
way in which a time was taken: for single searches, or amortised over batches of one size. Times of different
clocks are never averaged. All searches of a batch share its time, so a batch is one timing. A batch is not a
timing if its size differs from that of the other batches of its strategy and targets, as the last batch of a
sweep may."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from topdown_ray import strategy_styles
from topdown_ray.errors import UserError
from topdown_ray.files import short_hash
from topdown_ray.report.series import Mark, hyper_parameters, representatives, series
from topdown_ray.store.manifest import labelled
from topdown_ray.store.reading import words
from topdown_ray.store.target_sets import set_names
from topdown_ray.store.transferred import MARK, footnote, is_transferred
from topdown_ray.strategy_styles import strategy_rank

LONE = "lone searches"
AMORTISED = "amortised over batches"
PUBLISHED = "published (another machine)"

_NEEDED = [  # columns that every schema has
    "search_id",
    "shard_id",
    "space",
    "strategy",
    "seed",
    "k",
    "targets",
    "target_index",
    "target",
    "accuracy",
    "cost",
]
_NEEDED += ["evaluations", "wall_s", "search_wall_s", "batch_size"]
# columns that are missing in an older schema
_COUNTS = ("unique_evaluations", "gradients", "gradient_rows", "cpu_s", "search_cpu_s")
_DEFAULTS: dict[str, Any] = {  # for columns that are missing in an older schema
    **dict.fromkeys(("predictor_name", "cost_sha256", "predictor_sha256", "cost_unit", "device"), ""),
    "protocol": "default",
    "cost_name": "cost",
    "threads": 0,
    "feasible": True,
    "limits": "",
}
_ARCHITECTURES = ("arch", "genes", "macs_m", "params_m")  # columns that a folder may not have
#: The columns of ``searches`` and ``trace`` that summaries read, and the further ones that a report reads.
SEARCH_COLUMNS = (*_NEEDED, "label", "predictor_space", "costs", *_COUNTS, *_DEFAULTS, "host")
REPORT_COLUMNS = (*SEARCH_COLUMNS, *_ARCHITECTURES)
TRACE_COLUMNS = ("search_id", "target_index", "evaluations", "best_accuracy")

_MOST_LIMITS = 3  # different limits that a label lists
_SETTING = ("protocol", "predictor_name", "cost_sha256", "predictor_sha256", "limits_hash")


class Loaded(Protocol):
    """The attributes of :func:`topdown_ray.load`'s results that are used here."""

    @property
    def manifest(self) -> dict[str, Any]:
        """run.json."""

    @property
    def searches(self) -> pd.DataFrame:
        """One row for each search and target."""

    @property
    def trace(self) -> pd.DataFrame:
        """The anytime curves."""


@dataclass(frozen=True)
class Data:
    """The labelled rows of one or more folders: ``setting``, ``clock``, ``folder``, ``targets`` as text,
    ``strategy`` (the series: the label in the sweep, with a letter if necessary) and ``kind`` (the registered
    strategy). ``trace``: the points of anytime curves, in the order of ``answer``, the number of a row of
    ``searches``.
    """

    searches: pd.DataFrame
    trace: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    timing_notes: list[str] = field(default_factory=list)  # notes for a reader of times
    marks: list[Mark] = field(default_factory=list)  # the legend of letters in the names of series

    def distinct(self) -> pd.DataFrame:
        """Return every search of a series once, even if several folders have it, because the same search has
        the same answer.
        """
        return self._distinct

    @cached_property
    def curves(self) -> NDArray[np.int64]:
        """The place in ``trace`` where each answer's anytime curve begins, and last the end of ``trace``."""
        return np.searchsorted(self.trace["answer"].to_numpy(), np.arange(len(self.searches) + 1))

    @cached_property
    def _distinct(self) -> pd.DataFrame:
        again = self.searches.duplicated(["strategy", "search_id", "target_index"])
        return self.searches[~again] if again.any() else self.searches


def prepare(parts: Sequence[Loaded], names: Sequence[str] | None = None) -> Data:
    """Combine and label the rows of one or more result folders. names: those of the folders, for messages.
    Raises UserError.
    """
    names = (
        [str(part.manifest.get("spec", {}).get("name", i)) for i, part in enumerate(parts)]
        if names is None
        else names
    )
    labelled = [_labelled(part, i, name) for i, (part, name) in enumerate(zip(parts, names, strict=True))]
    searches = pd.concat(labelled, ignore_index=True)
    codes, texts = pd.factorize(searches["targets"])
    sets = [tuple(map(float, text.split())) for text in texts]
    searches["targets"] = words(set_names(sets), codes).set_axis(searches.index)
    searches["answer"] = np.arange(len(searches))
    traces = pd.concat(
        [_curves(part.trace, rows) for part, rows in zip(parts, _split(searches, labelled), strict=True)]
    )
    if not traces["answer"].is_monotonic_increasing:
        traces = traces.iloc[np.argsort(traces["answer"].to_numpy(), kind="stable")]
    searches["marked"] = is_transferred(searches)
    searches["setting"] = _settings(searches)
    searches["strategy"], marks = series(searches, names)
    searches[["clock", "timed"]] = _clocks(searches)
    searches = ordered(searches, ["setting", "k", "targets", "strategy", "seed", "target_index"])
    notes = []
    if len(parts) > 1:
        disagree = searches.groupby(["search_id", "target_index"])["accuracy"].nunique() > 1
        if disagree.any():
            n = int(disagree.sum())
            notes.append(
                f"{n} {'answer differs' if n == 1 else 'answers differ'} between folders that contain the "
                "same search. The report uses the first folder."
            )
    if note := footnote(searches):
        notes.append(note)
    return Data(searches, traces, notes, _untimed(searches), marks)


def _split(searches: pd.DataFrame, parts: Sequence[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    start = 0
    for part in parts:
        yield searches.iloc[start : start + len(part)]
        start += len(part)


def _curves(trace: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """A folder's anytime curves as numbers: ``answer`` (the row of searches), evaluations, best_accuracy."""
    codes, known = pd.factorize(rows["search_id"])
    width = int(rows["target_index"].max()) + 1
    # one more place, for searches that are not among the rows
    answers = np.full((len(known) + 1) * width, -1, np.int64)
    answers[codes * width + rows["target_index"].to_numpy()] = rows["answer"].to_numpy()
    index = trace["target_index"].to_numpy()
    found = pd.Index(known).get_indexer(pd.Index(trace["search_id"]))  # -1: none
    answer = np.where(index < width, answers[found * width + np.minimum(index, width - 1)], -1).astype(
        np.int32
    )
    frame = pd.DataFrame(
        {
            "answer": answer,
            "evaluations": trace["evaluations"].to_numpy(),
            "best_accuracy": trace["best_accuracy"].to_numpy(),
        },
        copy=False,
    )
    return frame if (answer >= 0).all() else frame[answer >= 0]


def _labelled(part: Loaded, folder: int, name: str) -> pd.DataFrame:
    rows = part.searches
    for entry in map(labelled, part.manifest.get("spec", {}).get("strategies", [])):
        if entry.label != entry.strategy or entry.colour:
            strategy_styles.choose(entry.label, entry.label, entry.colour)
    if rows.empty:
        raise UserError(f"{name}: expected at least one finished search, found none")
    schema = part.manifest.get("schema", "unknown")
    for column in _NEEDED:
        if column not in rows or rows[column].isna().all():
            raise UserError(
                f"{name}: expected the column {column} in searches, found none (schema version {schema})"
            )
    spec = part.manifest.get("spec", {})
    missing: dict[str, Any] = {column: math.nan for column in _COUNTS if column not in rows}
    for column, value in _DEFAULTS.items():
        if column not in rows or rows[column].isna().all():
            missing[column] = _constant(value, rows) if isinstance(value, str) else value
        elif rows[column].isna().any():
            missing[column] = rows[column].fillna(value)
    rows = rows.assign(**missing)
    numbers = {column: rows[column].astype(float) for column in _COUNTS}
    codes, sets = _target_sets(rows["targets"])
    machine = part.manifest.get("machine", {})
    facts = {
        "algorithm": str(part.manifest.get("algorithm", "")),
        "processor": str(machine.get("processor", "")),
    }
    spaces, names = pd.factorize(rows["space"].astype(str))
    limits = [_limits(spec, space) for space in names]
    labels = rows["label"] if "label" in rows else rows["strategy"]
    entries, known = pd.factorize(labels.astype(str))
    how = hyper_parameters(part.manifest)
    return rows.assign(
        **numbers,
        search=words([how.get(label, "{}") for label in known], entries).set_axis(rows.index),
        set_limits=words([text for text, _ in limits], spaces).set_axis(rows.index),
        limits_hash=words([digest for _, digest in limits], spaces).set_axis(rows.index),
        **{column: _constant(value, rows) for column, value in facts.items()},
        feasible=rows["feasible"].astype(bool),
        targets=words([" ".join(map(repr, targets)) for targets in sets], codes).set_axis(rows.index),
        folder=folder,
        predictor_rows=_predictor_rows(rows["strategy"], numbers),
        kind=rows["strategy"],
        label=labels,
        strategy=labels,
    )


def _target_sets(targets: pd.Series) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """A code for each row, and the sets of targets. Rows of one set may share its list."""
    values = targets.to_numpy(object)
    ids = np.fromiter(map(id, values), np.int64, len(values))
    _, first, at = np.unique(ids, return_index=True, return_inverse=True)
    different = np.empty(len(first), dtype=object)
    different[:] = [tuple(map(float, values[place])) for place in first]
    codes, sets = pd.factorize(different)
    return codes[at], sets


def _limits(spec: Mapping[str, Any], space: str) -> tuple[str, str]:
    """The further limits of a space's targets in words, and a hash of them; "" if there are none."""
    of_space = (spec.get("limits") or {}).get(space, [])
    sets = of_space if isinstance(of_space, list) else [part for own in of_space.values() for part in own]
    limits = [limit for part in sets for limit in part]
    if not any(limits):
        return "", ""
    return limits_text(limits), short_hash(json.dumps(sets, sort_keys=True))


def limits_text(limits: Sequence[Mapping[str, float]]) -> str:
    """Return the limits of several targets in words: ``params <= 6``, or ``params <= 6, 5 by target``."""
    texts = []
    for name in dict.fromkeys(name for limit in limits for name in limit):
        values = list(dict.fromkeys(limit.get(name) for limit in limits))
        shown = ["none" if value is None else f"{value:g}" for value in values]
        if len(shown) > _MOST_LIMITS:
            shown = [shown[0], "...", shown[-1]]
        texts.append(f"{name} <= {', '.join(shown)}" + (" by target" if len(values) > 1 else ""))
    return " and ".join(texts)


def _constant(value: str, rows: pd.DataFrame) -> pd.Series:
    return words([value], np.zeros(len(rows), np.int32)).set_axis(rows.index)


def _predictor_rows(strategy: pd.Series, counts: Mapping[str, pd.Series]) -> pd.Series:
    """The work of a target in predictor rows, where a gradient counts as the number of rows that were
    measured to take the same time; NaN if not known.
    """
    gradients = counts["gradients"].where(counts["gradients"].notna() | (strategy == "joint"), 0.0)
    rows: pd.Series = counts["unique_evaluations"] + (gradients * counts["gradient_rows"]).where(
        gradients != 0, 0.0
    )
    return rows


def _settings(rows: pd.DataFrame) -> pd.Series:
    """Labels of the settings: space and cost, and further facts only if two labels would be equal."""
    codes, settings = representatives(rows, ["space", "cost_name", "marked", "set_limits", *_SETTING])
    marks = settings["marked"].map({True: MARK, False: ""})
    base = settings["space"].astype(object) + marks + " on " + settings["cost_name"].astype(object)
    base += settings["set_limits"].astype(object).map(lambda text: f", {text}" if text else "")
    settings["base"] = base.where(settings["protocol"] != "notebook", base + " (notebook protocol)")
    labels = np.empty(len(settings), dtype=object)
    for label in settings["base"].unique():
        places = np.flatnonzero(settings["base"] == label)
        group = settings.iloc[places]
        varying = [column for column in _SETTING if group[column].nunique() > 1]
        for place, row in zip(places, group.to_dict("records"), strict=True):
            told = (
                f"{column.partition('_sha256')[0].replace('_hash', '')} {row[column][:8]}"
                for column in varying
            )
            labels[place] = ", ".join([str(label), *told])
    return words(labels, codes).set_axis(rows.index)


def _clocks(rows: pd.DataFrame) -> pd.DataFrame:
    """How each row was timed (``clock``), and whether its batch is a timing of that clock (``timed``).

    In each folder and setting, the preferred batch size is the one that most pairs of strategy and target set
    have (then the one with most timings, then the largest). A pair without it uses the size of most of its
    searches. The label has the batch size if there are several, and device and processor if there are
    several."""
    machine = ["device", "threads", "processor"]
    group, cell = ["folder", "setting", *machine], ["folder", "setting", *machine, "strategy", "targets"]
    shards = rows.drop_duplicates(["folder", "setting", "shard_id"])  # a search may serve several devices
    counts = (
        shards.groupby([*cell, "batch_size"], sort=False, observed=True).size().reset_index(name="timings")
    )
    preferred = (
        counts.groupby([*group, "batch_size"], sort=False, observed=True)["timings"]
        .agg(["size", "sum"])
        .reset_index()
    )
    counts = counts.merge(preferred, on=[*group, "batch_size"])
    best = (
        preferred.sort_values(["size", "sum", "batch_size"], kind="stable")
        .groupby(group, sort=False, observed=True)
        .tail(1)
    )
    counts = counts.merge(best[[*group, "batch_size"]].rename(columns={"batch_size": "shared"}), on=group)
    counts["is_shared"] = counts["batch_size"] == counts["shared"]
    counts["searches"] = counts["timings"] * counts["batch_size"]
    chosen = (
        counts.sort_values(["is_shared", "searches", "batch_size"], kind="stable")
        .groupby(cell, sort=False, observed=True)
        .tail(1)
    )
    codes, cells = representatives(rows, cell)
    sizes = cells[cell].merge(chosen[[*cell, "batch_size"]], on=cell, how="left")["batch_size"].astype(int)
    several = sizes[sizes > 1].nunique() > 1
    where = (
        cells["device"].astype(str)
        + ", "
        + cells["threads"].astype(object).map(lambda n: f"{n} thread{'s' * (n != 1)}, ")
        + cells["processor"].astype(str)
    )
    several_machines = where.nunique() > 1
    labels = [
        (LONE if size == 1 else f"{AMORTISED} of {size}" if several else AMORTISED)
        + (f" on {machine}" if several_machines else "")
        for size, machine in zip(sizes, where, strict=True)
    ]
    timed = rows["batch_size"].to_numpy() == sizes.to_numpy()[codes]
    return pd.DataFrame({"clock": words(labels, codes).array, "timed": timed}, index=rows.index)


def _untimed(searches: pd.DataFrame) -> list[str]:
    """Notes for the reader of timing tables: batches that are left out, and strategies whose times cannot be
    compared.
    """
    notes = []
    odd = searches.loc[~searches["timed"]].drop_duplicates(["folder", "shard_id"])
    if len(odd):
        n = int(odd["batch_size"].sum())
        notes.append(
            f"The timing tables leave out {len(odd)} {'batch' if len(odd) == 1 else 'batches'} "
            f"({n} {'search' if n == 1 else 'searches'}) whose size differs from that of the other batches "
            "of the same strategy and targets. The other tables include their answers."
        )
    cells = searches.drop_duplicates(["folder", "setting", "strategy", "targets", "clock"])
    if (cells.groupby(["folder", "setting"], observed=True)["clock"].nunique() > 1).any():
        notes.append(
            "Strategies or target sets ran in batches of different sizes or on different machines. Their "
            "times cannot be compared and are shown separately. To compare them, run the sweep with "
            "`batch: N`."
        )
    return notes


def ordered(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Sort rows by these columns, with strategies in their fixed order."""
    ranks = {name: rank for rank, name in enumerate(sorted(frame["strategy"].unique(), key=strategy_rank))}
    keys = frame.assign(strategy=frame["strategy"].map(ranks))[list(by)]
    return frame.loc[keys.sort_values(list(by), kind="stable").index].reset_index(drop=True)
