"""What OFA's own classes say of an architecture: accuracy, latency, MACs, parameters, and its genes.

Nothing here uses this project's encodings, terms or networks: ``ofa.tutorial.AccuracyPredictor`` and
``ofa.nas.accuracy_predictor`` encode and predict, ``ofa.tutorial.LatencyTable``'s arithmetic adds latencies
up, ``ofa.nas.efficiency_predictor``'s models count MACs on ``ofa.model_zoo``'s networks. Parameters are
counted, and measured tables added up, over the layers that those networks describe their active subnets as.
Genes are places in those networks' lists of choices."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
import yaml
from ofa.model_zoo import ofa_net
from ofa.nas.accuracy_predictor import AccuracyPredictor as NasAccuracyPredictor
from ofa.nas.accuracy_predictor import ResNetArchEncoder
from ofa.nas.efficiency_predictor import Mbv3FLOPsModel, ProxylessNASFLOPsModel, ResNet50FLOPsModel
from ofa.nas.efficiency_predictor.latency_lookup_table import ProxylessNASLatencyTable
from ofa.tutorial.accuracy_predictor import AccuracyPredictor
from ofa.tutorial.latency_table import LatencyEstimator, LatencyTable
from ofa.utils.layers import set_layer_from_config

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.files import data
from topdown_ray.spaces import latency_table
from topdown_ray.spaces.predictor import in_order
from topdown_ray.spaces.space import SPACES

Config = dict[str, Any]

_NETWORKS: dict[str, tuple[str, Any]] = {
    "mobilenet_v3": ("ofa_mbv3_d234_e346_k357_w1.2", Mbv3FLOPsModel),
    "proxyless": ("ofa_proxyless_d234_e346_k357_w1.3", ProxylessNASFLOPsModel),
    "resnet50d": ("ofa_resnet50", ResNet50FLOPsModel),
}
_MOBILE_RESOLUTIONS = [160, 176, 192, 208, 224]
_RESNET_RESOLUTIONS = [128, 144, 160, 176, 192, 224, 240, 256]


@functools.cache
def _network(space: str) -> Any:
    """OFA's supernet of a space, with random weights."""
    return ofa_net(_NETWORKS[space][0], pretrained=False)


def macs_of(space: str) -> Callable[[Config], float]:
    """The MACs of an architecture in 1e6, by OFA's own rule."""
    count = _NETWORKS[space][1](_network(space)).get_efficiency
    return lambda config: float(count(config))


def parameters_of(space: str) -> Callable[[Config], float]:
    """The trainable parameters of an architecture in 1e6: those of the layers that OFA builds from its
    subnet's description.

    That is how OFA loads a subnet (``build_from_config``); layers that subnets share are built once.
    """
    describe = active_network(space)

    def of_layer(layer: Config) -> int:
        return _layer_parameters(
            json.dumps(layer.get("conv", layer))
        )  # of a residual block: its shortcut is the identity

    def of_config(config: Config) -> float:
        net = describe(config)
        single = [
            net[name]
            for name in ("first_conv", "final_expand_layer", "feature_mix_layer", "classifier")
            if name in net
        ]
        return sum(of_layer(layer) for layer in [*single, *net.get("input_stem", []), *net["blocks"]]) / 1e6

    return of_config


