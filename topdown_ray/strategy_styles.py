"""Define the order, labels, colours and markers of strategies in tables and pictures.

This module is on the ground floor because two rooms need it: strategies are registered with a label and a
colour (:func:`topdown_ray.algorithms.strategies.strategy`), and reports draw them without importing the
searches. The package's own strategies are therefore listed here. The colours are Okabe and Ito's, which
colour-blind readers can distinguish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class StrategyStyle(NamedTuple):
    """How a strategy is shown. label: its name in legends; if it is "", the strategy's own name is used."""

    colour: str
    marker: str
    dash: str
    hatch: str
    label: str = ""


STYLES = {  # in the order of tables and legends
    "random": StrategyStyle("#8c8c8c", "x", ":", "||"),
    "independent": StrategyStyle("#0072b2", "o", "-", ""),
    "bottom_up": StrategyStyle("#e69f00", "^", "--", "//"),
    "top_down": StrategyStyle("#009e73", "s", "-", "\\\\"),
    "prune": StrategyStyle("#cc79a7", "D", "-.", "xx"),
    "joint": StrategyStyle("#d55e00", "P", "-", "--"),
}
_OTHERS = (  # one more of Okabe and Ito's, then Paul Tol's, without yellow, which is too light on white
    StrategyStyle("#56b4e9", "v", "--", "++"),
    StrategyStyle("#117733", "*", ":", "-\\"),
    StrategyStyle("#332288", "<", "-.", "+/"),
    StrategyStyle("#882255", ">", "--", "x-"),
    StrategyStyle("#44aa99", "p", ":", "|/"),
    StrategyStyle("#ddcc77", "h", "-", "\\\\|"),
)
_chosen: dict[str, tuple[str | None, str | None]] = {}  # label and colour, as registered
_variants: dict[str, tuple[str, int]] = {}  # series -> the strategy that it is a variant of, and its place
_PALER = 0.45  # the share of grey in the colour of a variant


class Chosen(NamedTuple):
    """The arguments of all calls of :func:`choose` and :func:`vary`, for another process."""

    styles: dict[str, tuple[str | None, str | None]]
    variants: dict[str, tuple[str, int]]


def chosen() -> Chosen:
    """Return the choices so far."""
    return Chosen(dict(_chosen), dict(_variants))


def adopt(others: Chosen) -> None:
    """Repeat the choices of another process in the same order."""
    _chosen.clear()
    _chosen.update(others.styles)
    _variants.clear()
    _variants.update(others.variants)


def choose(strategy: str, label: str | None, colour: str | None) -> None:
    """Show a strategy with this label and colour; None keeps the default."""
    _chosen[strategy] = (label, colour)


def vary(series: str, strategy: str, place: int) -> None:
    """Show a series as a variant of a strategy. The first variant (place 0) has the strategy's style; the
    others have a paler colour and their own markers and dashes.
    """
    _variants[series] = (strategy, place)


def style_of(strategy: str, strategies: Sequence[str] = ()) -> StrategyStyle:
    """Return a strategy's style among others. Strategies that are not listed here get the remaining markers
    in the order of their names, and the remaining colours unless they chose one.
    """
    if strategy in _variants:
        return _variant_style(strategy, strategies)
    others = sorted({_variants.get(name, (name, 0))[0] for name in strategies} - set(STYLES))
    place = others.index(strategy) % len(_OTHERS) if strategy in others else 0
    style = STYLES.get(strategy, _OTHERS[place])
    label, colour = _chosen.get(strategy, (None, None))
    shown = label or style.label or strategy
    # matplotlib's legends leave out labels that begin with an underscore
    shown = f" {shown}" if shown.startswith("_") else shown
    return style._replace(label=shown, colour=colour or style.colour)


def _variant_style(series: str, strategies: Sequence[str]) -> StrategyStyle:
    strategy, place = _variants[series]
    style = style_of(strategy, strategies)
    style = style._replace(label=f"{' ' if series.startswith('_') else ''}{series}")
    if place == 0:
        return style
    other = _OTHERS[(place - 1) % len(_OTHERS)]
    channels = (int(style.colour[i : i + 2], 16) for i in (1, 3, 5))
    paler = "".join(f"{round((1 - _PALER) * channel + _PALER * 160):02x}" for channel in channels)
    return style._replace(colour=f"#{paler}", marker=other.marker, dash=other.dash, hatch=other.hatch)


def series_style(place: int) -> StrategyStyle:
    """Return the style of the series at this place in a picture that does not compare strategies."""
    styles = [*list(STYLES.values())[1:], *_OTHERS]
    return styles[place % len(styles)]


def strategy_rank(strategy: str) -> tuple[int, str, int]:
    """Return a sort key: first the listed strategies in their order, then those that were registered with
    :func:`choose` in that order, then others by name. Variants of a strategy are sorted by their place.
    """
    name, place = _variants.get(strategy, (strategy, 0))
    order = list(dict.fromkeys([*STYLES, *_chosen]))
    return (order.index(name) if name in order else len(order), name, place)
