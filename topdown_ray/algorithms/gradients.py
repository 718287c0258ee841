"""Rank the single changes of an architecture by the gain that the predictor's gradient predicts and by the
exact change in cost.

A predictor of this project is a perceptron whose first layer is a sum over terms. Its gradient at the first
hidden layer, multiplied by the table of that layer, gives the first-order value of every row of the table. A
single change swaps a few rows (a kernel size one, a depth two), so its gain is a difference of a few numbers.
The cost is also a sum over terms, and the same swaps give its exact change. One gradient is five matrix
products plus the swaps, where an evaluation is two products: it takes the CPU time of 2.6 to 3.3 evaluations
on MobileNetV3 and of 3.6 to 4.5 on ResNet50D. Tiles have a fixed shape, so that the bits of a row
do not depend on its batch. Source of the idea: Grathwohl et al. 2021, *Oops I Took A Gradient: Scalable
Sampling for Discrete Distributions*.

Letters: N rows, G genes, C single changes (every choice of every gene, including the current one), S
searches.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from topdown_ray.algorithms.clock import Laps
from topdown_ray.algorithms.memory import newcomers
from topdown_ray.spaces.compiled import swapped
from topdown_ray.spaces.cost import CostModel
from topdown_ray.spaces.plugged_in import PluginPredictor
from topdown_ray.spaces.predictor import FirstLayer, Linear, Predictor, first_layer_terms
from topdown_ray.spaces.space import Space
from topdown_ray.spaces.terms import Term, TermIndex, concatenate, flatten
from topdown_ray.spaces.tiles import Tiles

_TIMED_ROWS, _TIMED_BATCHES = 512, 5  # rows and batches that rows_a_gradient times


class Changes:
    """The single changes of a space, in the order of genes and their choices: gene int64 (C,), choice int8
    (C,).
    """

    def __init__(self, space: Space, device: torch.device):
        self.space = space
        self.gene = torch.tensor(
            [g for g, size in enumerate(space.sizes) for _ in range(size)], device=device
        )
        choices = [choice for size in space.sizes for choice in range(size)]
        self.choice = torch.tensor(choices, dtype=torch.int8, device=device)

    def effective(self, genes: torch.Tensor) -> torch.Tensor:
        """Return which changes give a different architecture: genes (N, G) -> bool (N, C)."""
        other = genes.index_select(1, self.gene) != self.choice
        return other.logical_and_(self.space.active(genes).index_select(1, self.gene))


class _Swaps:
    """The rows of the table of a sum over terms that every single change swaps."""

    def __init__(self, terms: Sequence[Term], changes: Changes, whole: bool, device: torch.device):
        self.index, self.terms = TermIndex(terms, changes.space.G).to(device), flatten(terms)
        # layer i: the i-th term of every change that has so many; summed in this order, so that the sum has
        # one value, which whole numbers have in any order
        layers: list[list[tuple[int, int, int, int, int]]] = []
        for c, (g, choice) in enumerate(zip(changes.gene.tolist(), changes.choice.tolist(), strict=True)):
            for i, t in enumerate(t for t, term in enumerate(terms) if g in term.genes):
                axis = terms[t].genes.index(g)
                stride = int(np.prod(terms[t].values.shape[axis + 1 : len(terms[t].genes)], dtype=np.int64))
                if i == len(layers) and not (whole and layers):
                    layers.append([])
                layers[0 if whole else i].append((c, t, g, choice, stride))
        self.C = len(changes.gene)
        self.layers = [torch.tensor(layer, device=device).T for layer in layers]
        self.compiled = torch.cat(self.layers, dim=1).T.contiguous().numpy() if device.type == "cpu" else None

    def __call__(self, genes: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return the change of the sum: genes (N, G), the values of the table's rows (N, rows), or (1, rows)
        for all -> (N, C).
        """
        total = values.new_zeros(len(genes), self.C)
        if self.compiled is not None:
            swapped(genes.numpy(), self.terms, values.numpy(), self.compiled, total.numpy())
            return total
        places = self.index(genes).long()  # (N, T)
        values = values.expand(len(genes), -1)
        now = values.gather(1, places)
        for changed, term, gene, choice, stride in self.layers:
            moved = (choice - genes.index_select(1, gene)).mul_(stride).add_(places.index_select(1, term))
            total.index_add_(1, changed, values.gather(1, moved) - now.index_select(1, term))
        return total


