"""Read and validate ``run.json``, the manifest of a result folder.

Every field that a command reads must be present and have its type. This module reads no tables and does not
import pandas.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from topdown_ray.errors import UserError, brief
from topdown_ray.files import validated
from topdown_ray.store.part_files import part_names
from topdown_ray.store.place import Place
from topdown_ray.store.schema import SCHEMA_VERSION

_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Name = Annotated[str, Field(min_length=1, max_length=10_000)]


class _Read(BaseModel):
    """A model that ignores keys that no command reads, because later versions may write more."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class _Strategy(_Read):
    name: _Name
    label: _Name | None = None
    colour: str | None = None


_Sets = list[Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=1)]]


class _Spec(_Read):
    """The part of a specification that reports and ``status`` read. Sweeps run the complete one,
    :class:`spec.SweepSpec`.
    """

    name: _Name
    spaces: Annotated[list[_Name], Field(min_length=1)]
    strategies: Annotated[list[_Name | _Strategy], Field(min_length=1)]
    targets: dict[str, _Sets | dict[str, _Sets]]  # by space, and by cost if a space has several
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
    cost: dict[str, str | list[str]] = {}  # older versions may not record it
    predictor: dict[str, str] = {}
    search: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_for_each_space(self) -> _Spec:
        for field in ("targets", "cost", "predictor"):
            value = getattr(self, field)
            if set(value) != set(self.spaces) and (value or field == "targets"):
                raise ValueError(
                    f"{field}: expected one entry for each of {brief(self.spaces)}, found "
                    f"{brief(list(value))}"
                )
        return self


class _Session(_Read):
    started_at: str | None = None
    ended_at: str | None = None
    wall_s: _Seconds | None = None
    busy_s: _Seconds | None = None
    host: str = ""
    pid: int = 0
    versions: dict[str, str] = {}
    machine: dict[str, str | int | None] = {}


class _Artefact(_Read):
    name: str | None = None
    unit: str | None = None
    space: str | None = None
    sha256: str | None = None


class Manifest(_Read):
    """The content of run.json. :func:`manifest_of` checks ``schema`` and ``algorithm`` before."""

    run_id: _Name
    spec: _Spec
    wall_s: _Seconds
    busy_s: _Seconds = 0.0
    status: Literal["running", "complete", "incomplete"] = "incomplete"
    created_at: str | None = None
    sessions: Annotated[list[_Session], Field(min_length=1)] = []  # older versions wrote none
    given_up: list[str] = []
    part: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None  # K and N of --part
    artefacts: dict[str, dict[str, _Artefact]] = {}
    strategies: dict[str, str] = {}  # hashes of the strategies that are plug-ins
    versions: dict[str, str] = {}
    machine: dict[str, str | int | None] = {}
    weights: dict[str, str] = {}  # of the supernets that search workers of older versions hosted


def manifest_of(data: Any, where: str, schema: int) -> dict[str, Any]:
    """Check that a document is a manifest, and return it. where: the start of messages. schema: the newest
    version that is known. Raises UserError.
    """
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected a mapping, found {type(data).__name__}")
    _version(data, where, "schema", schema)
    validated(Manifest, data, where)
    return data


def changed_since(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the end of a message that names the fields, artefacts and plug-ins which differ from those of an
    earlier run.json; "" if there are none.
    """
    fields, earlier = now.get("spec", {}), before.get("spec", {})
    changed = [
        f"the field {key}"
        for key in dict.fromkeys([*fields, *earlier])
        if key not in ("name", "batch") and fields.get(key) != earlier.get(key)
    ]
    for space, artefacts in now.get("artefacts", {}).items():
        for kind, artefact in artefacts.items():
            other = before.get("artefacts", {}).get(space, {}).get(kind, {})
            if other.get("name") == artefact["name"] and other.get("sha256") != artefact["sha256"]:
                changed.append(f"the {kind.partition(':')[0]} {artefact['name']}")
    for name, sha256 in now.get("strategies", {}).items():
        if before.get("strategies", {}).get(name, sha256) != sha256:
            changed.append(f"the strategy {name}")
    return f"; they differ in {', '.join(dict.fromkeys(changed))}" if changed else ""


class PromisedSet(NamedTuple):
    """A target set of a sweep."""

    targets: tuple[float, ...]
    cost: str | None  # its name in rows, if the sweep has several costs for the space


def promised_sets(manifest: Mapping[str, Any], space: str) -> list[PromisedSet]:
    """Return the target sets of a space, by cost."""
    of_space = manifest.get("spec", {}).get("targets", {}).get(space, [])
    if not isinstance(of_space, Mapping):
        return [PromisedSet(tuple(targets), None) for targets in of_space]
    artefacts = manifest.get("artefacts", {}).get(space, {})
    names = [artefacts.get(f"cost:{i}", {}).get("name", cost) for i, cost in enumerate(of_space)]
    of_cost = zip(names, of_space.values(), strict=True)
    return [PromisedSet(tuple(targets), name) for name, sets in of_cost for targets in sets]


class Labelled(NamedTuple):
    """An entry of a specification's ``strategies`` with its label in tables and pictures."""

    strategy: str
    label: str
    colour: str | None = None


def labelled(entry: str | Mapping[str, Any]) -> Labelled:
    """Label an entry of ``spec["strategies"]`` in run.json, which is a name or a mapping with the name."""
    if isinstance(entry, str):
        return Labelled(entry, entry)
    return Labelled(entry["name"], entry.get("label", entry["name"]), entry.get("colour"))


def check_resumable(manifest: Mapping[str, Any], where: str, algorithm: int) -> None:
    """Raise UserError unless this version computes the same rows as the one that started the sweep."""
    if type(manifest.get("algorithm")) is not int or manifest["algorithm"] != algorithm:
        raise UserError(
            f"{where}: algorithm: expected version {algorithm}, found {brief(manifest.get('algorithm'))}; "
            "this version of topdown-ray cannot continue the sweep, but load and report can read this folder"
        )


def _version(data: Mapping[str, Any], where: str, field: str, newest: int) -> None:
    found = data.get(field)
    if type(found) is not int or not 1 <= found <= newest:
        advice = "; update topdown-ray" if type(found) is int and found > newest else ""
        raise UserError(
            f"{where}: {field}: expected a version from 1 to {newest}, found {brief(found)}{advice}"
        )


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Return the content of run.json. Raises UserError."""
    place = Place(folder)
    try:
        document = place.document("run.json")
    except OSError as error:
        raise UserError(
            f"{place.name}: expected a sweep's result folder, found no readable run.json "
            f"({place.reason(error)}){_advice(place)}"
        ) from error
    return manifest_of(document, place.of("run.json"), SCHEMA_VERSION)


def _advice(place: Place) -> str:
    """The end of a message that says how to write run.json again, if the folder has the parts of a sweep."""
    with contextlib.suppress(OSError, UserError):
        if part_names(place, "searches"):
            return (
                "; because the folder contains parts of a sweep, run the sweep's command again with --out "
                f"{place.name} to restore run.json"
            )
    return ""
