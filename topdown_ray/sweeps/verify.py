"""Rows prove themselves: every column that can be derived is derived again and compared.

Accuracy, cost, MACs, parameters and genes follow from a row's ``arch`` alone, through OFA's own classes
(:mod:`topdown_ray.networks.ofa_reference`). The rest follows from the manifest
(:mod:`topdown_ray.sweeps.checks`). Of ``unique_evaluations``, ``gradients`` and the inner points of ``trace``
only bounds are known; ``rerun`` searches rows again and compares all bits. The columns of
:data:`topdown_ray.store.INCIDENTAL` tell how a row was computed; nothing follows from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import torch

from topdown_ray.errors import UserError, brief
from topdown_ray.files import validated
from topdown_ray.networks import ofa_reference
from topdown_ray.spaces.cost import PEAK
from topdown_ray.spaces.cost import names as cost_names
from topdown_ray.spaces.plugged_in import (
    PluginCost,
    PluginPredictor,
    plugin_cost,
    plugin_predictor,
)
from topdown_ray.spaces.registry import SPACES, searched_space
from topdown_ray.spaces.space import Config, Space
from topdown_ray.store.results import Results
from topdown_ray.sweeps.checks import (
    NO_NETWORK,
    RowCheck,
    check,
    compared,
    counts,
    curves,
    identities,
    once,
    promised,
)
from topdown_ray.sweeps.limited_rows import TOLERANCE as COST_TOLERANCE
from topdown_ray.sweeps.limited_rows import LimitedRows
from topdown_ray.sweeps.rerun import searched_again
from topdown_ray.sweeps.spec import (
    ALGORITHM_VERSION,
    COST,
    LIMIT,
    SweepSpec,
    make_spec,
    plugin_hashes,
    sweep_identity,
)

ACCURACY_TOLERANCE = 1e-5
PARAMETERS_TOLERANCE = 1e-9  # relative


@dataclass(frozen=True)
class Verification:
    """What the checks came to."""

    rows: int
    checks: tuple[RowCheck, ...]
    missing: int  # searches of the sweep without rows
    complete: bool  # whether the sweep says that none is missing

    @property
    def passed(self) -> bool:
        """Whether no check has a failing row."""
        return not any(found.failures for found in self.checks)

    @property
    def failed_columns(self) -> set[str]:
        """The columns of all checks that failed."""
        return {column for found in self.checks if found.failures for column in found.columns}

    def largest(self, column: str) -> float:
        """The largest difference of a recomputed column: ``accuracy`` absolute, ``cost``, ``macs_m``,
        ``params_m`` relative.
        """
        return next(found.largest or 0.0 for found in self.checks if found.name == column)


class _Cost(pydantic.BaseModel):
    name: str
    unit: str
    sha256: str


class _Predictor(pydantic.BaseModel):
    name: str
    space: str
    sha256: str


class _PluginSpace(pydantic.BaseModel):
    sha256: str


class _Artefacts(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Cost]  # the cost, or each of several, and those of limits

    predictor: _Predictor
    space: _PluginSpace | None = None  # the package's own have no hash

    @property
    def hashes(self) -> dict[str, str]:
        own = {} if self.space is None else {"space": self.space.sha256}
        costs = {key: cost.sha256 for key, cost in self.__pydantic_extra__.items()}
        return {"predictor": self.predictor.sha256, **own, **costs}

    def costs(self, n: int) -> list[_Cost]:
        """The costs of the space's n devices. Raises UserError where one is missing."""
        keys = ["cost"] if n == 1 else [f"{COST}{i}" for i in range(n)]
        for key in keys:
            if key not in self.__pydantic_extra__:
                raise UserError(f"run.json: artefacts: expected an entry {key}, found none")
        return [self.__pydantic_extra__[key] for key in keys]

    def columns(self, cost: _Cost) -> dict[str, str]:
        return {
            "cost_name": cost.name,
            "cost_unit": cost.unit,
            "cost_sha256": cost.sha256,
            "predictor_name": self.predictor.name,
            "predictor_space": self.predictor.space,
            "predictor_sha256": self.predictor.sha256,
        }


class _Manifest(pydantic.BaseModel):
    run_id: str
    schema_: int = pydantic.Field(alias="schema")
    algorithm: int
    artefacts: dict[str, _Artefacts]
    strategies: dict[str, str] = {}  # hashes of those that are plug-ins
    status: str = ""


