"""Local files: written whole or not at all; YAML that people wrote."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from topdown_ray.errors import UserError

TEMPORARY = ".tmp"  # the suffix of what a killed writer leaves


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; what was written there takes its place at the end, or is gone. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """As :func:`replacing`, for a file that the user asked for: raises UserError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise UserError(f"{path}: expected a place to write to, found {error.strerror or error}") from error


def read_yaml(path: Path, what: str, holds: str) -> Mapping[str, Any]:
    """A YAML file that holds a mapping. what, holds: the file and its mapping in words, for the UserError that it raises."""
    try:
        data = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise UserError(f"{path}: expected {what}, found no readable file ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected YAML, found {' '.join(str(error).split())}") from error
    if not isinstance(data, Mapping):
        raise UserError(f"{path}: expected a mapping of {holds}, found {type(data).__name__}")
    return data
