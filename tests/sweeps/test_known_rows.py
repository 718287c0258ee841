"""Searches keep their identities and their rows from one version of the package to the next.

``data/known_rows.json`` holds every space and strategy, with a shipped table, MACs and the published table,
as they were when ``ALGORITHM_VERSION`` became 2. On another kind of processor an accuracy may differ in its
last bits; the chance that this changes the course of one of these 39 short searches is below 5 %."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from topdown_ray.store.schema import to_tables
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.runner import Worker
from topdown_ray.sweeps.spec import make_spec

FILE = Path(__file__).parents[1] / "data" / "known_rows.json"
KNOWN: list[dict[str, Any]] = json.loads(FILE.read_text())
_NAMED = ("space", "strategy", "cost", "predictor", "targets", "seeds")
EXACT = [
    "search_id",
    "arch",
    "genes",
    "generations",
    "evaluations",
    "unique_evaluations",
    "gradients",
    "macs_m",
    "params_m",
]


def found(call: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that ``topdown_ray.search`` gives for one call, as they are written in the file."""
    params = {name: value for name, value in call.items() if name not in _NAMED}
    data = {"name": "known", "spaces": [call["space"]], "strategies": [call["strategy"]], "search": params}
    data |= {"cost": call["cost"], "predictor": call["predictor"], "targets": [call["targets"]]}
    plan = driver.make_plan(make_spec({**data, "seeds": call["seeds"]}, "known"))
    worker = Worker(plan.setups)
    tables = [to_tables(plan.run_id, *worker.run(shard))[0] for shard in plan.shards()]
    frame = pa.concat_tables(tables).to_pandas()
    frame["genes"] = [list(map(int, genes)) for genes in frame["genes"]]
    rows: list[dict[str, Any]] = frame[[*EXACT, "accuracy", "cost"]].to_dict("records")
    return rows


@pytest.mark.parametrize(
    "known", KNOWN, ids=lambda known: "-".join(str(known["call"][n]) for n in ("space", "cost", "strategy"))
)
def test_identities_and_rows_are_as_they_were(known: dict[str, Any], request: pytest.FixtureRequest) -> None:
    if "note10" in known["call"]["cost"]:
        request.getfixturevalue("published")
    rows = found(known["call"])
    for row, before in zip(rows, known["rows"], strict=True):
        for name in EXACT:
            assert row[name] == before[name], name
        assert row["cost"] == pytest.approx(before["cost"], rel=1e-12)
        assert row["accuracy"] == pytest.approx(before["accuracy"], abs=1e-6)
