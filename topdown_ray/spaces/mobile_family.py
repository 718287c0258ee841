"""Define the common parts of the MobileNet family's spaces.

Their stages consist of inverted-bottleneck blocks. Kernels, expand ratios and the number of blocks are
searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from topdown_ray.errors import UserError
from topdown_ray.spaces.layers import N_CLASSES, Joined, Layer, OfLayer, make_divisible, strided
from topdown_ray.spaces.space import (
    Block,
    Config,
    Encoding,
    Gene,
    MutationGroup,
    Space,
    Traits,
)
from topdown_ray.spaces.terms import Term, tabulate

if TYPE_CHECKING:
    import torch

KERNELS, EXPANDS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
RESOLUTIONS = (160, 176, 192, 208, 224)


@dataclass(frozen=True)
class Frame:
    """A supernet of the family: its channels, and the layers around the searched blocks."""

    base_widths: tuple[int, ...]  # per stage; like all channels here, at width multiplier 1
    base_first_conv: int
    base_first_block: int
    base_final: tuple[int, ...]  # 1x1 layers after the last block
    multiplier: float  # of the published network
    strides: tuple[int, ...]  # per stage
    squeeze: tuple[bool, ...]  # per stage
    h_swish: tuple[bool, ...]  # per stage
    outer: str  # the activation of the first convolution and of the final layers
    inner: str  # of blocks without h_swish
    pool_after: int = 1  # number of final layers before the global pooling
    single_block_stages: int = 0  # stages of exactly one block, after the others


@dataclass(frozen=True)
class Channels:
    """The channels of a supernet. ``width`` is relative to the published network."""

    widths: tuple[int, ...]  # per stage
    first_conv: int
    first_block: int
    final: tuple[int, ...]

    @classmethod
    def of(cls, frame: Frame, width: float = 1.0) -> Channels:
        """Compute the channels, rounded as in OFA's networks."""

        def scaled(base: int) -> int:
            return make_divisible(base * (frame.multiplier * width))

        return cls(
            tuple(map(scaled, frame.base_widths)),
            scaled(frame.base_first_conv),
            scaled(frame.base_first_block),
            tuple(map(scaled, frame.base_final)),
        )


def mobile_space(name: str, network: str, frame: Frame, traits: Traits) -> Space:
    """Make a space of the family: stages of 2 to 4 inverted-bottleneck blocks, then stages of one block."""
    stages = len(frame.base_widths) - frame.single_block_stages
    places = [(stage, position) for stage in range(stages) for position in range(max(DEPTHS))]
    places += [(stage, 0) for stage in range(stages, len(frame.base_widths))]
    n = len(places)
    genes = _genes(places, stages)
    blocks = [
        Block(
            stage=stage,
            position=position,
            stride=frame.strides[stage] if position == 0 else 1,
            depth=2 * n + stage if stage < stages else -1,
            expand=n + i,
            kernel=i,
        )
        for i, (stage, position) in enumerate(places)
    ]
    groups = [MutationGroup((len(genes) - 1,))]
    groups += [MutationGroup((i, n + i)) for i in range(n)]
    groups += [MutationGroup((2 * n + stage,)) for stage in range(stages)]
    single = frame.single_block_stages
    return Space(
        name=name,
        network=network,
        genes=tuple(genes),
        blocks=tuple(blocks),
        widths=tuple((width,) for width in Channels.of(frame).widths),
        prune_kinds=(("kernel",), ("depth",), ("expand",)),
        mutation_groups=tuple(groups),
        fixed=(("d", (1,) * single),) if single else (),
        provides=traits,
    )


