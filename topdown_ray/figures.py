"""Figures as files: one panel, drawn once as SVG, which the PDF is made of. The same input gives the same
bytes.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import vl_convert
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

_LEGEND_ROW = 0.24  # inches
PANEL = (4.4, 3.5)  # inches: a panel that is legible on a telephone without scrolling
_INK = "#010203"  # stands for the reader's text colour in an SVG; almost black in a PDF
_STYLE: dict[Any, Any] = {
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "hatch.linewidth": 0.6,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "svg.fonttype": "none",
}
# the names of a page's resources, which svg2pdf writes in the order of a hash table
_RESOURCES = re.compile(rb"(?<=<<\n)(?:      /\w+ \d+ 0 R\n){2,}(?=    >>)")
_SCHEMES = (
    "<style>.topdown-ray{color:#1f2328}@media "
    "(prefers-color-scheme:dark){.topdown-ray{color:#e6edf3}}</style>"
)


@dataclass(frozen=True)
class Picture:
    """A figure of the report, as it is inlined in the page."""

    name: str
    caption: str
    drawn: Callable[[], Markup]

    @property
    def svg(self) -> Markup:
        """Its markup, waited for where another process draws it."""
        return self.drawn()


def file_name(*parts: str) -> str:
    """A name for files out of labels."""
    return re.sub(r"[^a-z0-9]+", "_", " ".join(parts).lower()).strip("_")


def draw(
    folder: Path,
    name: str,
    caption: str,
    paint: Callable[[Axes], Axes],
    size: tuple[float, float] = PANEL,
) -> Picture:
    """Draw one panel, write it as SVG and PDF, and return it for the page. The same input gives the same
    bytes. size: width and height in inches.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        layout = ConstrainedLayoutEngine()
        figure = Figure(figsize=size, layout=layout)
        paint(ax := figure.add_subplot())
        if (legend := ax.get_legend()) is not None:  # a long legend must not take the picture's place
            rows = math.ceil(len(legend.get_texts()) / max(1, getattr(legend, "_ncols", 1)))
            figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * max(0, rows - 2))
        for _ in range(2):  # the first settles the ticks, whose labels the second has to make room for
            layout.execute(figure)
        figure.set_layout_engine("none")  # as it is now: saving would do it again, and draw twice
        saved = io.StringIO()
        figure.savefig(saved, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = saved.getvalue()
    (folder / f"{name}.pdf").write_bytes(_pdf(svg))
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)  # several figures share a page
    svg = svg.replace(
        "<svg ", f'<svg class="topdown-ray" role="img" aria-label="{caption_text(caption)}" ', 1
    )
    (folder / f"{name}.svg").write_text(svg.replace(">", f">{_SCHEMES}", 1))
    return Picture(name, caption, lambda: Markup(svg))


def caption_text(caption: str) -> str:
    """A caption as the value of an attribute."""
    return str(Markup.escape(caption))


def _pdf(svg: str) -> bytes:
    """An SVG as PDF, its fonts embedded as TrueType: publishers refuse Type 3."""
    _register_fonts()
    # svg2pdf makes a point of a pixel, whatever the length of that
    pdf = vl_convert.svg_to_pdf(re.sub(r'((?:width|height)="[\d.]+)pt"', r'\1px"', svg, count=2))
    # lines of one object change places, so that no offset moves
    return _RESOURCES.sub(lambda lines: b"".join(sorted(lines[0].splitlines(keepends=True))), pdf)


@functools.cache
def _register_fonts() -> None:
    """Let svg2pdf find matplotlib's own fonts, which the machine may not have."""
    vl_convert.register_font_directory(matplotlib.get_data_path() + "/fonts/ttf")
