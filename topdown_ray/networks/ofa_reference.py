"""Recompute the accuracy, latency, MACs, parameters and genes of an architecture with OFA's own classes.

Nothing here uses this project's encodings, terms or networks. ``ofa.tutorial.AccuracyPredictor`` and
``ofa.nas.accuracy_predictor`` encode and predict, the arithmetic of ``ofa.tutorial.LatencyTable`` adds up
latencies, and the models of ``ofa.nas.efficiency_predictor`` count MACs on the networks of ``ofa.model_zoo``.
Parameters are counted, and measured tables are added up, over the layers in those networks' descriptions of
their active subnets. Genes are positions in those networks' lists of choices. The file of each space names
the classes of OFA that read it (:class:`topdown_ray.spaces.space.Reference`).
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ofa.nas.accuracy_predictor
import ofa.nas.efficiency_predictor.latency_lookup_table
import ofa.tutorial.accuracy_predictor
import ofa.tutorial.latency_table
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
import yaml
from ofa.model_zoo import ofa_net
from ofa.utils.layers import set_layer_from_config

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.files import data
from topdown_ray.spaces import latency_table, ofa_tables
from topdown_ray.spaces.layers import Layer, live_values
from topdown_ray.spaces.predictor_files import in_order
from topdown_ray.spaces.registry import SPACES, notebook_space
from topdown_ray.spaces.space import Reference, Space

Config = dict[str, Any]


def _reference(space: str) -> Reference:
    """Return how OFA's classes read a space."""
    return SPACES[space].traits.reference


@functools.cache
def _network(space: str) -> Any:
    """Return OFA's supernet of a space, with random weights."""
    return ofa_net(_reference(space).network, pretrained=False)


def macs_of(space: str) -> Callable[[Config], float]:
    """Return the MACs of an architecture in 1e6, by OFA's own rule."""
    model = getattr(ofa.nas.efficiency_predictor, _reference(space).macs_model)
    count = model(_network(space)).get_efficiency
    return lambda config: float(count(config))


def parameters_of(space: str) -> Callable[[Config], float]:
    """Return the trainable parameters of an architecture in 1e6, counted over the layers that OFA builds from
    the description of its subnet.

    OFA loads a subnet in the same way (``build_from_config``). Layers that subnets share are built once.
    """
    describe = active_network(space)

    def of_layer(layer: Config) -> int:
        # a residual block whose shortcut is the identity
        return _layer_parameters(json.dumps(layer.get("conv", layer)))

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
    """Return the genes of an architecture: the position of each value in the list of choices of OFA's
    network, and 0 in blocks that are switched off.
    """
    return functools.partial(_reference(space).genes, _network(space))


def latency_of(cost: str, space: str, sha256: str) -> Callable[[Config], float]:
    """Return the milliseconds of an architecture by the table that the rows name. Raises UserError if the
    table is a different one.
    """
    source = latency_table.source_of(cost, SPACES[space])
    if source is not None:
        return measured_latency(source, space, sha256)
    files = _table_files(cost, SPACES[space])
    _check_tables(cost, files, sha256)
    read = _reference(space).latency
    if read is None:
        raise UserError(f"cost: expected a table that OFA's classes read for {space}, found {cost!r}")
    tables = {resolution: yaml.safe_load(path.read_text()) for resolution, path in files.items()}
    return read(ofa, tables, active_network(space))


def active_network(space: str) -> Callable[[Config], Config]:
    """Return OFA's description of an architecture's subnet, layer by layer."""
    network = _network(space)

    def describe(config: Config) -> Config:
        network.set_active_subnet(**{key: value for key, value in config.items() if key != "image_size"})
        description: Config = network.get_active_net_config()
        return description

    return describe


_LayerKey = tuple[Any, ...]  # the columns of a measured table before its numbers


def measured_latency(source: latency_table.Source, space: str, sha256: str) -> Callable[[Config], float]:
    """Return the sum over the layers of OFA's own subnet, each looked up in the measured table."""
    try:
        if source.path.suffix == ".csv":
            frame = pd.read_csv(source.path, keep_default_na=False, dtype={"ms": str})
            # numbers are read by Python, because pandas' reading differs in the last bit
            frame["median_ms"] = frame.pop("ms").map(float)
            about: dict[str, Any] = {"space": space}
        else:
            frame = pd.read_parquet(source.path)
            about = json.loads(pq.read_schema(source.path).metadata[b"topdown_ray_latency"])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(
            f"{source.path}: expected the table that the rows were computed with, found no readable table"
        ) from error
    numbers = list(frame.columns).index("median_ms")
    keys = [tuple(row) for row in frame.iloc[:, :numbers].to_numpy(dtype=object).tolist()]
    ms: dict[_LayerKey, float] = dict(zip(keys, frame["median_ms"].tolist(), strict=True))
    offset, slope = (about["check"]["offset_ms"], about["check"]["slope"]) if source.corrected else (0.0, 1.0)
    lines = [",".join(str(part) for part in (*key, ms[key])) for key in sorted(ms)]
    lines += [f"({offset}, {slope})"] if source.corrected else []
    found = hashlib.sha256("\n".join([about["space"], *lines]).encode()).hexdigest()
    if found != sha256:
        raise UserError(
            f"{source.path}: expected the table that the rows were computed with, SHA-256 {sha256}, found "
            f"{found}"
        )
    active = active_network(space)
    return lambda config: (
        offset + slope * sum(ms[key] for key in layer_keys(active(config), config["image_size"]))
    )


