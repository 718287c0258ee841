"""Find the state of a folder's parts when its driver starts: intact, damaged, or merged and to be deleted."""

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

ORPHAN_S = 3600.0  # a younger trace without searches in a remote folder may belong to another active driver
MERGED = b"topdown_ray_merged"  # in the metadata of a merged part: the names of the parts in it


class Known(NamedTuple):
    """The facts that a driver knows about a part."""

    size: int  # bytes of all its files
    ids: Packed  # the identities whose rows it has
    merged: bool  # whether it was merged from other parts


class Verified(NamedTuple):
    """The result of reading a part's files."""

    ids: Packed
    inside: list[str]  # the parts that were merged into it
    problem: str | None


@dataclass(frozen=True)
class Found:
    """The parts of a folder."""

    whole: dict[str, Known]  # intact parts, except those whose rows are all in another one
    merged: list[str]  # the parts whose rows are all in another one, to be deleted
    aside: list[str]  # files to be moved to damaged/
    problems: list[str]  # the reasons, in the order of their names


def look(place: Place, layout: Layout) -> Found:
    """Verify every part without changing anything. Raises OSError or UserError if a file cannot be read,
    which does not mean that it is damaged.
    """
    tables, first, tables_of = layout.tables, layout.first, layout.tables_of
    found = {table: part_names(place, table) for table in tables}
    whole = names_of_whole(found, layout)
    problems = {
        name: f"{place.of(f'{first}/{name}')}: expected a file of the same name in {table}/, found none"
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
    """Return the parts whose files are all in the listings of the tables."""
    return [
        name for name in found[layout.first] if all(name in found[table] for table in layout.tables_of(name))
    ]


def verify(place: Place, layout: Layout, name: str) -> Verified:
    """Read and verify a part's files. Raises OSError, UserError."""
    nothing, identity = packed([]), layout.identity
    found = []
    for table in layout.tables_of(name):
        try:
            # checksums verify the other tables without reading a column
            columns = [identity] if table == layout.first else []
            found.append(read_part(place, table, name, columns=columns, layout=layout))
        except FileNotFoundError:  # merged by another driver in the meantime (object stores only)
            return Verified(nothing, [], None)
        except DamagedError as error:
            path = place.of(f"{table}/{name}")
            return Verified(nothing, [], f"{path}: expected an undamaged part, found {error}")
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
    held_by: dict[str, str] = {}  # part to delete -> the part with its rows, which may itself be deleted
    for holder, inside in claims.items():
        above = [holder]
        while above[-1] in held_by:  # of two parts that name each other, only one is deleted
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
