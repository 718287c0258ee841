"""Merge the result folders of several drivers, each of which ran its own seeds of one sweep.

The merged folder is that of one sweep over all seeds. Its tables are the same as those of a single driver,
and it can be verified, continued and merged again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from topdown_ray.errors import UserError, brief
from topdown_ray.files import digest
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.identities import Identities
from topdown_ray.store.layout import SWEEP
from topdown_ray.store.manifest import changed_since, check_resumable, read_manifest
from topdown_ray.store.part_files import DamagedError, parallel, read_part
from topdown_ray.store.place import Place
from topdown_ray.store.resuming import MERGED, Known, look
from topdown_ray.sweeps.driver import Plan, make_plan
from topdown_ray.sweeps.identities import ALGORITHM_VERSION, check_known_identities
from topdown_ray.sweeps.spec import read_spec


class Merged(NamedTuple):
    """The number of searches in a merged folder."""

    run_id: str
    done: int  # searches that have rows
    total: int  # searches of the sweep over all seeds


@dataclass(frozen=True)
class _Source:
    """A folder to merge."""

    place: Place
    manifest: Mapping[str, Any]
    parts: Mapping[str, Known]

    @property
    def searches(self) -> Identities:
        return Identities.union([known.ids for known in self.parts.values()])


def merge_folders(
    out: str, folders: Sequence[str], on_step: Callable[[str], None] = lambda step: None
) -> Merged:
    """Write the rows of the folders to ``out``, as one sweep over the seeds of all of them.

    The folders do not change. A search without rows in any of them has no rows in ``out`` either. To compute
    it, run ``out`` as a sweep. To continue an interrupted merge, make the same call again. on_step: is called
    with a line of text before each step that takes long.

    Raises UserError before anything is written if the folders are of different sweeps, if a part of a sweep
    that was divided with ``--part`` is missing, if two folders have the same search, if a driver writes to a
    folder, or if a part file is damaged. Raises StoreError if ``out`` cannot be written.
    """
    manifests = [read_manifest(folder) for folder in folders]
    _check_parts(manifests)
    seeds = tuple(sorted({seed for manifest in manifests for seed in manifest["spec"]["seeds"]}))
    plan = make_plan(read_spec(folders[0]).model_copy(update={"seeds": seeds}), folders[0], on_step)
    for folder, manifest in zip(folders, manifests, strict=True):
        _check(plan, manifest, manifests[0], Place(folder))
    on_step(f"Verifying the parts of {len(folders)} folders ...")
    sources = [_opened(Place(folder), manifest) for folder, manifest in zip(folders, manifests, strict=True)]
    for one, other in itertools.combinations(sources, 2):
        _check_disjoint(one, other)
    merged = ResultFolder(out)
    created_at = min(manifest.get("created_at") or "" for manifest in manifests) or None
    merged.open({**plan.manifest(), "created_at": created_at}, resume=True)
    done = merged.finished()
    try:
        merged.amend(_sessions(read_manifest(out), manifests))
        for source in sources:
            _copy(source, merged, plan.run_id, done)
        done = Identities.union([done.names, *(source.searches.names for source in sources)])
        complete = len(done) == plan.n_searches()
        merged.end(complete, {"wall_s": 0.0, "busy_s": 0.0}, {}, count=True)
    except BaseException:
        merged.place.release()
        raise
    return Merged(plan.run_id, len(done), plan.n_searches())


def _check_parts(manifests: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError if some parts of a sweep (``--part``) are present and others are missing."""
    found: dict[int, set[int]] = {}
    for manifest in manifests:
        if manifest.get("part"):
            number, of = manifest["part"]
            found.setdefault(of, set()).add(number)
    for of, numbers in found.items():
        if missing := sorted(set(range(1, of + 1)) - numbers):
            raise UserError(
                f"merge: expected the folders of all {of} parts of the seeds, found no folder for parts "
                f"{brief(missing)}"
            )


def _check(plan: Plan, manifest: Mapping[str, Any], first: Mapping[str, Any], place: Place) -> None:
    """Raise UserError unless the folder's sweep is the plan's, with its own seeds."""
    check_resumable(manifest, place.of("run.json"), ALGORITHM_VERSION)
    own = Plan(plan.spec.model_copy(update={"seeds": tuple(manifest["spec"]["seeds"])}), plan.setups)
    check_known_identities(own.spec, manifest, place.of("run.json"))
    if own.run_id != manifest["run_id"]:
        spec = {**manifest["spec"], "seeds": first["spec"]["seeds"]}
        raise UserError(
            f"{place.name}: expected the sweep of the first folder with other seeds, found a different "
            f"sweep{changed_since({**manifest, 'spec': spec}, first)}"
        )
    if place.held():
        raise UserError(f"{place.name}: expected a folder that no driver writes to, found a running sweep")


def _opened(place: Place, manifest: Mapping[str, Any]) -> _Source:
    found = look(place, SWEEP)
    if found.problems:
        raise UserError(
            f"{found.problems[0]}; run the folder's sweep command to compute these searches again"
        )
    return _Source(place, manifest, found.whole)


def _check_disjoint(one: _Source, other: _Source) -> None:
    if double := one.searches.shared(other.searches):
        seeds = sorted(set(one.manifest["spec"]["seeds"]).intersection(other.manifest["spec"]["seeds"]))
        raise UserError(
            f"{other.place.name}: expected no searches that {one.place.name} also has, found "
            f"{len(double)}: seeds {brief(seeds)}, searches {brief(list(double))}"
        )


def _sessions(merged: Mapping[str, Any], manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what run.json of the merged folder records about the drivers: the sessions of all folders, and
    its own.
    """
    theirs = [session for manifest in manifests for session in manifest.get("sessions", [])]
    own = [session for session in merged["sessions"] if session not in theirs]
    sums = {
        name: sum((each.get(name) or 0.0) for each in (*manifests, *own)) for name in ("wall_s", "busy_s")
    }
    return {"sessions": [*theirs, *own], **sums}


def _copy(source: _Source, folder: ResultFolder, run_id: str, done: Identities) -> None:
    """Write the rows of a folder to another one as rows of its sweep, except those that are already there."""
    left = [name for name, known in source.parts.items() if not np.isin(known.ids, done.names).all()]

    def rows(name: str) -> list[pa.Table]:
        return [_renamed(_read(source.place, table, name), run_id, done) for table in SWEEP.tables_of(name)]

    for name, tables in zip(left, parallel(source.place, rows, left), strict=True):
        folder.write(digest([source.manifest["run_id"], name]), *tables)


def _read(place: Place, table: str, name: str) -> pa.Table:
    try:
        return read_part(place, table, name)
    except (DamagedError, FileNotFoundError) as error:
        raise UserError(
            f"{place.of(f'{table}/{name}')}: expected a part that does not change while it is merged, "
            f"found {error}"
        ) from error


def _renamed(rows: pa.Table, run_id: str, done: Identities) -> pa.Table:
    if done:
        rows = rows.filter(pa.array(~done.has(rows["search_id"].to_pylist())))
    at = rows.schema.get_field_index("run_id")
    rows = rows.set_column(
        at, rows.schema.field(at), pa.repeat(pa.scalar(run_id, rows.schema.field(at).type), len(rows))
    )
    # the names of merged parts have no meaning in another folder
    return rows.replace_schema_metadata(
        {key: value for key, value in (rows.schema.metadata or {}).items() if key != MERGED}
    )
