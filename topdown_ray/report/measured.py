"""The report's section on measured accuracies: predicted against measured, where a result folder holds
both.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from topdown_ray.figures import draw, file_name
from topdown_ray.report.page import Section, Table, number, text
from topdown_ray.stats import agreement
from topdown_ray.store.evaluations import load_evaluations

_KEYS = [
    "space",
    "predictor_name",
    "predictor_sha256",
    "weights_name",
    "weights_sha256",
    "data_name",
    "data_sha256",
]


def agreements(rows: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations and errors of each predictor on each supernet and data set: a row each."""
    known = rows[rows["predicted"].notna()]
    records = []
    for key, part in known.groupby(_KEYS, sort=False):
        found = agreement(part["predicted"].to_numpy(), part["top1"].to_numpy())
        record = dict(zip(_KEYS, key, strict=True))
        records.append(
            {**record, **{name: getattr(found, name) for name in ("n", "kendall", "spearman", "mae", "bias")}}
        )
    return pd.DataFrame(records, columns=[*_KEYS, "n", "kendall", "spearman", "mae", "bias"])


def predicted_against_measured(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Measured top-1 against predicted, a mark each architecture. rows: of ``evaluations``, with predicted
    values.
    """
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure(layout="constrained").add_subplot()
    for space, marker in zip(rows["space"].unique(), "os^", strict=False):
        part = rows[rows["space"] == space]
        ax.plot(
            100 * part["predicted"], 100 * part["top1"], marker, markersize=4, linestyle="none", label=space
        )
    low = 100 * min(rows["predicted"].min(), rows["top1"].min())
    high = 100 * max(rows["predicted"].max(), rows["top1"].max())
    ax.plot([low, high], [low, high], color=ax.xaxis.label.get_color(), linewidth=0.8)
    ax.set(xlabel="predicted top-1 (%)", ylabel="measured top-1 (%)")
    if rows["space"].nunique() > 1:
        ax.legend(frameon=False)
    return ax


def sections(folders: Sequence[Path], figures: Path) -> list[Section]:
    """One section, or none where no folder holds measured accuracies. Raises UserError."""
    if not folders:  # results may all be remote; measured accuracies lie in local folders
        return []
    rows = pd.concat([load_evaluations(folder) for folder in folders], ignore_index=True)
    rows = (
        rows[rows["predicted"].notna()]
        .drop_duplicates(["evaluation_id", "predictor_sha256"])
        .reset_index(drop=True)
    )
    if rows.empty:
        return []
    table = agreements(rows)
    table["trained"] = ["no: random weights" if name == "random" else "yes" for name in table["weights_name"]]
    pictures = []
    for i, (key, part) in enumerate(
        rows.groupby(["weights_name", "weights_sha256", "data_sha256"], sort=False)
    ):
        caption = (
            f"{key[0]} on {part['data_name'].iloc[0]}: every architecture measured; on the line: predicted = "
            "measured."
        )
        name = file_name("measured", str(key[0]), *([str(i)] if i else []))
        pictures.append(draw(figures, name, caption, functools.partial(predicted_against_measured, part)))
    columns = [text("space"), text("predictor_name", "predictor"), text("weights_name", "supernet weights")]
    columns += [text("trained", "weights trained"), text("data_name", "images"), number("n", "architectures")]
    columns += [number("kendall", "Kendall's tau", ".3f"), number("spearman", "Spearman", ".3f")]
    columns += [number("mae", "mean absolute error (points)", ".2f", 100.0)]
    columns += [number("bias", "predicted - measured (points)", ".2f", 100.0)]
    single = [
        text("space"),
        number("image_size", "image size", ".0f"),
        number("predicted", "predicted (%)", ".2f", 100.0),
    ]
    single += [number("top1", "measured top-1 (%)", ".2f", 100.0), number("top5", "top-5 (%)", ".2f", 100.0)]
    single += [
        number("n_images", "images", ",.0f"),
        number("n_bad", "left out", ",.0f"),
        text("arch", "architecture"),
    ]
    words = [
        "Measured: the subnet cut out of its supernet, batch normalisation recalibrated on training images, "
        "right answers counted on "
        "validation images. The architectures are answers of searches, chosen for being predicted good: they "
        "lie close together, and "
        "their rank correlation is lower than that of random architectures would be.",
    ]
    shown = [
        Table("agreement", "Agreement of predicted and measured", table, columns),
        Table("measured", "Measured architectures", rows.sort_values("top1", ascending=False), single),
    ]
    return [Section("measured", "Predicted against measured", words, pictures, shown)]