@functools.cache
def _layer_parameters(config: str) -> int:
    module = set_layer_from_config(json.loads(config))
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def genes_of(space: str) -> Callable[[Config], list[int]]:
    """The genes of an architecture: each value's place in the list of choices of OFA's network, 0 in blocks
    that are off.
    """
    network = _network(space)

    def of_resnet(config: Config) -> list[int]:
        network.set_active_subnet(d=config["d"], e=config["e"], w=config["w"])
        stages = zip(network.grouped_block_index, network.runtime_depth, strict=True)
        off = [index for blocks, skipped in stages for index in blocks[len(blocks) - skipped :]]
        stem = [0, max(network.depth_list)].index(config["d"][0])
        depths = [network.depth_list.index(depth) for depth in config["d"][1:]]
        expands = [
            0 if i in off else network.expand_ratio_list.index(ratio) for i, ratio in enumerate(config["e"])
        ]
        widths = [range(len(network.width_mult_list)).index(width) for width in config["w"]]
        return [stem, *depths, *expands, *widths, _RESNET_RESOLUTIONS.index(config["image_size"])]

    def of_mobile(config: Config) -> list[int]:
        network.set_active_subnet(ks=config["ks"], e=config["e"], d=config["d"])
        stages = zip(network.block_group_info, network.runtime_depth, strict=True)
        off = [index for blocks, depth in stages for index in blocks[depth:]]  # blocks[0] is not searched
        kernels = [
            0 if 1 + i in off else network.ks_list.index(kernel) for i, kernel in enumerate(config["ks"])
        ]
        expands = [
            0 if 1 + i in off else network.expand_ratio_list.index(ratio)
            for i, ratio in enumerate(config["e"])
        ]
        depths = [
            network.depth_list.index(depth) for depth in config["d"][:5]
        ]  # ProxylessNAS's sixth stage is one block
        return [*kernels, *expands, *depths, _MOBILE_RESOLUTIONS.index(config["image_size"])]

    return of_resnet if space == "resnet50d" else of_mobile


def latency_of(cost: str, space: str, sha256: str) -> Callable[[Config], float]:
    """The milliseconds of an architecture by the table that the rows name. Raises UserError where it is
    another one.
    """
    source = latency_table.source_of(cost, SPACES[space])
    if source is not None:
        return measured_latency(source, space, sha256)
    _check_tables(cost, sha256)
    if space != "proxyless":
        table = _latency_table(cost)
        return lambda config: float(table.predict_efficiency(_tutorial_form(config)))
    tables = {}
    for resolution, path in _table_files(cost).items():
        tables[resolution] = ProxylessNASLatencyTable.__new__(ProxylessNASLatencyTable)
        tables[resolution].lut = yaml.safe_load(path.read_text())
    active = active_network(space)

    def of_config(config: Config) -> float:
        size = config["image_size"]
        return float(tables[size].predict_network_latency_given_config(active(config), size))

    return of_config


def active_network(space: str) -> Callable[[Config], Config]:
    """OFA's description of an architecture's subnet, layer by layer."""
    network = _network(space)

    def describe(config: Config) -> Config:
        network.set_active_subnet(**{key: value for key, value in config.items() if key != "image_size"})
        description: Config = network.get_active_net_config()
        return description

    return describe


_LayerKey = tuple[Any, ...]  # the columns of a measured table in front of its numbers


def measured_latency(source: latency_table.Source, space: str, sha256: str) -> Callable[[Config], float]:
    """The sum over the layers of OFA's own subnet, each looked up in the measured table."""
    try:
        frame = pd.read_parquet(source.path)
        about = json.loads(pq.read_schema(source.path).metadata[b"topdown_ray_latency"])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{source.path}: expected the table of the rows, found no such file") from error
    numbers = list(frame.columns).index("median_ms")
    keys = [tuple(row) for row in frame.iloc[:, :numbers].to_numpy(dtype=object).tolist()]
    ms: dict[_LayerKey, float] = dict(zip(keys, frame["median_ms"].tolist(), strict=True))
    offset, slope = (about["check"]["offset_ms"], about["check"]["slope"]) if source.corrected else (0.0, 1.0)
    lines = [",".join(str(part) for part in (*key, ms[key])) for key in sorted(ms)]
    lines += [f"({offset}, {slope})"] if source.corrected else []
    found = hashlib.sha256("\n".join([about["space"], *lines]).encode()).hexdigest()
    if found != sha256:
        raise UserError(f"{source.path}: expected the table of the rows, SHA-256 {sha256}, found {found}")
    active = active_network(space)
    return lambda config: (
        offset + slope * sum(ms[key] for key in layer_keys(active(config), config["image_size"]))
    )


