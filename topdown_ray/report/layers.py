"""Tabulate the layers of a space's architectures and their costs, so that genes can be looked up in them.

The layers of an architecture are not stored. The terms of a space define, for each combination of the choices
of a few genes, a *group* of layers, and a cost model defines the cost of each combination. Both tables are
small and cover every architecture of the space."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.spaces import csv_table, latency_table, ofa_tables
from topdown_ray.spaces.cost import COUNTED, ONE_TICK, CostModel, load_cost
from topdown_ray.spaces.layers import Layer, OfLayer, parameters
from topdown_ray.spaces.space import Space
from topdown_ray.spaces.terms import Array, aligned

DIGITS = 6  # decimals of costs in the page: exact to single MACs, single parameters and nanoseconds


@dataclass(frozen=True)
class LayerTerm:
    """A term of a space: the group of layers for each combination of choices.

    groups: ints (choices of gene 0, of gene 1, ...); expand: the gene of the expand ratio; stage: from 0.
    Both are -1 for layers that are not searched."""

    genes: tuple[int, ...]
    groups: Array
    expand: int
    stage: int


@dataclass(frozen=True)
class LayerTables:
    """The layers of a space: ``groups[g]`` are the layers of group g; group 0 is empty."""

    space: Space
    groups: tuple[tuple[Layer, ...], ...]
    terms: tuple[LayerTerm, ...]

    def payload(self) -> dict[str, Any]:
        """Return the tables for JSON: layers by index, and each term's entries in the order of its genes."""
        layers = {
            layer: i for i, layer in enumerate(dict.fromkeys(x for group in self.groups for x in group))
        }
        return {
            "layers": [[int(x) if isinstance(x, bool) else x for x in layer] for layer in layers],
            "groups": [[layers[layer] for layer in group] for group in self.groups],
            "terms": [
                {
                    "genes": term.genes,
                    "sizes": term.groups.shape,
                    "entries": term.groups.astype(int).ravel().tolist(),
                    "expand": term.expand,
                    "stage": term.stage,
                }
                for term in self.terms
            ],
        }


def layer_tables(space: Space) -> LayerTables | None:
    """Return the layers of a space, or None if the space does not define them."""
    if space.provides is None:
        return None
    groups: dict[tuple[Layer, ...], int] = {(): 0}  # 0 is also the value of a block that is off

    def number(layers: tuple[Layer, ...]) -> float:
        return groups.setdefault(layers, len(groups))

    def joined(values: Iterable[float]) -> float:
        parts = [int(value) for value in values]
        known = list(groups)
        return number(tuple(layer for part in parts for layer in known[part]))

    terms = space.traits.layer_terms(space, lambda layer, _: number((layer,)), joined=joined)
    found = tuple(groups)
    counted = space.traits.layer_terms(space, lambda layer, _: parameters(layer))
    sums = np.array([sum(map(parameters, group)) for group in found])
    for term, total in zip(terms, counted, strict=True):
        if term.values.max() >= len(found) or (sums[term.values.astype(int)] != total.values).any():
            return None  # a plug-in that combines layers in its own way
    return LayerTables(space, found, tuple(_labelled(space, term.genes, term.values) for term in terms))


def _labelled(space: Space, genes: tuple[int, ...], groups: Array) -> LayerTerm:
    expand = next((g for g in genes if space.genes[g].kind == "expand"), -1)
    return LayerTerm(genes, groups, expand, space.genes[expand].stage if expand >= 0 else -1)


def config_pattern(space: Space) -> str:
    """Return the JSON of an architecture in OFA's form, with ``%g%`` in place of the choice of gene g."""
    config = space.to_config([0] * space.G)
    for g, gene in enumerate(space.genes):
        if gene.key == "image_size":
            config[gene.key] = f"%{g}%"
        else:
            config[gene.key][gene.position] = f"%{g}%"
    return re.sub(r'"(%\d+%)"', r"\1", json.dumps(config))


# --- costs --------------------------------------------------------------------------------------------------

#: The cost of a combination of choices: one number, or one for each of its layers and then the constant that
#: the cost table adds to every architecture.
Entry = float | list[float]


