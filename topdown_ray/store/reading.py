"""Read the tables of a result folder as pandas frames: every row once, in a fixed order, in little memory.

Because millions of rows contain the same few words, text is read as codes into a dictionary, and each word
becomes one Python string that all its cells share. The trace is reduced to whole numbers part by part."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from topdown_ray.errors import UserError, brief
from topdown_ray.store.filesystems import reason
from topdown_ray.store.part_files import READ_ATTEMPTS, DamagedError, parallel, part_names, read_part
from topdown_ray.store.place import Place
from topdown_ray.store.schema import FRONT, SEARCHES, TRACE

# columns that every row has
SEARCH_KEYS = (
    "search_id",
    "shard_id",
    "space",
    "strategy",
    "k",
    "targets",
    "seed",
    "target_index",
)
TRACE_KEYS = ("search_id", "shard_id", "target_index", "generation")
FRONT_KEYS = ("search_id", "place")

_WHOLE = {"searches": SEARCHES, "trace": TRACE, "front": FRONT}
_WORDS = pa.dictionary(pa.int32(), pa.string())
# pandas' type of text (object before pandas 3), which has a pointer to a string in each cell
_SHARED = (
    pd.Series([""]).dtype if pd.Series([""]).dtype == object else pd.StringDtype("python", na_value=np.nan)
)

Codes = NDArray[np.int32]


def words(values: Sequence[str | None] | NDArray[Any], codes: NDArray[Any]) -> pd.Series:
    """Return a column of text whose cells share their strings: ``values[codes]``, with a missing value for a
    negative code.
    """
    known = np.empty(len(values) + 1, dtype=object)
    known[:-1] = values
    known[-1] = None
    return pd.Series(pd.array(known[codes], dtype=_SHARED, copy=False), copy=False)


def read_tables(
    place: Place, searches: pa.Schema, trace: pa.Schema, where: pc.Expression | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read both tables in a consistent state, although the driver of a running sweep merges parts and deletes
    the merged ones.

    The schemas have the columns to read, including the keys. where: read only the rows of searches that
    fulfil this condition, and their curves; only the parts of the files that may contain them are read.
    Raises UserError, which names the file, if a part is damaged or does not contain rows of its table."""
    for _ in range(READ_ATTEMPTS):
        try:
            names = list(part_names(place, "searches"))
            frame, names = _searches(place, searches, names, where)
            if where is None:
                names = list(part_names(place, "trace"))
            return frame, _trace(place, trace, frame, names, where is not None)
        except FileNotFoundError:
            continue
        finally:
            pa.default_memory_pool().release_unused()
    raise UserError(
        f"{place.name}: expected parts that do not change while they are read, found parts that were merged "
        f"in each of {READ_ATTEMPTS} attempts"
    )


def read_front(place: Place, searches: Collection[str] | None = None) -> pd.DataFrame:
    """Read the table ``front``, each row once, by search and place. searches: read only these; the others
    take no memory. Raises UserError as :func:`read_tables` does.
    """
    wanted = None if searches is None else pa.array(list(searches), pa.string())

    def reduced(rows: pa.Table) -> pa.Table:
        return rows if wanted is None else rows.filter(pc.is_in(rows["search_id"].cast(pa.string()), wanted))

    for _ in range(READ_ATTEMPTS):
        try:
            parts = list(_parts(place, "front", FRONT, FRONT_KEYS, reduced, list(part_names(place, "front"))))
        except FileNotFoundError:
            continue
        encoded = pa.schema([field.with_type(_encoded(field)) for field in FRONT])
        table = pa.concat_tables([encoded.empty_table(), *parts])
        columns = {}
        for field in encoded:
            if field.type == _WORDS:
                codes, values = _codes(table[field.name])
                columns[field.name] = words(values, codes)
            else:
                columns[field.name] = table[field.name].to_pandas()
        frame = pd.DataFrame(columns, copy=False)
        return frame.drop_duplicates(list(FRONT_KEYS)).sort_values(list(FRONT_KEYS), ignore_index=True)
    raise UserError(
        f"{place.name}: expected parts that do not change while they are read, found parts that were merged "
        f"in each of {READ_ATTEMPTS} attempts"
    )


def _parts(
    place: Place,
    table: str,
    schema: pa.Schema,
    keys: Sequence[str],
    reduced: Callable[[pa.Table], Any],
    names: Sequence[str],
    where: pc.Expression | None = None,
) -> Iterator[Any]:
    """Apply ``reduced`` to each of these parts."""
    read = schema if where is None else _WHOLE[table]  # where may need columns that are not in the schema
    encoded = pa.schema([field.with_type(_encoded(field)) for field in read])

    def of_part(name: str) -> Any:
        path = place.of(f"{table}/{name}")
        try:
            rows = read_part(place, table, name, encoded, schema.names, where=where)
        except DamagedError as error:
            advice = "run the sweep again into the same folder to compute these searches again"
            raise UserError(f"{path}: expected an undamaged part, found {error}; {advice}") from error
        for key in keys:
            if rows[key].null_count:
                raise UserError(
                    f"{path}: {key}: expected a value in every row, found {rows[key].null_count} without one"
                )
        return reduced(rows)

    try:
        yield from parallel(place, of_part, names)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(
            f"{place.of(table)}: expected parts that can be read, found {reason(error)}"
        ) from error


