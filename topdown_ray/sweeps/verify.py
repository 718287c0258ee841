"""Verify result rows: recompute every column that can be recomputed, and compare it.

Accuracy, cost, MACs, parameters and genes follow from a row's ``arch`` alone, through OFA's own classes
(:mod:`topdown_ray.sweeps.recomputed`). The rest follows from the manifest (:mod:`topdown_ray.sweeps.checks`).
For ``unique_evaluations``, ``gradients`` and the inner points of ``trace``, only bounds are known; ``rerun``
repeats the searches of rows and compares all bits. The columns of
:data:`topdown_ray.store.schema.INCIDENTAL` record how a row was computed, and nothing else follows from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pydantic

from topdown_ray.errors import UserError, brief
from topdown_ray.files import validated
from topdown_ray.store.results import Results
from topdown_ray.sweeps.checks import (
    RowCheck,
    check,
    compared,
    counts,
    curves,
    identities,
    once,
    promised,
)
from topdown_ray.sweeps.front_rows import fronts
from topdown_ray.sweeps.groups import COST
from topdown_ray.sweeps.identities import (
    ALGORITHM_VERSION,
    check_known_identities,
    plugin_hashes,
    sweep_identity,
)
from topdown_ray.sweeps.limited_rows import LimitedRows
from topdown_ray.sweeps.recomputed import Recomputation
from topdown_ray.sweeps.rerun import searched_again
from topdown_ray.sweeps.spec import SweepSpec, make_spec


@dataclass(frozen=True)
class Verification:
    """The results of all checks."""

    rows: int
    checks: tuple[RowCheck, ...]
    missing: int  # number of searches without rows
    complete: bool  # whether the sweep is marked as complete

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
    __pydantic_extra__: dict[str, _Cost]  # the cost, or each of several costs, and those of limits

    predictor: _Predictor
    space: _PluginSpace | None = None  # the package's own spaces have no hash

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
    """Check every row. rerun: repeat the searches of this many rows; rerun_seed: the seed of their choice.

    Raises UserError if there are no rows, or if an artefact is not the one that the manifest names.
    """
    rows = results.searches.reset_index(drop=True)
    if rows.empty:
        where = "results" if results.place is None else results.place.name
        raise UserError(f"{where}: expected finished searches, found no rows")
    spec = make_spec(results.manifest["spec"], "run.json: spec")
    manifest = validated(_Manifest, results.manifest, "run.json")
    check_known_identities(spec, results.manifest, "run.json")
    for space in spec.spaces:
        if space not in manifest.artefacts:
            raise UserError(f"run.json: artefacts: expected an entry for {space}, found none")
    for name, sha256 in plugin_hashes(spec).items():
        if manifest.strategies.get(name, sha256) != sha256:
            raise UserError(
                f"strategies: {name}: expected the plug-in that the rows were computed with, SHA-256 "
                f"{manifest.strategies[name]}, found {sha256}, because its source has changed"
            )
    costs = {space: manifest.artefacts[space].costs(len(spec.devices(space))) for space in spec.spaces}
    rows = rows.assign(cost_number=_cost_numbers(rows, costs))
    complete = manifest.status == "complete"
    checks, sound = promised(rows, spec)
    presence, missing = once(rows, spec, complete)
    checks += [presence, *_artefacts(sound, manifest, costs), *_identities(sound, spec, manifest)]
    hashes = {space: manifest.artefacts[space].hashes for space in spec.spaces}
    names = {space: [cost.name for cost in own] for space, own in costs.items()}
    recomputation = Recomputation(spec, hashes, names)
    checks += [*_recomputed(sound, recomputation), *counts(sound, spec, manifest.schema_)]
    keys = ["search_id", "target_index"]
    others = pd.MultiIndex.from_frame(rows.drop(index=sound.index)[keys])
    trace = results.trace[~pd.MultiIndex.from_frame(results.trace[keys]).isin(others)]
    checks += curves(trace, sound, spec)
    front = results.front.assign(cost_number=_cost_numbers(results.front, costs))
    checks += fronts(front, sound, recomputation)
    if rerun and manifest.algorithm != ALGORITHM_VERSION:
        checks.append(RowCheck("rerun", (), "", not_checked=_older(manifest)))
    elif rerun:
        checks += list(searched_again(results, sound, spec, rerun, rerun_seed))
    return Verification(len(rows), tuple(checks), missing, complete)


_Costs = Mapping[str, list[_Cost]]  # of each space, in the order of the specification


def _cost_numbers(rows: pd.DataFrame, costs: _Costs) -> list[int]:
    """Return which of its space's costs each row belongs to, or -1 for none."""
    number_of = {
        (space, cost.name): number for space, own in costs.items() for number, cost in enumerate(own)
    }
    several = {space: len(own) > 1 for space, own in costs.items()}
    return [
        number_of.get((space, name), -1) if several.get(space) else 0
        for space, name in zip(rows["space"], rows["cost_name"], strict=True)
    ]


