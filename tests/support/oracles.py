"""OFA's own classes as oracles, and small sweeps that many tests share."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ofa.model_zoo import ofa_net
from ofa.nas.accuracy_predictor import AccuracyPredictor, ResNetArchEncoder
from ofa.nas.efficiency_predictor import Mbv3FLOPsModel, ProxylessNASFLOPsModel, ResNet50FLOPsModel

from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.proxyless import PROXYLESS
from topdown_ray.spaces.resnet50d import RESNET50D
from topdown_ray.spaces.space import Space

MACS_MODELS = {
    MOBILENET_V3.name: Mbv3FLOPsModel,
    PROXYLESS.name: ProxylessNASFLOPsModel,
    RESNET50D.name: ResNet50FLOPsModel,
}
RESNET_ENCODER = ResNetArchEncoder(image_size_list=[128, 144, 160, 176, 192, 224, 240, 256])


@cache
def network(space: Space) -> Any:
    """OFA's supernet of a space, random weights."""
    return ofa_net(space.network, pretrained=False)


def ofa_macs(space: Space, genes: torch.Tensor) -> npt.NDArray[np.float64]:
    """MACs (1e6) by OFA's FLOPs models: genes (N, G) -> (N,)."""
    model = MACS_MODELS[space.name](network(space))
    return np.array([model.get_efficiency(space.to_config(row)) for row in genes])


def tutorial_spec(config: dict[str, Any]) -> dict[str, Any]:
    """The form that ofa.tutorial takes."""
    return {
        "wid": None,
        "ks": list(config["ks"]),
        "e": list(config["e"]),
        "d": list(config["d"]),
        "r": [config["image_size"]],
    }


def resnet_predictor(path: Any) -> AccuracyPredictor:
    """OFA's ResNet50D predictor with the published weights."""
    predictor = AccuracyPredictor(RESNET_ENCODER, device="cpu")
    predictor.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return predictor
