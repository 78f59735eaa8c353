"""The picture: accuracy against joules of an answer, every arm, and both staircases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from picture import written

from coe.services.report.canvas import (
    BLUE,
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

Row = Mapping[str, Any]
LINES = {"modes": BLUE, "singles": SKY}


def write(document: Mapping[str, Any], stem: Path) -> list[Path]:
    """Write ``<stem>.svg`` and ``<stem>.png``."""
    rows = [row for row in document["arms"] if not row["name"].endswith("its quality")]
    stairs = {name: [r for r in rows if r["name"].startswith(f"{name} at")] for name in LINES}
    others = [row for row in rows if not any(row in line for line in stairs.values())]
    with drawing():
        figure = figure_of(5.2)
        ax = figure.subplots()
        for name, line in stairs.items():
            points = [(row["mean_energy_j"], row["accuracy"]) for row in line]
            ax.plot(*zip(*points, strict=True), color=LINES[name], marker="o", zorder=4, label=name)
        for row in others:
            x = row["mean_energy_j"]
            ax.plot([x, x], row["accuracy_ci95"], color=PALE, linewidth=1.2, zorder=2)
            ax.scatter(x, row["accuracy"], s=26, color=GREY, zorder=3)
        scale_usage(ax, [row["mean_energy_j"] for row in rows])
        ax.margins(x=0.12, y=0.06)
        ax.set_xlabel("joules of an answer, mean")
        ax.set_ylabel("accuracy")
        settle(figure)
        _name(ax, others, stairs)
        drawn = picture_of(stem.name, figure)
    return written(drawn, stem)


def _name(ax: Axes, others: list[Row], stairs: Mapping[str, list[Row]]) -> None:
    names = names_in(ax)
    points = on_paper(ax, [(row["mean_energy_j"], row["accuracy"]) for row in others])
    names.keep_dots(points)
    for name, line in stairs.items():
        drawn = on_paper(ax, [(row["mean_energy_j"], row["accuracy"]) for row in line])
        names.keep_line(drawn)
        text = "several experts" if name == "modes" else "single experts"
        write_name(ax, names.of_line(drawn, size_of(ax, text)), text, LINES[name])
    for row, point in zip(others, points, strict=True):
        place = names.of_dot(point, size_of(ax, row["name"]), important=True)
        write_name(ax, place, row["name"], SOFT, point)
