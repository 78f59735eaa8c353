"""Whether routing is worth it, in plain words."""

from __future__ import annotations

from typing import Literal

import numpy as np

from coe.evaluation import ArmResult, Evaluation
from coe.services.report.arms import SPENT, best_single, expert_of, named, of_kind
from coe.services.report.labels import clean

Verdict = Literal["above", "noise", "below"]


def verdict(arm: ArmResult) -> Verdict:
    """How an arm compares with the best single expert: only an interval without 0 decides."""
    low, high = arm.delta_ci95
    if low > 0:
        return "above"
    return "below" if high < 0 else "noise"


def headline(evaluation: Evaluation) -> str:
    """Whether arm ``coe`` beats the best single expert, in one sentence."""
    arm = named(evaluation, "coe")
    single, rival = clean(evaluation.best_single), best_single(evaluation)
    scores = f"{arm.score:.3f} against {rival.score:.3f}, {difference(arm)}"
    return {
        "above": f"Routing beats the best single expert, {single}: {scores}, which excludes 0.",
        "noise": f"Routing is within noise of the best single expert, {single}: {scores}, "
        "which includes 0.",
        "below": f"Routing is below the best single expert, {single}: {scores}, which excludes 0.",
    }[verdict(arm)]


def difference(arm: ArmResult) -> str:
    """The difference to the best single expert with its interval."""
    low, high = arm.delta_ci95
    return f"difference {arm.delta_best_single:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}"


def remarks(evaluation: Evaluation) -> list[str]:
    """What must be known to read the headline rightly, a sentence each."""
    found = [_spending(evaluation), _single_minded(evaluation), _hindsight(evaluation)]
    return [sentence for sentence in found if sentence]


def _spending(evaluation: Evaluation) -> str:
    ours, rival = named(evaluation, "coe"), best_single(evaluation)
    shares = []
    for axis in SPENT:
        mine, theirs = axis.of(ours), axis.of(rival)
        if mine is not None and theirs:
            shares.append(f"{mine / theirs:.0%} of its {axis.word}".replace("%", " %"))
    if not shares:
        return ""
    listed = " and ".join(filter(None, (", ".join(shares[:-1]), shares[-1])))
    return f"Compared with that expert it spends {listed}."


def _single_minded(evaluation: Evaluation) -> str:
    if len(evaluation.expert_ids) == 1:
        return "There is only one expert, so there is nothing to choose."
    found = evaluation.categories
    asked = found.n @ found.chosen
    if np.count_nonzero(asked) != 1 or named(evaluation, "coe").n_asked > 1:
        return ""
    expert_id = clean(evaluation.expert_ids[int(asked.argmax())])
    return f"The router does not route here: whatever it answers, it asks {expert_id}."


def _hindsight(evaluation: Evaluation) -> str:
    """Names the expert that turned out better than the one chosen on the training rows."""
    top = max(of_kind(evaluation, "single"), key=lambda arm: arm.score)
    if top.score <= best_single(evaluation).score:
        return ""
    expert_id = clean(expert_of(top, evaluation.expert_ids) or top.name)
    return (
        f"The best single expert was chosen on the training rows, as a router must. On these "
        f"prompts {expert_id} scored {top.score:.3f}, which could be known only afterwards."
    )
