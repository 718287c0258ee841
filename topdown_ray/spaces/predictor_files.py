"""Read predictor checkpoints, and reject files that are not predictors of accuracies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topdown_ray import assets
from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import brief_path
from topdown_ray.spaces.plugged_in import PluginPredictor, plugin_predictor
from topdown_ray.spaces.predictor import Linear, Predictor, encoding
from topdown_ray.spaces.predictor_names import NAMES, PredictorFile, find_file
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space
from topdown_ray.spaces.tiles import one_thread
from topdown_ray.tensors import read_header, read_safetensors, read_torch

RELU = "relu"  # the value of ``activation`` in the metadata of a safetensors file
_PROBED = 1022  # random architectures on which a predictor is tried when it is loaded


#: A predictor of a space: a perceptron, or a user's own function.
AnyPredictor = Predictor | PluginPredictor


def any_predictor(predictor: str, space: Space) -> AnyPredictor:
    """Load a predictor as :func:`load_predictor` does, or a plug-in (``module:object`` or the name of an
    entry point).
    """
    if predictor in NAMES:
        return load_predictor(predictor, space)
    return plugin_predictor(predictor, space) or load_predictor(predictor, space)


def load_predictor(predictor: str, space: Space) -> Predictor:
    """Load the predictor of a space: ``published``, ``embedded``, or the path of a checkpoint. Raises
    UserError.

    No predictor is published for ProxylessNAS. MobileNetV3's reads its architectures, and ``predictor_space``
    records this. Raises UserError if the file is not a perceptron, its activation is not known to be ReLU, or
    its values are not accuracies."""
    return _from_file(find_file(predictor, space), space)


def _from_file(file: PredictorFile, space: Space) -> Predictor:
    name, path, trained_on = file
    where = brief_path(path)
    state, header = _read(path)
    trained_on = header.get("space") or trained_on or space.traits.predictor_space
    if trained_on not in SPACES:
        raise UserError(
            f"{where}: metadata 'space': expected one of {', '.join(SPACES)}, found {brief(trained_on)}"
        )
    layers = _layers(state, where)
    _check_activation(state, header, where)
    expected = encoding(space, SPACES[trained_on]).n_features
    if layers[0].weight.shape[1] != expected:
        found = layers[0].weight.shape[1]
        raise UserError(f"{where}: expected {expected} inputs (a predictor of {trained_on}), found {found}")
    _check_sums(layers, where)
    predictor = Predictor(name, assets.sha256_of(path), space, trained_on, _without_dead_units(layers))
    _check_range(predictor, where)
    return predictor


def _read(path: Path) -> tuple[Mapping[str, torch.Tensor], Mapping[str, str]]:
    """The tensors of a checkpoint and its header (a torch checkpoint has none)."""
    if path.suffix != ".safetensors":
        return read_torch(path, "a torch checkpoint of tensors"), {}
    return read_safetensors(path), read_header(path)


def in_order(key: str) -> list[Any]:
    """Return a key that sorts names of layers by number, 2 before 10, because a safetensors file orders its
    tensors by precision.
    """
    # every second part is a number, which may have more digits than ``int`` accepts
    parts = re.split(r"(\d+)", key)
    return [(len(part.lstrip("0")), part.lstrip("0")) if i % 2 else part for i, part in enumerate(parts)]


def _layers(state: Mapping[str, torch.Tensor], where: str) -> list[Linear]:
    """The linear layers in order, with the names of either of OFA's predictors. ``base_acc`` is added to the
    last bias.
    """
    names = sorted((key.removesuffix(".weight") for key in state if key.endswith(".weight")), key=in_order)
    known = {"base_acc", *(f"{name}.{part}" for name in names for part in ("weight", "bias"))}
    for key, value in state.items():
        if key not in known:
            raise UserError(f"{where}: expected the weights and biases of linear layers, found {brief(key)}")
        if not value.is_floating_point():
            raise UserError(f"{where}: {brief(key)}: expected floating-point numbers, found {value.dtype}")
    layers: list[Linear] = []
    for name in names:
        weight = state[f"{name}.weight"].float().numpy()
        bias = (
            state[f"{name}.bias"].float().numpy()
            if f"{name}.bias" in state
            else np.zeros(weight.shape[:1], np.float32)
        )
        if weight.ndim != 2 or not weight.size or bias.shape != (len(weight),):
            shapes = f"{brief(weight.shape)} and {brief(bias.shape)}"
            raise UserError(f"{where}: {one_line(name, 120)}: expected a matrix and a bias, found {shapes}")
        if layers and weight.shape[1] != len(layers[-1].bias):
            raise UserError(
                f"{where}: {one_line(name, 120)}: expected {len(layers[-1].bias)} inputs, found "
                f"{weight.shape[1]}"
            )
        if not np.isfinite(weight).all() or not np.isfinite(bias).all():
            raise UserError(f"{where}: {one_line(name, 120)}: expected finite numbers, found NaN or infinity")
        layers.append(Linear(weight, bias))
    if len(layers) < 2 or len(layers[-1].bias) != 1:
        shapes = brief([tuple(value.shape) for value in state.values()])
        raise UserError(
            f"{where}: expected two or more linear layers that end in one output, found shapes {shapes}"
        )
    if "base_acc" in state:
        base = state["base_acc"].float().numpy()
        if base.size != 1 or not np.isfinite(base).all():
            raise UserError(
                f"{where}: base_acc: expected one finite number, found {brief(base.ravel()[:3].tolist())}"
            )
        weight, bias = layers[-1]
        layers[-1] = Linear(weight, bias + base.reshape(1))
    return layers


def _check_activation(state: Mapping[str, torch.Tensor], header: Mapping[str, str], where: str) -> None:
    """Raise UserError unless the layers are known to have ReLU between them.

    Tensors do not show their activation. It is known if the header has it, if ``train-predictor`` or
    ``distill_predictor.py`` wrote the file before headers had it, or if names and shapes are those of one of
    OFA's two predictor classes."""
    activation = header.get("activation")
    if activation is not None and activation != RELU:
        raise UserError(f"{where}: metadata 'activation': expected {RELU}, found {brief(activation)}")
    ours = "space" in header and ("normalisation" in header or "distilled_from" in header)
    if activation is None and not ours and not _is_ofas(state):
        raise UserError(
            f"{where}: expected a predictor whose layers are known to have ReLU between them (safetensors "
            f"with metadata 'activation': '{RELU}', or OFA's own layouts), found {brief(sorted(state))} "
            "without this metadata; to use a network with another activation, name it as a plug-in, "
            "module:object"
        )


