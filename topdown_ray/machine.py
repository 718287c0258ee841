"""What this machine is: its processor, cores and GPUs, and the versions of what runs on it. No host names.

Also the return of freed memory to the system."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def processor() -> str:
    """The processor's name as the system tells it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _cpuinfo() -> dict[str, str]:
    """The system's description of the first processor."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        lines = (line.partition(":") for line in first.splitlines())
        return {name.strip(): value.strip() for name, _, value in lines}
    return {}


def hardware() -> dict[str, Any]:
    """What decides how fast a layer runs: processor (with family and model, since names can be generic),
    cores, GPUs.
    """
    about = _cpuinfo()
    numbers = [
        f"{name} {about[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in about
    ]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    name = f"{processor()} ({', '.join(numbers)})" if numbers else processor()
    return {"processor": name, "cores": os.cpu_count(), "gpus": gpus}


def versions() -> dict[str, str]:
    """The versions that a layer's time depends on."""
    packages = {name: importlib.metadata.version(name) for name in ("topdown-ray", "torch", "ofa")}
    cuda = {"cuda": str(torch.version.cuda)} if torch.version.cuda and torch.cuda.is_available() else {}
    return {
        "python": platform.python_version(),
        **packages,
        **cuda,
        "platform": f"{platform.system()} {platform.machine()}",
    }


def return_freed_memory() -> None:
    """Give the memory that this process has freed back to the system; do nothing if the C library cannot.

    glibc keeps freed memory that is between objects in use. glibc 2.36 also rarely reuses the place of a
    freed tensor for the next one, because tensors are aligned.
    """
    trim = c_function("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))


@functools.cache
def c_function(name: str) -> Callable[..., Any] | None:
    """Return a function of this process's C library, or None if there is none of this name."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # a process without a dynamic linker; Windows
        return None
