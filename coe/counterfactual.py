"""What would have been decided otherwise: who comes next, and whom a larger budget lets win."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coe.core import Estimate
from coe.decision import Alternative, Decision
from coe.explain import round_up
from coe.optimizer.options import AXES

_FIGURES = ("quality", *AXES)


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Another outcome of a decision.

    Parameters
    ----------
    expert_id : who would have answered.
    behind : by how much its utility is below that of the chosen; negative: above.
    difference : what its predicted answer has more or takes more than that of the chosen.
    ceilings : under which it would have been chosen. Of the runner-up any one of them does, if the
        ceiling is at least the first value and below the second; of whom ceilings kept out all
        are needed, at least the first value each.
    """

    expert_id: str
    behind: float
    difference: Mapping[str, float]
    ceilings: Mapping[str, tuple[float, float | None]]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        bounds = {
            axis: {"from": low} if high is None else {"from": low, "below": high}
            for axis, (low, high) in self.ceilings.items()
        }
        difference = {name: _short(value) for name, value in self.difference.items()}
        said = {"id": self.expert_id, "behind": _short(self.behind), "difference": difference}
        return said | {"ceilings": bounds}


def runner_up(decision: Decision) -> Counterfactual | None:
    """Who fits as well and comes next; ``None`` where nobody does, or nobody was weighed."""
    fitting = [other for other in decision.alternatives if other.able and not other.violated]
    if not fitting or decision.status != "optimal":
        return None
    other = fitting[0]
    between = {}
    for axis in AXES:
        own, more = getattr(other.cautious, axis), getattr(decision.cautious, axis)
        low = round_up(own)
        if low < more:
            between[axis] = (low, more)
    return _counterfactual(decision, other, between)


def kept_out(decision: Decision) -> Counterfactual | None:
    """The best of those worth more whom only ceilings keep out; ``None`` where there is none."""
    for other in decision.alternatives:
        if other.violated and other.behind < 0:
            needs = {axis: round_up(getattr(other.cautious, axis)) for axis in other.violated}
            return _counterfactual(decision, other, {a: (v, None) for a, v in needs.items()})
    return None


def counterfactuals(decision: Decision) -> dict[str, Any]:
    """Both as JSON, ``null`` where there is none."""
    found = {"runner_up": runner_up(decision), "kept_out": kept_out(decision)}
    return {name: None if one is None else one.document() for name, one in found.items()}


def _counterfactual(
    decision: Decision, other: Alternative, ceilings: Mapping[str, tuple[float, float | None]]
) -> Counterfactual:
    difference = _difference(other.estimate, decision.predicted)
    return Counterfactual(other.expert_id, other.behind, difference, ceilings)


def _difference(one: Estimate, other: Estimate) -> dict[str, float]:
    return {name: getattr(one, name) - getattr(other, name) for name in _FIGURES}


def _short(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")
