"""Make the section "Provenance": specifications, hashes, versions, machines and missing searches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import yaml

from topdown_ray.report.context import Context
from topdown_ray.report.labelling import Loaded
from topdown_ray.report.page import Section, Table, number, text

_NOT_KNOWN = "not recorded"


def provenance(context: Context) -> Section:
    """Show facts about each folder, the missing searches, and the specification of each sweep."""
    names = context.names
    facts = [
        {"folder": name, "what": what, "value": value}
        for name, source in zip(names, context.sources, strict=True)
        for what, value in _facts(source.results).items()
    ]
    columns = [text("folder"), text("what", "fact"), text("value")]
    shown = [Table("provenance", "Folders", pd.DataFrame(facts), columns)]
    gaps = [
        source.missing.assign(folder=name)
        for name, source in zip(names, context.sources, strict=True)
        if len(source.missing)
    ]
    if gaps:
        shown.append(_gaps(pd.concat(gaps, ignore_index=True)))
    specs = [
        (
            f"Sweep specification of {name}",
            yaml.safe_dump(source.results.manifest.get("spec", {}), sort_keys=False),
        )
        for name, source in zip(names, context.sources, strict=True)
    ]
    words = [
        "The table “Folders” describes the machines on which the times of each folder were measured. Each "
        "hash is the SHA-256 of an artefact that the searches used."
    ]
    return Section("provenance", "Provenance", words, tables=shown, verbatim=specs)


def _gaps(frame: pd.DataFrame) -> Table:
    columns = [text("folder"), text("space"), text("strategy"), text("targets", "target set")]
    columns += [number("missing"), number("promised", "of"), text("seeds", "missing seeds")]
    return Table("missing", "Missing searches", frame[frame["missing"] > 0], columns)


def _facts(part: Loaded) -> dict[str, str]:
    manifest, rows = part.manifest, part.searches
    facts = {
        "sweep": manifest.get("run_id"),
        "status": manifest.get("status"),
        "started": manifest.get("created_at"),
        "wall time (s)": f"{manifest['wall_s']:.1f}" if "wall_s" in manifest else None,
        "versions of schema and algorithm": f"{manifest.get('schema')}, {manifest.get('algorithm')}",
        "searches": f"{rows['search_id'].nunique()} in {rows['shard_id'].nunique()} batches",
        "batch sizes": _values(rows, "batch_size"),
        "failed shards": ", ".join(manifest.get("given_up", [])) or "none",
        "device": _values(rows, "device"),
        "threads": _values(rows, "threads"),
        "hosts": _values(rows, "host"),
    }
    for group in ("machine", "versions", "weights"):
        for key, value in manifest.get(group, {}).items():
            facts[f"{group}: {key}"] = str(value)
    for space, artefacts in manifest.get("artefacts", {}).items():
        for kind, artefact in artefacts.items():
            facts[f"{space}: {kind}"] = _artefact(artefact)
    return {what: _NOT_KNOWN if value is None else str(value) for what, value in facts.items()}


def _values(rows: pd.DataFrame, column: str) -> str:
    if column not in rows or rows[column].isna().all():
        return _NOT_KNOWN
    counts = rows.drop_duplicates("search_id")[column].value_counts().sort_index()
    return ", ".join(
        f"{value} ({n} searches)" if len(counts) > 1 else str(value) for value, n in counts.items()
    )


def _artefact(artefact: Any) -> str:
    if not isinstance(artefact, Mapping):
        return str(artefact)
    words = [
        f"{artefact[key]}" if key == "name" else f"{key} {artefact[key]}" for key in artefact if artefact[key]
    ]
    return ", ".join(words) or json.dumps(dict(artefact))
