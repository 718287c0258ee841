"""Compare the architectures that searches found: the best for each target, and how far seeds agree on genes.

The functions take and return data frames."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from topdown_ray.report.labelling import Data
from topdown_ray.report.subnets import active_genes, known_space
from topdown_ray.report.tables import widest
from topdown_ray.spaces.space import Space
from topdown_ray.strategy_styles import strategy_rank

_KEYS = ["setting", "space", "protocol", "strategy", "k", "targets", "target", "cost_unit"]
# lists of at most this length are written out in a short text: depths and widths, but not one gene per block
_LONGEST = 8
_SHORT = {"image_size": "r"}


class Compared(NamedTuple):
    """The tables of :func:`compared`."""

    agreement: pd.DataFrame
    genes: pd.DataFrame


def best_architectures(data: Data) -> pd.DataFrame:
    """Return the most accurate feasible answer for each setting and target: target, accuracy (a fraction),
    cost, macs_m, params_m (1e6), strategy, seed, ``found_for`` (the target that the answer was found for),
    arch.

    An answer counts for every target that it meets: its own, and those that are not below its cost. Of
    equally accurate answers the cheapest is taken, then the first strategy, then the lowest seed. Targets
    with different limits have separate rows (column ``limits``)."""
    rows = _feasible(data)
    names = sorted(rows["strategy"].unique(), key=strategy_rank)
    rank = rows["strategy"].map(names.index)
    rows = rows.iloc[np.lexsort([rows["seed"], rank, rows["cost"], -rows["accuracy"]])]
    frames = []
    for _, own in rows.groupby(["setting", "limits"], sort=False, observed=True):
        targets = np.sort(own["target"].unique())
        meets = own[["cost", "target"]].min(axis=1).to_numpy(float)[:, None] <= targets  # (N, T)
        first = meets.argmax(axis=0)
        frames.append(own.iloc[first].assign(found_for=own["target"].to_numpy()[first], target=targets))
    columns = ["setting", "space", "limits", "target", "cost_unit", "accuracy", "cost", "macs_m", "params_m"]
    columns += ["strategy", "seed", "found_for", "arch"]
    frame: pd.DataFrame = pd.concat([rows.iloc[:0], *frames]).reindex(columns=columns)
    place = frame["setting"].map(list(data.searches["setting"].unique()).index)
    by = np.lexsort([frame["target"], frame["limits"].astype(str), place])
    return frame.iloc[by].reset_index(drop=True)


def compared(data: Data) -> Compared:
    """Compare the answers of different seeds, for each setting, strategy, target set and target.

    The table ``agreement`` has rows with at least two answers (``n``): ``agreement`` is the share of equal
    genes, the mean over all pairs of answers and all genes that are active in both; ``identical`` is the
    share of pairs with the same architecture; ``different`` is the number of different architectures.

    The table ``genes`` has one row for each gene: its number ``gene``, ``kind``, ``place`` (``2.3`` is the
    third block of the second stage) and ``name``; ``active``, the share of answers in which it is active;
    ``choice``, the mean choice of these answers, from 0 (its smallest choice) to 1 (its largest);
    ``most_frequent``, the most frequent choice (of several, the smallest), and its ``share``; ``agreement``
    over ``pairs`` of answers in which it is active. If the space is not installed here, a gene has only a
    number and counts as active, and its choices are indices."""
    rows = _feasible(data)
    # folders of an older schema have no genes
    known = [isinstance(genes, list | np.ndarray) for genes in rows.get("genes", [None] * len(rows))]
    rows = rows[np.array(known, bool)]
    parts = [_of_setting(own) for _, own in rows.groupby("setting", sort=False, observed=True)]
    if not parts:
        return Compared(pd.DataFrame(), pd.DataFrame())
    agreement, genes = (pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True))
    return Compared(agreement[agreement["n"] > 1].reset_index(drop=True), genes)


def leading(accuracy: pd.DataFrame) -> dict[str, str]:
    """Return for each setting the strategy with the highest mean accuracy over the targets of the widest set.
    accuracy: ``tables.accuracy``. Only strategies with the largest number of targets count.
    """
    rows = accuracy[(accuracy["targets"] == accuracy["setting"].map(widest(accuracy))) & (accuracy["n"] > 0)]
    means = rows.groupby(["setting", "strategy"], observed=True)["mean"].agg(["size", "mean"]).reset_index()
    means["rank"] = [strategy_rank(name) for name in means["strategy"]]
    means = means.sort_values(["size", "mean", "rank"], ascending=[False, False, True], kind="stable")
    best = means.drop_duplicates("setting")
    return dict(zip(best["setting"], best["strategy"], strict=True))


def short_text(arch: str) -> str:
    """Shorten an architecture (JSON) to its resolution, depths and widths, for example ``r208 d 2 3 4 2 3``.
    Returns "" for other text.
    """
    try:
        config = json.loads(arch)
    except (TypeError, ValueError):
        config = None
    if not isinstance(config, dict):
        return ""
    words = []
    for key, value in sorted(config.items(), key=lambda item: isinstance(item[1], list)):
        if not isinstance(value, list):
            words.append(f"{_SHORT.get(key, key)}{value}")
        elif len(value) <= _LONGEST:
            words += [key, *map(str, value)]
    return " ".join(words)


def _feasible(data: Data) -> pd.DataFrame:
    rows = data.distinct()
    return rows[rows["feasible"] & rows["accuracy"].notna()]


def _space(rows: pd.DataFrame, genes: NDArray[np.int8]) -> Space | None:
    """The space of a setting's rows, if it is installed here and is the one that was searched."""
    space = known_space(str(rows["space"].iloc[0]), str(rows["protocol"].iloc[0]))
    fits = space is not None and genes.shape[1] == space.G and (genes < np.array(space.sizes)).all()
    return space if fits else None


