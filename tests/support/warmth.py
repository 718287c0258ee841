"""What a process has compiled or built once so far, and a worker that records it at every shard."""

import functools
import json
import sys
from pathlib import Path
from typing import Any

from numba.core.dispatcher import Dispatcher

from topdown_ray.sweeps import executors


def built() -> dict[str, int]:
    """How many signatures each compiled function has, whether compiled or read from a cache, and how
    often each cached function was computed.
    """
    counts = {}
    for module in [module for name, module in sys.modules.items() if name.startswith("topdown_ray.")]:
        for name, value in vars(module).items():
            if isinstance(value, Dispatcher):
                counts[f"{value.py_func.__module__}.{name}"] = len(value.overloads)
            elif isinstance(value, functools._lru_cache_wrapper):
                counts[f"{value.__module__}.{name}"] = value.cache_info().misses
    return counts


class Recording(executors.ShardHost):
    """Writes to a file for every shard what was built while it ran."""

    def __init__(self, file: Path, *arguments: Any):
        super().__init__(*arguments)
        self.file = file

    def __call__(self, shard: Any) -> Any:
        before = built()
        tables = super().__call__(shard)
        new = {name: n - before.get(name, 0) for name, n in built().items() if n != before.get(name, 0)}
        with self.file.open("a") as file:
            file.write(json.dumps([shard.group.space, shard.group.strategy, new]) + "\n")
        return tables
