"""Score against what is spent, as points to draw: one panel for each resource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coe.evaluation import ArmResult, Evaluation
from coe.services.report.arms import SPENT, Axis, expert_of, kind_of, of_kind
from coe.services.report.labels import ARM_CHARS, EXPERT_CHARS, clean, labels


@dataclass(frozen=True, slots=True)
class Mark:
    """An arm as a point; ``reference`` is the best single expert. A long name is shortened."""

    name: str
    kind: Literal["coe", "baseline", "single"]
    x: float
    y: float
    ci95: tuple[float, float]
    reference: bool
    undominated: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """One resource.

    ``marks`` the arms with known usage, the most important first; ``n_unknown`` how many arms
    have none; ``levels`` names and scores of the oracles; ``curve`` usage and score at each price.
    """

    axis: Axis
    marks: tuple[Mark, ...]
    n_unknown: int
    levels: tuple[tuple[str, float], ...]
    curve: tuple[tuple[float, float], ...]


def panels(evaluation: Evaluation) -> list[Panel]:
    """A panel for each resource of which the usage of some arm is known and not 0."""
    found = [_panel(evaluation, axis) for axis in SPENT]
    return [panel for panel in found if any(mark.x > 0 for mark in panel.marks)]


def _panel(evaluation: Evaluation, axis: Axis) -> Panel:
    frontier, short = evaluation.pareto[axis.field], _labels(evaluation)
    plain = [arm for arm in evaluation.arms if not arm.oracle]
    marks = [
        _mark(evaluation, arm, short[arm.name], x, arm.name in frontier)
        for arm in plain
        if (x := axis.of(arm)) is not None
    ]
    points = evaluation.curves.get(axis.field, ())
    return Panel(
        axis=axis,
        marks=tuple(sorted(marks, key=_importance)),
        n_unknown=len(plain) - len(marks),
        levels=tuple((clean(arm.name), arm.score) for arm in of_kind(evaluation, "oracle")),
        curve=tuple((point.usage * axis.factor, point.score) for point in points),
    )


def _labels(evaluation: Evaluation) -> dict[str, str]:
    """What is written for each arm: for a fixed expert its name alone."""
    experts = labels(evaluation.expert_ids, EXPERT_CHARS)
    single = {f"always {name}": label for name, label in experts.items()}
    return labels([arm.name for arm in evaluation.arms], ARM_CHARS) | single


def _mark(evaluation: Evaluation, arm: ArmResult, name: str, x: float, undominated: bool) -> Mark:
    kind = kind_of(arm, evaluation.expert_ids)
    assert kind != "oracle"
    expert_id = expert_of(arm, evaluation.expert_ids)
    return Mark(
        name=name,
        kind=kind,
        x=x,
        y=arm.score,
        ci95=arm.ci95,
        reference=expert_id == evaluation.best_single,
        undominated=undominated,
    )


def _importance(mark: Mark) -> tuple[bool, int, bool, float]:
    rank = ("coe", "baseline", "single").index(mark.kind)
    return not mark.reference, rank, not mark.undominated, -mark.y