def _artefacts(rows: pd.DataFrame, manifest: _Manifest, costs: _Costs) -> Iterator[RowCheck]:
    """Check the names, units and hashes of cost tables and predictors. The files themselves are hashed when
    they are read.
    """
    known = {
        (space, number): manifest.artefacts[space].columns(cost)
        for space, own in costs.items()
        for number, cost in enumerate(own)
    }
    places = list(zip(rows["space"], rows["cost_number"], strict=True))
    for column in next(iter(known.values())):
        yield compared(column, "the value in run.json", rows, [known[place][column] for place in places])


def _identities(rows: pd.DataFrame, spec: SweepSpec, manifest: _Manifest) -> Iterator[RowCheck]:
    if manifest.algorithm != ALGORITHM_VERSION:
        yield compared(
            "run_id",
            "the value in run.json",
            rows,
            [manifest.run_id] * len(rows),
            not_checked=_older(manifest),
        )
        yield RowCheck("search_id", ("search_id",), "", not_checked=_older(manifest))
        return
    hashes = {space: manifest.artefacts[space].hashes for space in spec.spaces}
    run_id = sweep_identity(spec, hashes)
    if run_id != manifest.run_id:
        where: dict[str, Any] = {"search_id": "run.json", "expected": run_id, "found": brief(manifest.run_id)}
        yield RowCheck(
            "run_id",
            ("run_id",),
            "the hash of everything that decides the sweep",
            len(rows),
            len(rows),
            **where,
        )
    yield compared("run_id", "the hash of everything that decides the sweep", rows, [run_id] * len(rows))
    yield identities(rows, spec, hashes)


def _older(manifest: _Manifest) -> str:
    return (
        f"the rows were written by algorithm {manifest.algorithm}, and this version has {ALGORITHM_VERSION}"
    )


def _recomputed(rows: pd.DataFrame, recomputation: Recomputation) -> Iterator[RowCheck]:
    """Check everything that follows from ``arch``, with OFA's own classes."""
    found = recomputation.of(rows)
    rule = "an architecture of the space, in canonical form"
    yield check("arch", rule, rows, found.readable, found=found.reasons)
    rows = found.rows
    yield compared("genes", "the choices of arch", rows, found.wanted["genes"].tolist())
    yield from found.numbers()
    fraction = rows["accuracy"].between(0, 1)
    yield dataclasses.replace(
        check("accuracy", "a fraction from 0 to 1", rows, fraction), name="accuracy from 0 to 1"
    )
    cost = found.wanted["cost"].astype(float)
    over, under = cost > rows["target"] * (1 + 1e-7), cost < rows["target"] * (1 - 1e-7)
    meets, true = rows["cost"] <= rows["target"], cost <= rows["target"]
    limited = LimitedRows(rows, found.wanted, found.elsewhere)
    yield limited.checked(found.by_plugins)
    over, under = over | limited.over, under & limited.under
    meets, true = meets & limited.meets, true & limited.true
    said = rows["feasible"].eq(True)
    agrees = said.eq(meets) & rows["feasible"].notna() & ~(said & over) & ~(~said & under)
    yield check(
        "feasible",
        "true if the cost meets the target and all limits, else false",
        rows,
        agrees,
        true.tolist(),
    )
