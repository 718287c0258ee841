"""Find the spaces of reported architectures, if this installation has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topdown_ray.errors import UserError
from topdown_ray.spaces.registry import SPACES, searched_space
from topdown_ray.spaces.space import Genes, Space


def known_space(name: str, protocol: str = "default") -> Space | None:
    """Return the space of the genes in rows of this space and protocol, or None if it is a plug-in that is
    not installed here or cannot be loaded.
    """
    try:
        return searched_space(name, protocol) if name in SPACES else None
    except UserError:
        return None


def active_genes(space: Space, genes: Genes) -> NDArray[np.bool_]:
    """Compute :meth:`Space.active` without torch, which a report does not need: (N, G) -> (N, G)."""
    controllers = [max(gene.depth_gene, 0) for gene in space.genes]
    active: NDArray[np.bool_] = genes[:, controllers] >= [gene.minimum_depth for gene in space.genes]
    return active