def _of_setting(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables of one setting's rows."""
    lengths = rows["genes"].map(len)
    rows = rows[lengths == lengths.iloc[0]]
    genes = np.stack(rows["genes"].tolist()).astype(np.int8)  # (N, G)
    space = _space(rows, genes)
    active = np.ones(genes.shape, bool) if space is None else active_genes(space, genes)
    groups = rows.groupby(_KEYS, sort=False, observed=True)
    group = groups.ngroup().to_numpy()
    facts = rows.iloc[np.unique(group, return_index=True)[1]][_KEYS].reset_index(drop=True)
    n, n_genes, n_choices = len(facts), genes.shape[1], int(genes.max()) + 1
    counts = np.stack(  # (groups, G, choices)
        [
            np.bincount(group[on] * n_choices + own[on], minlength=n * n_choices).reshape(n, n_choices)
            for own, on in zip(genes.T.astype(np.int64), active.T, strict=True)
        ],
        axis=1,
    )
    by_gene = _by_gene(facts, counts, np.bincount(group), _described(space, n_genes))
    pairs, equal = _pairs(counts.sum(axis=2)), _pairs(counts).sum(axis=2)
    _, same = np.unique(genes * active, axis=0, return_inverse=True)
    found = pd.DataFrame({"group": group, "same": same.ravel()}).value_counts(sort=False).reset_index()
    identical = np.bincount(found["group"], _pairs(found["count"].to_numpy()), minlength=n)
    agreement = facts.assign(
        n=np.bincount(group),
        agreement=_share(equal.sum(axis=1), pairs.sum(axis=1)),
        identical=_share(identical, _pairs(np.bincount(group))),
        different=np.bincount(found["group"], minlength=n),
    )
    return agreement, by_gene


def _by_gene(
    facts: pd.DataFrame, counts: NDArray[np.int64], answers: NDArray[np.int64], described: pd.DataFrame
) -> pd.DataFrame:
    """The table ``genes`` of :func:`compared`, from the counts (groups, G, choices)."""
    n, n_genes, n_choices = counts.shape
    on = counts.sum(axis=2)  # (groups, G)
    # in an unknown space, the choices that occur
    choices = [range(n_choices) if own is None else own for own in described["choices"]]
    largest = np.array([max(len(own) - 1, 1) for own in choices])
    mean = _share((counts * np.arange(n_choices)).sum(axis=2), on) / largest
    mode = counts.argmax(axis=2)
    values = np.array([[*own, *[np.nan] * (n_choices - len(own))][:n_choices] for own in choices], float)
    frame = facts.loc[facts.index.repeat(n_genes)].reset_index(drop=True)
    for name in ("kind", "place", "name"):
        frame[name] = np.tile(described[name].to_numpy(object), n)
    columns = {
        "gene": np.tile(np.arange(n_genes), (n, 1)),
        "n": np.repeat(answers[:, None], n_genes, axis=1),
        "active": on / answers[:, None],
        "choice": mean,
        "most_frequent": np.where(on > 0, values[np.arange(n_genes), mode], np.nan),
        "share": _share(counts.max(axis=2), on),
        "pairs": _pairs(on).astype(np.int64),
        "agreement": _share(_pairs(counts).sum(axis=2), _pairs(on)),
    }
    return frame.assign(**{name: values.ravel() for name, values in columns.items()})


def _pairs(n: NDArray[Any]) -> NDArray[np.float64]:
    """The number of pairs among n."""
    pairs: NDArray[np.float64] = n * (n - 1) / 2
    return pairs


def _share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """part / whole; NaN if whole is 0."""
    share: NDArray[np.float64] = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share


def _described(space: Space | None, n_genes: int) -> pd.DataFrame:
    """The kind, place, name and choices of every gene."""
    columns = ["kind", "place", "name", "choices"]
    if space is None:
        numbers = range(1, n_genes + 1)
        return pd.DataFrame([("gene", str(g), f"gene {g}", None) for g in numbers], columns=columns)
    of_block = {
        g: f"{block.stage + 1}.{block.position + 1}"
        for block in space.blocks
        for g in (block.expand, block.kernel)
        if g >= 0
    }
    # genes before the first stage are numbered if there are several of a kind
    lone = Counter(gene.kind for gene in space.genes if gene.stage < 0)
    rows = []
    for g, gene in enumerate(space.genes):
        kind, place = gene.kind.replace("_", " "), of_block.get(g, "")
        if not place:
            stem = f"stem {gene.position + 1}" if lone[gene.kind] > 1 else ""
            place = f"stage {gene.stage + 1}" if gene.stage >= 0 else stem
        rows.append((kind, place, f"{kind} {place}".strip(), gene.choices))
    return pd.DataFrame(rows, columns=columns)
