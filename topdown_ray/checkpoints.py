"""Files of tensors: safetensors with their header, torch checkpoints. What cannot be read is one line that names the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from topdown_ray.errors import UserError


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file. Raises UserError."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception as error:  # safetensors raises its own untyped errors
        raise UserError(f"{path}: expected a safetensors file, found {' '.join(str(error).split())}") from error


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name. Raises UserError."""
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # as above
        raise UserError(f"{path}: expected a safetensors file, found {' '.join(str(error).split())}") from error


def read_torch(path: Path, what: str) -> dict[str, torch.Tensor]:
    """The state dict of a torch checkpoint, alone or under ``state_dict``. what: in words, for the UserError that it raises."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # truncated, a pickle of something else: torch raises many kinds
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: expected {what}, found {type(error).__name__}: {reason}") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: expected a state dict of tensors, found {type(state).__name__}")
    return dict(state)
