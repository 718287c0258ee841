"""Define the space of ResNet50D (``ofa_resnet50``).

It has a stem with an optional block, and four stages of bottleneck blocks with searched widths
(``OFAResNets``). Its costs are not sums over single genes, because the first block of a stage depends on the
previous stage's width, and the stem depends on both its widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from topdown_ray.errors import UserError
from topdown_ray.spaces.layers import N_CLASSES, Joined, Layer, OfLayer, make_divisible, strided
from topdown_ray.spaces.space import (
    Block,
    Config,
    Demo,
    Encoding,
    Gene,
    MutationGroup,
    Published,
    Reference,
    Space,
    Traits,
)
from topdown_ray.spaces.terms import Term, tabulate

if TYPE_CHECKING:
    import torch

_NETWORK = "ofa_resnet50"
_BASE_DEPTHS, _DEPTHS = (2, 2, 4, 2), (0, 1, 2)
_EXPANDS, _WIDTH_RATIOS = (0.2, 0.25, 0.35), (0.65, 0.8, 1.0)
_RESOLUTIONS = (128, 144, 160, 176, 192, 224, 240, 256)
_STEM_WIDTH, _STAGE_WIDTHS = 64, (256, 512, 1024, 2048)
_LEAST_WIDTH = 0.06  # below it, a stage is as wide as its input, and OFA cannot cut out subnets

Widths = tuple[tuple[int, ...], ...]  # the stem's inner and outer channels, then each stage's; ascending


def _widths(width: float = 1.0) -> Widths:
    """The channels of a supernet ``width`` times as wide as the published one, as OFA rounds them."""
    ratios = [width * ratio for ratio in _WIDTH_RATIOS]
    stem = tuple(make_divisible(_STEM_WIDTH * ratio) for ratio in ratios)
    return (
        tuple(make_divisible(channels // 2) for channels in stem),
        stem,
        *(tuple(make_divisible(base * ratio) for ratio in ratios) for base in _STAGE_WIDTHS),
    )


def _genes(places: list[tuple[int, int]]) -> list[Gene]:
    """The stem's depth, the depths of the stages, expand ratios of all blocks, widths, the resolution."""
    genes = [Gene("stem_depth", "d", 0, (0, 2))]
    genes += [Gene("depth", "d", 1 + stage, _DEPTHS, stage) for stage in range(len(_BASE_DEPTHS))]
    for i, (stage, position) in enumerate(places):
        minimum = max(0, position - _BASE_DEPTHS[stage] + 1)
        genes.append(Gene("expand", "e", i, _EXPANDS, stage, 1 + stage if minimum else -1, minimum))
    genes += [Gene("width", "w", i, (0, 1, 2), i - 2) for i in range(len(_BASE_DEPTHS) + 2)]
    return [*genes, Gene("resolution", "image_size", 0, _RESOLUTIONS)]


def _space(traits: Traits) -> Space:
    places = [
        (stage, position)
        for stage, base in enumerate(_BASE_DEPTHS)
        for position in range(base + max(_DEPTHS))
    ]
    genes = _genes(places)
    first_expand = 1 + len(_BASE_DEPTHS)
    blocks = [
        Block(stage, position, 2 if position == 0 and stage > 0 else 1, 1 + stage, first_expand + i)
        for i, (stage, position) in enumerate(places)
    ]
    resolution = len(genes) - 1
    return Space(
        name="resnet50d",
        network=_NETWORK,
        genes=tuple(genes),
        blocks=tuple(blocks),
        widths=_widths(),
        prune_kinds=(("width",), ("stem_depth", "depth"), ("expand",)),
        mutation_groups=(
            MutationGroup((resolution,), 0.5),
            *(MutationGroup((g,)) for g in range(resolution)),
        ),
        provides=traits,
    )


# --- terms --------------------------------------------------------------------------------------------------


def _in_front_of_blocks(resolution: int) -> int:
    """The size of the feature map after the stem and the max-pooling."""
    return strided(strided(resolution, 2), 2)


def _block_terms(space: Space, widths: Widths, of_layer: OfLayer) -> list[Term]:
    """Terms of the bottleneck blocks. A stage's first block depends on the previous stage's width."""
    sizes = {r: space.block_sizes(_in_front_of_blocks(r)) for r in space.resolutions}
    return [
        _block_term(space, widths, block, [(r, *sizes[r][b]) for r in space.resolutions], of_layer)
        for b, block in enumerate(space.blocks)
    ]


