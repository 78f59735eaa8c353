"""The picture of a simulation: what policies are worth and spend, and how long answers take."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from coe.services.report.canvas import (
    BLUE,
    DARK,
    PALE,
    SKY,
    VERMILLION,
    drawing,
    figure_of,
    names_in,
    on_paper,
    picture_of,
    scale_usage,
    settle,
    size_of,
    write_name,
)
from coe.services.report.files import write
from coe.simulation.figures import QUANTILES, Figures

_COLOURS = dict(zip(QUANTILES, (BLUE, SKY, VERMILLION), strict=True))
_ROW_IN = 0.24


def write_fleets_picture(arms: Sequence[Figures], path: Path) -> Path:
    """Write quality against joules, and below it latencies, of every policy.

    As PDF or SVG if ``path`` ends so, else as PNG.

    Raises
    ------
    ReportError
        The file cannot be written.
    """
    with drawing():
        figure = _drawn(arms)
        if path.suffix == ".pdf":
            pdf = io.BytesIO()
            figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
            write(path, pdf.getvalue())
        else:
            picture = picture_of("fleets", figure)
            write(path, picture.svg.encode() if path.suffix == ".svg" else picture.png)
    return path


def _drawn(arms: Sequence[Figures]) -> Figure:
    answering = [arm for arm in arms if arm.energy_j is not None]
    rows_in = 0.7 + _ROW_IN * max(len(arms), 1)
    figure = figure_of(2.9 + rows_in)
    above, below = figure.subplots(2, height_ratios=[2.9, rows_in])
    points = [(arm.energy_j or 0.0, arm.quality) for arm in answering]
    for arm, (x, y) in zip(answering, points, strict=True):
        above.plot([x, x], arm.quality_ci95, color=PALE, linewidth=1.4, zorder=2)
        above.scatter([x], [y], s=24, color=BLUE, zorder=4)
    if points:
        scale_usage(above, [x for x, _ in points])
    above.margins(x=0.12, y=0.12)
    above.set(xlabel="joules per answer", ylabel="score, refused ones 0")
    _draw_latencies(below, arms)
    settle(figure)
    names, places = names_in(above), on_paper(above, points)
    names.keep_dots(places)
    for arm, (x, _) in zip(answering, points, strict=True):
        names.keep_line(on_paper(above, [(x, y) for y in arm.quality_ci95]))
    for arm, place in zip(answering, places, strict=True):
        write_name(above, names.of_dot(place, size_of(above, arm.policy)), arm.policy, DARK, place)
    return figure


def _draw_latencies(ax: Axes, arms: Sequence[Figures]) -> None:
    for row, arm in enumerate(arms):
        seconds = {name: arm.latency_ms[name] for name in QUANTILES}
        known = {name: value / 1000.0 for name, value in seconds.items() if value is not None}
        ax.plot(list(known.values()), [row] * len(known), color=PALE, linewidth=1.4, zorder=2)
        for name, value in known.items():
            label = name if row == 0 else None
            ax.scatter([value], [row], s=20, color=_COLOURS[name], zorder=4, label=label)
    ax.set_yticks(range(len(arms)), [arm.policy for arm in arms])
    ax.set_ylim(len(arms) - 0.5, -0.5)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("seconds from arrival to the end of the answer")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(ncols=len(QUANTILES), loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
