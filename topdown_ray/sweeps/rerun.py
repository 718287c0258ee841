"""Repeat the searches of rows for ``verify``, and compare them bit by bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from topdown_ray import machine
from topdown_ray.store.results import Results
from topdown_ray.store.schema import FRONT, INCIDENTAL, SEARCHES, TRACE, to_tables
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.checks import RowCheck, compared, searched
from topdown_ray.sweeps.groups import Shard
from topdown_ray.sweeps.runner import Worker
from topdown_ray.sweeps.spec import SweepSpec


def searched_again(
    results: Results, rows: pd.DataFrame, spec: SweepSpec, n: int, rerun_seed: int
) -> Iterator[RowCheck]:
    """Repeat the searches of ``n`` random rows in this process, and compare every column that is not
    incidental bit by bit.
    """
    run_id = str(results.manifest["run_id"])
    on_cpu = rows[rows["device"].eq("cpu")]
    chosen = np.random.default_rng(rerun_seed).permutation(len(on_cpu))[:n]
    own = on_cpu[on_cpu["search_id"].isin(set(on_cpu["search_id"].iloc[chosen]))]
    worker = Worker(driver.make_plan(spec).setups)
    groups = searched(spec)
    again = []
    for search_id, of_search in own.groupby("search_id", sort=False):
        row = of_search.iloc[0]
        group, part = groups[row["space"], row["cost_number"], row["label"], tuple(row["targets"])]
        # a search on several devices has rows for each of them, and these are one part of them
        identities = tuple(str(search_id) if i == part else f"part {i}" for i in range(len(group.each)))
        of_group = to_tables(run_id, *worker.run(Shard(group, (int(row["seed"]),), identities)))
        again.append([table.filter(pc.equal(table["search_id"], str(search_id))) for table in of_group])
    here, there = machine.processor(), str(results.manifest.get("machine", {}).get("processor"))
    note = (
        "" if here == there else f"the rows were written on {there}, and bits may differ on another processor"
    )
    if len(on_cpu) < len(rows):
        note = f"{len(rows) - len(on_cpu)} rows that were not computed on a CPU"
    traces = results.trace[results.trace["search_id"].isin(set(own["search_id"]))]
    targets = own[["search_id", "target_index", "target"]]
    front = results.front[results.front["search_id"].isin(set(own["search_id"]))]
    stored = {
        "rerun": own,
        "rerun trace": traces.merge(targets, on=["search_id", "target_index"], how="left"),
        "rerun front": front.assign(target=np.nan),
    }
    keys = ("search_id", "target_index", "generation", "place")
    for number, ((name, frame), schema) in enumerate(
        zip(stored.items(), (SEARCHES, TRACE, FRONT), strict=True)
    ):
        columns = [column for column in schema.names if column not in INCIDENTAL]
        order = [key for key in keys if key in columns]
        tables = [tables[number] for tables in again if number < len(tables)]
        fresh = pa.concat_tables([schema.empty_table(), *tables]).to_pandas().sort_values(order)
        if number == 2:  # rows of older schemas have no front
            fresh = fresh[fresh["search_id"].isin(own.loc[own["front_rows"].notna(), "search_id"])]
        if len(frame) or len(fresh):
            yield _same_bits(name, frame.sort_values(order), fresh, columns, note)


def _same_bits(
    name: str, stored: pd.DataFrame, fresh: pd.DataFrame, columns: list[str], note: str
) -> RowCheck:
    """Check that repeated searches give the same rows. The columns of the check are those that differ."""
    rule = "the same bits when searched again"
    if len(stored) != len(fresh):
        where: dict[str, Any] = {
            "search_id": str((stored if len(stored) else fresh)["search_id"].iloc[0]),
            "expected": f"{len(fresh)} rows",
            "found": f"{len(stored)}",
        }
        return RowCheck(
            name, tuple(columns), rule, len(stored), abs(len(fresh) - len(stored)), **where, not_checked=note
        )
    # a target without limits, which is the same as none
    given = {column: "" for column in ("limits", "costs") if column in columns}
    stored, fresh = stored.fillna(given), fresh.fillna(given)
    if "front_rows" in columns:  # older schemas do not have this column
        told = stored["front_rows"].notna().to_numpy()
        stored = stored.assign(front_rows=stored["front_rows"].fillna(0).astype(int))
        fresh = fresh.assign(front_rows=fresh["front_rows"].where(told, 0).astype(int))
    # counts of a space without an OFA network
    empty = [column for column in columns if stored[column].isna().all() and fresh[column].isna().all()]
    failed = [
        found
        for column in columns
        if column not in empty and (found := compared(column, rule, stored, fresh[column].tolist())).failures
    ]
    if not failed:
        return RowCheck(name, (), rule, len(stored), not_checked=note)
    names = tuple(found.name for found in failed)
    most = max(failed, key=lambda found: found.failures)
    return dataclasses.replace(most, name=name, columns=names, not_checked=note)