def _encoded(field: pa.Field) -> pa.DataType:
    if field.type != pa.string():
        return field.type
    return pa.large_string() if field.name == "arch" else _WORDS  # architectures hardly repeat


def _codes(column: pa.ChunkedArray) -> tuple[Codes, NDArray[Any]]:
    """The codes of a column of words, with -1 for missing values, and the words."""
    chunks = column.unify_dictionaries().chunks
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in chunks]
    known = chunks[0].dictionary.to_pylist() if chunks else []
    values = np.empty(len(known), dtype=object)
    values[:] = known
    return np.concatenate([np.empty(0, np.int32), *codes]), values


def _ranks(
    values: Sequence[Any] | NDArray[Any], key: Callable[[Any], Any] | None = None
) -> NDArray[np.int64]:
    """The place of each value in the sorted order."""
    order = sorted(range(len(values)), key=lambda i: values[i] if key is None else key(values[i]))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _lists(column: pa.ChunkedArray) -> tuple[Codes, list[NDArray[np.float64]]]:
    """The codes of a column of lists of numbers, and the different lists (read-only)."""
    codes: dict[bytes, int] = {}
    found = []
    for chunk in column.chunks:
        values = np.ascontiguousarray(chunk.values.to_numpy(zero_copy_only=False), np.float64)
        bounds = itertools.pairwise(chunk.offsets.to_numpy())
        each = (codes.setdefault(values[start:end].tobytes(), len(codes)) for start, end in bounds)
        found.append(np.fromiter(each, np.int32, len(chunk)))
    return np.concatenate([np.empty(0, np.int32), *found]), [np.frombuffer(key, np.float64) for key in codes]


def _searches(
    place: Place, schema: pa.Schema, names: Sequence[str], where: pc.Expression | None
) -> tuple[pd.DataFrame, list[str]]:
    """The rows, and the parts that contain some of them."""
    tables = list(_parts(place, "searches", schema, SEARCH_KEYS, lambda rows: rows, names, where))
    holding = [name for name, rows in zip(names, tables, strict=True) if len(rows)]
    encoded = pa.schema([field.with_type(_encoded(field)) for field in schema])
    table = pa.concat_tables([encoded.empty_table(), *tables])
    del tables
    coded = {name: _codes(table[name]) for name in schema.names if encoded.field(name).type == _WORDS}
    if "label" in coded:  # missing in an older schema
        coded["label"] = _filled(coded["label"], coded["strategy"])
    target_codes, target_lists = _lists(table["targets"])
    index, k = (table[name].to_numpy().astype(np.int64) for name in ("target_index", "k"))
    _check_targets(place, index, k, target_codes, target_lists)
    answer = coded["search_id"][0].astype(np.int64) * (index.max(initial=0) + 1) + index
    kept = np.flatnonzero(~pd.Series(answer).duplicated().to_numpy())
    keys = [index, table["seed"].to_numpy(), _ranks(target_lists, tuple)[target_codes], k]
    with_words = [name for name in ("label", "strategy", "space") if name in coded]
    keys += [_ranks(coded[name][1])[coded[name][0]] for name in with_words]
    order = kept[np.lexsort([key[kept] for key in keys])]
    columns: dict[str, Any] = {}
    for name in schema.names:
        if name in coded:
            codes, values = coded.pop(name)
            columns[name] = words(values, codes[order])
        elif name == "targets":
            lists = np.empty(len(target_lists), dtype=object)
            lists[:] = target_lists
            columns[name] = lists[target_codes[order]]
        else:
            columns[name] = table[name].take(pa.array(order)).to_pandas()
    return pd.DataFrame(columns, copy=False), holding


def _filled(
    column: tuple[Codes, NDArray[Any]], other: tuple[Codes, NDArray[Any]]
) -> tuple[Codes, NDArray[Any]]:
    """A coded column in which missing words are taken from another column."""
    known = {word: code for code, word in enumerate(column[1])}
    codes = np.array([known.setdefault(word, len(known)) for word in other[1]], np.int32)
    words = np.empty(len(known), dtype=object)
    words[:] = list(known)
    return np.where(column[0] < 0, codes[other[0]] if len(codes) else -1, column[0]).astype(np.int32), words


