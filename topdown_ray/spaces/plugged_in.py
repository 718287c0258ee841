"""Wrap users' own predictors and costs, which are functions of a batch of architectures.

``on_genes``, ``on_configs`` and ``on_features`` declare the form in which a function reads architectures. A
``torch.nn.Module`` and an object with a method ``predict`` (for example a regressor of scikit-learn) need no
wrapper, and read features."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from topdown_ray import plugins
from topdown_ray.errors import UserError, one_line
from topdown_ray.spaces.predictor import features, one_hot
from topdown_ray.spaces.space import Encoding, Genes, Space
from topdown_ray.spaces.tiles import TILE

_PROBED = TILE  # random architectures on which a function is tried
_RANDOM = 2_000  # random architectures among which the search for the cheapest one starts


@dataclass(frozen=True)
class Adapter:
    """A function and the form in which it reads architectures: genes, configs or features."""

    form: str
    function: Any
    unit: str = ""  # for a cost

    def plugin_state(self) -> tuple[str, Any]:
        """Return the text and the function that its identity depends on."""
        return f"{self.form} {self.unit}", self.function


def on_genes(function: Any, unit: str = "") -> Adapter:
    """Wrap a function that reads genes.

    Args:
        function: A function that gets a tensor of genes in canonical form, int8 (N, G), and returns N values:
            top-1 accuracies from 0 to 1, or costs above 0.
        unit: The unit of a cost, such as `mJ`. A predictor has none.

    Returns:
        An object that a sweep can name as a predictor or a cost.
    """
    return Adapter("genes", function, unit)


def on_configs(function: Any, unit: str = "") -> Adapter:
    """Wrap a function that reads OFA's configurations.

    Args:
        function: A function that gets a list of N configurations, such as `{"ks": [...], "e": [...],
            "d": [...], "image_size": 224}`, and returns N values: top-1 accuracies from 0 to 1, or costs
            above 0.
        unit: The unit of a cost, such as `mJ`. A predictor has none.

    Returns:
        An object that a sweep can name as a predictor or a cost.
    """
    return Adapter("configs", function, unit)


def on_features(function: Any, unit: str = "") -> Adapter:
    """Wrap a function that reads one-hot features.

    Args:
        function: A function or module that gets a tensor of features, float32 (N, F), and returns N values:
            top-1 accuracies from 0 to 1, or costs above 0. An object with a method `predict` gets an array.
        unit: The unit of a cost, such as `mJ`. A predictor has none.

    Returns:
        An object that a sweep can name as a predictor or a cost.
    """
    return Adapter("features", function, unit)


def adapter_of(plugin: plugins.Plugin, kind: str) -> Adapter:
    """Return the form in which a plug-in reads architectures. Raises UserError for a function without a
    wrapper.
    """
    value = plugin.value
    if isinstance(value, Adapter):
        return value
    if isinstance(value, nn.Module) or callable(getattr(value, "predict", None)):
        return on_features(value)
    raise UserError(
        f"{kind}: {plugin.name}: expected on_genes(...), on_configs(...) or on_features(...) of "
        "topdown_ray.spaces.plugged_in, a torch.nn.Module or an object with predict, found "
        f"{type(value).__name__}"
    )


@dataclass(frozen=True, eq=False)
class _Batched:
    """A function of architectures that is called with batches of one size, so that the bits of a row do not
    depend on its batch.
    """

    name: str
    sha256: str
    space: Space
    adapter: Adapter
    device: str = "cpu"

    def check_here(self, kind: str) -> None:
        """Raise UserError if this process finds another function than the driver. Functions are sent by name,
        objects by value.
        """
        if not hasattr(self.adapter.function, "__code__"):
            return
        name = self.name.removeprefix("plugin:")
        plugin = plugins.find(kind, name)
        if plugin is None or plugin.sha256 != self.sha256:
            found = "none" if plugin is None else plugin.sha256
            raise UserError(
                f"{plugins.FIELDS[kind]}: {name}: expected the plug-in of the driver, SHA-256 {self.sha256}, "
                f"found {found}"
            )

    @functools.cached_property
    def code(self) -> Encoding:
        """The one-hot encoding that it reads."""
        return one_hot(self.space)

    def values(self, genes: torch.Tensor) -> torch.Tensor:
        """Return the values of genes int8 (N, G) as float64 (N,). Raises UserError for another number of
        values, and for NaN.
        """
        rows = self.space.canonical(genes)
        if self._by_row:
            found = self._asked(rows)
        else:
            padded = torch.cat([rows, rows.new_zeros(-len(rows) % TILE, rows.shape[1])])
            parts = [self._asked(tile) for tile in torch.split(padded, TILE)] if len(rows) else []
            found = torch.cat(parts)[: len(rows)] if parts else torch.zeros(0, dtype=torch.float64)
        return found.to(genes.device)

    @property
    def _by_row(self) -> bool:
        """Whether each value is computed by itself, as a regressor of scikit-learn does."""
        return callable(getattr(self.adapter.function, "predict", None))

    def _asked(self, rows: torch.Tensor) -> torch.Tensor:
        if not len(rows):
            return torch.zeros(0, dtype=torch.float64)
        found = self._function(self._read(rows))
        values = torch.as_tensor(found).detach().to("cpu", torch.float64).reshape(-1)
        if len(values) != len(rows):
            raise UserError(
                f"{self.name}: expected {len(rows)} values for {len(rows)} architectures, found {len(values)}"
            )
        if values.isnan().any():
            place = int(values.isnan().nonzero()[0, 0])
            raise UserError(f"{self.name}: expected a number, found nan for {rows[place].tolist()}")
        return values

    def _read(self, rows: torch.Tensor) -> Any:
        if self.adapter.form == "genes":
            return rows
        if self.adapter.form == "configs":
            return [self.space.to_config(row) for row in rows.cpu()]
        found = features(self.space, self.code, rows)
        return found.cpu().numpy() if self._by_row else found

    def _function(self, batch: Any) -> Any:
        function = self.adapter.function
        return function.predict(batch) if self._by_row else function(batch)


@dataclass(frozen=True, eq=False)
class PluginPredictor(_Batched):
    """A plug-in that predicts accuracies. Call it with genes int8 (N, G) for top-1 float32 (N,)."""

    def __post_init__(self) -> None:
        if self.module is not None:
            self.module.eval().to(self.device)

    @property
    def predictor_space(self) -> str:
        """The space that the predictor was made for, which is the one that names it."""
        return self.space.name

    @property
    def module(self) -> nn.Module | None:
        """The network, if the predictor is one; its gradients can be computed."""
        function = self.adapter.function
        return function if isinstance(function, nn.Module) and self.adapter.form == "features" else None

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Return predicted top-1 accuracies float32 (N,) of genes int8 (N, G)."""
        return self.values(genes).float()


