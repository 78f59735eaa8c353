"""The plots of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from coe.evaluation import Evaluation
from coe.routers.calibration import Reliability
from coe.services.report.arms import best_single
from coe.services.report.canvas import (
    BLUE,
    DARK,
    GREY,
    PALE,
    RUST,
    SKY,
    SMALL,
    SOFT,
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
from coe.services.report.curve import GateCurve
from coe.services.report.grids import Grid, confusion_grid, expert_grid
from coe.services.report.pareto import Mark, Panel, panels
from coe.services.report.picture import Picture

Floats = NDArray[np.float64]

_CELL_IN = 0.27
_WIDEST_CELL_IN = 0.8
_MOST_NUMBERS = 1000  # cells of a heat map that are written in figures
_NOT_MANY = 35  # points that have names at any price
_MOST_POINTS = 400  # of a curve


def draw(evaluation: Evaluation, gate_curve: GateCurve | None = None) -> list[Picture]:
    """Every plot that has something to show, in the order of `PLOTS`.

    The same evaluation gives the same bytes, whatever Matplotlib is configured to do.
    """
    with drawing():
        pictures = []
        found = panels(evaluation)
        if found:
            pictures.append(_pareto(found))
        pictures.append(_experts(evaluation))
        if evaluation.calibration.n.sum():
            pictures.append(_calibration(evaluation.calibration))
        pictures.append(_confusion(evaluation))
        pictures.append(_coverage(evaluation))
        if gate_curve is not None:
            pictures.append(_retrieval(gate_curve))
        return pictures


def _pareto(found: Sequence[Panel]) -> Picture:
    figure = figure_of(4.3 * len(found))
    plots = figure.subplots(len(found), squeeze=False)[:, 0]
    for panel, ax in zip(found, plots, strict=True):
        _panel(ax, panel)
    settle(figure)
    unnamed = [_name_marks(ax, panel) for panel, ax in zip(found, plots, strict=True)]
    note = ""
    if any(unnamed):
        note = (
            "There was no room for the names of some points: "
            + ", ".join(
                f"{n} against {panel.axis.word}"
                for n, panel in zip(unnamed, found, strict=True)
                if n
            )
            + ". The table below has them all."
        )
    return picture_of("pareto", figure, note)


def _panel(ax: Axes, panel: Panel) -> None:
    for mark in panel.marks:
        _mark(ax, mark)
    for _, score in panel.levels:
        ax.axhline(score, color=DARK, linestyle=(0, (5, 3)), linewidth=0.9, zorder=1.5)
    if panel.curve:
        x, y = zip(*panel.curve, strict=True)
        ax.plot(x, y, color=SKY, linewidth=1.6, zorder=2)
    steps = sorted((mark.x, mark.y) for mark in panel.marks if mark.undominated)
    ax.step(*zip(*steps, strict=True), where="post", color=PALE, linewidth=1.8, zorder=1.4)
    spent = [mark.x for mark in panel.marks] + [point[0] for point in panel.curve]
    scale_usage(ax, spent)
    ax.margins(x=0.12, y=0.1)
    ax.set_xlabel(panel.axis.unit)
    ax.set_ylabel("mean score")


def _mark(ax: Axes, mark: Mark) -> None:
    if mark.kind == "coe":
        low, high = mark.ci95
        ax.plot([mark.x, mark.x], [low, high], color=BLUE, linewidth=0.9, alpha=0.6, zorder=2.5)
    face = {"coe": BLUE, "baseline": "white", "single": GREY}[mark.kind]
    edge = {"coe": BLUE, "baseline": VERMILLION, "single": GREY}[mark.kind]
    shape = {"coe": "o", "baseline": "s", "single": "o"}[mark.kind]
    size = {"coe": 42, "baseline": 26, "single": 18}[mark.kind]
    order = {"coe": 5, "baseline": 4, "single": 3}[mark.kind]
    if mark.reference:
        edge, size = DARK, 34
    ax.scatter(
        [mark.x], [mark.y], s=size, marker=shape, c=face, edgecolors=edge,
        linewidths=1.2, zorder=order,
    )  # fmt: skip


def _name_marks(ax: Axes, panel: Panel) -> int:
    """Write names where they hide nothing; the number of marks without room for one."""
    marks, curve = on_paper(ax, [(m.x, m.y) for m in panel.marks]), on_paper(ax, panel.curve)
    names = names_in(ax)
    names.keep_dots(marks)
    names.keep_line(curve)
    for mark in panel.marks:
        if mark.kind == "coe":
            names.keep_line(on_paper(ax, [(mark.x, end) for end in mark.ci95]))
    for name, (_, y) in zip(
        [name for name, _ in panel.levels],
        on_paper(ax, [(1.0, score) for _, score in panel.levels]),
        strict=True,
    ):
        write_name(ax, names.of_level(y, size_of(ax, name)), name)
    if curve:
        line = "line of prices"
        write_name(ax, names.of_line(curve, size_of(ax, line)), line, BLUE)
    unnamed = 0
    for mark, point in zip(panel.marks, marks, strict=True):
        important = mark.reference or mark.kind != "single" or len(marks) <= _NOT_MANY
        place = names.of_dot(point, size_of(ax, mark.name), important)
        colour = {"coe": BLUE, "baseline": RUST, "single": SOFT}[mark.kind]
        write_name(ax, place, mark.name, DARK if mark.reference else colour, point)
        unnamed += place is None
    return unnamed


def _experts(evaluation: Evaluation) -> Picture:
    grid = expert_grid(evaluation)
    figure = _heat(grid, "cividis", [f"{100 * v:.0f}" for v in grid.values.flat])
    figure.axes[0].set(xlabel="expert", ylabel="category (prompts)")
    _enlarge(figure)
    return picture_of("experts", figure)


def _confusion(evaluation: Evaluation) -> Picture:
    grid = confusion_grid(evaluation.categories)
    figure = _heat(
        grid, "Blues", [f"{100 * v:.0f}" if v >= 0.005 else "" for v in grid.values.flat]
    )
    figure.axes[0].set(xlabel="recognised as", ylabel="category of the prompt (prompts)")
    _enlarge(figure)
    return picture_of("confusion", figure)


def _heat(grid: Grid, colours: str, numbers: Sequence[str]) -> Figure:
    """Values in per cent as colours, and as ``numbers`` where there are not too many."""
    n_rows, n_columns = grid.values.shape
    width_in = n_columns * float(np.clip(3.0 / n_columns, _CELL_IN, _WIDEST_CELL_IN))
    height_in = n_rows * _CELL_IN
    figure = figure_of(height_in, width_in, layout=None)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    percent = 100 * grid.values
    edges = np.arange(n_columns + 1), np.arange(n_rows + 1)
    low, high = float(np.nanmin(percent)), float(np.nanmax(percent))
    mesh = ax.pcolormesh(
        *edges, percent, cmap=colours, edgecolors="#e6e6e6", linewidth=0.5,
        vmin=low, vmax=max(high, low + 1.0),
    )  # fmt: skip
    ax.invert_yaxis()
    _name_cells(ax, grid)
    for row, column in enumerate(grid.marked.tolist()):
        if column >= 0:
            ax.add_patch(
                Rectangle((column, row), 1, 1, fill=False, edgecolor=VERMILLION, linewidth=1.6)
            )
    if sum(map(bool, numbers)) <= _MOST_NUMBERS:
        _write_numbers(ax, numbers, mesh.to_rgba(percent))
    else:
        bar = figure.add_axes((0, -0.7 / height_in, 3.0 / width_in, 0.12 / height_in))
        scale = np.linspace(low, high, 33)
        # not `colorbar`: it makes a bitmap
        bar.pcolormesh(scale, [0.0, 1.0], [(scale[1:] + scale[:-1]) / 2], cmap=colours)
        bar.set(yticks=[], xlabel="per cent")
    return figure


def _name_cells(ax: Axes, grid: Grid) -> None:
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.set_xticks(np.arange(len(grid.columns)) + 0.5, grid.columns)
    for label in ax.get_xticklabels():
        label.set(rotation=60, ha="left", va="bottom", rotation_mode="anchor")
    labels = zip(grid.rows, grid.n.tolist(), strict=True)
    ax.set_yticks(np.arange(len(grid.rows)) + 0.5, [f"{label} ({n})" for label, n in labels])


def _write_numbers(ax: Axes, numbers: Sequence[str], colours: Floats) -> None:
    light = colours[..., :3] @ (0.30, 0.59, 0.11) > 0.5
    for ((row, column), bright), number in zip(np.ndenumerate(light), numbers, strict=True):
        if number:
            ax.text(
                column + 0.5, row + 0.5, number, fontsize=7, ha="center",
                va="center_baseline", color="black" if bright else "white",
            )  # fmt: skip


def _enlarge(figure: Figure, margin_in: float = 0.08) -> None:
    """Make room for what is outside of the figure, and leave its axes as large as they are."""
    box = figure.get_tightbbox().padded(margin_in)
    width, height = figure.get_size_inches()
    for ax in figure.axes:
        place = ax.get_position()
        left, bottom = place.x0 * width - box.x0, place.y0 * height - box.y0
        ax.set_position(
            (
                left / box.width,
                bottom / box.height,
                place.width * width / box.width,
                place.height * height / box.height,
            )
        )
    figure.set_size_inches(box.width, box.height)


def _calibration(found: Reliability) -> Picture:
    figure = figure_of(4.6)
    ax, counts = figure.subplots(2, height_ratios=(4, 1), sharex=True)
    ax.plot([0, 1], [0, 1], color=DARK, linestyle=(0, (5, 3)), linewidth=0.9)
    for x, y, side, words in (
        (0.03, 0.95, "left", "better than expected"),
        (0.97, 0.03, "right", "worse than expected"),
    ):
        ax.text(x, y, words, ha=side, fontsize=SMALL, color=SOFT)
    some = found.n > 0
    ax.plot(found.expected[some], found.observed[some], color=BLUE, linewidth=1.2)
    sizes = 12 + 80 * found.n[some] / found.n.max()
    ax.scatter(found.expected[some], found.observed[some], s=sizes, c=BLUE, zorder=3)
    ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="observed score")
    width = 1 / found.n.size
    counts.bar((np.arange(found.n.size) + 0.5) * width, found.n, width=0.9 * width, color=GREY)
    counts.set(xlabel="expected score", ylabel="cells")
    counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    return picture_of("calibration", figure)


def _coverage(evaluation: Evaluation) -> Picture:
    found = evaluation.coverage
    figure = figure_of(3.2)
    ax = figure.subplots()
    kept = np.linspace(0, found.covered.size - 1, min(found.covered.size, _MOST_POINTS))
    kept = np.unique(kept.round().astype(np.int64))
    line = list(zip(found.covered[kept].tolist(), found.score[kept].tolist(), strict=True))
    single, chosen = best_single(evaluation).score, found.chosen_covered
    mark = (chosen, float(np.interp(chosen, found.covered, found.score)))
    ax.axhline(single, color=GREY, linewidth=0.9)
    ax.axvline(chosen, color=VERMILLION, linestyle=(0, (1, 2)), linewidth=1.0)
    ax.plot(*zip(*line, strict=True), color=BLUE, linewidth=1.4)
    ax.scatter(*mark, s=30, c=VERMILLION, zorder=4)
    ax.margins(x=0.06, y=0.2)
    ax.set(xlabel="share of prompts routed by category", ylabel="mean score")
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    settle(figure)
    names = names_in(ax)
    names.keep_line(on_paper(ax, line))
    names.keep_line(on_paper(ax, [(chosen, y) for y in ax.get_ylim()]))
    (point, (_, level)) = on_paper(ax, [mark, (0.0, single)])
    names.keep_dots([point])
    used, rival = f"in use: {100 * chosen:.0f} %", "best single expert"
    write_name(ax, names.of_level(level, size_of(ax, rival)), rival, SOFT)
    write_name(ax, names.of_dot(point, size_of(ax, used), important=True), used, RUST, point)
    return picture_of("coverage", figure)


def _retrieval(found: GateCurve) -> Picture:
    figure = figure_of(3.4)
    ax = figure.subplots()
    ends = [(0.0, found.never), (1.0, found.always)]
    line = list(zip(found.share_retrieved.tolist(), found.accuracy.tolist(), strict=True))
    ax.plot(*zip(*ends, strict=True), color=DARK, linestyle=(0, (5, 3)), linewidth=0.9)
    ax.plot(*zip(*line, strict=True), color=BLUE, linewidth=1.6)
    marks = [
        ("never", ends[0], "s", "white", VERMILLION),
        ("always", ends[1], "s", "white", VERMILLION),
        ("oracle", found.oracle, "*", DARK, DARK),
    ]
    if found.chosen is not None:
        marks.append(("gate", found.chosen, "o", BLUE, BLUE))
    for _, (x, y), shape, face, edge in marks:
        ax.scatter([x], [y], s=44, marker=shape, c=face, edgecolors=edge, zorder=4)
    ax.margins(x=0.08, y=0.15)
    ax.set(xlabel="share of questions retrieved for", ylabel="accuracy")
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    settle(figure)
    names = names_in(ax)
    names.keep_line(on_paper(ax, line))
    names.keep_line(on_paper(ax, ends))
    points = on_paper(ax, [place for _, place, *_ in marks])
    names.keep_dots(points)
    for (name, (_, y), *_), point in zip(marks, points, strict=True):
        text = f"{name} {y:.3f}"
        write_name(ax, names.of_dot(point, size_of(ax, text), important=True), text, DARK, point)
    return picture_of("retrieval", figure)