def _is_ofas(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether names and shapes are those of one of OFA's predictor classes."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    layouts = [space.traits.published.is_predictor for space in SPACES.values()]
    return any(is_predictor(shapes) for is_predictor in layouts if is_predictor is not None)


def _check_sums(layers: Sequence[Linear], where: str) -> None:
    """Raise UserError unless a bound on all sums is within float32, so that no architecture has a NaN or an
    infinite value.
    """
    bound = np.ones(layers[0].weight.shape[1])  # one-hot features
    with np.errstate(all="ignore"):
        for weight, bias in layers:
            bound = np.abs(weight.astype(np.float64)) @ bound + np.abs(bias.astype(np.float64))
            if not bound.max() < np.finfo(np.float32).max:
                raise UserError(
                    f"{where}: expected layers whose sums fit into float32, found sums up to "
                    f"{bound.max():.1g}"
                )


def _check_range(predictor: Predictor, where: str) -> None:
    """Raise UserError unless the smallest, the largest and random architectures have accuracies from 0 to 1.

    A search ends with an error if it finds another value later.
    """
    space = predictor.space
    ends = torch.tensor([[0] * space.G, [size - 1 for size in space.sizes]], dtype=torch.int8)
    with one_thread(), torch.inference_mode():
        top1 = predictor(torch.cat([ends, space.random(_PROBED, 0)]))
    low, high = float(top1.min()), float(top1.max())
    if not 0 <= low <= high <= 1:
        raise UserError(
            f"{where}: expected a predictor of top-1 accuracies as fractions from 0 to 1, found {low:.4g} to "
            f"{high:.4g} on "
            f"{len(top1)} architectures of {space.name}"
        )


def _without_dead_units(layers: Sequence[Linear]) -> tuple[Linear, ...]:
    """The same function with fewer hidden units.

    The published ResNet50D predictor was trained with weight decay until most of its weights vanished: 97 %
    of its largest layer are denormal numbers (below 1.2e-38). In float32, weights below 1e-20 do not change a
    top-1 of about 0.8, but denormal products make a processor hundreds of times slower. Such weights become
    zeros. Hidden units that nothing reads or that can never be positive are removed: 400-400-400 units become
    55-43-153."""
    tiny = 1e-20
    kept = [
        Linear(*(np.where(np.abs(part) < tiny, np.float32(0), part) for part in layer)) for layer in layers
    ]
    for i in range(len(kept) - 1):
        (weight, bias), (reader, reader_bias) = kept[i : i + 2]
        alive = (reader != 0).any(axis=0) & ((weight != 0).any(axis=1) | (bias > 0))
        alive[0] |= not alive.any()  # a layer keeps at least one unit
        kept[i : i + 2] = [Linear(weight[alive], bias[alive]), Linear(reader[:, alive], reader_bias)]
    return tuple(Linear(np.ascontiguousarray(weight), bias) for weight, bias in kept)
