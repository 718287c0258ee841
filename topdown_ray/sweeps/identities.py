"""Identities: the hash of all that decides a search's result, and that of a whole sweep.

A search is named by its space, costs, predictor, strategy, targets, limits, hyper-parameters and seed; not by
its label, its batch or the places of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from topdown_ray.algorithms.strategies import find_strategy
from topdown_ray.errors import UserError
from topdown_ray.files import compact_json, digest, short_hash
from topdown_ray.sweeps.groups import COST, LIMIT, Group
from topdown_ray.sweeps.spec import Protocol, SweepSpec

# Part of every search's identity: raise it when the same search would give another result. 2: random
# architectures that are not found by redrawing are drawn uniformly from the feasible ones instead of pruned,
# so searches near the cheapest cost changed.
ALGORITHM_VERSION = 2


def search_identity(
    group: Group, protocol: Protocol, artefacts: Mapping[str, str], part: int = 0
) -> Callable[[int], str]:
    """The identity of each search of a group as a function of its seed. artefacts: the hashes of the space's
    costs and of the predictor. part: which of the group's parts.

    The hash is that of a mapping as JSON, of which only the seed differs between the searches of a group: the
    text around it is made once, so that a million searches are named in seconds."""
    own = group.each[part]
    used = {f"{LIMIT}{name}" for one in group.limits for name, _ in one}
    others = {
        key: value for key, value in artefacts.items() if not key.startswith((LIMIT, COST)) or key in used
    }
    costs = [artefacts.get(f"{COST}{each.device}") or artefacts["cost"] for each in group.each]
    described: dict[str, Any] = {
        **({"limits": own.limits} if own.limits else {}),
        "version": ALGORITHM_VERSION,
        "space": group.space,
        "strategy": group.strategy,
        "targets": own.targets,
        "params": group.params.identity(),
        "protocol": protocol,
        "artefacts": {
            **others,
            "cost": costs[part],
            **({"strategy": group.sha256} if group.sha256 else {}),
        },
    }
    if group.parts:
        described["devices"] = [
            (cost, each.targets, each.limits) for cost, each in zip(costs, group.parts, strict=True)
        ]
    before = compact_json({key: value for key, value in described.items() if key < "seed"}).removesuffix("}")
    after = compact_json({key: value for key, value in described.items() if key > "seed"}).removeprefix("{")
    return lambda seed: short_hash(f'{before},"seed":{seed},{after}')


def identities_of(
    group: Group, protocol: Protocol, artefacts: Mapping[str, str]
) -> Callable[[int], tuple[str, ...]]:
    """The identities of a group's searches of one seed, one for each of its parts."""
    each = [search_identity(group, protocol, artefacts, part) for part in range(len(group.each))]
    return lambda seed: tuple(identity(seed) for identity in each)


def search_id(group: Group, seed: int, protocol: Protocol, artefacts: Mapping[str, str]) -> str:
    """The identity of one search, see :func:`search_identity`."""
    return search_identity(group, protocol, artefacts)(seed)


def check_known_identities(spec: SweepSpec, manifest: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a folder whose searches have other identities by now: those of ``joint`` with
    patience, which did not count before schema 7.
    """
    if manifest.get("schema", 7) >= 7:
        return
    for group in spec.groups():
        if group.strategy == "joint" and group.params.patience is not None:
            raise UserError(
                f"{where}: schema: expected at least 7, which this version continues and verifies where "
                f"joint has patience, found {manifest['schema']}; load and report still read this folder"
            )


def sweep_identity(spec: SweepSpec, artefacts: Mapping[str, Mapping[str, str]]) -> str:
    """The identity of a sweep: what decides its tables, not its name, its batching, its colours or where
    files lie.

    artefacts: of each space, the hashes of its cost table, its predictor and the costs of its limits.
    """
    decisive = spec.model_dump(exclude={"name", "batch", "cost", "predictor"}, mode="json")
    decisive["strategies"] = [
        {key: value for key, value in entry.items() if key != "colour"} if isinstance(entry, dict) else entry
        for entry in decisive["strategies"]
    ]
    for field in ("targets", "limits"):  # files of costs may be moved: their order counts, not their names
        if decisive.get(field):
            decisive[field] = {
                space: list(value.values()) if isinstance(value, dict) else value
                for space, value in decisive[field].items()
            }
    plugged_in = plugin_hashes(spec)
    return digest([ALGORITHM_VERSION, decisive, artefacts, *([plugged_in] if plugged_in else [])])


def plugin_hashes(spec: SweepSpec) -> dict[str, str]:
    """The identities of the sweep's strategies that are plug-ins, by name."""
    own = {entry.name: find_strategy(entry.name).sha256 for entry in spec.strategies}
    return {name: sha256 for name, sha256 in own.items() if sha256}
