"""Prune an architecture until it meets a tighter limit, which is the step between two targets of the top-down
method.

Kernel, depth and expand ratio (ResNet50D: width, depth and expand ratio) are picked at random, one in each
step. Each kind has a level, at first its second-largest choice, and a position that advances in order. A step
lowers the next position above the level to the level. After the last position of a kind, its level drops by
one choice. When nothing is left, the resolution follows, one choice in each step. Source: Kumar and Szidon
2020, *Efficient Incorporation of Multiple Latency Targets in the Once-For-All Network* (arXiv 2012.06748).
Their notebook never lowered the resolution, and it pruned the reported winner in place. This module avoids
both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from topdown_ray.algorithms import kernels, rng
from topdown_ray.algorithms.problem import flat_cost
from topdown_ray.spaces.compiled import Bytes
from topdown_ray.spaces.space import Space
from topdown_ray.spaces.terms import Ints

_PICKS = 512  # random picks of a kind (MobileNetV3 needs at most 90); kinds beyond these are picked in order


@functools.cache
def _events(space: Space) -> list[tuple[tuple[int, int], ...]]:
    """Return, for each kind, every (gene, choice it is lowered to) in the order in which the kind is
    pruned.
    """
    kinds = []
    for kinds_of_gene in space.prune_kinds:
        genes = space.indices(*kinds_of_gene)
        levels = range(1, max(space.sizes[g] for g in genes))
        kinds.append(
            tuple(
                (g, space.sizes[g] - 1 - level) for level in levels for g in genes if space.sizes[g] > level
            )
        )
    return kinds


@functools.cache
def _flat_events(space: Space) -> tuple[Ints, Bytes, Ints]:
    """Return the events of all kinds one after another, and where those of each kind end."""
    kinds = _events(space)
    events = np.array([event for walk in kinds for event in walk])
    ends = np.cumsum([len(walk) for walk in kinds])
    return events[:, 0].copy(), events[:, 1].astype(np.int8), ends


def prune(
    space: Space,
    cost: Callable[[torch.Tensor], torch.Tensor],
    genes: torch.Tensor,
    limit: float,
    slots: torch.Tensor,
    cheapest: torch.Tensor,
) -> torch.Tensor:
    """Return the first architecture on each row's random way down that costs at most ``limit``: genes (N, G)
    -> (N, G).

    slots: int64 (N,), the rows' random counters (:func:`topdown_ray.algorithms.rng.slots`). ``cheapest`` (G,)
    is the answer if even the end of the way is too expensive, which can happen with measured tables.
    """
    N, G = genes.shape
    flat = flat_cost(cost, genes.device)
    if flat is not None:
        walk = (*_flat_events(space), _PICKS, space.resolution)
        rows = kernels.pruned(genes.numpy(), slots.numpy(), *walk, flat, limit, cheapest.numpy())
        return torch.from_numpy(rows)
    way = _way_down(space, genes, slots)  # (N, L, G)
    fits = (cost(way.view(-1, G)) <= limit).view(N, -1)
    fits = torch.cat([fits, fits.new_ones(N, 1)], dim=1)
    way = torch.cat([way, cheapest.to(way.dtype).expand(N, 1, G)], dim=1)
    first = fits.byte().argmax(dim=1)
    return way[torch.arange(N, device=genes.device), first]


def _way_down(space: Space, genes: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Return every architecture on the way, beginning with the given one: genes (N, G) -> (N, L, G)."""
    N, G = genes.shape
    kinds = _events(space)
    picks = rng.uniform(rng.keys(slots, 0), _PICKS).mul_(len(kinds)).to(torch.int8)  # (N, picks), floor
    times: list[torch.Tensor] = []
    events: list[tuple[int, int]] = []
    for kind, walk in enumerate(kinds):
        gene = torch.tensor([g for g, _ in walk], device=genes.device)
        lowered = torch.tensor([choice for _, choice in walk], device=genes.device)
        effective = genes.index_select(1, gene) > lowered  # (N, E)
        turn = effective.cumsum(1)  # the number of each effective event within its kind
        taken = (picks == kind).cumsum(1)  # picks of this kind so far
        time = torch.searchsorted(taken, turn)  # the step of that pick; _PICKS: never
        late = torch.where(time == _PICKS, turn + sum(len(other) for other in kinds[:kind]), 0)
        times.append(torch.where(effective, time + late, 2 * _PICKS))
        events += walk
    order = torch.cat(times, dim=1).sort(dim=1, stable=True)  # (N, E)
    event_genes = torch.tensor([g for g, _ in events], device=genes.device)[order.indices]
    event_choices = torch.tensor([choice for _, choice in events], device=genes.device, dtype=torch.int8)[
        order.indices
    ]
    event_choices = event_choices.masked_fill(order.values == 2 * _PICKS, 127)  # without effect

    steps = genes.new_full((N, len(events) + 1, G), 127)
    steps[:, 0] = genes
    steps[:, 1:].scatter_(2, event_genes[:, :, None], event_choices[:, :, None])
    way = steps.cummin(dim=1).values

    resolution = space.resolution
    drops = torch.arange(1, space.sizes[resolution], device=genes.device, dtype=torch.int8)
    tail = way[:, -1:].repeat(1, len(drops), 1)
    tail[:, :, resolution] = (genes[:, resolution, None] - drops).clamp_min_(0)
    return torch.cat([way, tail], dim=1)
