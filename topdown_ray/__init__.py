"""topdown_ray finds the most accurate Once-for-All (OFA) subnet for each latency target on your device.

Run searches in this process with `search`, or a sweep on Ray with `sweep`. Read a result folder with `load`.

>>> import topdown_ray
>>> options = {"predictor": "embedded", "seeds": 2, "generations": 5}
>>> frame = topdown_ray.search(cost="epyc_1thread", targets=[40, 30], **options)
>>> frame[["seed", "target", "feasible"]].values.tolist()
[[0, 40.0, True], [0, 30.0, True], [1, 40.0, True], [1, 30.0, True]]
>>> try:
...     topdown_ray.search(targets=[-1])
... except topdown_ray.UserError as error:
...     print(error)
search: targets: expected positive numbers, found -1
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topdown_ray.errors import UserError as UserError
    from topdown_ray.report.compare import compare as compare
    from topdown_ray.report.tables import summary as summary
    from topdown_ray.store.results import Results as Results
    from topdown_ray.store.results import load as load
    from topdown_ray.sweeps import events as events
    from topdown_ray.sweeps.api import search as search
    from topdown_ray.sweeps.api import sweep as sweep
    from topdown_ray.sweeps.spec import SweepSpec as SweepSpec

__version__ = "0.1.0"

_HOMES = {
    "UserError": "errors",
    "Results": "store.results",
    "SweepSpec": "sweeps.spec",
    "compare": "report.compare",
    "events": "sweeps.events",
    "load": "store.results",
    "search": "sweeps.api",
    "summary": "report.tables",
    "sweep": "sweeps.api",
}

__all__ = ["Results", "SweepSpec", "UserError", "compare", "events", "load", "search", "summary", "sweep"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used. Importing torch and ofa takes seconds, and the help of a
    command needs neither.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'topdown_ray' has no attribute {name!r}")
    home = importlib.import_module(f"topdown_ray.{_HOMES[name]}")
    return home if name == "events" else getattr(home, name)
