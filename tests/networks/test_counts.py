"""MACs and parameters of supernets of any width, and the names of layers, against OFA's own."""

import pytest
import torch
from support.oracles import MACS_MODELS

from topdown_ray.networks.supernet import Supernet, n_parameters
from topdown_ray.networks.weights import Checkpoint, Description
from topdown_ray.spaces.cost import SubnetCounts, counts_of
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space


def supernet(space: Space, width: float, n_classes: int) -> Supernet:
    about = Description(
        space=space.name, width=width, n_classes=n_classes, image_sizes=tuple(space.resolutions)
    )
    return Supernet(space, Checkpoint(name="random", sha256="", path=None, description=about))


@pytest.mark.parametrize(
    ("width", "n_classes"), [(1.0, 1000), (0.07, 10), (0.1, 2), (0.37, 100), (1.6, 1000)]
)
@pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)
def test_counts_are_ofas_to_the_last_bit(space: Space, width: float, n_classes: int) -> None:
    net = supernet(space, width, n_classes)
    oracle = MACS_MODELS[space.name](net.network)
    counts = SubnetCounts(space, width, n_classes)
    genes = space.random(100, seed=5)
    assert counts(genes)[0].tolist() == [oracle.get_efficiency(space.to_config(row)) for row in genes]
    genes = space.random(3, seed=6)
    materialised = [net.materialise(space.to_config(row)) for row in genes]
    assert counts(genes)[1].tolist() == [n_parameters(subnet) / 1e6 for subnet in materialised]


@pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)
def test_one_architecture_is_described_without_torch_as_ofa_describes_it(space: Space) -> None:
    net, counts = supernet(space, 1.0, 1000), SubnetCounts(space)
    ends = torch.tensor([[0] * space.G, [size - 1 for size in space.sizes]], dtype=torch.int8)
    genes = torch.cat([ends, space.random(60, seed=7)])
    names = space.traits.layer_names
    assert names is not None
    described = ["\n".join(names(space, row)) for row in genes.tolist()]
    assert described == [net.describe(space.to_config(row)).rstrip() for row in genes]
    assert [counts_of(space, row) for row in genes.tolist()] == list(
        zip(*(values.tolist() for values in counts(genes)), strict=True)
    )
