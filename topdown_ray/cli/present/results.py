"""What describe, pick, verify, report and front print."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from topdown_ray.cli.present.tables import print_footnote, print_json, print_records, print_wrapped
from topdown_ray.networks.api import DescribedSubnet
from topdown_ray.report.build import Report
from topdown_ray.spaces.cost import with_unit
from topdown_ray.store.picking import Pick
from topdown_ray.store.transferred import MARK, is_transferred
from topdown_ray.sweeps.checks import NO_NETWORK, RowCheck
from topdown_ray.sweeps.verify import Verification


def print_architecture(described: DescribedSubnet, as_json: bool) -> None:
    """An architecture layer by layer, with counts of the OFA network."""
    space, config, row = described.space, described.config, described.row
    if as_json:
        facts: dict[str, Any] = {}
        if row is not None:
            names = ("search_id", "strategy", "target", "accuracy", "cost", "cost_unit")
            facts = {**{name: row[name] for name in names}, "seed": int(row["seed"])}
        facts |= {"space": space.name, "macs_m": described.macs_m, "params_m": described.params_m}
        print_json({**facts, "arch": config, "layers": described.layers.splitlines()})
        return
    if described.macs_m is None:
        print(f"{space.name}: {json.dumps(config)}")
        print("The space has no OFA network, and so neither layers nor counts.")
    else:
        print(f"{space.name} ({space.network}) at {config['image_size']} pixels")
        print(described.layers)
        print(f"{described.macs_m:.2f} x 1e6 MACs, {described.params_m:.3f} x 1e6 parameters")
    if row is not None:
        rows = pd.DataFrame([row])
        mark = MARK if is_transferred(rows).any() else ""
        cost = with_unit(f"{row['cost']:.2f}", row["cost_unit"])
        print(f"predicted top-1 {mark}{100 * row['accuracy']:.2f} %, {cost}")
        print_footnote(rows)


def print_pick(found: Pick, at: float, as_json: bool) -> None:
    """An architecture that was picked for a cost, and where it comes from."""
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    rows = pd.DataFrame([dataclasses.asdict(found)])
    mark = MARK if is_transferred(rows).any() else ""
    counts = [(found.macs_m, "MACs"), (found.params_m, "parameters")]
    numbers = [f"{value:.2f} x 1e6 {what}" for value, what in counts if value is not None]
    cost = with_unit(f"{found.cost:.2f}", found.cost_unit)
    text = ", ".join(
        [f"predicted top-1 {mark}{100 * found.accuracy:.2f} %", f"{cost} on {found.cost_name}", *numbers]
    )
    print_wrapped(text, "")
    print(json.dumps(found.arch))
    kind = "from the front" if found.source == "front" else "an answer for a target"
    print_wrapped(
        f"Search {found.search_id} ({found.space}, {found.label}, seed {found.seed}), {kind}; the most "
        f"accurate of {found.candidates:,} known architectures that meet what was asked for.",
        "",
    )
    if found.epsilon:
        print_wrapped(
            "That search scored architectures which it did not keep; they are at most "
            f"{100 * found.epsilon:.3f} points more accurate.",
            "",
        )
    if at > found.loosest:
        print_wrapped(
            f"The loosest target under {found.cost_name} is {found.loosest:g}: the searches did not look for "
            "more expensive architectures.",
            "",
        )
    print_footnote(rows)


def print_verification(verification: Verification, as_json: bool) -> None:
    """Every check with its numbers of rows and failures, the first failing row of each, and the verdict."""
    if as_json:
        facts = {
            "rows": verification.rows,
            "missing": verification.missing,
            "complete": verification.complete,
            "passed": verification.passed,
            "checks": [dataclasses.asdict(found) for found in verification.checks],
        }
        print_json(facts)
        return
    own = [found.name for found in verification.checks if found.by_plugins]
    print(f"{verification.rows} rows, checked against OFA's own code and run.json")
    if own:
        print_wrapped(f"Recomputed by the plug-ins' own functions, not by OFA's: {', '.join(own)}", "")
    _print_checks(verification.checks)
    if verification.missing:
        said = (
            "although the sweep says it is complete" if verification.complete else "the sweep is not complete"
        )
        print(f"\nSearches without rows: {verification.missing} ({said})")
    if not verification.passed:
        print("\nFailed:")
    for found in verification.checks:
        if found.failures:
            _print_failure(found)
    print("\npassed" if verification.passed else "\nFAILED")


def _print_checks(checks: Sequence[RowCheck]) -> None:
    unknown = {found.name for found in checks if found.not_checked == NO_NETWORK}
    print(f"\n{'check':<42}{'rows':>8}{'failed':>8}  largest difference")
    for found in checks:
        if (found.rows or not found.not_checked) and found.name not in unknown:
            at_most = "" if found.largest is None else f"  {found.largest:.1e} of {found.tolerance:g}"
            print(f"{found.name:<42}{found.rows:>8}{found.failures:>8}{at_most}")
    if notes := [found for found in checks if found.not_checked]:
        print("\nNot checked:")
        for found in notes:
            print_wrapped(f"{found.name}: {found.not_checked}")


def _print_failure(found: RowCheck) -> None:
    print_wrapped(f"{found.name}: {found.failures} of {found.rows} rows are not {found.rule}")
    where = "" if found.search_id is None else f"first in search {found.search_id}, "
    where += "" if found.target is None else f"target {found.target:g}: "
    print_wrapped(f"{where}expected {found.expected}, found {found.found}", "    ")


def print_report(report: Report, as_json: bool) -> None:
    """Where a report is, and what it holds."""
    if as_json:
        print_json({**dataclasses.asdict(report), "path": str(report.path)})
        return
    print(f"{report.path}: {report.tables} tables, {report.figures} figures", end="")
    print(f", {report.missing} searches missing" if report.missing else "")
    for line in report.findings:
        print_wrapped(line)


def print_front(frame: pd.DataFrame, path: Path, as_json: bool) -> None:
    """A reference front, and its file."""
    if as_json:
        print_records(frame)
        return
    mark = MARK if is_transferred(frame).any() else ""
    for row in frame.to_dict("records"):
        print(
            f"{with_unit(format(row['target'], 'g'), row['cost_unit'])}: {mark}{100 * row['accuracy']:.3f} % "
            f"at {row['cost']:.3f}"
        )
    print_footnote(frame)
    print(path)