def layer_keys(net: Config, size: int) -> Iterator[_LayerKey]:
    """The layers of a subnet as OFA describes it, in order, for images of this size."""

    def convolution(layer: Config, shortcut: bool = False) -> _LayerKey:
        shape = (
            size,
            -(-size // layer["stride"]),
            layer["in_channels"],
            0,
            layer["out_channels"],
            layer["kernel_size"],
        )
        return ("conv", *shape, layer["stride"], layer["act_func"], layer["use_bn"], False, shortcut)

    for layer in [net["first_conv"]] if "first_conv" in net else net["input_stem"]:
        yield convolution(layer["conv"], True) if layer["name"] == "ResidualBlock" else convolution(layer)
        size = -(-size // layer.get("stride", 1))
    if "input_stem" in net:
        width = net["input_stem"][-1]["out_channels"]
        yield ("max_pool", size, -(-size // 2), width, 0, width, 3, 2, "", False, False, False)
        size = -(-size // 2)
    for block in net["blocks"]:
        layer = block.get("conv", block)
        inverted = "conv" in block
        stride, width, out = layer["stride"], layer["in_channels"], layer["out_channels"]
        middle = layer["mid_channels"] or width * layer["expand_ratio"]
        squeeze = inverted and layer["use_se"]
        shortcut = block["shortcut"] is not None if inverted else stride == 1 and width == out
        after = -(-size // stride)
        shape = (size, after, width, middle, out, layer["kernel_size"], stride, layer["act_func"])
        yield ("mbconv" if inverted else "bottleneck", *shape, True, squeeze, shortcut)
        size, channels = after, out
    head = [net[name] for name in ("final_expand_layer", "feature_mix_layer") if name in net]
    if head:  # the first of them in front of the pooling
        yield convolution(head[0])
        channels = head[0]["out_channels"]
    yield ("mean_pool", size, 1, channels, 0, channels, 1, 1, "", False, False, False)
    size = 1
    for layer in head[1:]:
        yield convolution(layer)
    classifier = net["classifier"]
    sides = (classifier["in_features"], 0, classifier["out_features"])
    yield ("linear", 1, 1, *sides, 1, 1, "", False, False, False)


def tutorial_models() -> tuple[AccuracyPredictor, LatencyTable]:
    """``ofa.tutorial``'s published MobileNetV3 predictor and Note10 table."""
    return _tutorial_predictor(assets.find("acc_predictor.pth")), _latency_table("note10")


def _tutorial_predictor(path: Path) -> AccuracyPredictor:
    predictor = AccuracyPredictor(pretrained=False, device="cpu")
    predictor.model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return predictor


def _latency_table(cost: str) -> LatencyTable:
    """``ofa.tutorial.LatencyTable`` on local files (its constructor downloads, and calls yaml.load as PyYAML
    6 refuses).
    """
    table = LatencyTable.__new__(LatencyTable)
    table.latency_tables = {}
    for resolution, path in _table_files(cost).items():
        estimator = LatencyEstimator.__new__(LatencyEstimator)
        estimator.lut = yaml.safe_load(path.read_text())
        table.latency_tables[resolution] = estimator
    return table


def _table_files(cost: str) -> dict[int, Path]:
    files = {resolution: f"{resolution}_lookup_table.yaml" for resolution in assets.NOTE10_RESOLUTIONS}
    if cost == "note10":
        return {resolution: assets.find(f"note10/{name}") for resolution, name in files.items()}
    return {resolution: Path(cost) / name for resolution, name in files.items()}


def _check_tables(cost: str, sha256: str) -> None:
    try:
        found = hashlib.sha256(
            b"".join(path.read_bytes() for path in _table_files(cost).values())
        ).hexdigest()
    except OSError as error:
        raise UserError(
            f"{cost}: expected the tables of the rows, found no readable file ({error.strerror})"
        ) from error
    if found != sha256:
        raise UserError(f"{cost}: expected the tables of the rows, SHA-256 {sha256}, found {found}")


def _tutorial_form(config: Config) -> Config:
    """The dictionary of ``ofa.tutorial``; its predictor reads the first 20 blocks of a ProxylessNAS
    architecture.
    """
    return {
        "wid": None,
        "ks": config["ks"][:20],
        "e": config["e"][:20],
        "d": config["d"][:5],
        "r": [config["image_size"]],
    }


def accuracies(predictor: str, space: str, sha256: str, archs: dict[str, Config]) -> dict[str, float]:
    """The predicted top-1 of each architecture by the predictor that the rows name. Raises UserError where it
    is another one.
    """
    resnet = space == "resnet50d"
    if predictor == "published":
        path = assets.find("ofa_resnet50_acc_predictor.pth" if resnet else "acc_predictor.pth")
    elif predictor == "embedded":
        name = "embedded_resnet50d.safetensors" if resnet else "embedded_mobilenet_v3.safetensors"
        path = data(name)
    else:
        path = Path(predictor)
    if not path.is_file():
        raise UserError(f"{path}: expected the predictor of the rows, found no such file")
    found = assets.sha256_of(path)
    if found != sha256:
        raise UserError(f"{path}: expected the predictor of the rows, SHA-256 {sha256}, found {found}")
    if not archs:
        return {}
    encoder = ResNetArchEncoder(image_size_list=_RESNET_RESOLUTIONS)
    with torch.inference_mode():
        if predictor == "published" and resnet:
            model = NasAccuracyPredictor(encoder, device="cpu")
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            values = torch.cat([model.predict_acc(part).view(-1) for part in _parts(archs.values())])
        elif predictor == "published":
            tutorial = _tutorial_predictor(path)
            parts = _parts(_tutorial_form(config) for config in archs.values())
            values = torch.cat([tutorial.predict_accuracy(part).view(-1) for part in parts])
        else:
            network, base = _perceptron(path)
            if resnet:
                encoded = [torch.tensor(encoder.arch2feature(config)).float() for config in archs.values()]
            else:
                whole = space == "proxyless" and bool(
                    network[0].in_features == 134
                )  # its own predictor reads the 21st block as well
                encoded = [_mobile_features(config, whole) for config in archs.values()]
            values = network(torch.stack(encoded)).view(-1) + base
    return dict(zip(archs, values.double().tolist(), strict=True))


def _mobile_features(config: Config, last_block: bool) -> torch.Tensor:
    """``ofa.tutorial``'s features; with ``last_block``, ProxylessNAS's 21st block follows the 20 in kernels
    and expand ratios.
    """
    form = _tutorial_form(config)
    encoded: torch.Tensor = AccuracyPredictor.spec2feats(form["ks"], form["e"], form["d"], form["r"][0])
    if not last_block:
        return encoded
    kernel = torch.tensor([float(config["ks"][20] == choice) for choice in (3, 5, 7)])
    expand = torch.tensor([float(config["e"][20] == choice) for choice in (3, 4, 6)])
    return torch.cat([encoded[:60], kernel, encoded[60:120], expand, encoded[120:]])


def _parts(items: Iterable[Config], size: int = 1000) -> list[list[Config]]:
    everything = list(items)
    return [everything[start : start + size] for start in range(0, len(everything), size)]


def _perceptron(path: Path) -> tuple[torch.nn.Sequential, float]:
    """A checkpoint of linear layers with ReLU between them as plain torch, and the accuracy it adds to its
    output.
    """
    if path.suffix == ".safetensors":
        state = dict(sorted(safetensors.torch.load_file(path).items(), key=lambda item: in_order(item[0])))
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
    layers: list[torch.nn.Module] = []
    for name in [key.removesuffix(".weight") for key in state if key.endswith(".weight")]:
        weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        linear.weight.data = weight.float()
        if bias is not None:
            linear.bias.data = bias.float()
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]), float(state.get("base_acc", torch.zeros(1)))