def _genes(places: Sequence[tuple[int, int]], stages: int) -> list[Gene]:
    """Kernels and expand ratios of all blocks, depths of the searched stages, the resolution."""
    n = len(places)

    def of_block(kind: str, key: str, choices: tuple[float, ...]) -> list[Gene]:
        return [
            Gene(
                kind,
                key,
                i,
                choices,
                stage,
                depth_gene=2 * n + stage if position >= min(DEPTHS) else -1,
                minimum_depth=max(0, position - 1),
            )
            for i, (stage, position) in enumerate(places)
        ]

    return [
        *of_block("kernel", "ks", KERNELS),
        *of_block("expand", "e", EXPANDS),
        *(Gene("depth", "d", stage, DEPTHS, stage) for stage in range(stages)),
        Gene("resolution", "image_size", 0, RESOLUTIONS),
    ]


# --- terms --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MobileBlock:
    """An inverted-bottleneck block: feature-map sizes (pixels), channels, and its own choices."""

    block: Block
    resolution: int
    size_in: int
    size_out: int
    width_in: int
    width_out: int
    kernel: int
    expand: int


OfBlock = Callable[[MobileBlock], float]


def _terms(
    space: Space, channels: Channels, around: Callable[[int, int], float], of_block: OfBlock
) -> list[Term]:
    """``around(resolution, last size)`` plus ``of_block`` of every active block."""
    sizes = {r: space.block_sizes(strided(r, 2)) for r in space.resolutions}

    def outside(r: int) -> float:
        resolution = space.resolutions[r]
        return around(resolution, sizes[resolution][-1][1])

    terms = [tabulate(space.sizes, (space.resolution,), outside)]
    width_in = channels.first_block
    for b, block in enumerate(space.blocks):
        width_out = channels.widths[block.stage]
        shapes = [(r, *sizes[r][b], width_in, width_out) for r in space.resolutions]
        terms.append(_block_term(space, block, shapes, of_block))
        width_in = width_out
    return terms


def _block_term(
    space: Space, block: Block, shapes: list[tuple[int, int, int, int, int]], of_block: OfBlock
) -> Term:
    """A block over resolution, kernel, expand ratio, and depth if depth can switch it off."""
    minimum = space.genes[block.kernel].minimum_depth

    def value(r: int, k: int, e: int, depth: int = minimum) -> float:
        if depth < minimum:
            return 0.0
        return of_block(MobileBlock(block, *shapes[r], KERNELS[k], EXPANDS[e]))

    genes = (space.resolution, block.kernel, block.expand)
    return tabulate(space.sizes, (*genes, block.depth) if minimum else genes, value)


def layer_terms(
    frame: Frame,
    space: Space,
    of_layer: OfLayer,
    width: float = 1.0,
    n_classes: int = N_CLASSES,
    joined: Joined = sum,
) -> list[Term]:
    """Return terms whose sum is ``of_layer`` summed over all layers of an architecture; with ``joined=max``,
    terms whose maximum is the maximum of ``of_layer``.
    """
    channels = Channels.of(frame, width)

    def around(resolution: int, last: int) -> float:
        layers = _outer_layers(frame, channels, resolution, last, n_classes)
        return joined(of_layer(layer, resolution) for layer in layers)

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
            activation="h_swish" if frame.h_swish[stage] else frame.inner,
            norm=True,
            squeeze=frame.squeeze[stage],
            shortcut=x.block.stride == 1 and x.width_in == x.width_out,
        )
        return of_layer(layer, x.resolution)

    return _terms(space, channels, around, of_block)


def _outer_layers(
    frame: Frame, channels: Channels, resolution: int, last: int, n_classes: int
) -> list[Layer]:
    """The layers before the searched blocks, and those after them, where the maps have the size ``last``."""
    half, conv, first = strided(resolution, 2), channels.first_conv, channels.first_block
    layers = [
        Layer("conv", resolution, half, 3, 0, conv, 3, 2, frame.outer, norm=True),
        Layer("mbconv", half, half, conv, conv, first, 3, 1, frame.inner, norm=True, shortcut=conv == first),
    ]
    size, width = last, channels.widths[-1]
    for i, out in enumerate(channels.final):
        layers.append(Layer("conv", size, size, width, 0, out, 1, 1, frame.outer, norm=i < frame.pool_after))
        width = out
        if i + 1 == frame.pool_after:
            layers.append(Layer("mean_pool", size, 1, width, 0, width))
            size = 1
    return [*layers, Layer("linear", 1, 1, width, 0, n_classes)]


