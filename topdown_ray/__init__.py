"""topdown_ray: large, repeated Once-for-All architecture searches with many latency targets, on Ray.

>>> import topdown_ray
>>> options = {"predictor": "embedded", "seeds": 2, "generations": 5}
>>> frame = topdown_ray.search(cost="epyc_1thread", targets=[40, 30], **options)
>>> frame[["seed", "target", "feasible"]].values.tolist()
[[0, 40.0, True], [0, 30.0, True], [1, 40.0, True], [1, 30.0, True]]
>>> try:
...     topdown_ray.search(targets=[-1])
... except topdown_ray.UserError as error:
...     print(error)
search: targets[0]: expected positive numbers, found -1

``load`` gives a sweep's folder as ``Results``: README's tour shows it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topdown_ray.errors import UserError as UserError
    from topdown_ray.report.tables import summary as summary
    from topdown_ray.store.results import Results as Results
    from topdown_ray.store.results import load as load
    from topdown_ray.sweeps.api import search as search

__version__ = "0.1.0"

_HOMES = {
    "UserError": "errors",
    "Results": "store.results",
    "load": "store.results",
    "search": "sweeps.api",
    "summary": "report.tables",
}

__all__ = ["Results", "UserError", "load", "search", "summary"]


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: torch and ofa take seconds, and a command's --help needs
    neither.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'topdown_ray' has no attribute {name!r}")
    return getattr(importlib.import_module(f"topdown_ray.{_HOMES[name]}"), name)
