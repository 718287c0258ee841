"""Load a result folder: its manifest, and its tables as pandas frames."""

from __future__ import annotations

import functools
import html
import json
import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from topdown_ray.errors import UserError, brief
from topdown_ray.store.manifest import read_manifest
from topdown_ray.store.picking import Pick, most_accurate_first, pick
from topdown_ray.store.place import Place
from topdown_ray.store.reading import SEARCH_KEYS, TRACE_KEYS, read_front, read_tables
from topdown_ray.store.schema import FRONT, SCHEMA_VERSION, SEARCHES, TRACE
from topdown_ray.store.target_sets import set_names
from topdown_ray.store.transferred import MARK, footnote, is_transferred

WIDTH = 80  # columns of printed results
#: The columns of a search that :attr:`Results.front` repeats.
OF_SEARCH = (
    "space",
    "strategy",
    "label",
    "seed",
    "cost_name",
    "cost_unit",
    "cost_sha256",
    "predictor_name",
    "predictor_space",
    "predictor_sha256",
    "protocol",
)
_COMMON = (
    "space",
    "cost",
    "unit",
    "targets",
)  # levels of an overview that are part of the headline if they have one value only


@dataclass(frozen=True, repr=False)
class Results:
    """The results of a sweep: its manifest, and a pandas frame for each table.

    Printing the results shows `overview`, in a notebook as an HTML table.
    """

    manifest: dict[str, Any]
    """The content of `run.json`."""
    searches: pd.DataFrame
    """The table `searches`: one row for each search and target."""
    trace: pd.DataFrame
    """The table `trace`: the anytime curve of each search."""
    place: Place | None = None
    """Where the results were read from."""
    chosen: bool = False
    """Whether only some rows were read."""

    @functools.cached_property
    def front(self) -> pd.DataFrame:
        """The table `front`, read when it is first used.

        It has one row for each architecture in the front of a search, cheapest first. The frame repeats the
        columns of the search that describe it: space, strategy, label, seed, cost, predictor and protocol.
        """
        wanted = self.searches["search_id"].unique() if self.chosen else None
        rows = FRONT.empty_table().to_pandas() if self.place is None else read_front(self.place, wanted)
        of_search = [name for name in OF_SEARCH if name in self.searches]
        facts = self.searches.drop_duplicates("search_id")[["search_id", *of_search]]
        frame = rows.merge(facts.assign(order=range(len(facts))), on="search_id")
        kept: pd.DataFrame = frame.sort_values(["order", "place"], ignore_index=True).drop(columns="order")
        return kept

    def overview(self) -> pd.DataFrame:
        """Return the predicted top-1 accuracies in %, as a table of texts.

        Returns:
            A frame with one row for each space, cost (if there are several), target set and label, and one
                column for each target, loosest first. A cell holds the mean over the seeds, the standard
                deviation and the number of searches. A space has the mark `*` if the predictor was trained
                on another space.
        """
        rows = self.searches[self.searches["feasible"].astype(bool)]
        sets = rows["targets"].map(tuple).unique()
        names = dict(zip(sets, set_names(sets, spelled_out=1), strict=True))
        named = rows["targets"].map(lambda targets: names[tuple(targets)])
        marked = rows["space"].astype(str) + is_transferred(rows).map({True: MARK, False: ""})
        keys = [marked.rename("space"), rows["cost_unit"].rename("unit"), named.rename("targets")]
        if rows["cost_name"].nunique() > 1:
            keys.insert(1, rows["cost_name"].rename("cost"))
        by_target = (100 * rows["accuracy"]).groupby([*keys, rows["label"], rows["target"]], sort=False)
        cells = by_target.agg(["mean", "std", "size"]).apply(_cell, axis=1)
        if cells.empty:
            return pd.DataFrame()
        frame: pd.DataFrame = cells.unstack("target", fill_value="")
        return frame[sorted(frame.columns, reverse=True)]

    def best(
        self,
        target: float | None = None,
        space: str | None = None,
        strategy: str | None = None,
        cost: str | None = None,
    ) -> dict[str, Any]:
        """Return the most accurate architecture that the sweep found for one of its targets.

        Args:
            target: A target of the sweep. You can leave it out if the sweep has only one.
            space: A space of the sweep. You can leave it out if the sweep has only one.
            strategy: The name or the label of a strategy. By default, all strategies count.
            cost: A cost of the sweep, as in the column `cost_name`. You can leave it out if there is only
                one.

        Returns:
            The architecture as OFA's configuration: `{"ks": [...], "e": [...], "d": [...], "image_size": r}`,
                or with the keys `d`, `e`, `w` and `image_size`.

        Raises:
            UserError: The sweep has no such target, space, cost or strategy, or no search met the target.
        """
        rows = self.searches
        for column, value in (("space", space), ("cost_name", cost), ("target", target)):
            known = list(rows[column].unique())
            if value is None and len(known) > 1:
                raise UserError(
                    f"{_ARGUMENTS.get(column, column)}: expected one of {_listed(known)}, found none"
                )
            rows = rows if value is None else _chosen(rows, column, rows[column] == value, value)
        if strategy is not None:
            named = (rows["label"] == strategy) | (rows["strategy"] == strategy)
            rows = _chosen(rows, "label", named, strategy)
        rows = rows[rows["feasible"].astype(bool) & rows["accuracy"].notna()]
        if rows.empty:
            raise UserError("results: expected a search that met its target, found none")
        config: dict[str, Any] = json.loads(most_accurate_first(rows)["arch"].iloc[0])
        return config

    def pick(
        self,
        at: float,
        cost: str | None = None,
        limits: Mapping[str, float] | None = None,
        space: str | None = None,
        strategy: str | None = None,
    ) -> Pick:
        """Return the most accurate known architecture under any cost, whether or not that cost was a target.

        The choice is made among the answers of all searches and the fronts of those searches that keep one.

        Args:
            at: The highest cost that the architecture may have, in the unit of the cost.
            cost: A cost of the sweep, as in the column `cost_name`. You can leave it out if there is only
                one.
            limits: Limits on `params` and `macs` (1e6) and on other costs of the sweep.
            space: A space of the sweep. You can leave it out if the sweep has only one.
            strategy: The name or the label of a strategy. By default, all strategies count.

        Returns:
            The architecture, its accuracy and costs, and the search that found it.

        Raises:
            UserError: An argument names nothing in the sweep, or no known architecture meets the cost and the
                limits. If some architectures meet the limits, the message states the lowest cost among them.
        """
        return pick(self, at, cost, limits, space, strategy)

    def __repr__(self) -> str:
        if not set(self.searches) >= _OF_OVERVIEW:
            tables = {"searches": self.searches, "trace": self.trace}
            texts = [
                f"{name}: {len(rows):,} rows of {', '.join(map(str, rows))}" for name, rows in tables.items()
            ]
            return "\n".join(textwrap.fill(text, WIDTH, subsequent_indent="  ") for text in texts)
        frame = self.overview()
        headline = self._headline(frame)
        for level in _COMMON:
            if level in frame.index.names and frame.index.get_level_values(level).nunique() == 1:
                frame = frame.droplevel(level)  # it is in the headline
        shown = (frame.to_string(max_cols=n) for n in range(max(frame.shape[1], 2), 1, -1))
        text = next((text for text in shown if max(map(len, text.splitlines())) <= WIDTH), None)
        lines = [headline, text or frame.to_string(max_cols=2), footnote(self.searches)]
        wrap = textwrap.TextWrapper(WIDTH, subsequent_indent="  ")
        return "\n".join([wrap.fill(lines[0]), lines[1], *map(wrap.fill, filter(None, lines[2:]))])

    def _repr_html_(self) -> str:
        if not set(self.searches) >= _OF_OVERVIEW:
            return f"<pre>{html.escape(repr(self))}</pre>"
        frame = self.overview()
        texts = (self._headline(frame), footnote(self.searches))
        head, foot = (f"<p>{html.escape(text)}</p>" for text in texts)
        return f"{head}{frame.to_html(max_cols=16)}{foot}"

    def _headline(self, overview: pd.DataFrame) -> str:
        name = self.manifest.get("spec", {}).get("name", "")
        status = self.manifest.get("status", "unknown")
        n = self.searches["search_id"].nunique()
        levels = [overview.index.unique(level) for level in _COMMON if level in overview.index.names]
        common = [str(values[0]) for values in levels if len(values) == 1]
        of = f" of {', '.join(common)}" if common else ""
        return f"Sweep {name} ({status}), {n:,} searches{of}: predicted top-1 in %, mean ± sd (searches)"