@dataclass(frozen=True, eq=False)
class PluginCost(_Batched):
    """A plug-in that computes costs. Call it with genes int8 (N, G) for costs float64 (N,) in ``unit``."""

    @property
    def unit(self) -> str:
        """The unit of the cost."""
        return self.adapter.unit

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Return costs float64 (N,) of genes int8 (N, G)."""
        return self.values(genes)

    def cheapest(self) -> tuple[float, Genes]:
        """Return the lowest cost that was found, and its genes (G,). It is not exact, because any function
        can be a cost.

        The search starts from the best of the smallest and of random architectures, and changes one gene at a
        time while this lowers the cost."""
        return self._cheapest

    @functools.cached_property
    def _cheapest(self) -> tuple[float, Genes]:
        space = self.space
        rows = torch.cat([torch.zeros(1, space.G, dtype=torch.int8), space.random(_RANDOM, 0)])
        changes = torch.tensor(
            [(g, choice) for g, size in enumerate(space.sizes) for choice in range(size)], dtype=torch.long
        )
        while True:
            costs = self.values(rows)
            best = int(costs.argmin())
            if len(rows) == len(changes) + 1 and best == 0:
                return float(costs[0]), space.canonical(rows[:1])[0].numpy()
            neighbours = rows[best].repeat(len(changes) + 1, 1)  # the first row stays the best itself
            neighbours[torch.arange(1, len(neighbours)), changes[:, 0]] = changes[:, 1].to(torch.int8)
            rows = neighbours

    def range(self) -> tuple[float, float]:
        """Return the lowest cost that was found, and the highest cost of the largest and of random
        architectures.
        """
        rows = torch.cat(
            [
                torch.tensor([[size - 1 for size in self.space.sizes]], dtype=torch.int8),
                self.space.random(_RANDOM, 0),
            ]
        )
        return self.cheapest()[0], float(self.values(rows).max())


def plugin_predictor(name: str, space: Space) -> PluginPredictor | None:
    """Return the predictor that is a plug-in of this name, or None. Raises UserError."""
    plugin = plugins.find("predictors", name)
    if plugin is None:
        return None
    found = PluginPredictor(f"plugin:{name}", plugin.sha256, space, adapter_of(plugin, "predictor"))
    low, high = _probed(found, "predictor", name)
    if not 0 <= low <= high <= 1:
        raise UserError(
            f"predictor: {name}: expected top-1 accuracies as fractions from 0 to 1, found {low:.4g} to "
            f"{high:.4g}"
        )
    return found


def plugin_cost(name: str, space: Space) -> PluginCost | None:
    """Return the cost that is a plug-in of this name, or None. Raises UserError."""
    plugin = plugins.find("costs", name)
    if plugin is None:
        return None
    adapter = adapter_of(plugin, "cost")
    if not adapter.unit:
        raise UserError(f"cost: {name}: expected a unit (on_genes(function, unit='mJ')), found none")
    found = PluginCost(f"plugin:{name}", plugin.sha256, space, adapter)
    low, _ = _probed(found, "cost", name)
    if not low > 0:
        raise UserError(f"cost: {name}: expected numbers above 0, found {low:.4g}")
    return found


def _probed(model: PluginPredictor | PluginCost, field: str, name: str) -> tuple[float, float]:
    """Return the lowest and the highest value of a few architectures. Raises UserError if they have none."""
    try:
        values = model(model.space.random(_PROBED, 0))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{field}: {name}: expected a value for every architecture, found {type(error).__name__}: "
            f"{one_line(error, 200)}"
        ) from error
    return float(values.min()), float(values.max())
