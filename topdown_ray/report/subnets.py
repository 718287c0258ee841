"""The spaces of reported architectures, as far as this process knows them."""

from __future__ import annotations

from topdown_ray.errors import UserError
from topdown_ray.spaces.registry import SPACES, searched_space
from topdown_ray.spaces.space import Space


def known_space(name: str, protocol: str = "default") -> Space | None:
    """The space whose genes the rows of this space and protocol hold; None where it is a plug-in that is not
    installed here or cannot be loaded.
    """
    try:
        return searched_space(name, protocol) if name in SPACES else None
    except UserError:
        return None
