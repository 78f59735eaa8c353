"""Decisions in words: why this expert, why not that one, which budget would do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from coe.core import Budget, Estimate, Request
from coe.decision import Alternative, Candidate, CategoryGuess
from coe.errors.callers import InfeasibleError
from coe.optimizer.choice import Choice
from coe.optimizer.options import AXES, Options
from coe.permitted import why_one

_UNIT = {"latency_ms": "ms", "ttft_ms": "ms to the first token", "energy_j": "J", "cost_usd": "USD"}


def why(
    candidates: Sequence[Candidate],
    options: Options,
    choice: Choice,
    index: int,
    guess: CategoryGuess,
    request: Request,
    instead: Choice | None = None,
) -> str:
    """One sentence on the choice of candidate ``index``.

    Parameters
    ----------
    instead : where the candidate says that nobody answers, the choice among those who would.
    """
    name = candidates[index].expert_id
    if instead is not None and not request.pinned:
        return _declined(name, options, instead)
    said, ready = _chosen(candidates, options, choice, index, guess, request), request.standing
    return f"{said}; {ready[name].why}" if name in ready and ready[name].why else said


def taken(choice: Choice, request: Request, ceilings: Budget) -> int:
    """The index of what is taken.

    Raises
    ------
    InfeasibleError
        Nothing is: it says what budget would do.
    """
    if choice.nearest is None:
        raise InfeasibleError(
            f"nothing on offer has every expert that policy {request.policy.name!r} forces",
            "coe.experts",
            "no_expert",
        )
    index = choice.taken(request.policy.on_infeasible)
    if index is None:
        raise refusal(choice, ceilings.ceilings())
    return index


def _chosen(
    candidates: Sequence[Candidate],
    options: Options,
    choice: Choice,
    index: int,
    guess: CategoryGuess,
    request: Request,
) -> str:
    """One sentence on the choice of candidate ``index``."""
    said = _why(candidates, options, choice, index, guess, request)
    several = request.mode not in (None, "single") or (request.most_experts or 1) > 1
    alone = why_one(request) if several else ""
    return f"{said}; one expert: {alone}" if alone else said


def _why(
    candidates: Sequence[Candidate],
    options: Options,
    choice: Choice,
    index: int,
    guess: CategoryGuess,
    request: Request,
) -> str:
    mode, quality = candidates[index].mode, candidates[index].predicted.quality
    name = mode.name
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
    if request.mode == mode.kind != "single":
        return f"{topic}: {name}, mode {mode.kind} as asked for"
    if len(candidates) == 1:
        return f"{topic}: {name} is the only candidate"
    beyond = _beyond_one(candidates, options, index)
    if choice.binding is not None:
        usage = getattr(candidates[index].cautious, choice.binding)
        outside = np.flatnonzero(~options.fits).tolist()
        utility = options.utility
        better = candidates[max(outside, key=lambda k: utility[k])].expert_id
        return (
            f"{topic}: {name} is the best that fits {choice.binding} "
            f"({usage:.3g} {_UNIT[choice.binding]}; {better} does not fit){beyond}"
        )
    if beyond:
        return f"{topic}: {name} has quality {quality:.2f}{beyond}"
    if options.quality[index] >= options.quality.max():
        if within := _within_error(candidates, options, index):
            return f"{topic}: {name} has quality {quality:.2f}, {within}"
        return f"{topic}: {name} has the highest expected quality, {quality:.2f}"
    dearer = int(np.argmax(options.quality))
    return (
        f"{topic}: {name} (quality {quality:.2f}) is worth more than "
        f"{candidates[dearer].expert_id} "
        f"({options.quality[dearer]:.2f}) once joules, time and money are counted"
    )


def _declined(name: str, options: Options, instead: Choice) -> str:
    if instead.index is not None:
        return f"{name} declines: no answer is worth what it takes"
    if instead.nearest is None:
        return f"{name} declines: nobody else may answer"
    limits = zip(AXES, options.ceilings.tolist(), strict=True)
    return f"{name} declines: {refusal(instead, {a: v for a, v in limits if math.isfinite(v)})}"


def _beyond_one(candidates: Sequence[Candidate], options: Options, index: int) -> str:
    """What several experts gain over the best one alone, as the end of a sentence."""
    chosen, utility, fits = candidates[index], options.utility, options.fits
    if chosen.mode.kind == "single":
        return ""
    singles = [k for k, one in enumerate(candidates) if one.mode.kind == "single" and fits[k]]
    if not singles:
        return ""
    one = candidates[max(singles, key=lambda k: utility[k])]
    gain = chosen.predicted.quality - one.predicted.quality
    more = _difference(chosen.predicted, one.predicted)
    error = chosen.predicted.quality_se
    sure = options.quality[index] < chosen.predicted.quality
    verdict = f", beyond a standard error of {error:.2f}" if sure else ""
    return f": {gain:+.2f} against {one.expert_id} alone for {more}{verdict}"


def _difference(estimate: Estimate, other: Estimate) -> str:
    """What an answer takes more or less than another: joules, seconds, and money if it is paid."""
    joules = estimate.energy_j - other.energy_j
    seconds = (estimate.latency_ms - other.latency_ms) / 1000.0
    usd = estimate.cost_usd - other.cost_usd
    parts = [(joules, "J"), (seconds, "s"), (usd, "USD")]
    said = [
        f"{abs(amount):.2g} {unit} {'more' if amount > 0 else 'less'}"
        for amount, unit in parts
        if amount
    ]
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said) or "as much"


def _within_error(candidates: Sequence[Candidate], options: Options, index: int) -> str:
    """The several experts that would add most to the chosen one, but for their standard error."""
    quality = candidates[index].predicted.quality
    unsure = [
        other
        for k, other in enumerate(candidates)
        if other.predicted.quality > quality >= options.quality[k]
    ]
    if not unsure:
        return ""
    best = max(unsure, key=lambda other: other.predicted.quality)
    gain, error = best.predicted.quality - quality, best.predicted.quality_se
    return (
        f"and what {best.expert_id} adds, {gain:+.2f}, is within its standard error of {error:.2f}"
    )


def alternatives(
    candidates: Sequence[Candidate], options: Options, index: int
) -> tuple[Alternative, ...]:
    """Every candidate but the chosen ``index``, best utility first, with why it was not."""
    utility, exceeded = options.utility.tolist(), (options.excess > 0).tolist()
    others = sorted((k for k in range(len(utility)) if k != index), key=lambda k: -utility[k])
    found = []
    for k in others:
        violates = tuple(axis for axis, is_over in zip(AXES, exceeded[k], strict=True) if is_over)
        if violates:
            reason = _needs(violates, options.usage[k].tolist(), utility[k] > utility[index])
        else:
            reason = _why_not(candidates, options, k, index, utility[index] - utility[k])
        found.append(
            Alternative(
                expert_id=candidates[k].expert_id,
                estimate=candidates[k].predicted,
                cautious=candidates[k].cautious,
                utility=utility[k],
                violated=violates,
                why_not=reason,
                behind=utility[index] - utility[k],
            )
        )
    return tuple(found)


def _needs(violates: Sequence[str], usage: Sequence[float], better: bool) -> str:
    """What would admit a candidate whose ``usage`` exceeds ceilings."""
    needs = ", ".join(f"{axis} >= {round_up(usage[AXES.index(axis)]):g}" for axis in violates)
    return f"would win with {needs}" if better else f"exceeds the budget: needs {needs}"


def _why_not(
    candidates: Sequence[Candidate], options: Options, k: int, index: int, lost_by: float
) -> str:
    """Why candidate ``k`` lost, which exceeds no ceiling."""
    expected = candidates[k].predicted
    gain = expected.quality - candidates[index].predicted.quality
    # of several experts a standard error less
    sure_gain = float(options.quality[k] - options.quality[index])
    if gain > 0 >= sure_gain:
        return f"quality {gain:+.2f} is within its standard error of {expected.quality_se:.2f}"
    if gain > 0:
        share = sure_gain / (lost_by + sure_gain) if lost_by + sure_gain > 0 else 1.0
        return f"quality {gain:+.2f} is not worth its price: would win at {share:.0%} of it"
    if lost_by <= 0:
        return "as good, and takes more"
    return f"utility is lower by {lost_by:.2g}"


def unable(
    candidates: Sequence[Candidate], lacks: Mapping[str, str], request: Request
) -> tuple[Alternative, ...]:
    """Candidates that cannot do what the request asks for, best utility first.

    Parameters
    ----------
    lacks : by expert, what it would need.
    """
    if not candidates:
        return ()
    predicted = [candidate.predicted for candidate in candidates]
    utility = Options.of(predicted, predicted, Budget(), request.policy.prices).utility.tolist()
    found = [
        Alternative(
            expert_id=candidate.expert_id,
            estimate=candidate.predicted,
            cautious=candidate.cautious,
            utility=worth,
            violated=(),
            why_not=f"lacks {lacks[candidate.expert_id]}",
            able=False,
        )
        for candidate, worth in zip(candidates, utility, strict=True)
    ]
    return tuple(sorted(found, key=lambda other: -other.utility))


def left_out(lacks: Mapping[str, str]) -> str:
    """Who was left out because it cannot, as the end of a sentence; empty where nobody was."""
    return "".join(f"; {name} lacks {what}" for name, what in lacks.items())


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
        needed=needed(choice),
    )


def needed(choice: Choice) -> dict[str, float | None]:
    """What an infeasible choice needs of each ceiling, in figures for people."""
    return {a: None if v is None else round_up(v) for a, v in choice.needed.items()}


def round_up(value: float) -> float:
    """``value`` with three significant digits, never less than it is."""
    if value <= 0:
        return 0.0
    exponent = math.floor(math.log10(value)) - 2
    digits = math.ceil(value / 10.0**exponent)
    rounded = float(f"{digits}e{exponent}")
    # the division may have rounded down to the digits of a slightly smaller number
    return rounded if rounded >= value else float(f"{digits + 1}e{exponent}")
