"""Build OFA supernets, cut subnets out of them, and recalibrate and describe the subnets.

This module, ``ofa_reference`` and ``bench`` are the only ones that import ofa.

A supernet has published weights if this machine has them, and random weights otherwise; see
:attr:`Supernet.weights`. No search depends on the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from ofa.imagenet_classification.elastic_nn import networks
from ofa.imagenet_classification.elastic_nn.modules.dynamic_op import DynamicBatchNorm2d
from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics
from ofa.utils import MyGlobalAvgPool2d
from ofa.utils.layers import (
    ConvLayer,
    IdentityLayer,
    LinearLayer,
    MBConvLayer,
    ResidualBlock,
    ResNetBottleneckBlock,
)
from torch import nn

from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import brief_path
from topdown_ray.networks.weights import Checkpoint, find_weights, published_weights
from topdown_ray.spaces.layers import Layer
from topdown_ray.spaces.space import Space

_COUNTER = "num_batches_tracked"


def build(space: Space, width: float = 1.0, n_classes: int = 1000) -> Any:
    """Build the network that ``ofa.model_zoo.ofa_net`` builds for this space, without its download. ``width``
    is relative to it. Raises UserError for a width at which OFA cannot build it.
    """
    return space.traits.build(networks, width, n_classes)


class Supernet:
    """One OFA supernet in this process. Subnets are cut out of it on demand."""

    def __init__(self, space: Space, checkpoint: Checkpoint | None = None):
        """checkpoint: the weights; None: published ones if they are on this machine, else random ones.

        Raises UserError that names the file unless it has every tensor of the network, finite and with the
        right shape.
        """
        self.space = space
        if checkpoint is None:
            weights = "random" if published_weights(space) is None else "published"
            checkpoint = find_weights(weights, space, allow_random=True)
        description = checkpoint.description
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # random weights are the same on every machine
            # OFA's modules have no types
            self.network: Any = build(space, description.width, description.n_classes).eval()
        self.weights = checkpoint.name
        if checkpoint.path is not None:
            self._load(checkpoint.state(), brief_path(checkpoint.path))

    def _load(self, state: Mapping[str, torch.Tensor], where: str) -> None:
        """Load weights with OFA's own loader, which renames tensors and does not require any of them. Here
        each one must be present, finite and of the right shape.

        The network is therefore filled with NaN first: what is NaN afterwards was not in the file. The
        counters of batch normalisation may be missing, because no output depends on them. Raises UserError.
        """
        expected = f"{where}: expected weights of {self.space.network}"
        given = {name: value for name, value in state.items() if not name.endswith(_COUNTER)}
        for name, value in given.items():
            if not value.is_floating_point() or not torch.isfinite(value.float()).all():
                raise UserError(
                    f"{where}: {brief(name)}: expected finite floating-point numbers, found NaN, infinity or "
                    f"{value.dtype}"
                )
        own = {
            name: value for name, value in self.network.state_dict().items() if not name.endswith(_COUNTER)
        }
        for value in own.values():
            value.fill_(torch.nan)
        try:
            self.network.load_state_dict(state)
        except (AssertionError, ValueError) as error:  # the error names the unknown tensor
            raise UserError(f"{expected}, found a tensor of another network: {brief(str(error))}") from error
        except Exception as error:  # a wrong shape: OFA's loader raises many kinds of exceptions
            reason = str(error).partition("\n")[2] or str(error)
            raise UserError(f"{expected}, found {type(error).__name__}: {one_line(reason, 200)}") from error
        missing = [name for name, value in own.items() if value.isnan().any()]
        if missing:
            found = f"{len(own) - len(missing)} of its {len(own)} tensors, without {', '.join(missing[:3])}"
            raise UserError(f"{expected}, found {found}{', ...' if len(missing) > 3 else ''}")
        if len(given) > len(own):
            raise UserError(
                f"{expected}, found {len(given) - len(own)} tensors twice, under two of OFA's names"
            )

    def activate(self, config: Mapping[str, Any]) -> None:
        """Make an architecture the supernet's active subnet."""
        self.network.set_active_subnet(
            **{key: list(value) for key, value in config.items() if key != "image_size"}
        )

    def materialise(self, config: Mapping[str, Any]) -> nn.Module:
        """Return the architecture as a network of its own, with the supernet's weights, in evaluation
        mode.
        """
        self.activate(config)
        subnet: nn.Module = self.network.get_active_subnet(preserve_weight=True)
        return subnet.eval()

    def recalibrate(self, subnet: nn.Module, batches: Iterable[torch.Tensor]) -> None:
        """Set the batch normalisation of a materialised subnet from images (B, 3, r, r), with OFA's
        ``set_running_statistics``.
        """
        try:
            set_running_statistics(subnet, ((images, None) for images in batches))
        finally:
            DynamicBatchNorm2d.SET_RUNNING_STATISTICS = False  # OFA leaves it set if an image cannot be read

    def describe(self, config: Mapping[str, Any]) -> str:
        """Return the architecture layer by layer, as OFA's ``module_str`` prints it."""
        self.activate(config)
        return str(self.network.module_str)


def n_parameters(module: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def build_layer(layer: Layer) -> nn.Module:
    """Build one layer alone: OFA's own module of its static subnets, with random weights, in evaluation
    mode.
    """
    width_in, width_out = layer.width_in, layer.width_out
    if layer.kind == "max_pool":
        return nn.MaxPool2d(layer.kernel, layer.stride, padding=1)
    if layer.kind == "mean_pool":
        pool: nn.Module = MyGlobalAvgPool2d(keep_dim=True)
        return pool
    shape: dict[str, Any] = {
        "kernel_size": layer.kernel,
        "stride": layer.stride,
        "act_func": layer.activation,
    }
    module: nn.Module
    if layer.kind == "linear":
        module = LinearLayer(width_in, width_out)
    elif layer.kind == "bottleneck":
        module = ResNetBottleneckBlock(width_in, width_out, mid_channels=layer.width_mid, **shape)
    else:
        shortcut = IdentityLayer(width_in, width_in) if layer.shortcut else None
        if layer.kind == "conv":
            module = ConvLayer(width_in, width_out, use_bn=layer.norm, **shape)
            module = ResidualBlock(module, shortcut) if layer.shortcut else module
        else:
            expand = 1 if layer.width_mid == layer.width_in else layer.width_mid / layer.width_in
            middle = {"expand_ratio": expand, "mid_channels": layer.width_mid, "use_se": layer.squeeze}
            module = ResidualBlock(MBConvLayer(width_in, width_out, **middle, **shape), shortcut)
    return module.eval()
