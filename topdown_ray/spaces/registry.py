"""Find spaces by name. The names are known without importing torch, for the help of the command line.

The package's own spaces are listed here, one in each line. Other packages add spaces with entry points of the
group ``topdown_ray.spaces`` (``name = "module:CONSTANT"``). A space is imported at its first use."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from topdown_ray import plugins
from topdown_ray.errors import UserError

if TYPE_CHECKING:
    from topdown_ray.spaces.space import Space

_OWN = {
    "mobilenet_v3": "topdown_ray.spaces.mobilenet_v3:MOBILENET_V3",
    "resnet50d": "topdown_ray.spaces.resnet50d:RESNET50D",
    "proxyless": "topdown_ray.spaces.proxyless:PROXYLESS",
}
DEFAULT_SPACE = next(iter(_OWN))  # the default of commands and functions


@functools.cache
def _places() -> dict[str, str]:
    """The definition of each space, ``module:CONSTANT``: the package's own, then those of other packages."""
    others = plugins.entry_points("spaces")
    return _OWN | {name: place for name, place in others.items() if name not in _OWN}


def names() -> tuple[str, ...]:
    """Return the names of all spaces, the default one first, without importing torch."""
    return tuple(_places())


def in_words() -> str:
    """Return the names for a sentence: ``a, b or c``."""
    *others, last = names()
    return f"{', '.join(others)} or {last}" if others else last


class _Spaces(Mapping[str, "Space"]):
    """The spaces by name. Each one is imported when it is first looked up."""

    def __getitem__(self, name: str) -> Space:
        return _load(name, name if plugins.is_reference(name) else _places()[name])

    def __contains__(self, name: object) -> bool:
        return name in _places() or (isinstance(name, str) and plugins.is_reference(name))

    def __iter__(self) -> Iterator[str]:
        return iter(_places())

    def __len__(self) -> int:
        return len(_places())


SPACES: Mapping[str, Space] = _Spaces()


@functools.cache
def _load(name: str, place: str) -> Space:
    if name in _OWN:
        module, _, constant = place.partition(":")
        space: Space = getattr(importlib.import_module(module), constant)
        return space
    plugin = plugins.find("spaces", name)
    assert plugin is not None
    found: Any = plugin.value
    if not hasattr(found, "mutation_groups"):
        raise UserError(f"spaces: {name}: expected a Space at {place}, found {type(found).__name__}")
    if plugins.is_reference(name):  # rows and messages use the name in the sweep
        return cast("Space", dataclasses.replace(found, name=name))
    if found.name != name:
        raise UserError(f"spaces: {name}: expected a space of that name at {place}, found {found.name!r}")
    return cast("Space", found)


def plugin_hash(name: str) -> str:
    """Return the identity of a space that is a plug-in; "" for the package's own spaces."""
    plugin = None if name in _OWN else plugins.find("spaces", name)
    return "" if plugin is None else plugin.sha256


def find_space(name: str) -> Space:
    """Return the space of this name. Raises UserError."""
    if name not in SPACES:
        raise UserError(f"--space: expected one of {', '.join(SPACES)}, found {name!r}")
    return SPACES[name]


def notebook_space() -> Space:
    """Return the space that the notebook searched, which it printed under three names."""
    return next(space for space in SPACES.values() if space.traits.notebook)


def searched_space(name: str, protocol: str) -> Space:
    """Return the space whose genes a search of this space has, which is another one for ``protocol:
    notebook``.
    """
    return notebook_space() if protocol == "notebook" else SPACES[name]
