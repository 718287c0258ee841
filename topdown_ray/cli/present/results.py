"""Print the results of ``describe``, ``pick``, ``verify``, ``report``, ``compare`` and ``front``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topdown_ray.cli.present.tables import (
    print_footnote,
    print_json,
    print_records,
    print_table,
    print_wrapped,
    table_of,
)
from topdown_ray.spaces.cost import with_unit
from topdown_ray.store.transferred import MARK, is_transferred
from topdown_ray.terminal import visible

if TYPE_CHECKING:
    import pandas as pd

    from topdown_ray.networks.api import DescribedSubnet
    from topdown_ray.report.build import Report
    from topdown_ray.report.compare import Comparison
    from topdown_ray.store.picking import Pick
    from topdown_ray.sweeps.checks import RowCheck
    from topdown_ray.sweeps.verify import Verification


def print_architecture(described: DescribedSubnet, as_json: bool) -> None:
    """Print an architecture layer by layer, with the counts of its OFA network."""
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
        print("The space has no OFA network, so its layers, MACs and parameters are unknown.")
    else:
        print(f"{space.name} ({space.network}) at {config['image_size']} pixels")
        print(described.layers)
        print(f"{described.macs_m:.2f} x 1e6 MACs, {described.params_m:.3f} x 1e6 parameters")
    if row is not None:
        import pandas as pd

        rows = pd.DataFrame([row])
        mark = MARK if is_transferred(rows).any() else ""
        cost = with_unit(f"{row['cost']:.2f}", row["cost_unit"])
        print(f"predicted top-1 {mark}{100 * row['accuracy']:.2f} %, {cost}")
        print_footnote(rows)


def print_pick(found: Pick, at: float, as_json: bool) -> None:
    """Print an architecture that was picked for a cost, and the search it comes from."""
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    import pandas as pd

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
    kind = "on its front" if found.source == "front" else "as an answer for a target"
    print_wrapped(
        f"Found by search {found.search_id} ({found.space}, {found.label}, seed {found.seed}), {kind}. It is "
        f"the most accurate of {found.candidates:,} known architectures within your limits.",
        "",
    )
    if found.epsilon:
        print_wrapped(
            "The search did not keep every architecture that it scored. Those that are missing are at most "
            f"{100 * found.epsilon:.3f} percentage points more accurate.",
            "",
        )
    if at > found.loosest:
        print_wrapped(
            f"The searches did not look for architectures above {found.loosest:g}, their loosest target "
            f"under {found.cost_name}.",
            "",
        )
    print_footnote(rows)


def print_verification(verification: Verification, as_json: bool) -> None:
    """Print each check with its numbers of rows and failures, the first failing row of each, and the
    verdict.
    """
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
    print(f"Checked {verification.rows} rows against OFA's own code and run.json.")
    if own:
        print_wrapped(f"Recomputed by the functions of plug-ins instead of OFA's: {', '.join(own)}", "")
    _print_checks(verification.checks)
    if verification.missing:
        said = "but the sweep is marked as complete" if verification.complete else "the sweep is not complete"
        print(f"\nSearches without rows: {verification.missing} ({said})")
    if not verification.passed:
        print("\nFailed:")
    for found in verification.checks:
        if found.failures:
            _print_failure(found)
    print("\nAll checks passed." if verification.passed else "\nSome checks FAILED.")


def _print_checks(checks: Sequence[RowCheck]) -> None:
    from topdown_ray.sweeps.checks import NO_NETWORK

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
    print_wrapped(f"{found.name}: {found.failures} of {found.rows} rows failed. Expected: {found.rule}.")
    where = "" if found.search_id is None else f"first in search {found.search_id}, "
    where += "" if found.target is None else f"target {found.target:g}: "
    print_wrapped(f"{where}expected {found.expected}, found {found.found}", "    ")


def print_report(report: Report, as_json: bool) -> None:
    """Print where a report is, and its findings."""
    if as_json:
        print_json({**dataclasses.asdict(report), "path": str(report.path)})
        return
    missing = f" ({report.missing} searches are missing)" if report.missing else ""
    print(f"Wrote {report.path} with {report.tables} tables and {report.figures} figures{missing}.")
    for line in report.findings:
        print_wrapped(line)


_LEAST_P = 0.0005  # smaller values would be shown as 0.000
_LABEL_WIDTH = 14  # of a strategy's label; longer labels are wrapped
_COMPARED = ("pairs", "A (%)", "B (%)", "B - A", "95 % interval", "ties", "p", "time", "rows")


def print_comparison(comparison: Comparison, per_target: bool, as_json: bool) -> None:
    """Print a table for each setting and target set, with notes on what changed, and the groups that only one
    side has. per_target: each strategy's row is followed by a row for each target.
    """
    if as_json:
        frames = {field.name: getattr(comparison, field.name) for field in dataclasses.fields(comparison)}
        texts = (frame.to_json(orient="records", double_precision=15) for frame in frames.values())
        print_json(dict(zip(frames, map(json.loads, texts), strict=True)))
        return
    for _, part in comparison.rows.groupby(["setting", "targets", "cost_unit"], sort=False):
        rows = part.to_dict("records")
        amounts = with_unit(rows[0]["targets"], rows[0]["cost_unit"])
        print_wrapped(visible(f"{rows[0]['setting']}, targets {amounts}"), "")
        table = table_of(["strategy"], _COMPARED)
        table.columns[0].max_width, table.columns[0].overflow = _LABEL_WIDTH, "fold"
        notes: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if math.isnan(row["target"]):
                table.add_row(row["strategy"], *_compared(row))
                notes[_changes(row)].append(row["strategy"])
            elif per_target:
                table.add_row(f"  {row['target']:g}", *_compared(row))
        print_table(table)
        for note, labels in notes.items():
            if note:
                print_wrapped(visible(f"{', '.join(labels)}: {note}"), "")
        print()
    for side, groups in (("A", comparison.only_before), ("B", comparison.only_after)):
        for (setting, targets, differs), part in groups.groupby(
            ["setting", "targets", "differs"], sort=False
        ):
            other = f" (the other folder has a different {differs})" if differs else ""
            own = ", ".join(part["strategy"])
            print_wrapped(visible(f"Only in {side}: {setting}, targets {targets}: {own}{other}"), "")
    print_wrapped(
        "A and B are means of predicted top-1, and B - A is in percentage points. Searches with the same "
        "seed are paired; if A and B share no seed, the column pairs counts the searches of both. p is the "
        "p-value of the paired permutation test. time and rows are the seconds and predictor rows of a "
        "search, as B divided by A.",
        "",
    )
    print_footnote(comparison.rows)


def _changes(row: Mapping[Any, Any]) -> str:
    """Describe in words what changed in a group, in addition to its numbers."""
    counts = {
        "feasible only in A": row["became_infeasible"],
        "feasible only in B": row["became_feasible"],
        "feasible in A and missing in B": row["missing"],
    }
    words = [
        f"{count} {'answer' if count == 1 else 'answers'} {what}" for what, count in counts.items() if count
    ]
    if row["paired"]:
        alone = {side: row[f"seeds_only_{name}"] for side, name in (("A", "before"), ("B", "after"))}
        words += [f"{n} {'seed' if n == 1 else 'seeds'} only in {side}" for side, n in alone.items() if n]
    return ", ".join(words)


def _compared(row: Mapping[Any, Any]) -> list[str]:
    pairs = str(row["n"]) if row["paired"] else f"{row['n_before']}/{row['n_after']}"
    low, high = (_shown(row[name], "+.2f", 100) for name in ("low", "high"))
    rows = _ratio(row["predictor_rows_after"], row["predictor_rows_before"])
    return [
        pairs,
        *(_shown(row[name], ".2f", 100) for name in ("before", "after")),
        _shown(row["difference"], "+.2f", 100),
        "-" if low == "-" else f"[{low}, {high}]",
        str(row["ties"]) if row["paired"] else "-",
        "<0.001" if row["p"] < _LEAST_P else _shown(row["p"], ".3f"),
        _shown(row["time_ratio"], ".2f"),
        _shown(rows, ".2f"),
    ]


def _ratio(after: float, before: float) -> float:
    return after / before if before > 0 else math.nan


def _shown(value: float, form: str, scale: float = 1) -> str:
    """Format a number, without a sign if it rounds to zero. A dash stands for no number."""
    if math.isnan(value):
        return "-"
    text = format(scale * value, form)
    return text if text.strip("+-0.") else text.lstrip("+-")


def print_front(frame: pd.DataFrame, path: Path, as_json: bool) -> None:
    """Print a reference front and the path of its file."""
    if as_json:
        print_records(frame)
        return
    mark = MARK if is_transferred(frame).any() else ""
    for row in frame.to_dict("records"):
        unit = row["cost_unit"]
        target, cost = with_unit(format(row["target"], "g"), unit), with_unit(f"{row['cost']:.3f}", unit)
        print(f"Target {target}: predicted top-1 {mark}{100 * row['accuracy']:.3f} % at {cost}")
    print_footnote(frame)
    print(f"Wrote the front to {path}")
