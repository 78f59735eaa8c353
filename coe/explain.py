"""Decisions in words: why this expert, why not that one, which budget would do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from coe.core import Request
from coe.decision import Candidate, CategoryGuess
from coe.errors import InfeasibleError
from coe.optimizer.choice import Choice
from coe.optimizer.options import AXES, Options
from coe.optimizer.select import violated

_UNIT = {"latency_ms": "ms", "ttft_ms": "ms to the first token", "energy_j": "J", "cost_usd": "USD"}


def why(
    candidates: Sequence[Candidate],
    options: Options,
    choice: Choice,
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
    if choice.index is None:
        axis = str(choice.binding)
        return f"{topic}: no expert fits {axis}, {name} exceeds the budget least"
    if len(candidates) == 1:
        return f"{topic}: {name} is the only candidate"
    if choice.binding is not None:
        usage = getattr(candidates[index].cautious, choice.binding)
        outside = [k for k in range(len(candidates)) if violated(options, k)]
        better = candidates[max(outside, key=lambda k: options.utility[k])].expert_id
        return (
            f"{topic}: {name} is the best that fits {choice.binding} "
            f"({usage:.3g} {_UNIT[choice.binding]}; {better} does not fit)"
        )
    if options.quality[index] >= options.quality.max():
        return f"{topic}: {name} has the highest expected quality, {quality:.2f}"
    dearer = int(np.argmax(options.quality))
    return (
        f"{topic}: {name} (quality {quality:.2f}) is worth more than "
        f"{candidates[dearer].expert_id} "
        f"({options.quality[dearer]:.2f}) once joules, time and money are counted"
    )


def why_not(options: Options, k: int, index: int) -> str:
    """Why candidate ``k`` lost, and what would make it win where a ceiling is the reason."""
    exceeded = violated(options, k)
    if exceeded:
        column = [AXES.index(axis) for axis in exceeded]
        needs = ", ".join(
            f"{axis} >= {round_up(float(options.usage[k, c])):g}"
            for axis, c in zip(exceeded, column, strict=True)
        )
        better = options.utility[k] > options.utility[index]
        return f"would win with {needs}" if better else f"exceeds the budget: needs {needs}"
    lost_by = options.utility[index] - options.utility[k]
    quality_gap = options.quality[k] - options.quality[index]
    if quality_gap > 0:
        paid_more = lost_by + quality_gap
        share = quality_gap / paid_more if paid_more > 0 else 1.0
        return f"quality {quality_gap:+.2f} is not worth its price: would win at {share:.0%} of it"
    if lost_by <= 0:
        return "as good, and takes more"
    return f"utility is lower by {lost_by:.2g}"


def refusal(choice: Choice, ceilings: Mapping[str, float]) -> InfeasibleError:
    """The error of an infeasible choice; it says which budget would do."""
    enough = {axis: value for axis, value in choice.needed.items() if value is not None}
    if enough:
        remedy = " or ".join(f"{axis}={round_up(value):g}" for axis, value in enough.items())
        remedy = f"{remedy} would do"
    else:
        remedy = "more than one ceiling is too low"
    limits = " and ".join(f"{axis} {value:g}" for axis, value in ceilings.items())
    return InfeasibleError(
        f"no expert fits {limits}: {remedy}",
        f"coe.budget.{choice.binding}",
        needed={a: None if v is None else round_up(v) for a, v in choice.needed.items()},
    )


def round_up(value: float) -> float:
    """``value`` with three significant digits, never less than it is."""
    if value <= 0:
        return 0.0
    exponent = math.floor(math.log10(value)) - 2
    digits = math.ceil(value / 10.0**exponent)
    rounded = float(f"{digits}e{exponent}")
    # the division may have rounded down to the digits of a slightly smaller number
    return rounded if rounded >= value else float(f"{digits + 1}e{exponent}")
