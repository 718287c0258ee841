"""The tables of a sweep: their columns, their version, and a shard's rows as Arrow tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

# 2: unique_evaluations; 3: gradients; 4: gradient_rows, cpu_s, search_cpu_s; 5: label; 6: limits, costs;
# 7: front_rows, the table front
SCHEMA_VERSION = 7

SEARCHES = pa.schema(
    [
        ("run_id", pa.string()),
        ("search_id", pa.string()),
        ("shard_id", pa.string()),
        ("space", pa.string()),
        ("strategy", pa.string()),
        ("label", pa.string()),
        ("protocol", pa.string()),
        ("cost_name", pa.string()),
        ("cost_unit", pa.string()),
        ("cost_sha256", pa.string()),
        ("predictor_name", pa.string()),
        ("predictor_space", pa.string()),
        ("predictor_sha256", pa.string()),
        ("seed", pa.int64()),
        ("k", pa.int32()),
        ("targets", pa.list_(pa.float64())),
        ("target_index", pa.int32()),
        ("target", pa.float64()),
        ("limits", pa.string()),
        ("feasible", pa.bool_()),
        ("accuracy", pa.float64()),
        ("cost", pa.float64()),
        ("costs", pa.string()),
        ("arch", pa.string()),
        ("genes", pa.list_(pa.int8())),
        ("macs_m", pa.float64()),
        ("params_m", pa.float64()),
        ("generations", pa.int64()),
        ("evaluations", pa.int64()),
        ("unique_evaluations", pa.int64()),
        ("gradients", pa.int64()),
        ("gradient_rows", pa.float64()),
        ("front_rows", pa.int32()),
        ("wall_s", pa.float64()),
        ("search_wall_s", pa.float64()),
        ("cpu_s", pa.float64()),
        ("search_cpu_s", pa.float64()),
        ("batch_size", pa.int32()),
        ("device", pa.string()),
        ("threads", pa.int32()),
        ("host", pa.string()),
        ("started_at", pa.timestamp("us", tz="UTC")),
    ],
    metadata={"topdown_ray_schema": str(SCHEMA_VERSION)},
)

TRACE = pa.schema(
    [
        ("run_id", pa.string()),
        ("search_id", pa.string()),
        ("shard_id", pa.string()),
        ("seed", pa.int64()),
        ("target_index", pa.int32()),
        ("generation", pa.int64()),
        ("evaluations", pa.int64()),
        ("best_accuracy", pa.float64()),
    ],
    metadata={"topdown_ray_schema": str(SCHEMA_VERSION)},
)

#: The fronts of searches that keep one: a row an architecture, by cost. ``epsilon``: an architecture that was
#: dropped is at most so much more accurate than one of the front that costs no more in anything.
FRONT = pa.schema(
    [
        ("run_id", pa.string()),
        ("search_id", pa.string()),
        ("shard_id", pa.string()),
        ("place", pa.int32()),
        ("cost", pa.float64()),
        ("costs", pa.string()),
        ("accuracy", pa.float64()),
        ("epsilon", pa.float64()),
        ("arch", pa.string()),
        ("macs_m", pa.float64()),
        ("params_m", pa.float64()),
    ],
    metadata={"topdown_ray_schema": str(SCHEMA_VERSION)},
)

#: Columns that tell how a row was computed, not what came out: two runs of the same sweep may differ in them.
INCIDENTAL = (
    "shard_id",
    "gradient_rows",
    "wall_s",
    "search_wall_s",
    "cpu_s",
    "search_cpu_s",
    "batch_size",
    "device",
    "threads",
    "host",
    "started_at",
)


def to_tables(
    run_id: str,
    rows: Sequence[Mapping[str, Any]],
    trace: Sequence[Mapping[str, Any]],
    front: Sequence[Mapping[str, Sequence[Any]]] = (),
) -> tuple[pa.Table, ...]:
    """A shard's rows as Arrow tables of the schemas; that of the front only where there is one. front: the
    columns of each search's.
    """
    tables = (
        pa.Table.from_pylist([{**row, "run_id": run_id} for row in rows], schema=SEARCHES),
        pa.Table.from_pylist([{**row, "run_id": run_id} for row in trace], schema=TRACE),
    )
    if not front:
        return tables
    parts = [
        pa.table({**columns, "run_id": [run_id] * len(columns["arch"])}).select(FRONT.names).cast(FRONT)
        for columns in front
    ]
    return (*tables, pa.concat_tables(parts))
