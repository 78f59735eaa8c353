"""Decisions in words: why this expert, why not that one, which budget would do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from coe.core import Candidate, CategoryGuess, Request
from coe.errors import InfeasibleError
from coe.optimizer.problem import AXES, Problem
from coe.optimizer.result import Result
from coe.optimizer.select import violated

_UNIT = {"latency_ms": "ms", "ttft_ms": "ms to the first token", "energy_j": "J", "cost_usd": "USD"}


def why(
    candidates: Sequence[Candidate],
    problem: Problem,
    result: Result,
    index: int,
    guess: CategoryGuess,
    request: Request,
) -> str:
    """One sentence on the choice of candidate ``index``."""
    name, quality = candidates[index].expert_id, candidates[index].predicted.quality
    if request.pinned:
        return f"{name}: asked for by name"
    topic = (
        f"prompt looks unfamiliar (closest: {guess.likeliest}), overall averages used"
        if guess.uncertain
        else f"{guess.name} prompt ({guess.probability:.0%})"
    )
    if guess.turns_ago:
        topic += ", kept from an earlier turn"
    if result.index is None:
        axis = str(result.binding)
        return f"{topic}: no expert fits {axis}, {name} exceeds the budget least"
    if len(candidates) == 1:
        return f"{topic}: {name} is the only candidate"
    if result.binding is not None:
        usage = getattr(candidates[index].cautious, result.binding)
        outside = [k for k in range(len(candidates)) if violated(problem, k)]
        better = candidates[max(outside, key=lambda k: problem.utility[k])].expert_id
        return (
            f"{topic}: {name} is the best that fits {result.binding} "
            f"({usage:.3g} {_UNIT[result.binding]}; {better} does not fit)"
        )
    if problem.quality[index] >= problem.quality.max():
        return f"{topic}: {name} has the highest expected quality, {quality:.2f}"
    dearer = int(np.argmax(problem.quality))
    return (
        f"{topic}: {name} (quality {quality:.2f}) is worth more than "
        f"{candidates[dearer].expert_id} "
        f"({problem.quality[dearer]:.2f}) once joules, time and money are counted"
    )


def why_not(problem: Problem, k: int, index: int) -> str:
    """Why candidate ``k`` lost, and what would make it win where a ceiling is the reason."""
    exceeded = violated(problem, k)
    if exceeded:
        column = [AXES.index(axis) for axis in exceeded]
        needs = ", ".join(
            f"{axis} >= {_round_up(float(problem.usage[k, c])):g}"
            for axis, c in zip(exceeded, column, strict=True)
        )
        better = problem.utility[k] > problem.utility[index]
        return f"would win with {needs}" if better else f"exceeds the budget: needs {needs}"
    lost_by = problem.utility[index] - problem.utility[k]
    quality_gap = problem.quality[k] - problem.quality[index]
    if quality_gap > 0:
        return f"quality {quality_gap:+.2f} is not worth its price at this policy"
    return f"utility is lower by {lost_by:.3f}"


def refusal(result: Result, ceilings: Mapping[str, float]) -> InfeasibleError:
    """The error of an infeasible result; it says which budget would do."""
    enough = {axis: value for axis, value in result.needed.items() if value is not None}
    if enough:
        remedy = " or ".join(f"{axis}={_round_up(value):g}" for axis, value in enough.items())
        remedy = f"{remedy} would do"
    else:
        remedy = "more than one ceiling is too low"
    limits = " and ".join(f"{axis} {value:g}" for axis, value in ceilings.items())
    return InfeasibleError(
        f"no expert fits {limits}: {remedy}",
        f"coe.budget.{result.binding}",
        needed={a: None if v is None else _round_up(v) for a, v in result.needed.items()},
    )


def _round_up(value: float) -> float:
    """Three significant digits, never less than ``value``."""
    if value <= 0:
        return 0.0
    exponent = math.floor(math.log10(value)) - 2
    digits = math.ceil(value / 10.0**exponent)
    rounded = float(f"{digits}e{exponent}")
    # the division may have rounded down to the digits of a slightly smaller number
    return rounded if rounded >= value else float(f"{digits + 1}e{exponent}")
