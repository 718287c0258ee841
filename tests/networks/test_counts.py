"""MACs and parameters of supernets of any width, against OFA's own counts of the same network."""

import pytest
from support.oracles import MACS_MODELS

from topdown_ray.networks.supernet import Supernet, n_parameters
from topdown_ray.networks.weights import Checkpoint, Description
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
    for genes in space.random(100, seed=5):
        config = space.to_config(genes)
        assert net.count(config)[0] == oracle.get_efficiency(config)
    for genes in space.random(3, seed=6):
        config = space.to_config(genes)
        assert net.count(config)[1] == n_parameters(net.materialise(config)) / 1e6
