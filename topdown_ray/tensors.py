"""Files of tensors: safetensors with their header, torch checkpoints. What cannot be read is one line that
names the file.

Every tensor that is returned is dense, real, on the CPU and without a gradient, under a name that is a
string."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from topdown_ray.errors import UserError, brief, one_line
from topdown_ray.files import brief_path, check_file


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file. Raises UserError."""
    check_file(path, "a safetensors file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception as error:  # safetensors raises its own untyped errors
        raise UserError(
            f"{brief_path(path)}: expected a safetensors file, found {one_line(error)}"
        ) from error


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name. Raises UserError."""
    check_file(path, "a safetensors file")
    try:
        state = safetensors.torch.load_file(path)
    except Exception as error:  # as above
        raise UserError(
            f"{brief_path(path)}: expected a safetensors file, found {one_line(error)}"
        ) from error
    return _plain(state, brief_path(path))


def read_torch(path: Path, what: str) -> dict[str, torch.Tensor]:
    """The state dict of a torch checkpoint, alone or under ``state_dict``. what: in words, for the UserError
    that it raises.
    """
    check_file(path, what)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sparse and quantised tensors, which are refused below
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # truncated, a pickle of something else: torch raises many kinds
        # torch's own words on pickled code are a page of advice
        whole = isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error)
        reason = "pickled code" if whole else f"{type(error).__name__}: {one_line(error, 120)}"
        raise UserError(f"{brief_path(path)}: expected {what}, found {reason}") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping):
        raise UserError(f"{brief_path(path)}: expected a state dict of tensors, found {type(state).__name__}")
    return _plain(state, brief_path(path))


def _plain(state: Mapping[Any, Any], where: str) -> dict[str, torch.Tensor]:
    """The tensors without their gradients. Raises UserError for keys that are no names and values that are no
    plain tensors.
    """
    for name, value in state.items():
        if not isinstance(name, str):
            raise UserError(f"{where}: expected the names of tensors as keys, found {brief(name)}")
        if not isinstance(value, torch.Tensor):
            found = f"{type(state).__name__} with {type(value).__name__} under {brief(name)}"
            raise UserError(f"{where}: expected a state dict of tensors, found {found}")
        if kind := _strange(value):
            raise UserError(f"{where}: {brief(name)}: expected a dense tensor of real numbers, found {kind}")
    return {name: value.detach() for name, value in state.items()}


def _strange(value: torch.Tensor) -> str:
    """What a tensor is that is not dense, real and on the CPU; empty for one that is."""
    if value.is_nested:
        return "a nested tensor"
    if value.layout != torch.strided:
        return f"a tensor of layout {value.layout}"
    if value.is_quantized:
        return "a quantised tensor"
    if value.device.type != "cpu":
        return f"a tensor without values ({value.device.type})"
    if value.is_complex() or value.is_neg():
        return "a complex tensor or a part of one"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "values that share their memory"  # a few bytes may claim to be terabytes
    return ""
