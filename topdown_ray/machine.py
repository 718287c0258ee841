"""Describe this machine without its name: processor, cores, GPUs, and the versions of its software.

Also return freed memory to the system."""

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
    """Return the processor's name as the system reports it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _cpuinfo() -> dict[str, str]:
    """Return the system's description of the first processor."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        lines = (line.partition(":") for line in first.splitlines())
        return {name.strip(): value.strip() for name, _, value in lines}
    return {}


def hardware() -> dict[str, Any]:
    """Return the hardware that decides how fast a layer runs: processor, cores and GPUs. The processor
    includes its family and model, because names can be generic.
    """
    about = _cpuinfo()
    numbers = [
        f"{name} {about[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in about
    ]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    name = f"{processor()} ({', '.join(numbers)})" if numbers else processor()
    return {"processor": name, "cores": os.cpu_count(), "gpus": gpus}


def versions() -> dict[str, str]:
    """Return the software versions that the time of a layer depends on."""
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