def layer_names(frame: Frame, space: Space, genes: Sequence[int]) -> list[str]:
    """Return the layers of one architecture as the ``module_str`` of OFA's networks prints them."""
    channels = Channels.of(frame)
    outer, shortcut = frame.outer.upper(), "Identity" if channels.first_conv == channels.first_block else None
    names = [
        f"3x3_Conv_O{channels.first_conv}_{outer}_BN",
        f"(3x3_MBConv1_{frame.inner.upper()}_O{channels.first_block}_BN, {shortcut})",
    ]
    width_in = channels.first_block
    for block in space.blocks:
        if block.depth >= 0 and genes[block.depth] < space.genes[block.kernel].minimum_depth:
            continue
        width, squeeze = channels.widths[block.stage], "SE" if frame.squeeze[block.stage] else ""
        expand, kernel = EXPANDS[genes[block.expand]], KERNELS[genes[block.kernel]]
        shortcut = "Identity" if block.stride == 1 and width == width_in else None
        names.append(f"({squeeze}(O{width}, E{expand:.1f}, K{kernel}), {shortcut})")
        width_in = width
    for i, width in enumerate(channels.final):
        names.append(f"1x1_Conv_O{width}_{outer}{'_BN' if i < frame.pool_after else ''}")
    return [*names, f"{channels.final[-1]}x{N_CLASSES}_Linear"]


