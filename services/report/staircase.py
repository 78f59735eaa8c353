"""The picture of a plan: what every budget buys, beside the experts alone."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from coe.plan import Plan
from coe.services.report.canvas import (
    BLUE,
    DARK,
    GREY,
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
from coe.services.report.files import write
from coe.services.report.picture import Picture

_AXES = {
    "energy_j": "joules per request",
    "latency_ms": "milliseconds, slowest category",
    "cost_usd": "dollars per request",
}
_VALUE = {"likelihood": "mean log-likelihood"}


def write_plan_picture(plan: Plan, path: Path) -> Path:
    """Write the staircases of a plan as PNG, or as SVG if ``path`` ends so.

    Raises
    ------
    ReportError
        The file cannot be written.
    """
    picture = staircases(plan)
    write(path, picture.svg.encode() if path.suffix == ".svg" else picture.png)
    return path


def staircases(plan: Plan) -> Picture:
    """One plot for each axis on which anything is used: steps, single experts, chosen point."""
    shown = [
        axis for axis in _AXES if any(getattr(step, axis) > 0 for step in plan.staircases[axis])
    ]
    with drawing():
        figure = figure_of(2.9 * max(len(shown), 1))
        plots = figure.subplots(max(len(shown), 1), squeeze=False)[:, 0]
        for axis, ax in zip(shown, plots, strict=False):
            _draw(plan, axis, ax)
        if not shown:
            plots[0].set_axis_off()
            plots[0].text(0.5, 0.5, "no sets fit", ha="center")
        settle(figure)
        for axis, ax in zip(shown, plots, strict=False):
            _name(plan, axis, ax)
        return picture_of("plan", figure)


def _draw(plan: Plan, axis: str, ax: Axes) -> None:
    steps = [(getattr(step, axis), step.quality) for step in plan.staircases[axis]]
    singles = _singles(plan, axis)
    used = [x for x, _ in [*steps, *singles]]
    x, y = zip(*steps, strict=True)
    ax.step([*x, 1.15 * max(used)], [*y, y[-1]], where="post", color=SKY, linewidth=1.8, zorder=2)
    ax.scatter(x, y, s=10, color=SKY, zorder=3)
    ax.scatter([x for x, _ in singles], [y for _, y in singles], s=20, color=GREY, zorder=4)
    if plan.certificate is not None:
        ax.scatter([getattr(plan, axis)], [plan.quality], s=48, color=BLUE, zorder=5)
    scale_usage(ax, used)
    ax.margins(x=0.1, y=0.15)
    ax.set_xlabel(_AXES[axis])
    ax.set_ylabel(_VALUE.get(plan.aggregation, "expected score"))


def _name(plan: Plan, axis: str, ax: Axes) -> None:
    names, singles = names_in(ax), on_paper(ax, _singles(plan, axis))
    stairs = on_paper(ax, _corners(plan, axis, ax.get_xlim()[1]))
    names.keep_dots(singles)
    names.keep_line(stairs)
    if plan.certificate is not None:
        point = on_paper(ax, [(getattr(plan, axis), plan.quality)])[0]
        names.keep_dots([point])
        label = f"policy {plan.policy}"
        write_name(ax, names.of_dot(point, size_of(ax, label), important=True), label, BLUE, point)
    for single, point in zip(plan.singles, singles, strict=True):
        name = single.experts[0]
        write_name(ax, names.of_dot(point, size_of(ax, name)), name, SOFT, point)
    label = "best sets"
    write_name(ax, names.of_line(stairs, size_of(ax, label)), label, DARK)


def _corners(plan: Plan, axis: str, end: float) -> list[tuple[float, float]]:
    """The line of the staircase, from its first step to the end of the axis."""
    steps = [(getattr(step, axis), step.quality) for step in plan.staircases[axis]]
    found = steps[:1]
    for x, y in steps[1:]:
        found += [(x, found[-1][1]), (x, y)]
    return [*found, (end, found[-1][1])]


def _singles(plan: Plan, axis: str) -> list[tuple[float, float]]:
    return [(getattr(single, axis), single.quality) for single in plan.singles]