def verify(results: Results, rerun: int = 0, rerun_seed: int = 0) -> Verification:
    """Check every row. rerun: search this many rows again; rerun_seed: which ones.

    Raises UserError where there is no row, or where an artefact is not the one that the manifest names.
    """
    rows = results.searches.reset_index(drop=True)
    if rows.empty:
        raise UserError("expected finished searches, found no rows")
    spec = make_spec(results.manifest["spec"], "run.json: spec")
    manifest = validated(_Manifest, results.manifest, "run.json")
    for space in spec.spaces:
        if space not in manifest.artefacts:
            raise UserError(f"run.json: artefacts: expected an entry for {space}, found none")
    for name, sha256 in plugin_hashes(spec).items():
        if manifest.strategies.get(name, sha256) != sha256:
            raise UserError(
                f"strategies: {name}: expected the plug-in of the rows, SHA-256 {manifest.strategies[name]}, "
                f"found {sha256}: its source has changed"
            )
    costs = {space: manifest.artefacts[space].costs(len(spec.devices(space))) for space in spec.spaces}
    rows = rows.assign(cost_number=_cost_numbers(rows, costs))
    complete = manifest.status == "complete"
    checks, sound = promised(rows, spec)
    presence, missing = once(rows, spec, complete)
    checks += [presence, *_artefacts(sound, manifest, costs), *_identities(sound, spec, manifest)]
    checks += [*_recomputed(sound, spec, manifest, costs), *counts(sound, spec, manifest.schema_)]
    keys = ["search_id", "target_index"]
    others = pd.MultiIndex.from_frame(rows.drop(index=sound.index)[keys])
    trace = results.trace[~pd.MultiIndex.from_frame(results.trace[keys]).isin(others)]
    checks += curves(trace, sound, spec)
    if rerun and manifest.algorithm != ALGORITHM_VERSION:
        checks.append(RowCheck("rerun", (), "", not_checked=_older(manifest)))
    elif rerun:
        checks += list(searched_again(results, sound, spec, rerun, rerun_seed))
    return Verification(len(rows), tuple(checks), missing, complete)


_Costs = Mapping[str, list[_Cost]]  # of each space, in the order of the specification


def _cost_numbers(rows: pd.DataFrame, costs: _Costs) -> list[int]:
    """Which of its space's costs each row is about; -1: none."""
    number_of = {
        (space, cost.name): number for space, own in costs.items() for number, cost in enumerate(own)
    }
    several = {space: len(own) > 1 for space, own in costs.items()}
    return [
        number_of.get((space, name), -1) if several.get(space) else 0
        for space, name in zip(rows["space"], rows["cost_name"], strict=True)
    ]


def _artefacts(rows: pd.DataFrame, manifest: _Manifest, costs: _Costs) -> Iterator[RowCheck]:
    """Names, units and hashes of cost tables and predictors; the files themselves are hashed where they are
    read.
    """
    known = {
        (space, number): manifest.artefacts[space].columns(cost)
        for space, own in costs.items()
        for number, cost in enumerate(own)
    }
    places = list(zip(rows["space"], rows["cost_number"], strict=True))
    for column in next(iter(known.values())):
        yield compared(column, "as in run.json", rows, [known[place][column] for place in places])


def _identities(rows: pd.DataFrame, spec: SweepSpec, manifest: _Manifest) -> Iterator[RowCheck]:
    if manifest.algorithm != ALGORITHM_VERSION:
        yield compared(
            "run_id", "as in run.json", rows, [manifest.run_id] * len(rows), not_checked=_older(manifest)
        )
        yield RowCheck("search_id", ("search_id",), "", not_checked=_older(manifest))
        return
    hashes = {space: manifest.artefacts[space].hashes for space in spec.spaces}
    run_id = sweep_identity(spec, hashes)
    if run_id != manifest.run_id:
        where: dict[str, Any] = {"search_id": "run.json", "expected": run_id, "found": brief(manifest.run_id)}
        yield RowCheck(
            "run_id", ("run_id",), "the hash of all that decides the sweep", len(rows), len(rows), **where
        )
    yield compared("run_id", "the hash of all that decides the sweep", rows, [run_id] * len(rows))
    yield identities(rows, spec, hashes)


def _older(manifest: _Manifest) -> str:
    return f"written by algorithm {manifest.algorithm}, this is {ALGORITHM_VERSION}"