def _block_term(
    space: Space, widths: Widths, block: Block, sizes: list[tuple[int, int, int]], of_layer: OfLayer
) -> Term:
    before, own = widths[block.stage + 1 : block.stage + 3]
    previous, width = space.indices("width")[block.stage + 1 : block.stage + 3]
    minimum = space.genes[block.expand].minimum_depth

    def bottleneck(r: int, w: int, e: int, width_in: int, shortcut: bool) -> float:
        middle = make_divisible(round(own[w] * _EXPANDS[e]))
        resolution, size_in, size_out = sizes[r]
        shape = (size_in, size_out, width_in, middle, own[w], 3, block.stride, "relu")
        return of_layer(Layer("bottleneck", *shape, norm=True, shortcut=shortcut), resolution)

    def first(r: int, w: int, e: int, p: int) -> float:
        return bottleneck(r, w, e, before[p], shortcut=False)

    def later(r: int, w: int, e: int, depth: int = minimum) -> float:
        return bottleneck(r, w, e, own[w], shortcut=True) if depth >= minimum else 0.0

    genes = (space.resolution, width, block.expand)
    if block.position == 0:
        return tabulate(space.sizes, (*genes, previous), first)
    return tabulate(space.sizes, (*genes, block.depth) if minimum else genes, later)


def layer_terms(
    space: Space, of_layer: OfLayer, width: float = 1.0, n_classes: int = N_CLASSES, joined: Joined = sum
) -> list[Term]:
    """Return terms whose sum is ``of_layer`` summed over all layers of an architecture; with ``joined=max``,
    terms whose maximum is the maximum of ``of_layer``.
    """
    resolutions, widths = space.resolutions, _widths(width)
    stem_depth, width_genes = space.indices("stem_depth")[0], space.indices("width")

    def stem(r: int, d: int, w0: int, w1: int) -> float:
        layers = _stem_layers(resolutions[r], bool(d), widths[0][w0], widths[1][w1])
        return joined(of_layer(layer, resolutions[r]) for layer in layers)

    def head(r: int, w: int) -> float:
        last = space.block_sizes(_in_front_of_blocks(resolutions[r]))[-1][1]
        out = widths[-1][w]
        layers = [Layer("mean_pool", last, 1, out, 0, out), Layer("linear", 1, 1, out, 0, n_classes)]
        return joined(of_layer(layer, resolutions[r]) for layer in layers)

    return [
        tabulate(space.sizes, (space.resolution, stem_depth, *width_genes[:2]), stem),
        tabulate(space.sizes, (space.resolution, width_genes[-1]), head),
        *_block_terms(space, widths, of_layer),
    ]


def _stem_layers(resolution: int, deep: bool, middle: int, out: int) -> list[Layer]:
    half = strided(resolution, 2)
    optional = Layer("conv", half, half, middle, 0, middle, 3, 1, "relu", norm=True, shortcut=True)
    return [
        Layer("conv", resolution, half, 3, 0, middle, 3, 2, "relu", norm=True),
        *([optional] if deep else []),
        Layer("conv", half, half, middle, 0, out, 3, 1, "relu", norm=True),
        Layer("max_pool", half, strided(half, 2), out, 0, out, 3, 2),
    ]


def layer_names(space: Space, genes: Sequence[int]) -> list[str]:
    """Return the layers of one architecture as the ``module_str`` of OFA's network prints them. Its
    classifier has the number of the widest input.
    """
    widths = [of_each[genes[g]] for of_each, g in zip(_widths(), space.indices("width"), strict=True)]
    names = [f"DyConv(O{widths[0]}, K3, S2)"]
    if genes[space.indices("stem_depth")[0]]:
        names.append(f"(DyConv(O{widths[0]}, K3, S1), Identity)")
    names += [f"DyConv(O{widths[1]}, K3, S1)", "max_pooling(ks=3, stride=2)"]
    for block in space.blocks:
        if genes[block.depth] < space.genes[block.expand].minimum_depth:
            continue
        width = widths[block.stage + 2]
        middle = make_divisible(round(width * _EXPANDS[genes[block.expand]]))
        shortcut = "Identity" if block.position else "avgpool_conv"
        names.append(f"(3x3_BottleneckConv_in->{middle}->{width}_S{block.stride}, {shortcut})")
    return [*names, "MyGlobalAvgPool2d(keep_dim=False)", f"DyLinear({_widths()[-1][-1]}, {N_CLASSES})"]


def mac_terms(space: Space, width: float, n_classes: int) -> list[Term]:
    """Return terms of single multiply-accumulates by OFA's rule
    (``ResNet50LatencyTable.count_flops_given_config``).
    """
    widths = _widths(width)
    stem_depth, width_genes = space.indices("stem_depth")[0], space.indices("width")

    def stem(r: int, d: int, w0: int, w1: int) -> float:
        half, middle, out = strided(space.resolutions[r], 2), widths[0][w0], widths[1][w1]
        return half**2 * 9 * middle * (3 + (middle if d else 0) + out)

    return [
        tabulate(space.sizes, (space.resolution, stem_depth, *width_genes[:2]), stem),
        tabulate(space.sizes, (width_genes[-1],), lambda w: float(widths[-1][w] * n_classes)),
        *_block_terms(space, widths, _bottleneck_macs),
    ]


def _bottleneck_macs(x: Layer, resolution: int) -> float:
    total = x.size_in**2 * x.width_in * x.width_mid
    total += x.size_out**2 * x.width_mid * (9 * x.width_mid + x.width_out)
    if not x.shortcut:  # with the down-sampling shortcut
        total += x.size_out**2 * x.width_in * x.width_out
    return float(total)


