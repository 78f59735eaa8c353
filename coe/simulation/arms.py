"""The policies that a simulation compares, by the names that people give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coe.errors.callers import UnknownExpertError
from coe.errors.files import SimulationError
from coe.optimizer.pacing import Pacer
from coe.routers.expectation import Expectation
from coe.simulation.deciding import Deciding
from coe.simulation.foreseen import Admission
from coe.simulation.replaying import (
    Progress,
    Replayed,
    replay_deciding,
    replay_fixed,
    replay_paced,
)
from coe.simulation.setting import Budgeting, Setting

Integers = NDArray[np.int64]

SINGLE = "single:"
FIXED = ("best-single", "random", "round-robin", "coe")
DECIDING = ("auto", "auto+pacing", "plan", "plan+pacing")
ARMS = (*FIXED, *DECIDING)
"""Names of policies; besides, ``single:EXPERT``."""


def check(name: str, setting: Setting) -> None:
    """Whether there is a policy of this name, and all that it needs.

    Raises
    ------
    UnknownExpertError
        There is no such policy or expert; the message names those that there are.
    SimulationError, InfeasibleError
        It needs a plan or budgets over time that are not there, or the budget policy asks for what
        is not simulated, or leaves nobody to ask.
    """
    if name.startswith(SINGLE):
        expert_id, known = name.removeprefix(SINGLE), setting.expert_ids
        if expert_id not in known:
            raise UnknownExpertError(
                f"no expert is called {expert_id!r}; there are {', '.join(known)}", "policy"
            )
    elif name not in ARMS:
        raise UnknownExpertError(
            f"no policy {name!r}; there are {', '.join(ARMS)} and {SINGLE}EXPERT", "policy"
        )
    if lacks := missing(name, setting.budgeting):
        raise SimulationError(f"policy {name!r}: {lacks}")
    if name in DECIDING:
        Admission.of(setting.budgeting.policy, setting.outlook)


def missing(name: str, budgeting: Budgeting) -> str:
    """What a policy of this name lacks, in words; empty if nothing."""
    if name.startswith("plan") and budgeting.offers is None:
        return "there is no plan: make one with `coe plan`"
    if name.endswith("+pacing") and not budgeting.allowances:
        return "there are no budgets over time: add periods to budgets.yaml"
    return ""


def replayed(name: str, setting: Setting, progress: Progress = lambda n: None) -> Replayed:
    """What becomes of every request under the policy of this name.

    ``single:EXPERT``, ``best-single``, ``random``, ``round-robin`` and ``coe``, the best expert of
    each prompt's category, ask whom they ask whatever the load and the budget policy. ``auto``
    decides as `coe serve` does where one expert answers, ``plan`` as it does with a plan,
    ``+pacing`` with budgets over time.

    Raises
    ------
    UnknownExpertError, SimulationError, InfeasibleError
        As `check`.
    """
    check(name, setting)
    if name not in DECIDING:
        return replay_fixed(setting.outlook, setting.workload, _picks(name, setting), progress)
    budgeting = setting.budgeting
    offers = budgeting.offers if name.startswith("plan") else None
    deciding = Deciding(setting.outlook, setting.workload, budgeting.policy, offers)
    if name.endswith("+pacing"):
        return replay_paced(deciding, Pacer(budgeting.allowances), progress)
    return replay_deciding(deciding, progress)


def _picks(name: str, setting: Setting) -> Integers:
    """(n_requests,) whom a policy asks that looks at no load."""
    n, n_experts = setting.workload.n_requests, len(setting.outlook.specs)
    if name == "random":
        return (setting.workload.draws[:, 2] * n_experts).astype(np.int64)
    if name == "round-robin":
        return np.arange(n) % n_experts
    if name == "coe":
        return two_step(setting.expectation, setting.outlook.categories)[setting.workload.prompt]
    if name.startswith(SINGLE):
        return np.full(n, setting.expert_ids.index(name.removeprefix(SINGLE)))
    return np.full(n, setting.best_single)


def two_step(expectation: Expectation, categories: Sequence[str]) -> Integers:
    """(n_prompts,) CoE's second step: the best expert of each prompt's category by the table.

    Prompts that the category router does not recognise have the row over all prompts.
    """
    best = expectation.table.quality.argmax(axis=1)
    served = dict(zip(expectation.categories, best.tolist(), strict=True))
    return np.array([served[name] for name in categories])
