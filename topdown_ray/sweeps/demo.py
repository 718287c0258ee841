"""Define the sweep of the demo, with the published artefacts if they are available, and otherwise with the
stand-in predictors and the latency table that come with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.spaces.cost import shipped_tables, typical_targets
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Demo, Space
from topdown_ray.sweeps.spec import SweepSpec, make_spec

if TYPE_CHECKING:
    from topdown_ray.sweeps.driver import Plan

TABLE = "epyc_1thread"  # a latency table that comes with the package, for all spaces


def plan_demo(out: str | None = None) -> tuple[Plan, str, str]:
    """Return the demo's plan, a line that describes what it uses, and its result folder (default
    ``results/demo-PREDICTOR``). Raises UserError.
    """
    spec, used = demo_spec()
    from topdown_ray.sweeps.driver import make_plan

    return make_plan(spec), used, f"results/demo-{spec.predictor[spec.spaces[0]]}" if out is None else out


def demo_spec() -> tuple[SweepSpec, str]:
    """Return the sweep, and a line that describes what it uses."""
    demos = {name: space.traits.demo for name, space in SPACES.items() if space.traits.demo is not None}
    cost = dict.fromkeys(demos, "macs")
    targets = {name: list(demo.macs) for name, demo in demos.items()}
    try:
        _find_published({SPACES[name]: demo for name, demo in demos.items()})
        predictor, with_tables = "published", {name: demo for name, demo in demos.items() if demo.table}
        cost |= {name: demo.table for name, demo in with_tables.items()}
        targets |= {name: list(demo.table_targets) for name, demo in with_tables.items()}
        tables = ", ".join(
            f"{SPACES[name].traits.title} under {demo.table_name}" for name, demo in with_tables.items()
        )
        used = f"Using the published predictors, with {tables} and the other spaces under MACs."
    except UserError as error:
        predictor, shipped = "embedded", [table for table in shipped_tables() if table.name == TABLE]
        cost |= {table.space: table.name for table in shipped}
        targets |= {table.space: typical_targets(table.low, table.high) for table in shipped}
        measured = f"the package's latency table {TABLE} (ms on {shipped[0].source})" if shipped else "MACs"
        used = (
            f"Using the embedded stand-in predictors and {measured}, because the published files are not "
            f"available: {error}"
        )
    data = {
        "name": "demo",
        "spaces": list(demos),
        "strategies": ["top_down"],
        "cost": cost,
        "predictor": predictor,
        "targets": {space: [values] for space, values in targets.items()},
        "seeds": 2,
    }
    return make_spec(data, "demo"), used


def _find_published(demos: dict[Space, Demo]) -> None:
    """Find all published files that the demo uses. Raises UserError."""
    files = [space.traits.published for space in demos]
    for published in files:
        if published.predictor is not None:
            assets.find(published.predictor)
    for published, demo in zip(files, demos.values(), strict=True):
        for path in published.tables.get(demo.table, {}).values():
            assets.find(path)
