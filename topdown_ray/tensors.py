"""Read safetensors files and torch checkpoints safely.

A file that cannot be read raises one UserError that names it. All returned tensors are dense, real, on the
CPU and without a gradient, and their names are strings."""

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
    """Return the metadata of a safetensors file. Raises UserError."""
    check_file(path, "a safetensors file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception as error:  # safetensors raises its own untyped errors
        raise UserError(
            f"{brief_path(path)}: expected a safetensors file, found {one_line(error)}"
        ) from error


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file by name. Raises UserError."""
    check_file(path, "a safetensors file")
    try:
        state = safetensors.torch.load_file(path)
    except Exception as error:  # as above
        raise UserError(
            f"{brief_path(path)}: expected a safetensors file, found {one_line(error)}"
        ) from error
    return _plain(state, brief_path(path))


def read_torch(path: Path, what: str) -> dict[str, torch.Tensor]:
    """Return the state dict of a torch checkpoint, which may be under the key ``state_dict``. what: the file
    in words, for the UserError that it raises.
    """
    check_file(path, what)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sparse and quantised tensors, which are rejected below
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for truncated files and other pickles
        # torch's own message on pickled code is a page of advice
        whole = isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error)
        reason = "pickled code" if whole else f"{type(error).__name__}: {one_line(error, 120)}"
        raise UserError(f"{brief_path(path)}: expected {what}, found {reason}") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping):
        raise UserError(f"{brief_path(path)}: expected a state dict of tensors, found {type(state).__name__}")
    return _plain(state, brief_path(path))


def _plain(state: Mapping[Any, Any], where: str) -> dict[str, torch.Tensor]:
    """Return the tensors without their gradients. Raises UserError for keys that are not strings and values
    that are not plain tensors.
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
    """Describe a tensor that is not dense, real and on the CPU; return "" for one that is."""
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
        return "values that share their memory"  # a file of a few bytes could expand to terabytes
    return ""