#: The columns that :meth:`Results.overview` and its footnote need.
_OF_OVERVIEW = {
    "feasible",
    "targets",
    "space",
    "cost_unit",
    "cost_name",
    "label",
    "accuracy",
    "target",
    "predictor_space",
}
#: The arguments that choose rows by these columns.
_ARGUMENTS = {"label": "strategy", "cost_name": "cost"}


def _cell(row: pd.Series) -> str:
    spread = "" if math.isnan(row["std"]) else f" ± {row['std']:.2f}"
    return f"{row['mean']:.2f}{spread} ({row['size']:.0f})"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values[:20])


def _chosen(rows: pd.DataFrame, column: str, chosen: pd.Series, value: Any) -> pd.DataFrame:
    if not chosen.any():
        name, known = _ARGUMENTS.get(column, column), _listed(list(rows[column].unique()))
        raise UserError(f"{name}: expected one of {known}, found {brief(value)}")
    return rows[chosen]


def load(
    folder: str | Path,
    columns: Collection[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Results:
    """Load the results of a sweep.

    Rows are in a fixed order: space, strategy, targets, seed, target. Everything that is read is verified by
    checksums. With `columns` or `where`, only the columns and rows that you ask for are read from the files.

    Args:
        folder: A result folder, or its URI (`s3://...`).
        columns: Columns of `searches` and `trace` to read. Those that identify rows are always read. By
            default, all columns are read.
        where: Values that select rows of `searches`, and the curves and fronts of these searches. For each
            column, give one value or a collection of values: `{"label": "joint", "seed": range(10)}`.

    Returns:
        The results. A sweep that is still running gives the rows that are finished.

    Raises:
        UserError: There is no result folder, a file is damaged (the message names it), a column is unknown,
            or a value has a type that its column cannot hold.
    """
    if columns is None and where is None:
        return _load(folder, SEARCHES.names, TRACE.names, None)
    known = {*SEARCHES.names, *TRACE.names}
    for name in columns or ():
        if name not in known:
            raise UserError(f"columns: expected columns of searches or trace, found {brief(name)}")
    chosen = known if columns is None else columns
    return _load(folder, chosen, chosen, condition(where or {}))


def load_columns(
    folder: str | Path,
    searches: Collection[str],
    trace: Collection[str],
    seeds: Collection[int] | None = None,
) -> Results:
    """Do as :func:`load` does, but read only these columns and those that identify rows.

    Args:
        folder: A result folder, or its URI.
        searches: Columns of `searches`.
        trace: Columns of `trace`.
        seeds: Keep only the searches with these seeds. By default, all are kept.
    """
    return _load(folder, searches, trace, None if seeds is None else condition({"seed": seeds}))


def _load(
    folder: str | Path, searches: Collection[str], trace: Collection[str], where: pc.Expression | None
) -> Results:
    place = Place(folder)
    manifest = read_manifest(folder)
    version = manifest.get("schema")
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise UserError(
            f"{place.of('run.json')}: schema: expected a version from 1 to {SCHEMA_VERSION}, found "
            f"{version!r}"
        )
    read_searches, read_trace = (
        pa.schema([field for field in schema if field.name in {*columns, *keys}])
        for schema, columns, keys in ((SEARCHES, searches, SEARCH_KEYS), (TRACE, trace, TRACE_KEYS))
    )
    return Results(manifest, *read_tables(place, read_searches, read_trace, where), place, where is not None)


def condition(where: Mapping[str, Any]) -> pc.Expression:
    """Return an expression that is true for the rows of ``searches`` that have one of the given values in
    each of the given columns. Raises UserError.
    """
    found = pc.scalar(True)
    for name, value in where.items():
        known = [field.name for field in SEARCHES if not pa.types.is_list(field.type)]
        if name not in known:
            raise UserError(f"where: expected a column of searches, found {brief(name)}")
        several = isinstance(value, Iterable) and not isinstance(value, str)
        try:
            values = pa.array(list(value) if several else [value], SEARCHES.field(name).type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            expected = SEARCHES.field(name).type
            raise UserError(
                f"where: {name}: expected values of type {expected}, found {brief(value)}"
            ) from error
        column = pc.field(name)
        if name == "label":  # missing in an older schema
            column = pc.coalesce(*(pc.field(each).cast(pa.string()) for each in ("label", "strategy")))
        found &= column.isin(values)
    return found
