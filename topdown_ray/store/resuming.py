"""What the parts of a folder hold when its driver starts: which are whole, which damaged, which were merged
and not yet deleted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import parse_json
from topdown_ray.store.identities import Packed, packed
from topdown_ray.store.layout import Layout
from topdown_ray.store.part_files import DamagedError, parallel, part_names, read_part
from topdown_ray.store.place import Place, PlacedFile

ORPHAN_S = 3600.0  # on a remote place a trace without searches may be another driver's, just being written
MERGED = b"topdown_ray_merged"  # in the metadata of a merged part: the names of the parts in it


class Known(NamedTuple):
    """What a driver knows of a part."""

    size: int  # bytes of all its files
    ids: Packed  # whose rows it holds
    merged: bool  # out of others


class Verified(NamedTuple):
    """What the files of a part say."""

    ids: Packed
    inside: list[str]  # the parts merged in it
    problem: str | None


@dataclass(frozen=True)
class Found:
    """The parts of a folder."""

    whole: dict[str, Known]  # but those whose rows are all in another
    merged: list[str]  # those: to be deleted
    aside: list[str]  # files to be moved to damaged/
    problems: list[str]  # what is wrong with them, in the order of their names


def look(place: Place, layout: Layout) -> Found:
    """Verify every part; changes nothing. Raises OSError, UserError where a file cannot be read, which does
    not say that it is damaged.
    """
    tables, first, tables_of = layout.tables, layout.first, layout.tables_of
    found = {table: part_names(place, table) for table in tables}
    whole = names_of_whole(found, layout)
    problems = {
        name: f"{place.of(f'{first}/{name}')}: expected a {table} beside it, found none"
        for name in found[first]
        for table in tables_of(name)
        if name not in found[table]
    }
    there: dict[str, Verified] = {}
    for name, verified in zip(
        whole, parallel(place, lambda name: verify(place, layout, name), whole), strict=True
    ):
        if verified.problem:
            problems[name] = verified.problem
        else:
            there[name] = verified
    young = time.time() - ORPHAN_S if place.local is None else float("inf")
    orphans = {
        name
        for table in tables[1:]
        for name, (_, written_at) in found[table].items()
        if written_at < young and name not in found[first]
    }
    claims = {name: verified.inside for name, verified in there.items() if verified.inside}
    merged = _merged(place, layout, claims, set(there) | orphans, found)
    return Found(
        {
            name: Known(sum(found[table][name].size for table in tables_of(name)), ids, bool(inside))
            for name, (ids, inside, _) in there.items()
            if name not in merged
        },
        sorted(merged),
        [
            f"{table}/{name}"
            for name in sorted(set(problems) | orphans - merged)
            for table in tables
            if name in found[table]
        ],
        [problem for _, problem in sorted(problems.items())],
    )


def names_of_whole(found: Mapping[str, Mapping[str, PlacedFile]], layout: Layout) -> list[str]:
    """The parts in listings of all tables whose files are all there."""
    return [
        name for name in found[layout.first] if all(name in found[table] for table in layout.tables_of(name))
    ]


def verify(place: Place, layout: Layout, name: str) -> Verified:
    """Read a part's files. Raises OSError, UserError."""
    nothing, identity = packed([]), layout.identity
    found = []
    for table in layout.tables_of(name):
        try:
            # the other tables are checked by their checksums, without reading a column
            columns = [identity] if table == layout.first else []
            found.append(read_part(place, table, name, columns=columns, layout=layout))
        except FileNotFoundError:  # merged by another driver since (object stores only)
            return Verified(nothing, [], None)
        except DamagedError as error:
            path = place.of(f"{table}/{name}")
            return Verified(nothing, [], f"{path}: expected a part as it was written, found {error}")
    where = place.of(f"{layout.first}/{name}")
    inside = parse_json((found[0].schema.metadata or {}).get(MERGED, b"[]"), f"{where}: {MERGED.decode()}")
    if not isinstance(inside, list) or not all(isinstance(each, str) for each in inside):
        raise UserError(f"{where}: {MERGED.decode()}: expected a list of names, found {brief(inside)}")
    column = found[0][identity]
    if not pa.types.is_string(column.type) or column.null_count:
        raise UserError(f"{where}: {identity}: expected strings, found {one_line(column.type)} or nulls")
    return Verified(packed(column.unique()), inside, None)


def _merged(
    place: Place,
    layout: Layout,
    claims: Mapping[str, Sequence[str]],
    there: Set[str],
    found: Mapping[str, Mapping[str, PlacedFile]],
) -> set[str]:
    """The parts that a driver had merged and not yet deleted when it died: those whose rows are all in a
    merged part.
    """
    held_by: dict[str, str] = {}  # a part that goes -> the one that has its rows, which may go itself
    for holder, inside in claims.items():
        above = [holder]
        while above[-1] in held_by:  # two parts that claim each other do not both go
            above.append(held_by[above[-1]])
        names = [
            name
            for name in dict.fromkeys(inside)
            if name in there and name not in above and name not in held_by
        ]
        if not names:
            continue
        rows = {
            table: read_part(place, table, holder, columns=layout.keys[table], layout=layout)
            for table in layout.tables_of(holder)
        }
        for name in names:
            own = [table for table in layout.tables if name in found[table]]
            if all(table in rows and _within(place, layout, table, name, rows[table]) for table in own):
                held_by[name] = holder
    return set(held_by)


def _within(place: Place, layout: Layout, table: str, name: str, rows: pa.Table) -> bool:
    keys = list(layout.keys[table])
    try:
        mine = read_part(place, table, name, columns=keys, layout=layout)
    except DamagedError:  # an orphan
        return False
    return bool(mine.join(rows, keys, join_type="left anti", use_threads=False).num_rows == 0)
