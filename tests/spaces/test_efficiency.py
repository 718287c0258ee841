"""Costs against OFA's own arithmetic; exact minima; broken tables."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support.oracles import ofa_macs, tutorial_spec

from topdown_ray.errors import UserError
from topdown_ray.networks import ofa_reference
from topdown_ray.spaces.cost import load_cost, macs, published_tables
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space
from topdown_ray.spaces.terms import Term, minimise


@pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)
def test_macs_are_ofas_own(space: Space) -> None:
    genes = space.random(1000, 0)
    np.testing.assert_allclose(macs(space)(genes).numpy(), ofa_macs(space, genes), rtol=1e-12)


def test_note10_is_ofas_own(published: Path) -> None:
    _, table = ofa_reference.tutorial_models()
    genes = MOBILENET_V3.random(1000, 1)
    expected = [table.predict_efficiency(tutorial_spec(MOBILENET_V3.to_config(row))) for row in genes]
    np.testing.assert_allclose(load_cost("note10", MOBILENET_V3)(genes).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)
def test_inactive_genes_cost_nothing(space: Space) -> None:
    genes, cost = space.random(2000, 2), macs(space)
    assert torch.equal(cost(genes), cost(space.canonical(genes)))


def test_costs_do_not_depend_on_the_batch(published: Path) -> None:
    cost, genes = load_cost("note10", MOBILENET_V3), MOBILENET_V3.random(333, 3)
    whole = cost(genes)
    assert torch.equal(torch.cat([cost(part) for part in genes.split(7)]), whole)


@pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)
def test_the_cheapest_architecture_has_the_cost_it_claims(space: Space) -> None:
    cost = macs(space)
    lowest, genes = cost.cheapest()
    assert float(cost(torch.from_numpy(genes)[None])) == pytest.approx(lowest, rel=1e-12)
    assert (cost(space.random(5000, 4)) >= lowest).all()


def test_minima_are_exact() -> None:
    """Random terms that couple genes in a ring, against trying every combination."""
    generator = np.random.default_rng(0)
    sizes = [3, 2, 3, 2, 3]
    pairs = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (2,)]
    for _ in range(20):
        terms = [Term(pair, generator.normal(size=[sizes[g] for g in pair])) for pair in pairs]

        def total(row: tuple[int, ...], terms: list[Term] = terms) -> float:
            return sum(float(term.values[tuple(row[g] for g in term.genes)]) for term in terms)

        best = min(itertools.product(*map(range, sizes)), key=total)
        value, row = minimise(terms, sizes)
        assert value == pytest.approx(total(best))
        assert tuple(row) == best


@pytest.fixture
def tables(published: Path, tmp_path: Path) -> Path:
    for file in (published / "note10").glob("*.yaml"):
        shutil.copy(file, tmp_path)
    return tmp_path


@pytest.mark.parametrize("value", [-1.0, float("nan"), None, "fast"])
def test_a_bad_latency_is_named(tables: Path, value: object) -> None:
    path = tables / "176_lookup_table.yaml"
    table = yaml.safe_load(path.read_text())
    key = next(key for key in table if key.startswith("expanded_conv"))
    table[key]["mean"] = value
    path.write_text(yaml.safe_dump(table))
    with pytest.raises(
        UserError,
        match=(
            f"176_lookup_table.yaml: {key}: mean: expected (a number greater than 0|a finite number|a valid "
            "number), found"
        ),
    ):
        published_tables(MOBILENET_V3, tables)


def test_a_missing_entry_is_named(tables: Path) -> None:
    path = tables / "208_lookup_table.yaml"
    table = yaml.safe_load(path.read_text())
    key = next(key for key in table if key.startswith("Logits"))
    del table[key]
    path.write_text(yaml.safe_dump(table))
    with pytest.raises(UserError, match=f"208_lookup_table.yaml: expected an entry '{key}', found none"):
        published_tables(MOBILENET_V3, tables)


@pytest.mark.parametrize("text", ["a: [1,", "- 1\n- 2\n", "\x00\x01"])
def test_what_is_not_a_table_is_named(tables: Path, text: str) -> None:
    (tables / "160_lookup_table.yaml").write_text(text)
    with pytest.raises(UserError, match=r"160_lookup_table.yaml: expected"):
        published_tables(MOBILENET_V3, tables)


def test_yaml_is_loaded_safely(tables: Path, tmp_path: Path) -> None:
    (tables / "160_lookup_table.yaml").write_text(
        f"x: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'owned'}]"
    )
    with pytest.raises(UserError, match="expected YAML"):
        published_tables(MOBILENET_V3, tables)
    assert not (tmp_path / "owned").exists()
