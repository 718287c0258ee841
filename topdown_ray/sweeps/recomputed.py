"""Recompute the columns that follow from an architecture alone, with OFA's own classes
(:mod:`topdown_ray.networks.ofa_reference`), or with the functions of plug-ins, which OFA does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from topdown_ray.errors import UserError
from topdown_ray.networks import ofa_reference
from topdown_ray.spaces.cost import PEAK
from topdown_ray.spaces.cost import names as cost_names
from topdown_ray.spaces.plugged_in import PluginCost, PluginPredictor, plugin_cost, plugin_predictor
from topdown_ray.spaces.registry import SPACES, searched_space
from topdown_ray.spaces.space import Config, Space
from topdown_ray.sweeps.checks import NO_NETWORK, RowCheck, check
from topdown_ray.sweeps.groups import COST, LIMIT
from topdown_ray.sweeps.limited_rows import TOLERANCE as COST_TOLERANCE
from topdown_ray.sweeps.spec import SweepSpec

ACCURACY_TOLERANCE = 1e-5
PARAMETERS_TOLERANCE = 1e-9  # relative difference


@dataclass(frozen=True)
class Recomputation:
    """How the rows of a sweep are computed again: for each space, the hashes of its artefacts and the names
    of its costs.
    """

    spec: SweepSpec
    hashes: Mapping[str, Mapping[str, str]]
    costs: Mapping[str, Sequence[str]]

    def of(self, rows: pd.DataFrame) -> Recomputed:
        """Compute rows again. Their column ``cost_number`` is the position of their cost among those of their
        space.
        """
        spec, parsed = self.spec, dict[tuple[str, Any], Config | UserError]()
        keys = list(zip((self._space(space).name for space in rows["space"]), rows["arch"], strict=True))
        for name, text in set(keys):
            parsed[name, text] = _parsed(SPACES[name], text)
        reasons = [str(parsed[key]) if isinstance(parsed[key], UserError) else "" for key in keys]
        readable = np.array([not reason for reason in reasons], dtype=bool)
        names = ["accuracy", "cost", "macs_m", "params_m", "genes"]
        names += sorted({f"{LIMIT}{name}" for space in spec.spaces for name in spec.limit_names(space)})
        kept = rows[readable].reset_index(drop=True)
        wanted = pd.DataFrame(index=kept.index, columns=names, dtype=object)
        elsewhere: list[dict[str, float]] = [{}] * len(kept)
        by_plugins: set[str] = set()
        for space in spec.spaces:
            own = kept[kept["space"] == space]
            genes_space = self._space(space)
            configs = {
                text: config
                for text in own["arch"].unique()
                if isinstance(config := parsed[genes_space.name, text], dict)
            }
            columns, plugged = _derived(configs, spec, space, genes_space.name, self.hashes[space])
            by_plugins |= plugged
            of_costs = [columns.pop(key) for key in _cost_keys(spec, space)]
            for column, values in columns.items():
                wanted.loc[own.index, column] = _of_rows(own, values)
            for number, values in enumerate(of_costs):
                mine = own[own["cost_number"] == number]
                wanted.loc[mine.index, "cost"] = _of_rows(mine, values)
            if len(of_costs) > 1:
                for place, number, text in zip(own.index, own["cost_number"], own["arch"], strict=True):
                    every = dict(zip(self.costs[space], (values[text] for values in of_costs), strict=True))
                    every.pop(self.costs[space][number])
                    elsewhere[place] = every
        return Recomputed(kept, readable, reasons, wanted, elsewhere, by_plugins)

    def _space(self, space: str) -> Space:
        return searched_space(space, self.spec.protocol)


def _of_rows(rows: pd.DataFrame, values: Mapping[str, Any]) -> pd.Series:
    return pd.Series([values[text] for text in rows["arch"]], index=rows.index, dtype=object)


@dataclass(frozen=True)
class Recomputed:
    """Rows whose architecture can be read, and the values that follow from it."""

    rows: pd.DataFrame
    readable: np.ndarray[Any, np.dtype[np.bool_]]  # for each row
    reasons: list[str]  # for each row: why the architecture cannot be read, or ""
    wanted: pd.DataFrame  # columns of ``searches``, and of limits by the names of their artefacts
    elsewhere: list[dict[str, float]]  # the cost of each architecture on the sweep's other devices
    by_plugins: set[str]  # columns that the functions of plug-ins computed

    def numbers(self) -> Iterator[RowCheck]:
        """Check the columns of numbers against their recomputed values."""
        rows = self.rows
        for column, tolerance in (
            ("accuracy", ACCURACY_TOLERANCE),
            ("cost", COST_TOLERANCE),
            ("macs_m", COST_TOLERANCE),
            ("params_m", PARAMETERS_TOLERANCE),
        ):
            true = self.wanted[column].astype(float)
            # a space without an OFA network has no counts
            unknown = (
                (true.isna() & rows[column].isna()) if column.endswith("_m") else pd.Series(False, rows.index)
            )
            difference = (rows[column] - true).abs() / (1.0 if column == "accuracy" else true)
            largest = float(difference.max()) if len(difference) else 0.0
            rule = "the value recomputed from arch"
            by_plugins_too = any(
                name == column or (column == "cost" and name.startswith(COST)) for name in self.by_plugins
            )
            if by_plugins_too:
                rule += " by the plug-in's own function"
            good = (difference <= tolerance) | unknown
            note = NO_NETWORK if len(rows) and unknown.all() else ""
            more: dict[str, Any] = {
                "tolerance": tolerance,
                "not_checked": note,
                "by_plugins": by_plugins_too,
            }
            yield check(column, rule, rows, good, true.tolist(), largest=largest, **more)


def _parsed(space: Space, text: Any) -> Config | UserError:
    try:
        config = space.parse(text)
    except UserError as error:
        return error
    genes = torch.from_numpy(space.from_config(config))[None]
    canonical = torch.equal(space.canonical(genes), genes)
    return (
        config
        if canonical
        else UserError("architecture: expected the smallest choices in blocks that are off, found others")
    )


def _derived(
    configs: Mapping[str, Config], spec: SweepSpec, space: str, genes_space: str, hashes: Mapping[str, str]
) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Return the columns of each architecture (by its JSON text) as OFA's classes compute them, and the
    columns that the functions of plug-ins computed, because OFA does not know their spaces or costs.
    """
    plugged, functions = _by_plugins(spec, space, genes_space, hashes)
    if SPACES[genes_space].provides is None:
        functions["genes"] = lambda config: SPACES[genes_space].from_config(config).tolist()
    else:
        functions["genes"] = ofa_reference.genes_of(genes_space)
        functions["macs_m"] = ofa_reference.macs_of(genes_space)
        functions["params_m"] = ofa_reference.parameters_of(genes_space)
    counted = {"macs": "macs_m", "params": "params_m"}
    for column, name in _costs_of(spec, space).items():
        if column in plugged:
            continue
        if name == PEAK:
            functions[column] = ofa_reference.peak_activation_of(genes_space)
        elif name in counted:
            functions[column] = functions[counted[name]]
        else:
            functions[column] = ofa_reference.latency_of(name, genes_space, hashes[column])
    columns = {
        name: {text: function(config) for text, config in configs.items()}
        for name, function in functions.items()
    }
    columns["genes"] = {text: tuple(genes) for text, genes in columns["genes"].items()}
    if "accuracy" not in columns:
        columns["accuracy"] = ofa_reference.accuracies(
            spec.predictor[space], genes_space, hashes["predictor"], dict(configs)
        )
    return columns, plugged


