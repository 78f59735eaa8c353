"""The picture: accuracy against joules, and against the latency that 19 of 20 answers keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from coe.services.report.canvas import (
    BLUE,
    DARK,
    GREY,
    PALE,
    SKY,
    SOFT,
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
from coe.services.report.files import write as write_file
from coe.services.report.picture import Picture
from coe.services.report.placing import Point

Row = Mapping[str, Any]

_PANELS = (
    ("joules of an answer, mean", "mean_energy_j", 1.0),
    ("seconds that 19 of 20 answers keep (p95)", "p95_latency_ms", 1e-3),
)


def write(document: Mapping[str, Any], stem: Path) -> list[Path]:
    """Write ``<stem>.svg`` and ``<stem>.png``."""
    rows, stairs = document["arms"], document["plan"]["staircase"]
    with drawing():
        figure = figure_of(6.4)
        plots = figure.subplots(len(_PANELS), sharey=True)
        for ax, panel in zip(plots, _PANELS, strict=True):
            _draw(ax, rows, *panel)
        plots[0].plot(*zip(*corners(stairs), strict=True), color=SKY, linewidth=1.2, zorder=1)
        settle(figure)
        for ax, panel, line in zip(plots, _PANELS, (corners(stairs), []), strict=True):
            _name(ax, rows, panel, line)
        drawn = picture_of(stem.name, figure)
    return written(drawn, stem)


def written(drawn: Picture, stem: Path) -> list[Path]:
    """Write a picture to ``<stem>.svg`` and ``<stem>.png``."""
    paths = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    for path, content in zip(paths, (drawn.svg.encode(), drawn.png), strict=True):
        write_file(path, content)
    return paths


def corners(steps: Sequence[Sequence[float]]) -> list[Point]:
    """The line of a staircase."""
    found = [(steps[0][0], steps[0][1])]
    for x, y in steps[1:]:
        found += [(x, found[-1][1]), (x, y)]
    return found


def _draw(ax: Axes, rows: list[Row], label: str, field: str, factor: float) -> None:
    for row in rows:
        x, budget = factor * row[field], row["kind"] == "budget"
        ax.plot([x, x], row["accuracy_ci95"], color=PALE, linewidth=1.4, zorder=2)
        size, colour = (44, BLUE) if budget else (26, GREY)
        ax.scatter(x, row["accuracy"], s=size, color=colour, zorder=4)
    scale_usage(ax, [factor * row[field] for row in rows])
    ax.margins(x=0.14, y=0.05)
    ax.set_xlabel(label)
    ax.set_ylabel("accuracy")


def _name(ax: Axes, rows: list[Row], panel: tuple[str, str, float], line: Sequence[Point]) -> None:
    _, field, factor = panel
    names = names_in(ax)
    points = on_paper(ax, [(factor * row[field], row["accuracy"]) for row in rows])
    names.keep_dots(points)
    names.keep_line(on_paper(ax, line))
    order = sorted(zip(rows, points, strict=True), key=lambda pair: pair[0]["kind"])
    for row, point in order:
        budget = row["kind"] == "budget"
        text = f"auto:{row['name']}" if budget else row["name"]
        place = names.of_dot(point, size_of(ax, text), important=True)
        write_name(ax, place, text, BLUE if budget else SOFT, point)
    if line:
        text = "as planned"
        write_name(ax, names.of_line(on_paper(ax, line), size_of(ax, text)), text, DARK)
