"""Merging: every row once more and not again, in little memory, whatever columns the parts have; packed
identities.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.folders import made_up

from topdown_ray.store import parts
from topdown_ray.store.identities import Identities, distinct, packed
from topdown_ray.store.layout import TABLES
from topdown_ray.store.parts import Parts
from topdown_ray.store.place import Place
from topdown_ray.store.schema import SEARCHES

SHARDS = 40


def write(folder: Path, numbers: range, dropped: tuple[str, ...] = ()) -> Parts:
    place = Place(folder)
    place.prepare(TABLES)
    written = Parts(place)
    written.resume()
    for number in numbers:
        searches, trace = made_up(number)
        at = trace.schema.get_field_index("generation")
        trace = trace.set_column(at, trace.schema.field(at), pa.array(range(len(trace)), pa.int64()))
        written.write(f"shard-{number}", searches.drop_columns(list(dropped)), trace)
    return written


def searches_in(folder: Path, table: str) -> Counter[str]:
    rows = [pq.read_table(path)["search_id"].to_pylist() for path in (folder / table).iterdir()]
    return Counter(row for part in rows for row in part)


@pytest.mark.parametrize("held", [0, 1 << 20], ids=["read again", "from memory"])
@pytest.mark.parametrize("at_a_time", [1, 1 << 20], ids=["many row groups", "one"])
def test_every_row_is_written_once_more(
    held: int, at_a_time: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MERGE_AT": 5, "HELD": held, "AT_A_TIME": at_a_time}.items():
        monkeypatch.setattr(parts, name, value)
    files: Counter[str] = Counter()
    written = Place.write

    def counted(self: Place, relative: str, data: Any) -> None:
        files.update(set(pq.read_table(data)["search_id"].to_pylist()))
        written(self, relative, data)

    monkeypatch.setattr(Place, "write", counted)
    folder = write(tmp_path, range(SHARDS))
    names = {f"search-{number}" for number in range(SHARDS)}
    assert files == {name: 2 * len(TABLES) for name in names}
    for table in TABLES:
        assert searches_in(tmp_path, table) == dict.fromkeys(names, 2)
        each = [pq.ParquetFile(path).num_row_groups for path in (tmp_path / table).iterdir()]
        assert each == [5 if at_a_time == 1 else 1] * (SHARDS // 5)
    assert folder.missing() == set()
    assert folder.promised == SHARDS
    assert Parts(Place(tmp_path)).resume().finished == names


def test_parts_with_other_columns_go_into_another_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older version's parts, which lack columns, and this one's, merged a few at a time."""
    write(tmp_path, range(6), ("label", "front_rows"))
    monkeypatch.setattr(parts, "AT_A_TIME", 1)
    monkeypatch.setattr(parts, "MERGE_AT", 12)
    folder = write(tmp_path, range(6, 30))
    names = {f"search-{number}" for number in range(30)}
    assert searches_in(tmp_path, "searches") == dict.fromkeys(names, 2)
    assert len(list((tmp_path / "searches").iterdir())) < 12
    schemas = {len(pq.read_schema(path).names) for path in (tmp_path / "searches").iterdir()}
    assert schemas == {len(SEARCHES), len(SEARCHES) - 2}
    assert folder.missing() == set()
    assert Parts(Place(tmp_path)).resume().finished == names


def test_what_was_merged_and_not_deleted_is_told_apart_from_what_was_not_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merged part may name parts that it does not hold, where merging stopped at other columns."""
    kept: dict[Path, bytes] = {}
    deleted = Place.delete

    def keep(self: Place, relative: str) -> None:
        assert self.local
        kept[self.local / relative] = (self.local / relative).read_bytes()
        deleted(self, relative)

    monkeypatch.setattr(Place, "delete", keep)
    write(tmp_path, range(3), ("label",))
    monkeypatch.setattr(parts, "AT_A_TIME", 1)
    monkeypatch.setattr(parts, "MERGE_AT", 6)
    write(tmp_path, range(3, 6))
    (merged,) = (path for path in (tmp_path / "searches").iterdir() if not path.name.startswith("shard"))
    assert len(pq.read_table(merged)) == 2 * 3
    names = {path.name for path in (tmp_path / "searches").iterdir()}
    for path, content in kept.items():
        path.write_bytes(content)
    monkeypatch.setattr(parts, "MERGE_AT", 100)
    assert Parts(Place(tmp_path)).resume().finished == {f"search-{number}" for number in range(6)}
    assert {path.name for path in (tmp_path / "searches").iterdir()} == names


TEXTS = st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=24)
NAMES = st.lists(TEXTS, max_size=30)


@given(NAMES, NAMES)
def test_packed_identities_are_sets(some: list[str], others: list[str]) -> None:
    found = Identities(some)
    assert found == set(some)
    assert len(found) == len(set(some))
    assert found.has(others).tolist() == [name in set(some) for name in others]
    assert found & set(others) == set(some) & set(others)
    assert found.without([packed(others)]) == set(some) - set(others)
    assert Identities.union([packed(some), packed(others)]) == set(some) | set(others)
    assert None not in found
    assert not (distinct(packed(some)) and len(found) < len(some))


def test_different_identities_are_known_to_be_distinct() -> None:
    names = [f"{number:020x}" for number in range(0, 10**9, 99_991)]
    assert distinct(packed(names))
    assert not distinct(packed([*names, names[7]]))
    assert re.fullmatch("S20", packed(names).dtype.str.lstrip("|"))
