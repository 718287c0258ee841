"""The demo's sweep: true artefacts where they can be had, else the embedded stand-ins."""

from __future__ import annotations

from topdown_ray import assets
from topdown_ray.accuracy import PUBLISHED
from topdown_ray.errors import UserError
from topdown_ray.spec import SweepSpec, make_spec

_MACS = {
    "mobilenet_v3": [400, 350, 300, 250, 200],
    "resnet50d": [3500, 2800, 2200, 1600, 1000],
    "proxyless": [500, 430, 360, 300, 240],
}


def demo_spec() -> tuple[SweepSpec, str]:
    """The sweep, and one line that says what it uses."""
    try:
        for path in [*PUBLISHED.values(), *(path for path in assets.ASSETS if path.startswith("note10/"))]:
            assets.find(path)
        predictor, cost, ms = "published", "note10", [[35, 30, 25, 20, 15]]
        used = "Using the published predictors; MobileNetV3 under Note10 latency (ms), the others under MACs."
    except UserError as error:
        predictor, cost, ms = "embedded", "macs", [_MACS["mobilenet_v3"]]
        used = f"Using the embedded stand-in predictors and MACs, because of the published artefacts: {error}"
    data = {
        "name": "demo",
        "spaces": list(_MACS),
        "strategies": ["top_down"],
        "cost": {"mobilenet_v3": cost, "resnet50d": "macs", "proxyless": "macs"},
        "predictor": predictor,
        "targets": {"mobilenet_v3": ms, "resnet50d": [_MACS["resnet50d"]], "proxyless": [_MACS["proxyless"]]},
        "seeds": 2,
    }
    return make_spec(data, "demo"), used