class Gradient:
    """Predicts what every single change of an architecture gains, and what it costs.

    Calling it: genes int8 (N, G) -> gains float32 (N, C), top-1 as a fraction. :meth:`costs` -> float32 (N,
    C) for each of the costs, in its unit.
    """

    def __init__(self, predictor: Predictor | PluginPredictor, *costs: CostModel):
        device = torch.device(predictor.device)
        self._module = None if isinstance(predictor, Predictor) else predictor.module
        if isinstance(predictor, Predictor):
            layers: Sequence[Linear] = predictor.layers
            terms = first_layer_terms(predictor.space, predictor.encoding, layers[0].weight)
        else:  # the features take the place of the first hidden layer
            F = predictor.code.n_features
            layers = [Linear(np.eye(F, dtype=np.float32), np.zeros(F, np.float32))]
            terms = first_layer_terms(predictor.space, predictor.code, layers[0].weight)
        self.changes = Changes(predictor.space, device)
        self._gains = _Swaps(terms, self.changes, False, device)
        self._costs = [
            (
                _Swaps(cost.terms, self.changes, True, device),
                torch.from_numpy(concatenate(cost.terms)).to(device),
                cost.tick,
            )
            for cost in costs
        ]
        self._first = FirstLayer(terms, predictor.space.G, layers[0].bias, device)
        self._table = self._first.table  # (rows, hidden)
        self._layers = [[torch.tensor(part, device=device) for part in layer] for layer in layers]
        self._tiles = Tiles(self._values, self._probe)

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Return the gains of all single changes: genes (N, G) -> float32 (N, C)."""
        n = len(genes)
        hidden = self._first(genes, self._tiles.padding(n), relu=False)
        values = self._tiles.map(self._values, hidden)[:n]
        return self._gains(genes, values)

    def costs(self, genes: torch.Tensor) -> list[torch.Tensor]:
        """Return the change in each cost of every single change: genes (N, G) -> float32 (N, C) for each
        cost.
        """
        return [self._changes_in(genes, *cost) for cost in self._costs]

    @staticmethod
    def _changes_in(genes: torch.Tensor, swaps: _Swaps, table: torch.Tensor, tick: float) -> torch.Tensor:
        return swaps(genes, table[None]).mul_(tick).float()  # sums of whole ticks in float64 are exact

    @property
    def n_costs(self) -> int:
        """The number of costs."""
        return len(self._costs)

    def _values(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the value of every row of the first layer's table, for one tile: before the first ReLU (n,
        hidden) -> (n, rows).
        """
        if self._module is not None:
            return self._backward(self._module, hidden) @ self._table.T
        *inner, (last, _) = self._layers[1:]
        active = [hidden.relu()]
        for weight, bias in inner:
            active.append(functional.linear(active[-1], weight, bias).relu_())
        masked: Callable[..., torch.Tensor] = torch.ops.aten.threshold_backward  # of a ReLU, in one pass
        back = masked(last.expand_as(active[-1]), active[-1], 0)  # (n, hidden of the last layer)
        for (weight, _), hidden in zip(reversed(inner), reversed(active[:-1]), strict=True):
            back = masked(back @ weight, hidden, 0)
        return back @ self._table.T

    @staticmethod
    def _backward(module: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
        """Return the gradients of a plug-in module, by autograd: features (n, F) -> (n, F)."""
        with torch.inference_mode(False), torch.enable_grad():
            inputs = features.clone().requires_grad_()
            (found,) = torch.autograd.grad(module(inputs).sum(), inputs)
        return found

    def _probe(self, n: int) -> torch.Tensor:
        """Return n rows before the first ReLU."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(n, self._table.shape[1], generator=generator).to(self._table.device)


def rows_a_gradient(gradient: Gradient, predictor: Predictor | PluginPredictor) -> float:
    """Return how many rows of the predictor take as long as one gradient with its costs on this machine: the
    median of a few batches.
    """
    genes = predictor.space.random(_TIMED_ROWS, 0).to(predictor.device)
    ratios = []
    lap = Laps(genes.device)
    kind = 1 if genes.device.type == "cpu" else 0  # CPU seconds if a CPU computes, else wall seconds
    for _ in range(_TIMED_BATCHES + 1):
        lap()
        predictor(genes)
        of_rows = lap()[kind]
        gradient(genes)
        gradient.costs(genes)
        ratios.append(lap()[kind] / of_rows)
    return statistics.median(ratios[1:])  # the first batch warms up


def places_for(parents: int) -> int:
    """Return the number of places of a table with room for at least this many parents of each search, a power
    of two.
    """
    return 1 << (parents - 1).bit_length()


class Ranking:
    """The gains and costs of parents' single changes, computed once as long as their search remembers them.

    Each search has a table with room for at least ``parents``. A new entry overwrites the previous one in its
    place.
    """

    def __init__(self, gradient: Gradient, S: int, parents: int, device: torch.device):
        self.gradient = gradient
        self.places = places_for(parents)
        C = len(gradient.changes.gene)
        self.names = torch.zeros(S * self.places, dtype=torch.int64, device=device)
        self.owners = torch.zeros(S * self.places, dtype=torch.int64, device=device)
        self.values = torch.zeros(S * self.places, (1 + gradient.n_costs) * C, device=device)

    def __call__(
        self, genes: torch.Tensor, name: torch.Tensor, search: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """Return the gains (N, C), the changes in each cost (N, C), and the rows whose gradients were
        computed for this call.
        """
        place = (name & self.places - 1) + search * self.places
        missing = (self.names.index_select(0, place) != name).nonzero().view(-1)
        out = self.values.index_select(0, place)
        computed = missing
        if len(missing):
            names, places = name.index_select(0, missing), place.index_select(0, missing)
            owner, leader, own = newcomers(self.owners, places, names[:, None])
            computed = missing.index_select(0, own)
            parents = genes.index_select(0, computed)
            values = torch.cat([self.gradient(parents), *self.gradient.costs(parents)], dim=1)
            position = torch.zeros_like(leader).index_copy_(
                0, own, torch.arange(len(own), device=genes.device)
            )
            out.index_copy_(0, missing, values.index_select(0, position.index_select(0, leader)))
            stays = (owner.index_select(0, own) == own).nonzero().view(-1)
            kept = places.index_select(0, own.index_select(0, stays))
            self.names.index_copy_(0, kept, names.index_select(0, own.index_select(0, stays)))
            self.values.index_copy_(0, kept, values.index_select(0, stays))
        gains, *costs = torch.split(out, len(self.gradient.changes.gene), dim=1)
        return gains, costs, computed


@functools.lru_cache(maxsize=8)
def gradient_of(accuracy: object, cost: object, *others: object) -> Gradient | None:
    """Return the gradient of a predictor under a cost, and under those other costs that are sums over terms;
    None if the predictor has no gradient, or if the cost is not a sum over terms.
    """
    differentiable = isinstance(accuracy, Predictor) or getattr(accuracy, "module", None) is not None
    if isinstance(accuracy, Predictor | PluginPredictor) and differentiable and isinstance(cost, CostModel):
        return Gradient(accuracy, cost, *(other for other in others if isinstance(other, CostModel)))
    return None
