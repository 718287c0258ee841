"""Draw a panel with matplotlib and write it as SVG and PDF; the same input gives the same bytes."""

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
_INK = "#010203"  # replaced by the reader's text colour in an SVG; almost black in a PDF
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
    """A figure that is inlined in the page of the report."""

    name: str
    caption: str
    drawn: Callable[[], Markup]

    @property
    def svg(self) -> Markup:
        """The markup. If another process is drawing the figure, this waits for it."""
        return self.drawn()


def file_name(*parts: str) -> str:
    """Make a file name out of labels."""
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
        if (legend := ax.get_legend()) is not None:  # a long legend must not shrink the axes
            rows = math.ceil(len(legend.get_texts()) / max(1, getattr(legend, "_ncols", 1)))
            figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * max(0, rows - 2))
        for _ in range(2):  # the first pass sets the ticks; the second makes room for their labels
            layout.execute(figure)
        figure.set_layout_engine("none")  # keep this layout: saving would otherwise draw twice
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
    """Return a caption as the value of an HTML attribute."""
    return str(Markup.escape(caption))


def _pdf(svg: str) -> bytes:
    """Convert an SVG to PDF with embedded TrueType fonts, because publishers do not accept Type 3."""
    _register_fonts()
    # svg2pdf converts each pixel to a point
    pdf = vl_convert.svg_to_pdf(re.sub(r'((?:width|height)="[\d.]+)pt"', r'\1px"', svg, count=2))
    # sort the lines within one object, so that no offset changes
    return _RESOURCES.sub(lambda lines: b"".join(sorted(lines[0].splitlines(keepends=True))), pdf)


@functools.cache
def _register_fonts() -> None:
    """Register matplotlib's own fonts with svg2pdf, because they may not be installed on the machine."""
    vl_convert.register_font_directory(matplotlib.get_data_path() + "/fonts/ttf")
