"""Costs that follow from an architecture alone: parameters, and the peak of live activations."""

from typing import Any

import pytest
import torch
from support.oracles import network

from topdown_ray.networks.supernet import n_parameters
from topdown_ray.spaces.cost import any_cost
from topdown_ray.spaces.layers import Layer, live_values
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space

EVERY_SPACE = pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)


@EVERY_SPACE
def test_params_are_those_of_ofas_subnets(space: Space) -> None:
    cost, net = any_cost("params", space), network(space)
    assert cost.unit == "1e6 parameters"
    for row in space.random(4, seed=3):
        config = {key: value for key, value in space.to_config(row).items() if key != "image_size"}
        net.set_active_subnet(**{key: list(value) for key, value in config.items()})
        found = n_parameters(net.get_active_subnet(preserve_weight=False)) / 1e6
        assert float(cost(row[None])) == pytest.approx(found, rel=1e-12)


@EVERY_SPACE
def test_no_activation_of_a_real_subnet_is_above_the_peak(space: Space) -> None:
    """Inputs and outputs of every convolution, as hooks see them while OFA's subnet runs: the peak is at
    least the largest pair of them, and at most that and the largest input that a shortcut may hold.
    """
    cost, net = any_cost("peak_activation", space), network(space)
    for row in space.random(2, seed=4):
        config = space.to_config(row)
        net.set_active_subnet(**{key: list(value) for key, value in config.items() if key != "image_size"})
        subnet = net.get_active_subnet(preserve_weight=False).eval()
        pairs: list[tuple[int, int]] = []

        def see(module: Any, inputs: Any, output: Any, pairs: list[tuple[int, int]] = pairs) -> None:
            pairs.append((inputs[0].numel(), output.numel()))

        for module in subnet.modules():
            if isinstance(module, torch.nn.Conv2d) and module.bias is None:  # not squeeze-and-excite
                module.register_forward_hook(see)
        with torch.no_grad():
            subnet(torch.zeros(1, 3, config["image_size"], config["image_size"]))
        largest = max(before + behind for before, behind in pairs)
        peak = float(cost(row[None])) * 1e6 / 4
        assert largest <= peak <= largest + max(before for before, _ in pairs)


@EVERY_SPACE
def test_the_range_of_the_peak_is_that_of_its_ends(space: Space) -> None:
    cost = any_cost("peak_activation", space)
    low, high = cost.range()
    found = cost(space.random(3000, 0))
    assert low <= float(found.min())
    assert float(found.max()) <= high
    lowest, genes = cost.cheapest()
    assert float(cost(torch.from_numpy(genes)[None])) == lowest == low


@pytest.mark.parametrize(
    ("layer", "values"),
    [
        (Layer("conv", 8, 4, 3, 0, 16, 3, 2), 8 * 8 * 3 + 4 * 4 * 16),
        (Layer("linear", 1, 1, 10, 0, 5), 15),
        # the expanded maps before and behind the depthwise convolution, beside the input of the shortcut
        (Layer("mbconv", 8, 8, 4, 24, 4, 3, 1, shortcut=True), 8 * 8 * (4 + 24 + 24)),
        (Layer("mbconv", 8, 4, 4, 24, 8, 3, 2), 8 * 8 * 24 + 4 * 4 * 24),
        (Layer("mbconv", 8, 8, 4, 4, 2, 3, 1), 8 * 8 * (4 + 4)),
        (Layer("bottleneck", 8, 8, 16, 4, 16, 3, 1, shortcut=True), 8 * 8 * (16 + 4 + 16)),
        (Layer("bottleneck", 8, 8, 16, 4, 32, 3, 1), 8 * 8 * (16 + 2 * 32)),
    ],
)
def test_the_rule_of_live_values(layer: Layer, values: int) -> None:
    assert live_values(layer) == values
