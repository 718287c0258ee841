"""What evaluate, sample-dataset, train-predictor and export print."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from topdown_ray.cli.present.tables import print_damaged, print_footnote, print_json
from topdown_ray.networks.api import EvaluatedSource, Sampled
from topdown_ray.networks.export import Exported
from topdown_ray.networks.training import LEAST_RANKED, Learned
from topdown_ray.stats import agreement
from topdown_ray.store.transferred import MARK, is_transferred
from topdown_ray.terminal import say

_COLUMNS = [
    "space",
    "arch",
    "top1",
    "top5",
    "n_images",
    "n_bad",
    "missing_classes",
    "predicted",
    "predictor_space",
]


def print_evaluations(found: EvaluatedSource, as_json: bool) -> None:
    """The accuracies of a sweep's answers, space by space; what failed goes to stderr."""
    print_damaged(found.damaged)
    for space in found.spaces:
        print_given_up(space.progress.given_up, found.kept)
    parts = found.spaces
    if as_json:
        rows = pd.concat([part.rows[[*_COLUMNS, "weights_name"]] for part in parts]).astype(object)
        records = rows.where(rows.notna(), None).to_dict("records")  # not pandas' JSON, which rounds
        print_json({"left_out": sum(part.left_out for part in parts), "evaluations": records})
        return
    for part in parts:
        _print_rows(part.rows, part.left_out)


def print_given_up(given_up: Mapping[str, str], kept: bool = True) -> None:
    """A line for each evaluation that finally failed. kept: whether their records are."""
    for identity, reason in given_up.items():
        record = f"; failures/{identity}.json beside the rows has its architecture and the traceback"
        say(f"evaluation {identity} failed: {reason}{record if kept else ''}")


def _print_rows(rows: pd.DataFrame, left_out: int) -> None:
    marks = is_transferred(rows).map({True: MARK, False: ""})
    for row in rows.assign(mark=marks).sort_values("top1", ascending=False).to_dict("records"):
        predicted = (
            ""
            if row["predicted"] != row["predicted"] or row["predicted"] is None
            else f", predicted {row['mark']}{100 * row['predicted']:.2f} %"
        )
        bad = f", {row['n_bad']} images left out" if row["n_bad"] else ""
        missing = f", {row['missing_classes']} classes without images" if row["missing_classes"] else ""
        print(
            f"top-1 {100 * row['top1']:.2f} %, top-5 {100 * row['top5']:.2f} %{predicted} ({row['n_images']} "
            f"images{bad}{missing})"
        )
        print(f"  {row['space']} {row['arch']}")
    print_footnote(rows)
    known = rows[rows["predicted"].notna()]
    if len(known) > 2:
        found = agreement(known["predicted"].to_numpy(), known["top1"].to_numpy())
        print(
            f"predicted against measured, {found.n} architectures: Kendall's tau {found.kendall:.3f}, "
            f"Spearman {found.spearman:.3f}"
        )
    if left_out:
        print(f"{left_out} architectures left out: the supernet was not trained at their image sizes")
    if len(rows) and rows["weights_name"].iloc[0] == "random":
        print("The weights are random: these figures mean nothing.")


def print_sampled(sampled: Sampled, out: Path, as_json: bool) -> None:
    """A training set: how many rows, and the spread of their accuracies."""
    print_given_up(sampled.given_up)
    rows, top1 = sampled.rows, sampled.rows["top1"]
    spread = {name: float(getattr(top1, name)()) for name in ("min", "median", "max", "std")}
    if as_json:
        facts = {"out": str(out), "rows": len(rows), "measured": sampled.new, "weights": sampled.weights}
        print_json({**facts, **spread})
        return
    print(f"{out}: {len(rows)} subnets of {sampled.weights}, {sampled.new} of them measured now")
    places = ", ".join(f"{name} {100 * spread[name]:.2f} %" for name in ("min", "median", "max"))
    print(f"top-1: {places}, standard deviation {100 * spread['std']:.2f} points")


def print_learned(learned: Learned, as_json: bool) -> None:
    """How good a trained predictor is on the rows that were held out."""
    held = learned.held_out
    if learned.warning:
        say(f"warning: {learned.warning}")
    if as_json:
        parts = {
            name: _finite(dataclasses.asdict(getattr(learned, name))) for name in ("held_out", "trained")
        }
        print_json({**dataclasses.asdict(learned), **parts, "path": str(learned.path)})
        return
    repeated = f" of {learned.architectures} architectures" if learned.rows > learned.architectures else ""
    rows = f"{learned.rows} rows{repeated}, {held.n} of them held out, {learned.epochs} epochs"
    print(f"{learned.path}: {rows}")
    ranks = f"Kendall's tau {held.kendall:.3f}, Spearman {held.spearman:.3f}"
    if held.n < LEAST_RANKED:
        ranks = f"no rank correlation of fewer than {LEAST_RANKED}"
    print(f"held out: {ranks}, mean error {100 * held.mae:.2f} points")


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    """The same with None for NaN, which JSON does not know."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def print_exported(exported: Exported, form: str, as_json: bool) -> None:
    """The files of an exported subnet."""
    if as_json:
        print_json({**dataclasses.asdict(exported), "path": str(exported.path)})
        return
    print(f"{exported.path}: {', '.join(exported.files)}")
    if exported.onnx_difference is not None:
        print(f"onnxruntime and torch differ by at most {exported.onnx_difference:.1e}")
    if form != "config" and not exported.calibrated:
        print("Batch normalisation is not recalibrated (no --data).")
