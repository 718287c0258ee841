"""The layers that subnets are made of, as data.

A *layer* is what is timed or looked up as one: a convolution with its norm and activation, an inverted
bottleneck, a bottleneck, a pooling, the classifier. Layers of equal shape are equal wherever they stand.
Source: OFA's networks (``ofa.imagenet_classification.elastic_nn.networks``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

N_CLASSES = 1000


class Layer(NamedTuple):
    """A layer as it runs: sizes of the feature maps in pixels, widths in channels; what does not apply is 0,
    "" or False.
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
    norm: bool = False  # batch norm behind the convolutions
    squeeze: bool = False  # squeeze-and-excite
    shortcut: bool = False  # the input is added as it is


OfLayer = Callable[[Layer, int], float]  # of a layer in a subnet of this resolution


def strided(size: int, stride: int) -> int:
    """The size of the feature map behind a layer of this stride."""
    return (size - 1) // stride + 1


def make_divisible(channels: float, divisor: int = 8) -> int:
    """OFA's channel rounding (``ofa.utils.make_divisible``): to a multiple of 8 that is not below nine
    tenths.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