# --- predictors ---------------------------------------------------------------------------------------------


def encoding(space: Space, predictor_space: Space) -> Encoding:
    """Return the layout of ``ResNetArchEncoder.arch2feature``: resolutions, stem, widths, expand ratios.

    Its bit "skip" is 1 where the supernet does *not* skip the stem's optional block."""
    resolutions = space.sizes[space.resolution]
    first_width, first_expand = resolutions + 2, resolutions + 2 + 3 * len(space.indices("width"))
    offsets = {
        "resolution": 0,
        "stem_depth": resolutions,
        "width": first_width,
        "expand": first_expand,
    }
    first = [offsets[gene.kind] + 3 * gene.position if gene.kind in offsets else -1 for gene in space.genes]
    first[space.indices("stem_depth")[0]] = resolutions
    return Encoding(first_expand + 3 * len(space.indices("expand")), tuple(first))


def is_predictor(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether names and shapes are those of ``ofa.nas``'s predictor with its encoder of this space."""
    n = (len(shapes) - 2) // 2  # hidden layers
    names = {
        "base_acc",
        f"layers.{n}.weight",
        *(f"layers.{i}.0.{part}" for i in range(n) for part in ("weight", "bias")),
    }
    return set(shapes) == names and n > 0 and shapes["layers.0.0.weight"][1:] == (82,)


# --- OFA's network ------------------------------------------------------------------------------------------


def build(networks: Any, width: float, n_classes: int) -> Any:
    """Build OFA's supernet, ``width`` times as wide as the published one. Raises UserError if it is too
    narrow.
    """
    if width < _LEAST_WIDTH:
        raise UserError(f"width: expected at least {_LEAST_WIDTH} for resnet50d, found {width:g}")
    return networks.OFAResNets(
        dropout_rate=0,
        n_classes=n_classes,
        depth_list=list(_DEPTHS),
        expand_ratio_list=list(_EXPANDS),
        width_mult_list=[width * ratio for ratio in _WIDTH_RATIOS],
    )


# --- OFA's own reading, for ``verify``: it does not use the functions above ---------------------------------

_REFERENCE_RESOLUTIONS = [128, 144, 160, 176, 192, 224, 240, 256]


def reference_genes(network: Any, config: Config) -> list[int]:
    """Return each value's place in the lists of choices of OFA's network, with 0 for inactive blocks."""
    network.set_active_subnet(d=config["d"], e=config["e"], w=config["w"])
    stages = zip(network.grouped_block_index, network.runtime_depth, strict=True)
    off = [index for blocks, skipped in stages for index in blocks[len(blocks) - skipped :]]
    stem = [0, max(network.depth_list)].index(config["d"][0])
    depths = [network.depth_list.index(depth) for depth in config["d"][1:]]
    expands = [
        0 if i in off else network.expand_ratio_list.index(ratio) for i, ratio in enumerate(config["e"])
    ]
    widths = [range(len(network.width_mult_list)).index(width) for width in config["w"]]
    return [stem, *depths, *expands, *widths, _REFERENCE_RESOLUTIONS.index(config["image_size"])]


def _reference_encoder(ofa: Any) -> Any:
    return ofa.nas.accuracy_predictor.ResNetArchEncoder(image_size_list=_REFERENCE_RESOLUTIONS)


def reference_predictor(
    ofa: Any, state: Mapping[str, torch.Tensor]
) -> Callable[[list[Config]], torch.Tensor]:
    """Return ``ofa.nas.accuracy_predictor``'s predictor with these weights."""
    model = ofa.nas.accuracy_predictor.AccuracyPredictor(_reference_encoder(ofa), device="cpu")
    model.load_state_dict(state)

    def top1(configs: list[Config]) -> torch.Tensor:
        found: torch.Tensor = model.predict_acc(configs)
        return found.view(-1)

    return top1


def reference_features(ofa: Any, config: Config, n_features: int) -> torch.Tensor:
    """Return the features of ``ResNetArchEncoder``."""
    import torch

    return torch.tensor(_reference_encoder(ofa).arch2feature(config)).float()


RESNET50D = _space(
    Traits(
        title="ResNet50D",
        layer_terms=layer_terms,
        mac_terms=mac_terms,
        encoding=encoding,
        predictor_space="resnet50d",
        build=build,
        layer_names=layer_names,
        published=Published(
            weights="ofa_nets/ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0",
            predictor="ofa_resnet50_acc_predictor.pth",
            is_predictor=is_predictor,
            predictor_range=(0.7545, 0.8299),
        ),
        reference=Reference(
            network="ofa_resnet50",
            macs_model="ResNet50FLOPsModel",
            genes=reference_genes,
            predictor=reference_predictor,
            features=reference_features,
        ),
        demo=Demo(macs=(3500, 2800, 2200, 1600, 1000)),
        embedded_range=(0.7544, 0.8299),
    )
)
