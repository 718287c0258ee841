"""Accuracies that a predictor of another space made: the mark that they carry wherever they are shown.

No predictor is published for ProxylessNAS, so MobileNetV3's reads its architectures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MARK = "*"


def is_transferred(rows: pd.DataFrame) -> pd.Series:
    """Which rows of ``searches`` have an accuracy by a predictor that was trained on another space."""
    if "predictor_space" not in rows:
        import pandas as pd

        return pd.Series(False, index=rows.index)
    known = rows["predictor_space"].astype(object).where(rows["predictor_space"].notna(), rows["space"])
    return known.astype(str) != rows["space"].astype(str)


def footnote(rows: pd.DataFrame) -> str:
    """What the mark means for these rows; "" where none carries it."""
    marked = rows[is_transferred(rows)]
    return footnote_of(
        marked[["space", "predictor_space"]].astype(str).drop_duplicates().itertuples(index=False)
    )


def footnote_of(pairs: Iterable[tuple[str, str]]) -> str:
    """What the mark means for these spaces, each with the space of its predictor; "" where there is none."""
    words = " and ".join(f"of {space} by a predictor that was trained on {other}" for space, other in pairs)
    if not words:
        return ""
    return (
        f"{MARK} Accuracies {words}: they rank architectures, but the predictor has seen no accuracy of that "
        "space."
    )