def mac_terms(frame: Frame, space: Space, width: float, n_classes: int) -> list[Term]:
    """Return terms of single multiply-accumulates by OFA's rule
    (``MBv3LatencyTable.count_flops_given_config`` and ProxylessNAS's): squeeze-and-excite layers count,
    activations and norms do not.
    """
    channels = Channels.of(frame, width)

    def around(resolution: int, last: int) -> float:
        half = strided(resolution, 2)
        total = half**2 * 3 * channels.first_conv * 9
        total += half**2 * channels.first_conv * (9 + channels.first_block)
        width_in = channels.widths[-1]
        for layer, out in enumerate(channels.final):
            total += (last**2 if layer < frame.pool_after else 1) * width_in * out
            width_in = out
        return total + width_in * n_classes

    def of_block(x: MobileBlock) -> float:
        middle = x.width_in * x.expand
        total = x.size_in**2 * x.width_in * middle
        total += x.size_out**2 * middle * (x.kernel**2 + x.width_out)
        if frame.squeeze[x.block.stage]:
            total += 2 * middle * make_divisible(middle // 4)
        return total

    return _terms(space, channels, around, of_block)


def shape_in_words(layer: Layer) -> str:
    """Return the part of a name in OFA's tables with a layer's sizes and channels."""
    x = layer
    return f"input:{x.size_in}x{x.size_in}x{x.width_in}-output:{x.size_out}x{x.size_out}x{x.width_out}"


def convolution_entry(layer: Layer) -> str:
    """Return the name of a convolution's entry in a latency table of OFA's published form."""
    name = "Conv" if layer.width_in == 3 else "Conv_1" if layer.norm else "Conv_2"
    return f"{name}-{shape_in_words(layer)}"


# --- predictors ---------------------------------------------------------------------------------------------


def encoding(space: Space, predictor_space: Space) -> Encoding:
    """Return the layout of ``ofa.tutorial.AccuracyPredictor.spec2feats``: kernels, expand ratios, then
    resolutions from 112 in steps of 16.

    A predictor for fewer blocks reads only the first ones: MobileNetV3's predictor reads 20 of ProxylessNAS's
    21 blocks."""
    known = len(predictor_space.blocks)
    n = min(known, len(space.blocks))
    lowest = int(space.genes[space.resolution].choices[0])
    first = []
    for gene in space.genes:
        if gene.kind in ("kernel", "expand") and gene.position < n:
            first.append(3 * gene.position + (3 * known if gene.kind == "expand" else 0))
        elif gene.kind == "resolution":
            first.append(6 * known + (lowest - 112) // 16)
        else:
            first.append(-1)
    return Encoding(6 * known + 8, tuple(first))


# --- OFA's network ------------------------------------------------------------------------------------------


def choices(n_classes: int) -> dict[str, Any]:
    """Return the arguments of the family's constructors in OFA, except the width."""
    return {
        "dropout_rate": 0,
        "n_classes": n_classes,
        "ks_list": list(KERNELS),
        "expand_ratio_list": list(EXPANDS),
        "depth_list": list(DEPTHS),
    }


# --- OFA's own reading, for ``verify``: it does not use the functions above ---------------------------------

_REFERENCE_RESOLUTIONS = [160, 176, 192, 208, 224]


def reference_genes(network: Any, config: Config) -> list[int]:
    """Return each value's place in the lists of choices of OFA's network, with 0 for inactive blocks."""
    network.set_active_subnet(ks=config["ks"], e=config["e"], d=config["d"])
    stages = zip(network.block_group_info, network.runtime_depth, strict=True)
    off = [index for blocks, depth in stages for index in blocks[depth:]]  # blocks[0] is not searched
    kernels = [0 if 1 + i in off else network.ks_list.index(kernel) for i, kernel in enumerate(config["ks"])]
    expands = [
        0 if 1 + i in off else network.expand_ratio_list.index(ratio) for i, ratio in enumerate(config["e"])
    ]
    # ProxylessNAS's sixth stage is one block
    depths = [network.depth_list.index(depth) for depth in config["d"][:5]]
    return [*kernels, *expands, *depths, _REFERENCE_RESOLUTIONS.index(config["image_size"])]


def tutorial_form(config: Config) -> Config:
    """Return an architecture as the dictionary of ``ofa.tutorial``, whose predictor reads the first 20 blocks
    of a ProxylessNAS architecture.
    """
    return {
        "wid": None,
        "ks": config["ks"][:20],
        "e": config["e"][:20],
        "d": config["d"][:5],
        "r": [config["image_size"]],
    }


def reference_predictor(
    ofa: Any, state: Mapping[str, torch.Tensor]
) -> Callable[[list[Config]], torch.Tensor]:
    """Return ``ofa.tutorial``'s predictor with these weights."""
    predictor = ofa.tutorial.accuracy_predictor.AccuracyPredictor(pretrained=False, device="cpu")
    predictor.model.load_state_dict(state)

    def top1(configs: list[Config]) -> torch.Tensor:
        found: torch.Tensor = predictor.predict_accuracy([tutorial_form(config) for config in configs])
        return found.view(-1)

    return top1


def reference_features(ofa: Any, config: Config, n_features: int) -> torch.Tensor:
    """Return ``ofa.tutorial``'s features. For a predictor of 21 blocks, ProxylessNAS's last block follows the
    other 20 in kernels and in expand ratios.
    """
    form = tutorial_form(config)
    encoded: torch.Tensor = ofa.tutorial.accuracy_predictor.AccuracyPredictor.spec2feats(
        form["ks"], form["e"], form["d"], form["r"][0]
    )
    if n_features == len(encoded):
        return encoded
    if len(config["ks"]) != 21 or n_features != len(encoded) + 6:
        raise UserError(
            f"predictor: expected {len(encoded)} inputs for {len(config['ks'])} blocks, found {n_features}"
        )
    import torch

    kernel = torch.tensor([float(config["ks"][20] == choice) for choice in (3, 5, 7)])
    expand = torch.tensor([float(config["e"][20] == choice) for choice in (3, 4, 6)])
    return torch.cat([encoded[:60], kernel, encoded[60:120], expand, encoded[120:]])
