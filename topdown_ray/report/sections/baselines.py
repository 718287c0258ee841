"""Make the section "Baselines": what strategies gain over random search."""

from __future__ import annotations

from dataclasses import replace

from topdown_ray.figures import file_name
from topdown_ray.report import plots
from topdown_ray.report.context import Context
from topdown_ray.report.page import LINES, Section
from topdown_ray.report.sections.differences import difference_table

_WORDS = (
    "For every target, random search draws feasible architectures uniformly, as many as an independent "
    "search draws children, and keeps the best one. The difference shows what the other strategy gains."
)


def baselines(context: Context) -> Section | None:
    """Show paired differences from random search. Returns None if the folders have no pairs with it."""
    rows = context.data.searches
    random = set(rows.loc[rows["kind"] == "random", "strategy"])
    gain = context.differences[context.differences["against"].isin(random)].reset_index(drop=True)
    if gain.empty:
        return None
    pictures = []
    for setting, against in gain[["setting", "against"]].drop_duplicates().itertuples(index=False):
        own = gain[(gain["setting"] == setting) & (gain["against"] == against)]
        lines = LINES if own["low"].notna().any() else "."
        caption = f"{setting}: paired difference from {against} (random search){lines}"
        name = file_name("gain_over", against, setting)
        pictures.append(
            context.draw(name, caption, plots.differences, gain, setting=setting, against=against)
        )
    title = "Data of the pictures: the paired differences from random search"
    table = replace(difference_table(gain, "gain_over_random", title), in_page=False)
    return Section("baselines", "Baselines", [_WORDS], pictures, [table])
