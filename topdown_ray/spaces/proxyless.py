"""Define the space of ProxylessNAS of width 1.3 (``ofa_proxyless_d234_e346_k357_w1.3``).

No predictor is published for it. MobileNetV3's reads its first 20 blocks, and rows record this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from topdown_ray.spaces import mobile_family
from topdown_ray.spaces.layers import N_CLASSES, Layer
from topdown_ray.spaces.space import Config, Demo, Published, Reference, Traits

_NETWORK = "ofa_proxyless_d234_e346_k357_w1.3"

# channels at width multiplier 1, strides and activations: ``OFAProxylessNASNets``
_FRAME = mobile_family.Frame(
    base_widths=(24, 40, 80, 96, 192, 320),
    base_first_conv=32,
    base_first_block=16,
    base_final=(1280,),
    multiplier=1.3,
    strides=(2, 2, 2, 1, 2, 1),
    squeeze=(False,) * 6,
    h_swish=(False,) * 6,
    outer="relu6",
    inner="relu6",
    single_block_stages=1,
)


def build(networks: Any, width: float, n_classes: int) -> Any:
    """Build OFA's supernet, ``width`` times as wide as the published one."""
    common = mobile_family.choices(n_classes)
    return networks.OFAProxylessNASNets(**common, width_mult=_FRAME.multiplier * width)


def table_entry(layer: Layer) -> str:
    """Return the name of a layer's entry in a latency table of OFA's form (``ProxylessNASLatencyTable``); ""
    for the classifier, which is included in the entry of the pooling.
    """
    x, shape = layer, mobile_family.shape_in_words(layer)
    if x.kind == "mbconv":
        expand = x.width_mid // x.width_in
        choices = f"expand:{expand}-kernel:{x.kernel}-stride:{x.stride}-idskip:{int(x.shortcut)}"
        return f"expanded_conv-{shape}-{choices}"
    if x.kind == "conv":
        return mobile_family.convolution_entry(layer)
    if x.kind == "mean_pool":
        return f"Logits-input:{x.size_in}x{x.size_in}x{x.width_in}-output:{N_CLASSES}"
    return ""


def reference_latency(
    ofa: Any, tables: Mapping[int, Mapping[str, Any]], describe: Callable[[Config], Config]
) -> Callable[[Config], float]:
    """Return ``ProxylessNASLatencyTable`` on these tables, applied to OFA's description of a subnet."""
    table_class = ofa.nas.efficiency_predictor.latency_lookup_table.ProxylessNASLatencyTable
    readers = {}
    for resolution, entries in tables.items():
        readers[resolution] = table_class.__new__(table_class)
        readers[resolution].lut = entries

    def latency(config: Config) -> float:
        size = config["image_size"]
        return float(readers[size].predict_network_latency_given_config(describe(config), size))

    return latency


PROXYLESS = mobile_family.mobile_space(
    "proxyless",
    _NETWORK,
    _FRAME,
    Traits(
        title="ProxylessNAS",
        layer_terms=partial(mobile_family.layer_terms, _FRAME),
        mac_terms=partial(mobile_family.mac_terms, _FRAME),
        encoding=mobile_family.encoding,
        predictor_space="mobilenet_v3",
        build=build,
        layer_names=partial(mobile_family.layer_names, _FRAME),
        table_entry=table_entry,
        published=Published(weights=f"ofa_nets/{_NETWORK}"),
        reference=Reference(
            network="ofa_proxyless_d234_e346_k357_w1.3",
            macs_model="ProxylessNASFLOPsModel",
            genes=mobile_family.reference_genes,
            predictor=mobile_family.reference_predictor,
            features=mobile_family.reference_features,
            latency=reference_latency,
        ),
        demo=Demo(macs=(500, 430, 360, 300, 240)),
    ),
)
