"""The demo's sweep: true artefacts where they can be had, else what comes with the package: stand-in
predictors and a CPU's table.
"""

from __future__ import annotations

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.spaces.cost import ShippedTable, shipped_tables
from topdown_ray.spaces.predictor import PUBLISHED
from topdown_ray.sweeps.driver import Plan, make_plan
from topdown_ray.sweeps.spec import SweepSpec, make_spec

TABLE = "epyc_1thread"  # a shipped latency table of all spaces
_MACS = {
    "mobilenet_v3": [400, 350, 300, 250, 200],
    "resnet50d": [3500, 2800, 2200, 1600, 1000],
    "proxyless": [500, 430, 360, 300, 240],
}
_SHARES = (
    0.5,
    0.4,
    0.3,
    0.2,
    0.1,
)  # where the targets lie between a space's cheapest and dearest architecture


def plan_demo(out: str | None = None) -> tuple[Plan, str, str]:
    """The demo's plan, one line that says what it uses, and its result folder, by default
    ``results/demo-PREDICTOR``. Raises UserError.
    """
    spec, used = demo_spec()
    return make_plan(spec), used, f"results/demo-{spec.predictor[spec.spaces[0]]}" if out is None else out


def demo_spec() -> tuple[SweepSpec, str]:
    """The sweep, and one line that says what it uses."""
    cost: dict[str, str] = dict.fromkeys(_MACS, "macs")
    targets: dict[str, list[float]] = {
        space: [float(value) for value in values] for space, values in _MACS.items()
    }
    try:
        for path in [*PUBLISHED.values(), *(path for path in assets.ASSETS if path.startswith("note10/"))]:
            assets.find(path)
        predictor, cost["mobilenet_v3"], targets["mobilenet_v3"] = "published", "note10", [35, 30, 25, 20, 15]
        used = "Using the published predictors; MobileNetV3 under Note10 latency (ms), the others under MACs."
    except UserError as error:
        predictor, tables = "embedded", [table for table in shipped_tables() if table.name == TABLE]
        cost |= {table.space: table.name for table in tables}
        targets |= {table.space: _targets(table) for table in tables}
        measured = f"the shipped latency table {TABLE} (ms on {tables[0].source})" if tables else "MACs"
        used = (
            f"Using the embedded stand-in predictors and {measured}, because of the published artefacts: "
            f"{error}"
        )
    data = {
        "name": "demo",
        "spaces": list(_MACS),
        "strategies": ["top_down"],
        "cost": cost,
        "predictor": predictor,
        "targets": {space: [values] for space, values in targets.items()},
        "seeds": 2,
    }
    return make_spec(data, "demo"), used


def _targets(table: ShippedTable) -> list[float]:
    """Round numbers of ms within the range of a table's space, loosest first."""
    return [float(f"{table.low + share * (table.high - table.low):.2g}") for share in _SHARES]