def _check_targets(
    place: Place,
    index: NDArray[np.int64],
    k: NDArray[np.int64],
    codes: Codes,
    lists: Sequence[NDArray[np.float64]],
) -> None:
    """Raise UserError unless every row belongs to one of its k targets."""
    sizes = np.array([len(values) for values in lists], np.int64)[codes]
    wrong = np.flatnonzero((sizes != k) | (index < 0) | (index >= k))
    if len(wrong):
        row = f"k {k[wrong[0]]}, target_index {index[wrong[0]]}, targets {lists[codes[wrong[0]]].tolist()}"
        raise UserError(
            f"{place.of('searches')}: targets: expected k targets and the target_index of one of them, found "
            f"{brief(row)}"
        )


def _trace(
    place: Place, schema: pa.Schema, searches: pd.DataFrame, names: Sequence[str], some: bool
) -> pd.DataFrame:
    """The anytime curves of these rows, from the shard of each row. some: whether there are other rows."""
    known = {name: sorted(searches[name].unique()) for name in ("search_id", "shard_id")}
    code_of: dict[str, dict[Any, int]] = {
        name: {value: i for i, value in enumerate(known[name])} for name in known
    }
    runs: dict[Any, int] = {}
    lock = threading.Lock()
    n_shards = len(known["shard_id"])
    of_rows = [searches[name].map(code_of[name]).to_numpy(np.int64) for name in ("search_id", "shard_id")]
    pairs = of_rows[0] * n_shards + of_rows[1]
    most = int(searches["target_index"].max()) + 1 if some and len(searches) else 1
    if some:
        pairs = pairs * most + searches["target_index"].to_numpy(np.int64)
    pairs = np.unique(pairs)

    def reduced(rows: pa.Table) -> dict[str, NDArray[Any]]:
        columns: dict[str, NDArray[Any]] = {}
        for name in schema.names:
            if rows.schema.field(name).type != _WORDS:
                columns[name] = rows[name].to_numpy()
                continue
            codes, values = _codes(rows[name])
            if name in known:
                there = [code_of[name].get(value, -1) for value in values]
            else:
                with lock:
                    there = [-1 if value is None else runs.setdefault(value, len(runs)) for value in values]
            columns[name] = np.array([*there, -1], np.int32)[codes]
        pair = columns["search_id"].astype(np.int64) * n_shards + columns["shard_id"]
        if some:
            pair = pair * most + columns["target_index"]
        place_of = np.minimum(np.searchsorted(pairs, pair), max(len(pairs) - 1, 0))
        here = (columns["search_id"] >= 0) & (columns["shard_id"] >= 0)
        here &= (pairs[place_of] == pair) if len(pairs) else False
        if some:
            here &= (columns["target_index"] >= 0) & (columns["target_index"] < most)
        return columns if here.all() else {name: column[here] for name, column in columns.items()}

    whole = _empty(schema)
    n = 0
    where = pc.field("seed").isin(pa.array(searches["seed"].unique(), pa.int64())) if some else None
    for part in _parts(place, "trace", schema, TRACE_KEYS, reduced, names, where):
        size = len(part["search_id"])
        # append to one large array for each column: many small ones would fragment the heap
        for name in schema.names:
            whole[name] = _appended(whole[name], n, part[name])
        n += size
    for column in whole.values():
        column.resize(n, refcheck=False)
    keys = [whole[name] for name in ("generation", "target_index", "search_id")]
    order = np.lexsort(keys).astype(np.uint32)
    same = np.ones(max(n - 1, 0), bool)
    for key in keys:
        same &= np.equal(key[order[1:]], key[order[:-1]])
    order = order[np.concatenate([np.ones(min(n, 1), bool), ~same])]
    del keys, same
    columns: dict[str, Any] = {}
    for name in schema.names:
        column = whole.pop(name)[order]
        text: Mapping[str, Sequence[Any]] = {**known, "run_id": list(runs)}
        columns[name] = words(text[name], column) if name in text else column
    return pd.DataFrame(columns, copy=False)


def _appended(whole: NDArray[Any], n: int, part: NDArray[Any]) -> NDArray[Any]:
    """Append a part to an array whose first n places are in use."""
    # a column of whole numbers with missing values is a column of floats
    if not np.can_cast(part.dtype, whole.dtype, "safe"):
        whole = whole.astype(np.result_type(whole, part))
    if n + len(part) > len(whole):
        whole.resize(max(2 * len(whole), n + len(part)), refcheck=False)
    whole[n : n + len(part)] = part
    return whole


def _empty(schema: pa.Schema) -> dict[str, NDArray[Any]]:
    """Columns without rows: text as codes, numbers in the types of the schema."""
    return {
        x.name: np.empty(0, np.int32 if x.type == pa.string() else x.type.to_pandas_dtype()) for x in schema
    }
