"""What kinds of arms there are, and the axes on which they spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coe.evaluation import ArmResult, Evaluation
from coe.services.report.errors import ReportError

Kind = Literal["coe", "baseline", "single", "oracle"]


@dataclass(frozen=True, slots=True)
class Axis:
    """A resource: the field of `ArmResult`, words for it, and how its figures are shown.

    A value times ``factor`` is in ``unit``.
    """

    field: str
    word: str
    unit: str
    factor: float

    def of(self, arm: ArmResult) -> float | None:
        """What ``arm`` spends, in ``unit``; ``None`` if unknown."""
        value: float | None = getattr(arm, self.field)
        return None if value is None else value * self.factor


COST = Axis("cost_usd", "dollars", "USD per 1,000 prompts", 1000.0)
ENERGY = Axis("energy_j", "joules", "J per prompt", 1.0)
LATENCY = Axis("latency_ms", "time", "s per prompt", 0.001)
PARAMS = Axis("active_params_b", "active parameters", "active parameters, billions", 1.0)
SPENT = (COST, ENERGY, LATENCY)


def kind_of(arm: ArmResult, expert_ids: Sequence[str]) -> Kind:
    """What ``arm`` is: this project's, an oracle, one fixed expert, or a plainer router."""
    if arm.oracle:
        return "oracle"
    if expert_of(arm, expert_ids) is not None:
        return "single"
    return "coe" if arm.name == "coe" or arm.name.startswith("coe ") else "baseline"


def expert_of(arm: ArmResult, expert_ids: Sequence[str]) -> str | None:
    """The expert that ``arm`` always asks; ``None`` for an arm that chooses."""
    expert_id = arm.name.removeprefix("always ")
    return expert_id if arm.name != expert_id and expert_id in expert_ids else None


def of_kind(evaluation: Evaluation, kind: Kind) -> list[ArmResult]:
    """The arms of one kind in their order."""
    return [arm for arm in evaluation.arms if kind_of(arm, evaluation.expert_ids) == kind]


def named(evaluation: Evaluation, name: str) -> ArmResult:
    """The arm called ``name``.

    Raises
    ------
    ReportError
        There is none.
    """
    for arm in evaluation.arms:
        if arm.name == name:
            return arm
    raise ReportError(f"the evaluation has no arm {name!r}: there is nothing to compare")


def best_single(evaluation: Evaluation) -> ArmResult:
    """The arm of the expert that was best on the training rows."""
    return named(evaluation, f"always {evaluation.best_single}")
