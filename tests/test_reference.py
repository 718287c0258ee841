"""The descriptions that the reference pages are made of are complete, and are not part of result files."""

import importlib.util
from collections.abc import Callable

import pyarrow as pa
import pytest
import yaml
from conftest import ROOT
from pydantic import BaseModel

from topdown_ray.algorithms.strategies import STRATEGIES
from topdown_ray.store.evaluations import EVALUATION_COLUMNS, EVALUATIONS
from topdown_ray.store.schema import (
    FRONT,
    FRONT_COLUMNS,
    SCHEMA_VERSION,
    SEARCH_COLUMNS,
    SEARCHES,
    TRACE,
    TRACE_COLUMNS,
)
from topdown_ray.sweeps.hyperparameters import Budget, StrategyEntry
from topdown_ray.sweeps.spec import SweepSpec, load_spec

MODELS = {
    model.__name__: model
    for model in (SweepSpec, StrategyEntry, Budget, *(known.parameters for known in STRATEGIES.values()))
}
TABLES = {
    "searches": (SEARCHES, SEARCH_COLUMNS),
    "trace": (TRACE, TRACE_COLUMNS),
    "front": (FRONT, FRONT_COLUMNS),
    "evaluations": (EVALUATIONS, EVALUATION_COLUMNS),
}


@pytest.fixture(scope="module")
def descriptions() -> Callable[[type[BaseModel]], dict[str, str]]:
    """The function by which the reference of the sweep file finds the texts of a model."""
    path = ROOT / "scripts" / "make" / "sweep_file_reference.py"
    made = importlib.util.spec_from_file_location("sweep_file_reference", path)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    found: Callable[[type[BaseModel]], dict[str, str]] = module.descriptions
    return found


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_every_key_of_a_sweep_file_is_described(
    model: type[BaseModel], descriptions: Callable[[type[BaseModel]], dict[str, str]]
) -> None:
    found = descriptions(model)
    assert set(found) == set(model.model_fields)
    assert [key for key, text in found.items() if not text.endswith(".")] == []
    page = (ROOT / "docs" / "reference" / "sweep-file.md").read_text()
    assert [key for key, text in found.items() if f"`{key}`" not in page or text not in page] == []


def test_the_full_example_has_every_key() -> None:
    path = ROOT / "scripts" / "sweeps" / "annotated.yaml"
    assert set(yaml.safe_load(path.read_text())) == set(SweepSpec.model_fields)
    assert load_spec(path).n_searches() == 24


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_described_but_not_in_its_file(table: str) -> None:
    schema, columns = TABLES[table]
    assert schema.names == [column.name for column in columns]
    assert all(column.meaning.endswith(".") for column in columns)
    assert all(1 <= column.since <= SCHEMA_VERSION for column in columns)
    numbers = [column for column in columns if pa.types.is_floating(column.type)]
    assert [column.name for column in numbers if not column.unit] == []
    assert [field.name for field in schema if field.metadata] == []
    assert len(schema.metadata) == 1  # the version
