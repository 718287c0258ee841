"""The memory of scored architectures: exact, bounded, and without a trace in the results."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topdown_ray.algorithms.memory import Identity, Memo
from topdown_ray.spaces.predictor_files import load_predictor
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space

CPU = torch.device("cpu")
IDENTITIES = {name: Identity(space, CPU) for name, space in SPACES.items()}


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_keys_are_equal_exactly_if_the_canonical_forms_are(name: str, data: st.DataObject) -> None:
    """One gene changed anywhere: the key changes if and only if the gene is active."""
    space = SPACES[name]
    row = [data.draw(st.integers(0, size - 1)) for size in space.sizes]
    changed = torch.tensor([row] * (space.G + 1), dtype=torch.int8)
    for g in range(space.G):
        changed[g, g] = (changed[g, g] + data.draw(st.integers(1, space.sizes[g] - 1))) % space.sizes[g]
    keys, canonical = IDENTITIES[name](changed), space.canonical(changed)
    same_key = (keys == keys[-1]).all(dim=1)
    same_form = (canonical == canonical[-1]).all(dim=1)
    assert torch.equal(same_key, same_form)


@pytest.mark.parametrize("name", SPACES)
def test_many_different_architectures_have_different_keys(name: str) -> None:
    space = SPACES[name]
    genes = torch.unique(space.canonical(space.random(20_000, 1)), dim=0)
    assert len(torch.unique(IDENTITIES[name](genes), dim=0)) == len(genes)


def stream(space: Space, S: int, n: int, generations: int) -> list[torch.Tensor]:
    """Generations of children of which many repeat: within a generation, across generations, and between
    searches.
    """
    pool = space.random(60, 2)
    generator = torch.Generator().manual_seed(3)
    return [pool[torch.randint(0, 20 + 2 * g, (S * n,), generator=generator)] for g in range(generations)]


@pytest.mark.parametrize("slots", [1, 4, 1 << 14])
@pytest.mark.parametrize("name", SPACES)
def test_scores_are_the_predictors_whatever_is_forgotten(
    name: str, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled and as tensor operations; both forget, and count, the same."""
    monkeypatch.setattr("topdown_ray.algorithms.memory.SLOTS", slots)
    space, predictor = SPACES[name], load_predictor("embedded", SPACES[name])
    memory, tensors = (Memo(space, predictor, 3, CPU, compiled) for compiled in (True, False))
    for genes in stream(space, 3, 25, 20):
        assert torch.equal(memory(genes), predictor(genes))
        assert torch.equal(tensors(genes), predictor(genes))
        assert torch.equal(memory.take_count(), tensors.take_count())
    assert torch.equal(memory.keys, tensors.keys)


def test_nothing_is_scored_twice_and_searches_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    space, predictor = SPACES["mobilenet_v3"], load_predictor("embedded", SPACES["mobilenet_v3"])
    generations = stream(space, 3, 25, 20)
    memory = Memo(space, predictor, 3, CPU)
    for genes in generations:
        memory(genes)
    counts = memory.take_count()
    for s in range(3):
        own = torch.cat([genes[s * 25 : (s + 1) * 25] for genes in generations])
        assert counts[s] == len(torch.unique(space.canonical(own), dim=0))
        alone = Memo(space, predictor, 1, CPU)
        for genes in generations:
            alone(genes[s * 25 : (s + 1) * 25])
        assert alone.take_count()[0] == counts[s]
    assert memory.take_count().sum() == 0
