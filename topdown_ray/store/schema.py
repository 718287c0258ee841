"""Define the tables of a sweep: their columns, their version, and a shard's rows as Arrow tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from topdown_ray.store.columns import TableColumn, schema_of

# 2: unique_evaluations; 3: gradients; 4: gradient_rows, cpu_s, search_cpu_s; 5: label; 6: limits, costs;
# 7: front_rows, the table front
SCHEMA_VERSION = 7

_VERSION: dict[str | bytes, str | bytes] = {"topdown_ray_schema": str(SCHEMA_VERSION)}
_NO_NETWORK = "the space has no OFA network"
_RUN_ID = TableColumn(
    "run_id", pa.string(), "Identity of the sweep: a hash of everything that decides its results."
)
_SEARCH_ID = TableColumn("search_id", pa.string(), "Identity of the search, as in `searches`.")
_SHARD_ID = TableColumn("shard_id", pa.string(), "Identity of the shard, as in `searches`.")

#: One row for each search and target.
SEARCH_COLUMNS = (
    _RUN_ID,
    TableColumn(
        "search_id",
        pa.string(),
        "Identity of the search: a hash of its space, cost table, predictor, strategy, targets, limits, "
        "hyper-parameters and seed. A `joint` search over several devices has one identity for each device.",
    ),
    TableColumn("shard_id", pa.string(), "Identity of the shard in which the search ran."),
    TableColumn(
        "space",
        pa.string(),
        "Design space, as in the sweep file. Under `protocol: notebook` the genes are those of MobileNetV3, "
        "no matter which space is named.",
    ),
    TableColumn("strategy", pa.string(), "Name of the strategy, as in the sweep file."),
    TableColumn(
        "label",
        pa.string(),
        "Label of the entry of `strategies`; the strategy's name if the entry has none. Loading an older "
        "folder fills it in.",
        since=5,
    ),
    TableColumn("protocol", pa.string(), "`default` or `notebook`, as in the sweep file."),
    TableColumn(
        "cost_name",
        pa.string(),
        "Name of the cost that the target limits. It is `table:mine` for a latency table in `mine.parquet`.",
    ),
    TableColumn(
        "cost_unit",
        pa.string(),
        "Unit of `cost` and `target`: `ms`, `1e6 MACs`, `1e6 parameters`, `MB`, or the unit of a plug-in.",
    ),
    TableColumn("cost_sha256", pa.string(), "SHA-256 of the cost's files or plug-in."),
    TableColumn("predictor_name", pa.string(), "Name of the accuracy predictor."),
    TableColumn(
        "predictor_space",
        pa.string(),
        "Space that the predictor was trained on. If it is not `space`, the accuracies are transferred.",
    ),
    TableColumn("predictor_sha256", pa.string(), "SHA-256 of the predictor's file or plug-in."),
    TableColumn("seed", pa.int64(), "Seed of the search."),
    TableColumn("k", pa.int32(), "Number of targets of the search.", "targets"),
    TableColumn(
        "targets", pa.list_(pa.float64()), "All targets of the search, loosest first.", "`cost_unit`"
    ),
    TableColumn("target_index", pa.int32(), "Index of this row's target in `targets`, from 0."),
    TableColumn("target", pa.float64(), "The target of this row: the highest cost allowed.", "`cost_unit`"),
    TableColumn(
        "limits",
        pa.string(),
        'Limits of this target on other costs, as JSON by the names of the costs: `{"params": 6.0}`.',
        "that of each cost",
        "the target has no further limits",
        since=6,
    ),
    TableColumn("feasible", pa.bool_(), "Whether `cost` <= `target` and the answer meets every limit."),
    TableColumn("accuracy", pa.float64(), "Predicted top-1 accuracy of the answer.", "fraction (0 to 1)"),
    TableColumn("cost", pa.float64(), "Cost of the answer.", "`cost_unit`"),
    TableColumn(
        "costs",
        pa.string(),
        "Costs of the answer on the sweep's other devices and under each of `limits`, as JSON by the names "
        "of these costs.",
        "that of each cost",
        "the sweep has neither other devices nor limits for this target",
        since=6,
    ),
    TableColumn(
        "arch",
        pa.string(),
        "The answer as OFA's configuration with `image_size`, as JSON. Blocks that are switched off have "
        "their smallest choice.",
    ),
    TableColumn(
        "genes", pa.list_(pa.int8()), "The same architecture as one choice index for each gene of the space."
    ),
    TableColumn(
        "macs_m",
        pa.float64(),
        "Multiply-accumulates of the subnet, counted on the OFA network, squeeze-and-excite included.",
        "1e6",
        _NO_NETWORK,
    ),
    TableColumn(
        "params_m", pa.float64(), "Parameters of the subnet, counted on the OFA network.", "1e6", _NO_NETWORK
    ),
    TableColumn(
        "generations",
        pa.int64(),
        "Generations for this target. `joint` serves all targets at once, so each of its rows has the "
        "generations of the whole search.",
        "generations",
    ),
    TableColumn(
        "evaluations",
        pa.int64(),
        "Children drawn for this target. This includes children from the search's cache, which cost almost "
        "nothing. The sum over the rows of a search is the search's total.",
        "children",
    ),
    TableColumn(
        "unique_evaluations",
        pa.int64(),
        "Children that were not in the search's cache, and were therefore scored by the predictor (about 2 % "
        "more than the distinct ones).",
        "predictor rows",
        "the folder has schema 1",
        since=2,
    ),
    TableColumn(
        "gradients",
        pa.int64(),
        "Gradients of the predictor that were computed for this target. Only `joint` uses gradients.",
        "gradients",
        "the folder has a schema below 3",
        since=3,
    ),
    TableColumn(
        "gradient_rows",
        pa.float64(),
        "Predictor rows that take the CPU time of one gradient. Each actor measures it when it starts "
        "(about 3 on MobileNetV3 and about 4 on ResNet50D).",
        "predictor rows",
        "the strategy uses no gradients or the folder has a schema below 4",
        since=4,
    ),
    TableColumn(
        "front_rows",
        pa.int32(),
        "Rows of this search in the table `front`; 0 if its strategy keeps no front.",
        "rows",
        "the folder has a schema below 7",
        since=7,
    ),
    TableColumn(
        "wall_s",
        pa.float64(),
        "Wall time for this target, **divided by the number of searches in the batch**.",
        "s",
    ),
    TableColumn(
        "search_wall_s",
        pa.float64(),
        "Wall time of the whole search, **divided by the number of searches in the batch**.",
        "s",
    ),
    TableColumn(
        "cpu_s",
        pa.float64(),
        "As `wall_s`, but CPU time of the thread that searches.",
        "CPU s",
        "the folder has a schema below 4",
        since=4,
    ),
    TableColumn(
        "search_cpu_s",
        pa.float64(),
        "As `search_wall_s`, but CPU time of the thread that searches.",
        "CPU s",
        "the folder has a schema below 4",
        since=4,
    ),
    TableColumn(
        "batch_size",
        pa.int32(),
        "Searches that ran in lock step. If it is 1, the times are those of a search that ran alone.",
        "searches",
    ),
    TableColumn("device", pa.string(), "Device on which the search ran: `cpu` or `cuda`."),
    TableColumn("threads", pa.int32(), "Threads of PyTorch during the search.", "threads"),
    TableColumn("host", pa.string(), "Name of the machine."),
    TableColumn("started_at", pa.timestamp("us", tz="UTC"), "Time at which the shard started.", "UTC"),
)

#: The anytime curve of each search: one row for each improvement, and one at the end.
TRACE_COLUMNS = (
    _RUN_ID,
    _SEARCH_ID,
    _SHARD_ID,
    TableColumn("seed", pa.int64(), "Seed of the search."),
    TableColumn("target_index", pa.int32(), "Index of the target in the search's `targets`, from 0."),
    TableColumn("generation", pa.int64(), "Generation after which the best accuracy was reached."),
    TableColumn(
        "evaluations", pa.int64(), "Children drawn for this target up to this generation.", "children"
    ),
    TableColumn(
        "best_accuracy",
        pa.float64(),
        "Best predicted top-1 accuracy for this target so far.",
        "fraction (0 to 1)",
    ),
)

#: The fronts of searches that keep one: one row for each architecture.
FRONT_COLUMNS = (
    _RUN_ID,
    _SEARCH_ID,
    _SHARD_ID,
    TableColumn("place", pa.int32(), "Place in the front of the search, from 0, in the order of `cost`."),
    TableColumn("cost", pa.float64(), "Cost of the architecture.", "`cost_unit` of the search"),
    TableColumn(
        "costs",
        pa.string(),
        "Costs of the architecture on the sweep's other devices, and under every cost that a target of the "
        "search has a limit on, as JSON.",
        "that of each cost",
        "the search has neither other devices nor limits",
    ),
    TableColumn("accuracy", pa.float64(), "Predicted top-1 accuracy.", "fraction (0 to 1)"),
    TableColumn(
        "epsilon",
        pa.float64(),
        "Largest loss from thinning this front, one number for the whole front; 0 if no non-dominated "
        "architecture was dropped.",
        "fraction",
    ),
    TableColumn("arch", pa.string(), "The architecture as OFA's configuration, as JSON."),
    TableColumn("macs_m", pa.float64(), "Multiply-accumulates, as in `searches`.", "1e6", _NO_NETWORK),
    TableColumn("params_m", pa.float64(), "Parameters, as in `searches`.", "1e6", _NO_NETWORK),
)

SEARCHES = schema_of(SEARCH_COLUMNS, _VERSION)
TRACE = schema_of(TRACE_COLUMNS, _VERSION)
FRONT = schema_of(FRONT_COLUMNS, _VERSION)

#: Columns that say how a row was computed, not what was found: two runs of the same sweep may differ in them.
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
    """Return a shard's rows as Arrow tables: ``searches``, ``trace``, and ``front`` if a search kept one.

    front: for each search that kept a front, the columns of its front.
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