def peak_activation_of(space: str) -> Callable[[Config], float]:
    """Return the largest sum of live activations of an architecture in 1e6 bytes at float32, over the layers
    of OFA's own subnet.
    """
    active = active_network(space)

    def peak(config: Config) -> float:
        keys = layer_keys(active(config), config["image_size"])
        return max(4e-6 * live_values(Layer(*key)) for key in keys)

    return peak


def layer_keys(net: Config, size: int) -> Iterator[_LayerKey]:
    """Return the layers of a subnet as OFA describes it, in order, for images of this size."""

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


def tutorial_models() -> tuple[Any, Any]:
    """Return the published MobileNetV3 predictor and Note10 table of ``ofa.tutorial``, as the notebook uses
    them.
    """
    predictor = ofa.tutorial.accuracy_predictor.AccuracyPredictor(pretrained=False, device="cpu")
    predictor.model.load_state_dict(_state(assets.find("acc_predictor.pth")))
    classes = ofa.tutorial.latency_table
    table = classes.LatencyTable.__new__(classes.LatencyTable)  # its constructor would download a file
    table.latency_tables = {}
    for resolution, path in ofa_tables.find_published("note10", notebook_space()).items():
        table.latency_tables[resolution] = classes.LatencyEstimator.__new__(classes.LatencyEstimator)
        table.latency_tables[resolution].lut = yaml.safe_load(path.read_text())
    return predictor, table


def _state(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _table_files(cost: str, space: Space) -> dict[int, Path]:
    if cost in space.traits.published.tables:
        return ofa_tables.find_published(cost, space)
    return ofa_tables.files_in(Path(cost), space)


def _check_tables(cost: str, files: Mapping[int, Path], sha256: str) -> None:
    try:
        found = hashlib.sha256(b"".join(path.read_bytes() for path in files.values())).hexdigest()
    except OSError as error:
        raise UserError(
            f"{cost}: expected the tables that the rows were computed with, found no readable file "
            f"({error.strerror})"
        ) from error
    if found != sha256:
        raise UserError(
            f"{cost}: expected the tables that the rows were computed with, SHA-256 {sha256}, found {found}"
        )


def accuracies(predictor: str, space: str, sha256: str, archs: dict[str, Config]) -> dict[str, float]:
    """Return the predicted top-1 of each architecture by the predictor that the rows name. Raises UserError
    if the predictor is a different one.
    """
    path = _predictor_file(predictor, SPACES[space])
    if not path.is_file():
        raise UserError(
            f"{path}: expected the predictor that the rows were computed with, found no such file"
        )
    found = assets.sha256_of(path)
    if found != sha256:
        raise UserError(
            f"{path}: expected the predictor that the rows were computed with, SHA-256 {sha256}, found "
            f"{found}"
        )
    if not archs:
        return {}
    reference = _reference(space)
    with torch.inference_mode():
        if predictor == "published":
            top1 = reference.predictor(ofa, _state(path))
            values = torch.cat([top1(part) for part in _parts(archs.values())])
        else:
            network, base = _perceptron(path)
            n = next(network.parameters()).shape[1]  # inputs
            encoded = [reference.features(ofa, config, n) for config in archs.values()]
            values = network(torch.stack(encoded)).view(-1) + base
    return dict(zip(archs, values.double().tolist(), strict=True))


def _predictor_file(predictor: str, space: Space) -> Path:
    trained_on = space.traits.predictor_space
    if predictor == "published":
        return assets.find(SPACES[trained_on].traits.published.predictor or "")
    return data(f"embedded_{trained_on}.safetensors") if predictor == "embedded" else Path(predictor)


def _parts(items: Iterable[Config], size: int = 1000) -> list[list[Config]]:
    everything = list(items)
    return [everything[start : start + size] for start in range(0, len(everything), size)]


def _perceptron(path: Path) -> tuple[torch.nn.Sequential, float]:
    """Return a checkpoint of linear layers with ReLU between them as plain torch, and the accuracy it adds to
    its output.
    """
    if path.suffix == ".safetensors":
        state = dict(sorted(safetensors.torch.load_file(path).items(), key=lambda item: in_order(item[0])))
    else:
        state = _state(path)
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