def _recomputed(
    rows: pd.DataFrame, spec: SweepSpec, manifest: _Manifest, costs: _Costs
) -> Iterator[RowCheck]:
    """All that follows from ``arch``, through OFA's own classes."""
    parsed: dict[tuple[str, Any], Config | UserError] = {}
    keys = list(
        zip([_genes_space(space, spec).name for space in rows["space"]], rows["arch"].tolist(), strict=True)
    )
    for name, text in set(keys):
        parsed[name, text] = _parsed(SPACES[name], text)
    reasons = [str(parsed[key]) if isinstance(parsed[key], UserError) else "" for key in keys]
    readable = np.array([not reason for reason in reasons], dtype=bool)
    yield check("arch", "an architecture of the space, in canonical form", rows, readable, found=reasons)
    rows = rows[readable]
    own_functions: set[str] = set()
    names = ["accuracy", "cost", "macs_m", "params_m", "genes"]
    names += sorted({f"{LIMIT}{name}" for space in spec.spaces for name in spec.limit_names(space)})
    wanted = pd.DataFrame(index=rows.index, columns=names, dtype=object)
    elsewhere: list[dict[str, float]] = [{}] * len(rows)  # what an answer costs on the other devices
    place_of = {index: place for place, index in enumerate(rows.index)}
    for space in spec.spaces:
        own = rows[rows["space"] == space]
        genes_space = _genes_space(space, spec)
        configs = {
            text: config
            for text in own["arch"].unique()
            if isinstance(config := parsed[genes_space.name, text], dict)
        }
        columns, by_plugins = _derived(
            configs, spec, space, genes_space.name, manifest.artefacts[space].hashes
        )
        own_functions |= by_plugins
        of_devices = [columns.pop(key) for key in _cost_keys(spec, space)]
        for index, number, text in zip(own.index, own["cost_number"], own["arch"], strict=True):
            every = {cost.name: values[text] for cost, values in zip(costs[space], of_devices, strict=True)}
            wanted.at[index, "cost"] = every.pop(costs[space][number].name)
            elsewhere[place_of[index]] = every
        for column, values in columns.items():
            wanted.loc[own.index, column] = pd.Series(
                [values[text] for text in own["arch"]], index=own.index, dtype=object
            )
    yield compared("genes", "the choices of arch", rows, wanted["genes"].tolist())
    numbers = wanted[["accuracy", "cost", "macs_m", "params_m"]].astype(float)
    for column, tolerance in (
        ("accuracy", ACCURACY_TOLERANCE),
        ("cost", COST_TOLERANCE),
        ("macs_m", COST_TOLERANCE),
        ("params_m", PARAMETERS_TOLERANCE),
    ):
        true = numbers[column]
        # a space without an OFA network has no counts
        unknown = (
            (true.isna() & rows[column].isna()) if column.endswith("_m") else pd.Series(False, rows.index)
        )
        difference = (rows[column] - true).abs() / (1.0 if column == "accuracy" else true)
        largest = float(difference.max()) if len(difference) else 0.0
        rule = "recomputed from arch"
        by_plugins_too = any(
            name == column or (column == "cost" and name.startswith(COST)) for name in own_functions
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
    fraction = rows["accuracy"].between(0, 1)
    yield dataclasses.replace(
        check("accuracy", "a fraction from 0 to 1", rows, fraction), name="accuracy from 0 to 1"
    )
    over = numbers["cost"] > rows["target"] * (1 + 1e-7)
    under = numbers["cost"] < rows["target"] * (1 - 1e-7)
    meets, true = rows["cost"] <= rows["target"], numbers["cost"] <= rows["target"]
    limited = LimitedRows(rows, wanted, elsewhere)
    yield limited.checked(own_functions)
    over, under = over | limited.over, under & limited.under
    meets, true = meets & limited.meets, true & limited.true
    said = rows["feasible"].eq(True)
    agrees = said.eq(meets) & rows["feasible"].notna() & ~(said & over) & ~(~said & under)
    yield check("feasible", "whether the cost meets the target, and all limits", rows, agrees, true.tolist())


def _genes_space(space: str, spec: SweepSpec) -> Space:
    return searched_space(space, spec.protocol)


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
    """The columns of each architecture (by its JSON text) as OFA's classes have them, and which of them are
    computed by the functions of plug-ins, since OFA knows nothing of those.
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
    """The costs that rows of a space state, by artefact: the sweep's own, and those of limits."""
    own = [device.cost for device in spec.devices(space)]
    limits = {f"{LIMIT}{name}": name for name in spec.limit_names(space)}
    return dict(zip(_cost_keys(spec, space), own, strict=True)) | limits


def _cost_keys(spec: SweepSpec, space: str) -> list[str]:
    n = len(spec.devices(space))
    return ["cost"] if n == 1 else [f"{COST}{i}" for i in range(n)]


def _by_plugins(
    spec: SweepSpec, space: str, genes_space: str, hashes: Mapping[str, str]
) -> tuple[set[str], dict[str, Callable[[Config], Any]]]:
    """The columns that a plug-in computes, and the functions that compute them. Raises UserError for a
    plug-in that has changed since.
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
                f"{artefact}: {model.name}: expected the plug-in of the rows, SHA-256 {hashes[artefact]}, "
                f"found {model.sha256}: its source or its values have changed"
            )

        def value(config: Config, model: PluginCost | PluginPredictor = model) -> float:
            return float(model(torch.from_numpy(of_space.from_config(config))[None]))

        functions[column] = value
    return set(functions), functions
