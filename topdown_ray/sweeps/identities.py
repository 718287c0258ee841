"""Compute identities: the hash of everything that decides a search's result, and that of a whole sweep.

The identity of a search covers its space, costs, predictor, strategy, targets, limits, hyper-parameters and
seed, but not its label, its batch or the places of files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from topdown_ray.algorithms.strategies import find_strategy
from topdown_ray.errors import UserError
from topdown_ray.files import compact_json, digest, short_hash
from topdown_ray.sweeps.groups import COST, LIMIT, Group
from topdown_ray.sweeps.spec import Protocol, SweepSpec

# Part of every search's identity: increase it if the same search gives another result. 2: random
# architectures that are not found by redrawing are drawn uniformly from the feasible ones instead of pruned,
# which changed searches near the cheapest cost.
ALGORITHM_VERSION = 2


def search_identity(
    group: Group, protocol: Protocol, artefacts: Mapping[str, str], part: int = 0
) -> Callable[[int], str]:
    """Return the identity of each search of a group as a function of its seed. artefacts: the hashes of the
    space's costs and of the predictor. part: which of the group's parts.

    The identity is the hash of a mapping as JSON, in which only the seed differs between the searches of a
    group. The text around the seed is made once, so that a million identities take only seconds.
    """
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
    """Return the identities of a group's searches of one seed, one for each of its parts."""
    each = [search_identity(group, protocol, artefacts, part) for part in range(len(group.each))]
    return lambda seed: tuple(identity(seed) for identity in each)


def search_id(group: Group, seed: int, protocol: Protocol, artefacts: Mapping[str, str]) -> str:
    """Return the identity of one search, see :func:`search_identity`."""
    return search_identity(group, protocol, artefacts)(seed)


def check_known_identities(spec: SweepSpec, manifest: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a folder whose searches had other identities when it was written: those of
    ``joint`` with patience, which was not part of the identity before schema 7.
    """
    if manifest.get("schema", 7) >= 7:
        return
    for group in spec.groups():
        if group.strategy == "joint" and group.params.patience is not None:
            raise UserError(
                f"{where}: schema: expected at least 7 to continue or verify a sweep of joint with patience, "
                f"found {manifest['schema']}; load and report can still read this folder"
            )


def sweep_identity(spec: SweepSpec, artefacts: Mapping[str, Mapping[str, str]]) -> str:
    """Return the identity of a sweep: what decides its tables, and not its name, batching, colours or the
    places of files.

    artefacts: for each space, the hashes of its cost table, its predictor and the costs of its limits.
    """
    decisive = spec.model_dump(exclude={"name", "batch", "cost", "predictor"}, mode="json")
    decisive["strategies"] = [
        {key: value for key, value in entry.items() if key != "colour"} if isinstance(entry, dict) else entry
        for entry in decisive["strategies"]
    ]
    for field in (
        "targets",
        "limits",
    ):  # files of costs may be moved: their order matters, their names do not
        if decisive.get(field):
            decisive[field] = {
                space: list(value.values()) if isinstance(value, dict) else value
                for space, value in decisive[field].items()
            }
    plugged_in = plugin_hashes(spec)
    return digest([ALGORITHM_VERSION, decisive, artefacts, *([plugged_in] if plugged_in else [])])


def plugin_hashes(spec: SweepSpec) -> dict[str, str]:
    """Return the identities of the sweep's strategies that are plug-ins, by name."""
    own = {entry.name: find_strategy(entry.name).sha256 for entry in spec.strategies}
    return {name: sha256 for name, sha256 in own.items() if sha256}
