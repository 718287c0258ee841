"""What strategies gain over random search."""

from __future__ import annotations

from topdown_ray.figures import file_name
from topdown_ray.report import comparisons, plots
from topdown_ray.report.context import Context
from topdown_ray.report.page import Section
from topdown_ray.report.sections.differences import difference_table

_WORDS = (
    "Random search scores as many uniformly drawn feasible architectures for every target as an "
    "independent search does, and "
    "keeps the best: what a strategy has over it is what evolution buys."
)
_NONE = (
    "These folders hold no pairs with random search: add the strategy `random` to a sweep with the same "
    "settings."
)


def baselines(context: Context) -> Section:
    """Paired differences from random search."""
    gain = comparisons.gain_over_random(context.differences)
    if gain.empty:
        return Section("baselines", "Baselines", [_WORDS, _NONE])
    pictures = []
    for setting in gain["setting"].unique():
        caption = f"{setting}: paired difference from random search; lines: 95 %."
        name = file_name("gain_over_random", setting)
        pictures.append(
            context.draw(name, caption, plots.differences, gain, setting=setting, against="random")
        )
    title = "Gain over random search"
    table = difference_table(context, gain, "gain_over_random", title, "As in Differences.")
    return Section("baselines", "Baselines", [_WORDS], pictures, [table])
