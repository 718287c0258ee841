"""Make the section "Predicted against measured", if a result folder has measured accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from topdown_ray.addresses import is_uri
from topdown_ray.figures import file_name
from topdown_ray.report.context import Context
from topdown_ray.report.page import PERCENT, Section, Table, number, text
from topdown_ray.stats import agreement
from topdown_ray.store.evaluations import load_evaluations
from topdown_ray.store.transferred import MARK, footnote, is_transferred

_KEYS = [
    "space",
    "predictor_name",
    "predictor_sha256",
    "weights_name",
    "weights_sha256",
    "data_name",
    "data_sha256",
]
_WORDS = (
    "To measure an architecture, its subnet is cut out of the supernet, batch normalisation is recalibrated "
    "on training images, and the correctly classified validation images are counted. The architectures are "
    "answers of searches and were chosen for their high predicted accuracy. Their accuracies are therefore "
    "close together, and their rank correlation is lower than that of random architectures would be."
)


def agreements(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rank correlations and errors, one row for each predictor, supernet and data set."""
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
    """Draw measured top-1 against predicted top-1, with one marker for each architecture. rows: rows of
    ``evaluations`` with predicted values.
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


def evaluations(context: Context) -> Section | None:
    """Show predicted against measured accuracies. Returns None if no folder has both. Raises UserError."""
    rows = _rows([source.where for source in context.sources])
    if rows.empty:
        return None
    words = [_WORDS, *filter(None, [footnote(rows)])]
    rows["space"] += is_transferred(rows).map({True: MARK, False: ""})
    pictures = []
    data_sets = rows.groupby(["weights_name", "weights_sha256", "data_sha256"], sort=False)
    for i, (key, part) in enumerate(data_sets):
        caption = (
            f"{key[0]} on {part['data_name'].iloc[0]}: all measured architectures. On the line, the "
            "prediction equals the measurement."
        )
        name = file_name("measured", str(key[0]), *([str(i)] if i else []))
        pictures.append(context.draw(name, caption, predicted_against_measured, part))
    shown = [_agreement(rows), _architectures(rows)]
    return Section("measured", "Predicted against measured", words, pictures, shown)


def _rows(folders: Sequence[str | Path]) -> pd.DataFrame:
    """The evaluations with predictions in the local folders, each one once."""
    local = [Path(folder) for folder in folders if not is_uri(str(folder))]
    if not local:
        return pd.DataFrame()
    rows = pd.concat([load_evaluations(folder) for folder in local], ignore_index=True)
    rows = rows[rows["predicted"].notna()].drop_duplicates(["evaluation_id", "predictor_sha256"])
    return rows.reset_index(drop=True)


def _agreement(rows: pd.DataFrame) -> Table:
    frame = agreements(rows)
    frame["trained"] = ["no: random weights" if name == "random" else "yes" for name in frame["weights_name"]]
    columns = [text("space"), text("predictor_name", "predictor"), text("weights_name", "supernet weights")]
    columns += [text("trained", "weights trained"), text("data_name", "images"), number("n", "architectures")]
    columns += [number("kendall", "Kendall's tau", ".3f"), number("spearman", "Spearman", ".3f")]
    columns += [number("mae", "mean absolute error (points)", ".2f", 100.0)]
    columns += [number("bias", "predicted - measured (points)", ".2f", 100.0)]
    return Table("agreement", "Agreement of predicted and measured", frame, columns)


def _architectures(rows: pd.DataFrame) -> Table:
    columns = [text("space"), number("image_size", "image size", ".0f")]
    columns += [number("predicted", "predicted (%)", **PERCENT)]
    columns += [number("top1", "measured top-1 (%)", **PERCENT), number("top5", "top-5 (%)", **PERCENT)]
    columns += [number("n_images", "images", ",.0f"), number("n_bad", "left out", ",.0f")]
    columns += [text("arch", "architecture")]
    return Table("measured", "Measured architectures", rows.sort_values("top1", ascending=False), columns)
