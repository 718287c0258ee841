"""Searches keep their identities and their rows from one version of the package to the next.

``data/known_rows.json`` holds every space and strategy, with a shipped table, MACs and the published table,
as they were when ``ALGORITHM_VERSION`` became 2. On another kind of processor an accuracy may differ in its
last bits; the chance that this changes the course of one of these 39 short searches is below 5 %."""

import json
from pathlib import Path
from typing import Any

import pytest

import topdown_ray

FILE = Path(__file__).parents[1] / "data" / "known_rows.json"
KNOWN: list[dict[str, Any]] = json.loads(FILE.read_text())
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
    """The rows of one call of ``topdown_ray.search``, as they are written in the file."""
    frame = topdown_ray.search(**call)
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
