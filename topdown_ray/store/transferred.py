"""Mark accuracies that come from the predictor of another space.

No predictor is published for ProxylessNAS, so its architectures are scored by MobileNetV3's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MARK = "*"


def is_transferred(rows: pd.DataFrame) -> pd.Series:
    """Return a mask of the rows of ``searches`` whose accuracy comes from a predictor that was trained on
    another space.
    """
    if "predictor_space" not in rows:
        import pandas as pd

        return pd.Series(False, index=rows.index)
    known = rows["predictor_space"].astype(object).where(rows["predictor_space"].notna(), rows["space"])
    return known.astype(str) != rows["space"].astype(str)


def footnote(rows: pd.DataFrame) -> str:
    """Return the meaning of the mark for these rows, or "" if no row has it."""
    marked = rows[is_transferred(rows)]
    return footnote_of(
        marked[["space", "predictor_space"]].astype(str).drop_duplicates().itertuples(index=False)
    )


def footnote_of(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the meaning of the mark for spaces, each paired with the space of its predictor, or "" for no
    pairs.
    """
    words = " and those ".join(
        f"of {space} come from a predictor that was trained on {other}" for space, other in pairs
    )
    if not words:
        return ""
    return (
        f"{MARK} The accuracies {words}. They rank architectures, but the predictor has never seen an "
        "accuracy of their own space."
    )
