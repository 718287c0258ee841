"""Print the results of ``evaluate``, ``sample-dataset``, ``train-predictor`` and ``export``."""

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
    """Print the accuracies of a sweep's answers, space by space. Failures go to stderr."""
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
    """Print a line for each evaluation that failed permanently. kept: whether its record stays."""
    for identity, reason in given_up.items():
        record = f"; its architecture and traceback are in failures/{identity}.json next to the rows"
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
            f"Rank correlation of predicted and measured top-1 over {found.n} architectures: Kendall's tau "
            f"{found.kendall:.3f}, Spearman's rho {found.spearman:.3f}"
        )
    if left_out:
        print(f"Left out {left_out} architectures: the supernet was not trained at their image sizes.")
    if len(rows) and rows["weights_name"].iloc[0] == "random":
        print("The weights are random, so these accuracies are meaningless.")


def print_sampled(sampled: Sampled, out: Path, as_json: bool) -> None:
    """Print the size of a training set and the spread of its accuracies."""
    print_given_up(sampled.given_up)
    rows, top1 = sampled.rows, sampled.rows["top1"]
    spread = {name: float(getattr(top1, name)()) for name in ("min", "median", "max", "std")}
    if as_json:
        facts = {"out": str(out), "rows": len(rows), "measured": sampled.new, "weights": sampled.weights}
        print_json({**facts, **spread})
        return
    print(f"{out}: {len(rows)} subnets of {sampled.weights} ({sampled.new} measured in this run)")
    places = ", ".join(f"{name} {100 * spread[name]:.2f} %" for name in ("min", "median", "max"))
    print(f"top-1: {places}, standard deviation {100 * spread['std']:.2f} percentage points")


def print_learned(learned: Learned, as_json: bool) -> None:
    """Print how good a trained predictor is on the held-out rows."""
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
    rows = f"{learned.rows} rows{repeated} ({held.n} held out), {learned.epochs} epochs"
    print(f"{learned.path}: trained on {rows}")
    ranks = f"Kendall's tau {held.kendall:.3f}, Spearman's rho {held.spearman:.3f}"
    if held.n < LEAST_RANKED:
        ranks = f"no rank correlation, which needs {LEAST_RANKED} architectures"
    print(f"on held-out architectures: {ranks}, mean error {100 * held.mae:.2f} percentage points")


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN, which JSON does not have, by None."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def print_exported(exported: Exported, form: str, as_json: bool) -> None:
    """Print the files of an exported subnet."""
    if as_json:
        print_json({**dataclasses.asdict(exported), "path": str(exported.path)})
        return
    print(f"Wrote {', '.join(exported.files)} to {exported.path}")
    if exported.onnx_difference is not None:
        print(f"The outputs of onnxruntime and torch differ by at most {exported.onnx_difference:.1e}.")
    if form != "config" and not exported.calibrated:
        print("Batch normalisation is not recalibrated, because --data was not given.")
