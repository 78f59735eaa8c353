"""What every picture is drawn with: colours, letters, a figure, and places for names.

With the modules that draw on it, the only one that imports Matplotlib; pyplot takes no part.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from coe.services.report.picture import Picture
from coe.services.report.placing import APART, Box, Names, Point, Size

WIDTH_IN = 4.4  # what a phone shows at about its own size

# of Okabe and Ito's palette, told apart by colour-blind readers
BLUE, SKY, VERMILLION = "#0072B2", "#56B4E9", "#D55E00"
GREY, DARK, PALE = "#8c8c8c", "#222222", "#d2d2d2"
RUST, SOFT = "#a34700", "#555555"  # of text, dark enough to be read
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "coe",
}
_DPI = 200
SMALL = 7.5


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the house's style, whatever Matplotlib is configured to do."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        # a browser finds other fonts for the SVG; the page has every name in full
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        yield


def picture_of(name: str, figure: Figure, note: str = "") -> Picture:
    """The figure in both formats; the same figure gives the same bytes."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    silent = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(svg, format="svg", metadata=silent)
    return Picture(name, png.getvalue(), svg.getvalue().decode(), note)


def figure_of(
    height_in: float,
    width_in: float = WIDTH_IN,
    layout: Literal["constrained"] | None = "constrained",
) -> Figure:
    """An empty figure of this size, measured in points."""
    figure = Figure(figsize=(width_in, height_in), dpi=72, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def settle(figure: Figure) -> None:
    """Lay the figure out for good: names are placed in points."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def names_in(ax: Axes) -> Names:
    """Places for names within a plot whose layout is settled."""
    return Names(Box(*ax.get_window_extent().extents))


def on_paper(ax: Axes, points: Sequence[Point]) -> list[Point]:
    """Points of a plot whose layout is settled, as points of its figure."""
    if not points:
        return []
    return [(float(x), float(y)) for x, y in ax.transData.transform(points)]


def size_of(ax: Axes, text: str) -> Size:
    """Width and height of a name, in points."""
    drawn = ax.figure.text(0, 0, text, fontsize=SMALL)
    extent = drawn.get_window_extent()
    drawn.remove()
    return extent.width, extent.height


def write_name(
    ax: Axes, place: Box | None, text: str, colour: str = DARK, start: Point | None = None
) -> None:
    """Text at a place, with a thin line to it from a ``start`` that is apart."""
    if place is None:
        return
    ax.annotate(
        text, (place.left, place.bottom), xycoords="figure points", fontsize=SMALL,
        color=colour, zorder=6, annotation_clip=False,
    )  # fmt: skip
    if start is not None and np.hypot(*np.subtract(place.nearest(start), start)) > APART:
        ax.annotate(
            "", start, place.nearest(start), xycoords="figure points", zorder=2.2,
            textcoords="figure points", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0},
        )  # fmt: skip


def scale_usage(ax: Axes, used: Sequence[float]) -> None:
    """Plain numbers on the axis of usage; a logarithmic one where usages differ widely."""
    if min(used) > 0 and max(used) > 8 * min(used):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
