"""Make the section "Explorer": an interactive chart of all answers, with the architecture of each point.

Altair writes the specification of the chart. The JavaScript that draws it comes with vl-convert and is part
of the page, so that the page downloads nothing."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

from topdown_ray.assets import cache_folder
from topdown_ray.files import data, replacing
from topdown_ray.report.context import Context
from topdown_ray.report.explorer import MOST_SEARCHES, embedded, payload
from topdown_ray.report.page import Section, packed, template_of
from topdown_ray.strategy_styles import style_of

_WORDS = (
    "Each point is the answer of one search for one target. Select a point to see its architecture. Accuracy "
    "is the predictor's top-1; it is not measured."
)
_SCRIPTS = ("explorer_panel.js", "explorer.js")
# matplotlib's markers as Vega's shapes: a name, or a path inside a square from -1 to 1
_SHAPES = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "<": "triangle-left",
    ">": "triangle-right",
    "D": "diamond",
    "P": "cross",
    "x": "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z",
    "*": "M0,-1L.24,-.31L.95,-.31L.38,.12L.59,.81L0,.4L-.59,.81L-.38,.12L-.95,-.31L-.24,-.31Z",
    "p": "M0,-1L.95,-.31L.59,.81L-.59,.81L-.95,-.31Z",
    "h": "M0,-1L.87,-.5L.87,.5L0,1L-.87,.5L-.87,-.5Z",
}
_TOOLTIP = {
    "strategy": "strategy",
    "targetText": "target",
    "costText": "cost",
    "accuracyText": "top-1",
    "intervalText": "95 % interval of the IQM over seeds",
    "seed": "seed",
    "macsText": "MACs (1e6)",
    "paramsText": "parameters (1e6)",
}


def explorer(context: Context) -> Section | None:
    """Show the interactive chart with its controls and the panel of an architecture."""
    known = payload(context)
    if known is None:
        return None
    strategies = known["strategies"]
    html = template_of("explorer.html.j2").render(
        css=Markup(data("explorer.css").read_text(encoding="utf-8")),
        payload=Markup(embedded({**known, "styles": _styles(strategies), "chart": chart(strategies)})),
        bundle=Markup(bundle().result()),
        scripts=[Markup(data(name).read_text(encoding="utf-8")) for name in _SCRIPTS],
        notes=_notes(known),
    )
    return Section("explorer", "Explorer", [_WORDS], html=html)


def _notes(known: dict[str, Any]) -> list[str]:
    """Notes for the reader: how many points there are, and where they come from."""
    notes, answers, fronts = [], known["answers"], known["fronts"]
    if answers["shown"] < answers["of"]:
        notes.append(
            f"The page contains {answers['shown']:,} of {answers['of']:,} answers: those that no other "
            "answer of their strategy and target set beats in both cost and accuracy, and the most accurate "
            "ones of each strategy and target."
        )
    if answers["missed"]:
        notes.append(f"Answers that do not meet their target are left out ({answers['missed']:,}).")
    if fronts["of"]:
        notes.append(
            "Small points and lines show the fronts that the searches kept. The page contains "
            f"{fronts['shown']:,} of {fronts['of']:,} architectures on them: all that no other architecture "
            "of the setting beats, and some of the rest. For each strategy and target set, only the "
            f"fronts of the first {MOST_SEARCHES} seeds are read; `topdown-ray pick` considers all fronts."
        )
    folders = ", ".join(known["files"])
    tables = "tables `searches` and `front`" if fronts["of"] else "table `searches`"
    return [*notes, f"All numbers come from the {tables} of {folders}."]


@cache
def bundle() -> Future[str]:
    """Start to make Vega, Vega-Lite and Vega-Embed as one compressed script, see :func:`packed`. This takes a
    second or two in a thread; afterwards the script is in the user's cache.
    """
    thread = ThreadPoolExecutor(1)
    made = thread.submit(_bundle)
    thread.shutdown(wait=False)
    return made


def _bundle() -> str:
    version = alt.SCHEMA_VERSION.rpartition(".")[0]  # v6.4.1 -> v6.4
    maker = importlib.metadata.version("vl-convert-python")
    kept = cache_folder() / f"vega-embed-{version}-vl-convert-{maker}.gz.txt"
    if kept.exists():
        return kept.read_text()
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    text = packed(f"(() => {{{script}}})();")
    with contextlib.suppress(OSError):  # a cache that cannot be written
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as new:
            new.write_text(text)
    return text


def _styles(strategies: Sequence[str]) -> dict[str, dict[str, str]]:
    styles = {strategy: style_of(strategy, strategies) for strategy in strategies}
    return {
        strategy: {"colour": style.colour, "shape": _SHAPES.get(style.marker, "circle")}
        for strategy, style in styles.items()
    }


def chart(strategies: Sequence[str]) -> dict[str, Any]:
    """Return the chart's specification. The page fills its data sets ``front``, ``answers``, ``limit`` (cost)
    and ``marked`` (cost, accuracy, what), and puts the unit into the title of the cost axis.
    """
    styles = _styles(strategies)

    def scale(of: str) -> alt.Scale:
        return alt.Scale(domain=list(styles), range=[style[of] for style in styles.values()])

    ticks = [alt.Axis(tickCount=alt.ExprRef(f"ceil({side} / 70)")) for side in ("width", "height")]
    inside = alt.Scale(zero=False, padding=12)
    x = alt.X("cost:Q", title="cost", scale=inside, axis=ticks[0])
    y = alt.Y("accuracy:Q", title="predicted top-1 (%)", scale=inside, axis=ticks[1])
    colour = alt.Color("strategy:N", legend=None, scale=scale("colour"))
    shape = alt.Shape("strategy:N", legend=None, scale=scale("shape"))
    tooltip = [alt.Tooltip(f"{field}:N", title=title) for field, title in _TOOLTIP.items()]
    front = alt.Chart(alt.NamedData("front")).encode(x=x, y=y, color=colour)
    marked = alt.Chart(alt.NamedData("marked")).encode(x=x, y=y)
    layers = [
        front.transform_filter("datum.best")
        .mark_line(interpolate="step-after", strokeWidth=1, opacity=0.6)
        .encode(order="cost:Q"),
        front.mark_circle(size=16, opacity=0.8).encode(tooltip=tooltip),
        alt.Chart(alt.NamedData("answers"))
        .mark_point(filled=True, size=60, opacity=0.75)
        .encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip),
        alt.Chart(alt.NamedData("limit"))
        .mark_rule(strokeDash=[5, 4], strokeWidth=1.5, clip=True)
        .encode(x=x),
        marked.transform_filter("datum.what == 'best'").mark_point(
            size=190, strokeWidth=1.5, strokeDash=[3, 2], shape="circle", filled=False
        ),
        marked.transform_filter("datum.what == 'chosen'").mark_point(
            size=190, strokeWidth=2.5, shape="circle", filled=False
        ),
    ]
    layered = alt.layer(*layers).properties(width="container", height=420)
    return dict(layered.to_dict(validate=True))
