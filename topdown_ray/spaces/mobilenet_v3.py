"""Define the space of MobileNetV3 of width 1.2 (``ofa_mbv3_d234_e346_k357_w1.2``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from topdown_ray.spaces import mobile_family
from topdown_ray.spaces.layers import N_CLASSES, Layer
from topdown_ray.spaces.space import Config, Demo, Published, Reference, Traits

_NETWORK = "ofa_mbv3_d234_e346_k357_w1.2"

# channels at width multiplier 1, strides and activations: ``OFAMobileNetV3``
_FRAME = mobile_family.Frame(
    base_widths=(24, 40, 80, 112, 160),
    base_first_conv=16,
    base_first_block=16,
    base_final=(960, 1280),
    multiplier=1.2,
    strides=(2, 2, 2, 1, 2),
    squeeze=(False, True, False, True, True),
    h_swish=(False, False, True, True, True),
    outer="h_swish",
    inner="relu",
)


def build(networks: Any, width: float, n_classes: int) -> Any:
    """Build OFA's supernet, ``width`` times as wide as the published one."""
    return networks.OFAMobileNetV3(**mobile_family.choices(n_classes), width_mult=_FRAME.multiplier * width)


def table_entry(layer: Layer) -> str:
    """Return the name of a layer's entry in a latency table of OFA's form (``MBv3LatencyTable``)."""
    x, shape = layer, mobile_family.shape_in_words(layer)
    if x.kind == "mbconv":
        choices = f"expand:{x.width_mid}-kernel:{x.kernel}-stride:{x.stride}-idskip:{int(x.shortcut)}"
        return f"expanded_conv-{shape}-{choices}-se:{int(x.squeeze)}-hs:{int(x.activation == 'h_swish')}"
    if x.kind == "conv":
        return mobile_family.convolution_entry(layer)
    if x.kind == "mean_pool":
        return f"AvgPool2D-{shape}"
    return f"Logits-input:1x1x{x.width_in}-output:{N_CLASSES}"


def is_predictor(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether names and shapes are those of ``ofa.tutorial``'s predictor, which has only one size."""
    layers = [(128, 400), (400, 400), (400, 400), (400, 1)]
    return shapes == {
        key: shape
        for i, (ins, outs) in enumerate(layers)
        for key, shape in ((f"{2 * i}.weight", (outs, ins)), (f"{2 * i}.bias", (outs,)))
    }


def reference_latency(
    ofa: Any, tables: Mapping[int, Mapping[str, Any]], describe: Callable[[Config], Config]
) -> Callable[[Config], float]:
    """Return ``ofa.tutorial.LatencyTable`` on these tables, without its constructor, which downloads files
    and calls yaml.load in a way that PyYAML 6 does not accept.
    """
    classes = ofa.tutorial.latency_table
    table = classes.LatencyTable.__new__(classes.LatencyTable)
    table.latency_tables = {}
    for resolution, entries in tables.items():
        estimator = classes.LatencyEstimator.__new__(classes.LatencyEstimator)
        estimator.lut = entries
        table.latency_tables[resolution] = estimator
    return lambda config: float(table.predict_efficiency(mobile_family.tutorial_form(config)))


MOBILENET_V3 = mobile_family.mobile_space(
    "mobilenet_v3",
    _NETWORK,
    _FRAME,
    Traits(
        title="MobileNetV3",
        layer_terms=partial(mobile_family.layer_terms, _FRAME),
        mac_terms=partial(mobile_family.mac_terms, _FRAME),
        encoding=mobile_family.encoding,
        predictor_space="mobilenet_v3",
        build=build,
        layer_names=partial(mobile_family.layer_names, _FRAME),
        table_entry=table_entry,
        published=Published(
            weights=f"ofa_nets/{_NETWORK}",
            predictor="acc_predictor.pth",
            is_predictor=is_predictor,
            predictor_range=(0.7581, 0.8333),
            tables={"note10": {r: f"note10/{r}_lookup_table.yaml" for r in mobile_family.RESOLUTIONS}},
        ),
        reference=Reference(
            network="ofa_mbv3_d234_e346_k357_w1.2",
            macs_model="Mbv3FLOPsModel",
            genes=mobile_family.reference_genes,
            predictor=mobile_family.reference_predictor,
            features=mobile_family.reference_features,
            latency=reference_latency,
        ),
        demo=Demo(
            macs=(400, 350, 300, 250, 200),
            table="note10",
            table_name="Note10 latency (ms)",
            table_targets=(35, 30, 25, 20, 15),
        ),
        embedded_range=(0.7584, 0.8321),
        notebook=True,
    ),
)
