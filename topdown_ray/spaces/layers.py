"""The layers that the subnets of a space are made of, as data, and any sum over an architecture's layers as
terms over its genes.

A *layer* is what is timed or looked up as one: a convolution with its norm and activation, an inverted
bottleneck, a bottleneck, a pooling, the classifier. Layers of equal shape are equal wherever they stand.
Source: OFA's networks (``ofa.imagenet_classification.elastic_nn.networks``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from topdown_ray.spaces.space import MOBILENET_V3, PROXYLESS, RESNET50D, Block, Space, make_divisible
from topdown_ray.spaces.terms import Term, tabulate

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


def block_sizes(space: Space, size: int) -> list[tuple[int, int]]:
    """Feature-map sizes (in, out) of every block, from the size in front of the first."""
    sizes = []
    for block in space.blocks:
        sizes.append((size, strided(size, block.stride)))
        size = sizes[-1][1]
    return sizes


def resolutions_of(space: Space) -> list[int]:
    """The input sizes of a space, in pixels."""
    return [int(r) for r in space.genes[space.resolution].choices]


# --- the MobileNet family -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MobileBlock:
    """An inverted-bottleneck block as it runs: feature-map sizes (pixels), channels, and its own choices."""

    block: Block
    resolution: int
    size_in: int
    size_out: int
    width_in: int
    width_out: int
    kernel: int
    expand: int


@dataclass(frozen=True)
class MobileFrame:
    """What surrounds the searched blocks of a MobileNet-family supernet (channels)."""

    first_conv: int
    first_block: int
    final: tuple[int, ...]  # 1x1 layers behind the last block
    pool_after: int  # how many of ``final`` run before the global pooling
    squeeze: tuple[bool, ...]  # per stage
    h_swish: tuple[bool, ...]  # per stage
    activations: tuple[
        str, str, str
    ]  # of the first convolution and the final ones, of the first block, where not h_swish


FRAMES: dict[str, MobileFrame] = {
    MOBILENET_V3.name: MobileFrame(
        first_conv=24,
        first_block=24,
        final=(1152, 1536),
        pool_after=1,
        squeeze=(False, True, False, True, True),
        h_swish=(False, False, True, True, True),
        activations=("h_swish", "relu", "relu"),
    ),
    PROXYLESS.name: MobileFrame(
        first_conv=40,
        first_block=24,
        final=(1664,),
        pool_after=1,
        squeeze=(False,) * 6,
        h_swish=(False,) * 6,
        activations=("relu6", "relu6", "relu6"),
    ),
}


def mobile_terms(
    space: Space,
    first_width: int,
    around: Callable[[int, int], float],
    of_block: Callable[[MobileBlock], float],
) -> list[Term]:
    """Terms of a MobileNet-family cost: ``around(resolution, last size)`` plus ``of_block`` of every active
    block.
    """
    resolutions = resolutions_of(space)
    sizes = {r: block_sizes(space, strided(r, 2)) for r in resolutions}
    terms = [
        tabulate(space, (space.resolution,), lambda r: around(resolutions[r], sizes[resolutions[r]][-1][1]))
    ]
    width_in = first_width
    for b, block in enumerate(space.blocks):
        terms.append(_mobile_block_term(space, block, b, width_in, resolutions, sizes, of_block))
        width_in = space.widths[block.stage][0]
    return terms


def _mobile_block_term(
    space: Space,
    block: Block,
    b: int,
    width_in: int,
    resolutions: list[int],
    sizes: dict[int, list[tuple[int, int]]],
    of_block: Callable[[MobileBlock], float],
) -> Term:
    kernels, expands = space.genes[block.kernel].choices, space.genes[block.expand].choices
    minimum, width_out = space.genes[block.kernel].minimum_depth, space.widths[block.stage][0]

    def value(r: int, k: int, e: int, depth: int = minimum) -> float:
        if depth < minimum:
            return 0.0
        resolution, kernel, expand = resolutions[r], int(kernels[k]), int(expands[e])
        return of_block(
            MobileBlock(block, resolution, *sizes[resolution][b], width_in, width_out, kernel, expand)
        )

    genes = (space.resolution, block.kernel, block.expand)
    return tabulate(space, (*genes, block.depth) if minimum else genes, value)


def _mobile_layer_terms(space: Space, of_layer: OfLayer) -> list[Term]:
    frame = FRAMES[space.name]
    outer, inner, plain = frame.activations

    def around(resolution: int, last: int) -> float:
        half, conv, first = strided(resolution, 2), frame.first_conv, frame.first_block
        layers = [
            Layer("conv", resolution, half, 3, 0, conv, 3, 2, outer, norm=True),
            Layer("mbconv", half, half, conv, conv, first, 3, 1, inner, norm=True, shortcut=conv == first),
        ]
        size, width = last, space.widths[-1][0]
        for i, channels in enumerate(frame.final):
            layers.append(
                Layer("conv", size, size, width, 0, channels, 1, 1, outer, norm=i < frame.pool_after)
            )
            width = channels
            if i + 1 == frame.pool_after:
                layers.append(Layer("mean_pool", size, 1, width, 0, width))
                size = 1
        layers.append(Layer("linear", 1, 1, width, 0, N_CLASSES))
        return sum(of_layer(layer, resolution) for layer in layers)

    def of_block(x: MobileBlock) -> float:
        stage = x.block.stage
        layer = Layer(
            kind="mbconv",
            size_in=x.size_in,
            size_out=x.size_out,
            width_in=x.width_in,
            width_mid=make_divisible(x.width_in * x.expand),
            width_out=x.width_out,
            kernel=x.kernel,
            stride=x.block.stride,
            activation="h_swish" if frame.h_swish[stage] else plain,
            norm=True,
            squeeze=frame.squeeze[stage],
            shortcut=x.block.stride == 1 and x.width_in == x.width_out,
        )
        return of_layer(layer, x.resolution)

    return mobile_terms(space, frame.first_block, around, of_block)


# --- ResNet50D ----------------------------------------------------------------------------------------------


def resnet_block_terms(space: Space, of_layer: OfLayer) -> list[Term]:
    """Terms of the bottleneck blocks: a stage's first block depends on the previous stage's width."""
    resolutions = resolutions_of(space)
    sizes = {r: block_sizes(space, strided(strided(r, 2), 2)) for r in resolutions}  # stem, then max-pooling
    return [
        _resnet_block_term(space, block, [(r, *sizes[r][b]) for r in resolutions], of_layer)
        for b, block in enumerate(space.blocks)
    ]


def _resnet_block_term(
    space: Space, block: Block, sizes: list[tuple[int, int, int]], of_layer: OfLayer
) -> Term:
    expands, widths = space.genes[block.expand].choices, space.widths[block.stage + 2]
    previous, width = space.indices("width")[block.stage + 1 : block.stage + 3]
    minimum = space.genes[block.expand].minimum_depth

    def bottleneck(r: int, w: int, e: int, width_in: int, shortcut: bool) -> float:
        middle = make_divisible(round(widths[w] * expands[e]))
        resolution, size_in, size_out = sizes[r]
        shape = (size_in, size_out, width_in, middle, widths[w], 3, block.stride, "relu")
        return of_layer(Layer("bottleneck", *shape, norm=True, shortcut=shortcut), resolution)

    def first(r: int, w: int, e: int, p: int) -> float:
        return bottleneck(r, w, e, space.widths[block.stage + 1][p], shortcut=False)

    def later(r: int, w: int, e: int, depth: int = minimum) -> float:
        return bottleneck(r, w, e, widths[w], shortcut=True) if depth >= minimum else 0.0

    genes = (space.resolution, width, block.expand)
    if block.position == 0:
        return tabulate(space, (*genes, previous), first)
    return tabulate(space, (*genes, block.depth) if minimum else genes, later)


def _resnet_layer_terms(space: Space, of_layer: OfLayer) -> list[Term]:
    resolutions = resolutions_of(space)
    stem_depth, width_genes = space.indices("stem_depth")[0], space.indices("width")

    def stem(r: int, d: int, w0: int, w1: int) -> float:
        half, middle, out = strided(resolutions[r], 2), space.widths[0][w0], space.widths[1][w1]
        layers = [
            Layer("conv", resolutions[r], half, 3, 0, middle, 3, 2, "relu", norm=True),
            *(
                [Layer("conv", half, half, middle, 0, middle, 3, 1, "relu", norm=True, shortcut=True)]
                if d
                else []
            ),
            Layer("conv", half, half, middle, 0, out, 3, 1, "relu", norm=True),
            Layer("max_pool", half, strided(half, 2), out, 0, out, 3, 2),
        ]
        return sum(of_layer(layer, resolutions[r]) for layer in layers)

    def head(r: int, w: int) -> float:
        last = block_sizes(space, strided(strided(resolutions[r], 2), 2))[-1][1]
        width = space.widths[-1][w]
        layers = [Layer("mean_pool", last, 1, width, 0, width), Layer("linear", 1, 1, width, 0, N_CLASSES)]
        return sum(of_layer(layer, resolutions[r]) for layer in layers)

    return [
        tabulate(space, (space.resolution, stem_depth, *width_genes[:2]), stem),
        tabulate(space, (space.resolution, width_genes[-1]), head),
        *resnet_block_terms(space, of_layer),
    ]


def layer_terms(space: Space, of_layer: OfLayer) -> list[Term]:
    """Terms whose sum is ``of_layer`` summed over all layers of an architecture."""
    return (
        _resnet_layer_terms(space, of_layer)
        if space.name == RESNET50D.name
        else _mobile_layer_terms(space, of_layer)
    )


def distinct_layers(space: Space) -> tuple[Layer, ...]:
    """Every layer that some subnet of the space has, each once, in a fixed order."""
    seen: set[Layer] = set()

    def see(layer: Layer, resolution: int) -> float:
        seen.add(layer)
        return 0.0

    layer_terms(space, see)
    return tuple(sorted(seen))


# --- the entries of published tables ------------------------------------------------------------------------


def published_entry(space: Space, layer: Layer) -> str:
    """The name of a layer's entry in a latency table of OFA's published form; "" for what another entry
    includes.

    Source: ``ofa.nas.efficiency_predictor.latency_lookup_table`` (MobileNetV3, ProxylessNAS; it has no form
    for ResNet50D)."""
    assert space.name in FRAMES
    x, mobile_v3 = layer, space.name == MOBILENET_V3.name
    shape = f"input:{x.size_in}x{x.size_in}x{x.width_in}-output:{x.size_out}x{x.size_out}x{x.width_out}"
    if x.kind == "mbconv":
        expand = x.width_mid if mobile_v3 else x.width_mid // x.width_in
        features = f"-se:{int(x.squeeze)}-hs:{int(x.activation == 'h_swish')}" if mobile_v3 else ""
        choices = f"expand:{expand}-kernel:{x.kernel}-stride:{x.stride}-idskip:{int(x.shortcut)}"
        return f"expanded_conv-{shape}-{choices}{features}"
    if x.kind == "conv":
        name = "Conv" if x.width_in == 3 else "Conv_1" if x.norm else "Conv_2"
        return f"{name}-{shape}"
    if x.kind == "mean_pool":
        return (
            f"AvgPool2D-{shape}"
            if mobile_v3
            else f"Logits-input:{x.size_in}x{x.size_in}x{x.width_in}-output:{N_CLASSES}"
        )
    return (
        f"Logits-input:1x1x{x.width_in}-output:{N_CLASSES}" if mobile_v3 else ""
    )  # ProxylessNAS: with the pooling