def _costs_of(spec: SweepSpec, space: str) -> dict[str, str]:
    """Return the costs that rows of a space state, by artefact: the sweep's own, and those of limits."""
    own = [device.cost for device in spec.devices(space)]
    limits = {f"{LIMIT}{name}": name for name in spec.limit_names(space)}
    return dict(zip(_cost_keys(spec, space), own, strict=True)) | limits


def _cost_keys(spec: SweepSpec, space: str) -> list[str]:
    n = len(spec.devices(space))
    return ["cost"] if n == 1 else [f"{COST}{i}" for i in range(n)]


def _by_plugins(
    spec: SweepSpec, space: str, genes_space: str, hashes: Mapping[str, str]
) -> tuple[set[str], dict[str, Callable[[Config], Any]]]:
    """Return the columns that a plug-in computes, with the functions that compute them. Raises UserError for
    a plug-in that has changed since the rows were written.
    """
    of_space = SPACES[genes_space]
    models: dict[tuple[str, str], PluginCost | PluginPredictor | None] = {
        ("accuracy", "predictor"): plugin_predictor(spec.predictor[space], of_space),
    }
    for column, name in _costs_of(spec, space).items():
        models[column, column] = None if name in cost_names() else plugin_cost(name, of_space)
    functions: dict[str, Callable[[Config], Any]] = {}
    for (column, artefact), model in models.items():
        if model is None:
            continue
        if model.sha256 != hashes[artefact]:
            raise UserError(
                f"{artefact.partition(':')[0]}: {model.name}: expected the plug-in that the rows were "
                f"computed with, SHA-256 {hashes[artefact]}, found {model.sha256}, because its source or its "
                "values have changed"
            )

        def value(config: Config, model: PluginCost | PluginPredictor = model) -> float:
            return float(model(torch.from_numpy(of_space.from_config(config))[None]))

        functions[column] = value
    return set(functions), functions
