"""OFA supernets: build, materialise a subnet, recalibrate it, describe it, count its parameters and MACs.

With ``ofa_reference`` and ``bench``, the only importer of ofa.

A supernet is built with published weights where they lie on this machine, else with random ones
(:attr:`Supernet.weights` says which); neither the search nor the counts depend on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from ofa.imagenet_classification.elastic_nn.modules.dynamic_op import DynamicBatchNorm2d
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3, OFAProxylessNASNets, OFAResNets
from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics
from ofa.nas.efficiency_predictor import Mbv3FLOPsModel, ProxylessNASFLOPsModel, ResNet50FLOPsModel
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

from topdown_ray import assets
from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import brief_path
from topdown_ray.networks.weights import WEIGHTS, Checkpoint, find_weights
from topdown_ray.spaces.layers import Layer
from topdown_ray.spaces.space import MOBILENET_V3, PROXYLESS, RESNET50D, Config, Space

_MACS_MODELS = {
    MOBILENET_V3.name: Mbv3FLOPsModel,
    PROXYLESS.name: ProxylessNASFLOPsModel,
    RESNET50D.name: ResNet50FLOPsModel,
}
_COUNTER = "num_batches_tracked"


def build(space: Space, width: float = 1.0, n_classes: int = 1000) -> Any:
    """The network that ``ofa.model_zoo.ofa_net`` builds for this space, without its download; ``width`` is
    relative to it.
    """
    common: dict[str, Any] = {"dropout_rate": 0, "n_classes": n_classes}
    if space.name == RESNET50D.name:
        if (
            width < 0.06
        ):  # channels are whole eights: a stage as wide as its input, and OFA cannot cut subnets out
            raise UserError(f"width: expected at least 0.06 for {space.name}, found {width:g}")
        depths, expands, widths = [0, 1, 2], [0.2, 0.25, 0.35], [width * ratio for ratio in (0.65, 0.8, 1.0)]
        return OFAResNets(**common, depth_list=depths, expand_ratio_list=expands, width_mult_list=widths)
    common |= {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
    if space.name == PROXYLESS.name:
        return OFAProxylessNASNets(**common, width_mult=1.3 * width)
    return OFAMobileNetV3(**common, width_mult=1.2 * width)


class Supernet:
    """One OFA supernet in this process; subnets are cut out of it on demand."""

    def __init__(self, space: Space, checkpoint: Checkpoint | None = None):
        """checkpoint: the weights; None: published ones where they lie on this machine, else random ones.

        Raises UserError that names the file unless every tensor of the network is there, finite and of its
        shape."""
        self.space = space
        if checkpoint is None:
            path = assets.local(f"ofa_nets/{WEIGHTS[space.name]}")
            checkpoint = find_weights("random" if path is None else "published", space, allow_random=True)
        description = checkpoint.description
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of random weights: the same ones everywhere
            self.network: Any = build(
                space, description.width, description.n_classes
            ).eval()  # OFA's modules carry no types
        self.weights = checkpoint.name
        if checkpoint.path is not None:
            self._load(checkpoint.state(), brief_path(checkpoint.path))
        self._macs_model = _MACS_MODELS[space.name](self.network)
        self._parameters_of: dict[tuple[Any, ...], int] = {}
        self._counts: dict[tuple[Any, ...], tuple[float, float]] = {}

    def _load(self, state: Mapping[str, torch.Tensor], where: str) -> None:
        """Load weights by OFA's own loader, which renames tensors and asks for none: every one must be there,
        finite, of its shape.

        So the network is filled with NaN first, and what is NaN afterwards was not in the file. The counters
        of batch normalisation may be missing; no output depends on them. Raises UserError."""
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
        except (AssertionError, ValueError) as error:  # the name that it does not know
            raise UserError(f"{expected}, found a tensor of another network: {brief(str(error))}") from error
        except Exception as error:  # a wrong shape; OFA's loader raises many kinds
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
        """The architecture as a network of its own, with the supernet's weights, in evaluation mode."""
        self.activate(config)
        subnet: nn.Module = self.network.get_active_subnet(preserve_weight=True)
        return subnet.eval()

    def recalibrate(self, subnet: nn.Module, batches: Iterable[torch.Tensor]) -> None:
        """Set a materialised subnet's batch normalisation from images (B, 3, r, r), by OFA's
        ``set_running_statistics``.
        """
        try:
            set_running_statistics(subnet, ((images, None) for images in batches))
        finally:
            DynamicBatchNorm2d.SET_RUNNING_STATISTICS = (
                False  # OFA leaves it set when an image cannot be read
            )

    def describe(self, config: Mapping[str, Any]) -> str:
        """The architecture layer by layer, as OFA's ``module_str`` prints it."""
        self.activate(config)
        return str(self.network.module_str)

    def count(self, config: Config) -> tuple[float, float]:
        """(MACs in 1e6, parameters in 1e6) of the real subnet: OFA's MAC rule, and the parameters of its
        materialised layers.

        Layers are materialised once each and remembered: a whole subnet shares nearly all of its layers with
        others."""
        key = tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in sorted(config.items())
        )
        if key not in self._counts:
            macs = float(self._macs_model.get_efficiency(config))  # sets the active subnet
            self._counts[key] = macs, sum(self._layer_parameters()) / 1e6
            if len(self._counts) > 100_000:
                self._counts.pop(next(iter(self._counts)))
        return self._counts[key]

    def _layer_parameters(self) -> Iterator[int]:
        """Parameters of every layer of the active subnet, in the order of OFA's ``get_active_subnet``."""
        network = self.network
        if self.space.name == RESNET50D.name:
            yield self._layer("stem0", network.input_stem[0], 3, network.input_stem[0].active_out_channel)
            channels = network.input_stem[0].active_out_channel
            if not network.input_stem_skipping:
                yield self._layer("stem1", network.input_stem[1].conv, channels, channels)
            yield self._layer(
                "stem2", network.input_stem[2], channels, network.input_stem[2].active_out_channel
            )
            channels = network.input_stem[2].active_out_channel
            for stage, indices in enumerate(network.grouped_block_index):
                for index in indices[: len(indices) - network.runtime_depth[stage]]:
                    block = network.blocks[index]
                    yield self._layer(
                        index, block, channels, block.active_out_channel, block.active_expand_ratio
                    )
                    channels = block.active_out_channel
            yield self._layer("classifier", network.classifier, channels)
            return
        for name in ("first_conv", "final_expand_layer", "feature_mix_layer", "classifier"):
            if hasattr(network, name):
                yield self._whole(name, getattr(network, name))
        yield self._whole("first_block", network.blocks[0])
        channels = network.blocks[0].conv.out_channels
        for stage, indices in enumerate(network.block_group_info):
            for index in indices[: network.runtime_depth[stage]]:
                layer = network.blocks[index].conv
                yield self._layer(index, layer, channels, layer.active_kernel_size, layer.active_expand_ratio)
                channels = layer.active_out_channel

    def _layer(self, name: str | int, layer: Any, channels: int, *choices: float) -> int:
        key = (name, channels, *choices)
        if key not in self._parameters_of:
            self._parameters_of[key] = n_parameters(layer.get_active_subnet(channels, True))
        return self._parameters_of[key]

    def _whole(self, name: str, layer: nn.Module) -> int:
        if (name,) not in self._parameters_of:
            self._parameters_of[(name,)] = n_parameters(layer)
        return self._parameters_of[(name,)]


def n_parameters(module: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def build_layer(layer: Layer) -> nn.Module:
    """One layer alone, OFA's own module as its static subnets have it, with random weights, in evaluation
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
