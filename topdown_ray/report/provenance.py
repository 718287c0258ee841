"""Where a report's numbers come from: specifications, hashes, versions, machines, batches, and which searches
are missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from topdown_ray.report.labelling import Loaded
from topdown_ray.report.page import Section, Table, number, text

_NOT_KNOWN = "not recorded"


def missing(part: Loaded) -> pd.DataFrame:
    """The searches that a sweep promises and its rows lack: space, strategy, targets, promised, missing,
    seeds; a row a group.
    """
    spec = part.manifest.get("spec", {})
    rows = part.searches.drop_duplicates("search_id")
    rows = rows.assign(_targets=rows["targets"].map(tuple))
    have = {key: set(group["seed"]) for key, group in rows.groupby(["space", "strategy", "_targets"])}
    records = []
    seeds = list(spec.get("seeds", []))
    for space in spec.get("spaces", []):
        for strategy in spec.get("strategies", []):
            for targets in spec.get("targets", {}).get(space, []):
                lacking = sorted(set(seeds) - have.get((space, strategy, tuple(targets)), set()))
                label = " ".join(f"{target:g}" for target in targets)
                records.append(
                    (space, strategy, label, len(seeds), len(lacking), " ".join(map(str, lacking)))
                )
    frame = pd.DataFrame(records, columns=["space", "strategy", "targets", "promised", "missing", "seeds"])
    return frame if frame["missing"].any() else frame.iloc[:0]


def provenance(parts: Sequence[Loaded], names: Sequence[str], lacking: Sequence[pd.DataFrame]) -> Section:
    """The section: a table of facts for each folder, what is missing, and each specification as it was."""
    facts = [
        {"folder": Path(name).name, "what": what, "value": value}
        for name, part in zip(names, parts, strict=True)
        for what, value in _facts(part).items()
    ]
    columns = [text("folder"), text("what"), text("value")]
    shown = [Table("provenance", "Folders", pd.DataFrame(facts), columns)]
    gaps = [
        frame.assign(folder=Path(name).name) for name, frame in zip(names, lacking, strict=True) if len(frame)
    ]
    if gaps:
        frame = pd.concat(gaps, ignore_index=True)
        columns = [
            text("folder"),
            text("space"),
            text("strategy"),
            text("targets", "target set"),
            number("missing"),
        ]
        columns += [number("promised", "of"), text("seeds", "missing seeds")]
        shown.append(Table("missing", "Missing searches", frame[frame["missing"] > 0], columns))
    specs = [
        (
            f"Specification of {Path(name).name}",
            yaml.safe_dump(part.manifest.get("spec", {}), sort_keys=False),
        )
        for name, part in zip(names, parts, strict=True)
    ]
    words = [
        "Times are those of the machines named here. A hash is the SHA-256 of the artefact that the searches "
        "used."
    ]
    return Section("provenance", "Provenance", words, tables=shown, verbatim=specs)


def _facts(part: Loaded) -> dict[str, str]:
    manifest, rows = part.manifest, part.searches
    facts = {
        "sweep": manifest.get("run_id"),
        "status": manifest.get("status"),
        "begun": manifest.get("created_at"),
        "wall time (s)": f"{manifest['wall_s']:.1f}" if "wall_s" in manifest else None,
        "schema, algorithm": f"{manifest.get('schema')}, {manifest.get('algorithm')}",
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
