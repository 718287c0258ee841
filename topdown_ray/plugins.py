"""Load users' own spaces, costs, predictors and strategies, by ``package.module:object`` or by entry point.

The identity of a plug-in is a hash of the source of its module and of the values that the object holds. A
sweep with a changed plug-in is therefore another sweep. The module is imported in every process that
searches. Ray's workers find it in the driver's working directory, or in the ``working_dir`` or ``py_modules``
of the connection's runtime environment."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from topdown_ray.errors import UserError, one_line

#: The field of a sweep that names plug-ins of each kind.
FIELDS = {"spaces": "spaces", "costs": "cost", "predictors": "predictor", "strategies": "strategies"}
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class Plugin(NamedTuple):
    """A loaded plug-in."""

    name: str  # as the user wrote it
    reference: str  # module:object
    value: Any
    sha256: str


def is_reference(name: str) -> bool:
    """Whether a name has the form ``package.module:object``."""
    return _REFERENCE.fullmatch(name) is not None


def entry_points(kind: str) -> dict[str, str]:
    """Return the plug-ins of a kind (``spaces``, ``costs``, ``predictors``, ``strategies``) that installed
    packages offer: name -> ``module:object``.
    """
    found = importlib.metadata.entry_points(group=f"topdown_ray.{kind}")
    return {entry.name: entry.value for entry in sorted(found, key=lambda entry: entry.name)}


def find(kind: str, name: str) -> Plugin | None:
    """Return the plug-in of this name, or None if the name is neither a reference nor an entry point. Raises
    UserError if it cannot be loaded.
    """
    reference = name if is_reference(name) else entry_points(kind).get(name)
    return None if reference is None else _load(kind, name, reference)


@functools.cache
def _load(kind: str, name: str, reference: str) -> Plugin:
    module_name, _, attribute = reference.partition(":")
    # an installed command does not have the current folder on its path, where the user's module may be
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
        value = getattr(module, attribute)
    except Exception as error:
        raise UserError(
            f"{FIELDS[kind]}: {name}: expected an object at {reference}, found {type(error).__name__}: "
            f"{one_line(error, 200)}"
        ) from error
    return Plugin(name, reference, value, _identity(module, attribute, value))


def _identity(module: Any, attribute: str, value: Any) -> str:
    """Hash the source of a module and the values that an object holds. Raises UserError for values that
    cannot be hashed.
    """
    digest = hashlib.sha256(attribute.encode())
    source = getattr(module, "__file__", None)
    if source is not None:
        digest.update(Path(source).read_bytes())
    digest.update(_state(value, f"{module.__name__}:{attribute}"))
    return digest.hexdigest()


def _state(value: Any, where: str) -> bytes:
    """Return the values that an object holds as bytes. Functions and classes have none, because the hash of
    the source covers them.
    """
    stated = getattr(value, "identity", None)
    if isinstance(stated, str | bytes):
        return stated.encode() if isinstance(stated, str) else stated
    if hasattr(value, "plugin_state"):  # an adapter: its form, and the object that it wraps
        text, wrapped = value.plugin_state()
        return str(text).encode() + _state(wrapped, where)
    if callable(getattr(value, "state_dict", None)):  # a module of torch
        tensors = value.state_dict()
        parts = [b"".join((name.encode(), tensors[name].cpu().numpy().tobytes())) for name in sorted(tensors)]
        return b"".join([repr(value).encode(), *parts])
    if isinstance(value, type) or (callable(value) and hasattr(value, "__code__")):
        return b""
    import joblib  # takes a third of a second, and few plug-ins need it

    try:
        return str(joblib.hash(value)).encode()  # unlike pickles, the hashes of equal sets are equal
    except Exception as error:
        raise UserError(
            f"{where}: expected an object that can be pickled or has a text attribute `identity`, found "
            f"{type(value).__name__} ({one_line(error, 200)})"
        ) from error
