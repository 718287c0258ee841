"""The spaces against OFA's own classes, and their algebra."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracles import network

from topdown_ray.errors import UserError
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space

ALL = list(SPACES.values())


@pytest.fixture(params=ALL, ids=lambda space: space.name)
def space(request: pytest.FixtureRequest) -> Space:
    return request.param


def rows(space: Space) -> st.SearchStrategy[torch.Tensor]:
    """One architecture, genes (1, G)."""
    genes = st.tuples(*(st.integers(0, size - 1) for size in space.sizes))
    return genes.map(lambda row: torch.tensor([row], dtype=torch.int8))


@pytest.mark.parametrize("space", ALL, ids=lambda space: space.name)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_configurations_round_trip(space: Space, data: st.DataObject) -> None:
    genes = data.draw(rows(space))
    config = json.loads(json.dumps(space.to_config(genes[0])))
    assert space.from_config(config).tolist() == genes[0].tolist()


@pytest.mark.parametrize("space", ALL, ids=lambda space: space.name)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_canonical_form_is_idempotent_and_keeps_active_genes(space: Space, data: st.DataObject) -> None:
    genes = data.draw(rows(space))
    canonical = space.canonical(genes)
    assert torch.equal(space.canonical(canonical), canonical)
    active = space.active(genes)
    assert torch.equal(canonical[active], genes[active])
    assert (canonical[~active] == 0).all()


def test_inactive_genes_are_those_the_network_skips(space: Space) -> None:
    """The active subnet that OFA configures has the same blocks whatever the inactive genes are."""
    supernet = network(space)
    for genes in space.random(20, 5):
        descriptions = []
        for row in (genes, space.canonical(genes[None])[0]):
            config = space.to_config(row)
            del config["image_size"]
            supernet.set_active_subnet(**config)
            descriptions.append(supernet.module_str)
        assert descriptions[0] == descriptions[1]


def test_active_genes_change_the_network(space: Space) -> None:
    """Changing any single active gene but the resolution changes what OFA configures."""
    supernet = network(space)
    genes = space.random(1, 6)
    for g in torch.nonzero(space.active(genes)[0]).view(-1).tolist():
        if g == space.resolution:
            continue
        changed = genes.clone()
        changed[0, g] = (changed[0, g] + 1) % space.sizes[g]
        descriptions = []
        for row in (genes[0], changed[0]):
            config = space.to_config(row)
            del config["image_size"]
            supernet.set_active_subnet(**config)
            descriptions.append(str(supernet.get_active_net_config()["blocks"]) + supernet.module_str)
        assert descriptions[0] != descriptions[1], space.genes[g]


def test_every_gene_mutates_in_exactly_one_group(space: Space) -> None:
    grouped = [g for group in space.mutation_groups for g in group.genes]
    assert sorted(grouped) == list(range(space.G))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ks": [3] * 19}, "ks: expected a list of 20 numbers"),
        ({"ks": [4] + [3] * 19}, r"ks\[0\]: expected one of \[3, 5, 7\], found 4"),
        ({"image_size": 100}, "image_size: expected one of"),
        ({"w": [0]}, "expected the keys"),
    ],
)
def test_a_foreign_configuration_is_named(change: dict[str, object], message: str) -> None:
    config = MOBILENET_V3.to_config(MOBILENET_V3.random(1, 0)[0]) | change
    with pytest.raises(UserError, match=message):
        MOBILENET_V3.from_config(config)


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"genes: expected \(N, 46\) int8, got \(12, 45\) torch.int64"):
        MOBILENET_V3.check(torch.zeros(12, 45, dtype=torch.int64))