def term_costs(
    tables: LayerTables, names: Sequence[str], sha256: str
) -> tuple[tuple[Entry, ...], ...] | None:
    """Return the costs of each term's entries, in the order of :meth:`LayerTables.payload` and in the cost's
    unit.

    names: possible names of the cost (see :func:`load_cost`); the one with this hash is used. Returns None if
    the cost is not available, or if its terms have other genes. This downloads nothing and calls no
    plug-in."""
    for name in names:
        with contextlib.suppress(UserError):
            if not _at_hand(name, tables.space):
                continue
            model = load_cost(name, tables.space)
            if model.sha256 == sha256:
                return _entries(tables, model, _of_layer(name, tables.space))
    return None


def _at_hand(name: str, space: Space) -> bool:
    files = space.traits.published.tables.get(name, {})
    return all(assets.local(path) is not None for path in files.values())


def _entries(
    tables: LayerTables, model: CostModel, of_layer: OfLayer
) -> tuple[tuple[Entry, ...], ...] | None:
    if len(model.terms) != len(tables.terms):
        return None
    apart = _apart(tables, of_layer)
    found = []
    for term, own, costs in zip(tables.terms, apart, model.terms, strict=True):
        shape = term.groups.shape
        if not set(costs.genes) <= set(term.genes):
            return None
        values = aligned(costs.genes, costs.values * model.tick, term.genes, tables.space.sizes)
        found.append(_of_term(np.broadcast_to(values, shape).ravel().tolist(), own))
    return tuple(found)


def _of_term(totals: list[float], own: list[tuple[float, ...]]) -> tuple[Entry, ...]:
    """The layers' own costs, if they leave the same remainder of all entries."""
    plain = tuple(round(total, DIGITS) for total in totals)
    rests = [total - sum(parts) for total, parts in zip(totals, own, strict=True) if parts]
    negligible = 1e-6 * max(map(abs, [*totals, *rests]))
    if max(rests) - min(rests) > negligible:
        return plain
    constant = 0.0 if abs(rests[0]) <= negligible else rests[0]
    return tuple(
        total
        if len(parts) == 0 or (len(parts) == 1 and not constant)
        else [round(value, DIGITS) for value in (*parts, *([constant] if constant else []))]
        for total, parts in zip(plain, own, strict=True)
    )


def _apart(tables: LayerTables, of_layer: OfLayer) -> list[list[tuple[float, ...]]]:
    """The cost of each single layer of each term's entries."""
    several: list[tuple[float, ...]] = []

    def joined(values: Iterable[float]) -> float:
        several.append(tuple(values))
        return float(-len(several))  # costs are not negative

    def parts(group: float, value: float) -> tuple[float, ...]:
        if value < 0:
            return several[-int(value) - 1]
        return (value,) if tables.groups[int(group)] else ()

    terms = tables.space.traits.layer_terms(tables.space, of_layer, joined=joined)
    return [
        list(map(parts, term.groups.flat, values.values.flat))
        for term, values in zip(tables.terms, terms, strict=True)
    ]


def _of_layer(name: str, space: Space) -> OfLayer:
    """A function for the cost of one layer, in the unit of the cost of this name, if the cost has one."""
    if name in COUNTED:
        rule = {"macs": _multiply_accumulates, "params": parameters}[name]
        return lambda layer, _: rule(layer) * ONE_TICK
    if name in space.traits.published.tables:
        return ofa_tables.reader(space, ofa_tables.find_published(name, space))
    source = latency_table.source_of(name, space)
    if source is None:
        return ofa_tables.reader(space, ofa_tables.files_in(Path(name), space))
    csv = source.path.suffix == csv_table.SUFFIX
    table = csv_table.read(source.path, space) if csv else latency_table.read(source.path)
    slope, values = table.correction.slope if source.corrected else 1.0, table.values
    return lambda layer, _: values[layer] * slope


def _multiply_accumulates(layer: Layer) -> int:
    """Count those of a layer outside the searched blocks, by OFA's rule. Blocks have terms of their own."""
    x = layer
    if x.kind in ("conv", "linear"):
        return x.size_out**2 * x.kernel**2 * x.width_in * x.width_out
    return x.size_out**2 * x.width_mid * (x.kernel**2 + x.width_out) if x.kind == "mbconv" else 0
