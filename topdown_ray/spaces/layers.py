"""Describe the layers of subnets as data.

A *layer* is a unit that is timed or looked up as a whole: a convolution with its norm and activation, an
inverted bottleneck, a bottleneck, a pooling, or the classifier. Layers of equal shape are equal, regardless
of their position. Source: OFA's networks (``ofa.imagenet_classification.elastic_nn.networks``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

N_CLASSES = 1000
_NORM = 2  # a scale and a shift for each channel


class Layer(NamedTuple):
    """One layer: sizes of the feature maps in pixels, widths in channels. Fields that do not apply are 0, ""
    or False.
    """

    kind: str  # conv, mbconv, bottleneck, max_pool, mean_pool, linear
    size_in: int
    size_out: int
    width_in: int
    width_mid: int
    width_out: int
    kernel: int = 1
    stride: int = 1
    activation: str = ""  # relu, relu6, h_swish
    norm: bool = False  # batch norm after the convolutions
    squeeze: bool = False  # squeeze-and-excite
    shortcut: bool = False  # the unchanged input is added


OfLayer = Callable[[Layer, int], float]  # the value of a layer in a subnet of this resolution
Joined = Callable[[Iterable[float]], float]  # sum, or max


def parameters(layer: Layer) -> int:
    """Return the number of trainable parameters of a layer, 0 for a pooling."""
    x = layer
    if x.kind == "linear":
        return (x.width_in + 1) * x.width_out
    if x.kind == "conv":
        return x.width_in * x.width_out * x.kernel**2 + (_NORM * x.width_out if x.norm else 0)
    if x.kind == "bottleneck":
        total = x.width_mid * (x.width_in + x.width_mid * x.kernel**2 + x.width_out)
        total += _NORM * (2 * x.width_mid + x.width_out)
        return total if x.shortcut else total + (x.width_in + _NORM) * x.width_out
    if x.kind == "mbconv":
        total = x.width_mid * (x.kernel**2 + _NORM) + (x.width_mid + _NORM) * x.width_out
        if x.width_mid != x.width_in:
            total += (x.width_in + _NORM) * x.width_mid
        if x.squeeze:
            squeezed = make_divisible(x.width_mid // 4)
            total += (x.width_mid + 1) * squeezed + (squeezed + 1) * x.width_mid
        return total
    return 0


def live_values(layer: Layer) -> int:
    """Return the largest number of values in memory at once while a layer runs on one image: the input and
    output of one of its convolutions, and the input of the layer while its shortcut needs it.

    Norms and activations work in place. Vectors of squeeze-and-excite layers are not counted."""
    x = layer
    entering, leaving = x.size_in**2 * x.width_in, x.size_out**2 * x.width_out
    if x.kind not in ("mbconv", "bottleneck"):
        return entering + leaving
    before, behind = x.size_in**2 * x.width_mid, x.size_out**2 * x.width_mid
    if x.kind == "bottleneck":  # the shortcut needs its input until the end
        steps = [before, before + behind, behind + leaving, *([] if x.shortcut else [2 * leaving])]
        return entering + max(steps)
    kept = entering if x.shortcut else 0
    if x.width_mid == x.width_in:  # no expansion: the depthwise convolution reads the input
        return max(entering + behind, kept + behind + leaving)
    return max(entering + before, kept + before + behind, kept + behind + leaving)


def strided(size: int, stride: int) -> int:
    """Return the size of the feature map after a layer of this stride."""
    return (size - 1) // stride + 1


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round channels as OFA does (``ofa.utils.make_divisible``): to a multiple of 8 that is at least nine
    tenths of the number.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
