"""The arms of the experiment, and the prices of joules that make the staircase keep to a budget."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from asking import Arm

from coe.core import ExpertSpec
from coe.routers.outcomes import Outcomes

PRICES = (0.0, 3e-6, 6e-6, 1e-5, 1.5e-5, 2e-5, 3e-5, 4.5e-5, 7e-5, 1.2e-4)
"""Points of quality per joule, one policy each."""

BUDGETS = (0.4, 0.6, 0.8, 1.0, 1.25, 1.5)
"""Mean joules, as shares of those of the best single expert."""


@dataclass(frozen=True, slots=True)
class Mixed(Arm):
    """An arm that asks by one of several models, prompt by prompt, by the prompt's hash."""

    shares: Mapping[str, float] = field(default_factory=dict)

    def of(self, prompt_id: str) -> Arm:
        """The arm for one prompt."""
        # not the hash of the id alone, by which the table is ordered
        drawn = int(hashlib.sha256(f"mixed {prompt_id}".encode()).hexdigest()[:12], 16) / 16**12
        models, ends = list(self.shares), np.cumsum(list(self.shares.values()))
        which = min(int(np.searchsorted(ends, drawn, side="right")), len(models) - 1)
        return Arm(self.name, models[which], self.coe)


def policies(prices: Sequence[float]) -> dict[str, Any]:
    """Policies that pay for joules: with modes of several experts, and with single experts only."""
    found: dict[str, Any] = {"default": {"description": "quality alone"}}
    for k, price in enumerate(prices):
        found[f"modes-{k}"] = {"prices": {"per_joule": price}}
        found[f"singles-{k}"] = {"prices": {"per_joule": price}, "combine": "never"}
    return {"policies": found}


def fixed(outcomes: Outcomes, specs: Mapping[str, ExpertSpec]) -> list[Arm]:
    """Arms that no budget chooses; what they must know they know of ``train`` rows."""
    train = outcomes.rows(outcomes.splits == "train")
    names = outcomes.expert_ids
    order = np.argsort(-train.scores.mean(axis=0), kind="stable")
    best = [names[k] for k in order]
    cheap = sorted(names, key=lambda name: _joules(train, specs[name], name))
    arms = [Arm(name, name) for name in specs]
    even = {name: 1 / len(names) for name in names}
    arms.append(Mixed("random", names[0], shares=even))
    arms.append(Arm("CoE map", "auto:default", {"mode": "single"}))
    arms.append(_forced("vote-3", "vote", best[:3]))
    arms.append(_forced("vote-5", "vote", best))
    arms.append(_forced("surest of 5", "rank", best))
    weak = [name for name in cheap if name != best[0]]
    arms += [_forced(f"{name} -> {best[0]}", "cascade", [name, best[0]]) for name in weak[:3]]
    arms.append(_forced(f"{cheap[1]} -> {best[1]}", "cascade", [cheap[1], best[1]]))
    return arms


def _joules(train: Outcomes, spec: ExpertSpec, name: str) -> float:
    return float(np.mean(spec.profile.energy_j(0, train.tokens[:, train.expert_ids.index(name)])))


def _forced(name: str, mode: str, experts: Sequence[str]) -> Arm:
    return Arm(name, "auto:default", {"mode": mode, "experts": {"allow": list(experts)}})


def staircase(
    family: str, seen: Mapping[str, Mapping[str, float]], single: Mapping[str, float]
) -> list[Mixed]:
    """The arms of a family: for each budget the mix of two prices that spends it on ``train`` rows.

    And the cheapest mix that scores there what the best single expert does.

    Parameters
    ----------
    seen : by policy, means over training prompts.
    single : those of the best single expert.
    """
    steps = _hull(family, seen)
    budget_j = single["energy_j"]
    arms = [
        Mixed(f"{family} at {share:.0%}", "", shares=_mix(steps, share * budget_j, 0))
        for share in BUDGETS
    ]
    return [*arms, Mixed(f"{family}, its quality", "", shares=_mix(steps, single["score"], 1))]


Step = tuple[float, float, str]


def _hull(family: str, seen: Mapping[str, Mapping[str, float]]) -> list[Step]:
    """Mean joules and score of each policy of a family, those that nothing cheaper equals."""
    found = [
        (means["energy_j"], means["score"], f"auto:{name}")
        for name, means in seen.items()
        if name.startswith(f"{family}-")
    ]
    steps: list[Step] = []
    for step in sorted(found):
        if not steps or step[1] > steps[-1][1]:
            while len(steps) > 1 and _slope(steps[-2], step) >= _slope(steps[-2], steps[-1]):
                steps.pop()
            steps.append(step)
    return steps


def _slope(one: Step, other: Step) -> float:
    return (other[1] - one[1]) / max(other[0] - one[0], 1e-9)


def _mix(steps: Sequence[Step], wanted: float, axis: int) -> dict[str, float]:
    """The two policies between which a figure lies, and their shares; at an end, one."""
    for low, high in pairwise(steps):
        if low[axis] <= wanted < high[axis]:
            share = (wanted - low[axis]) / (high[axis] - low[axis])
            return {low[2]: 1.0 - share, high[2]: share}
    end = steps[0] if wanted < steps[0][axis] else steps[-1]
    return {end[2]: 1.0}
