"""What `coe serve` would do with prompts whose answers are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coe.core import Message, Policy, Request
from coe.errors.callers import InfeasibleError
from coe.mode import Mode
from coe.router import Router
from coe.routers.arms import Arm
from coe.routers.modes import LearnedModes
from coe.routers.transcript import Transcript

_PLAYED = ("vote", "cascade")


@dataclass(frozen=True, slots=True)
class Served:
    """An arm that a router decides on, and how many prompts got one expert for want of answers."""

    arm: Arm
    n_unplayed: int


def served(
    name: str, router: Router, policy: Policy, told: Transcript, modes: LearnedModes | None
) -> Served:
    """What becomes of every prompt on an idle system, asked for an answer that is not streamed.

    A mode of several experts is played on their recorded answers, and everyone who is asked is
    paid. Where an answer is not recorded, or nothing was learned of ``modes``, it is decided again
    who answers alone. A refused prompt has a row of zeros, and nobody was asked.

    Parameters
    ----------
    told : columns as the router's experts; their answers may be missing.
    """
    column = {expert_id: k for k, expert_id in enumerate(told.rows.expert_ids)}
    chosen: list[Mode | None] = []
    n_unplayed = 0
    for prompt, known in zip(told.rows.prompts, told.answered(), strict=True):
        asked = Request((Message("user", prompt),), policy)
        mode = _decided(router, asked)
        if mode is not None and mode.kind != "single":
            members = [column[member] for member in mode.members]
            if modes is None or mode.kind not in _PLAYED or not known[members].all():
                n_unplayed += 1
                mode = _decided(router, replace(asked, mode="single"))
        chosen.append(mode)
    return Served(_arm(name, chosen, told, modes), n_unplayed)


def _decided(router: Router, request: Request) -> Mode | None:
    """The mode of an idle system; ``None`` where the request is refused."""
    try:
        return router.decide(request).selection.mode
    except InfeasibleError:
        return None


def _arm(
    name: str, chosen: Sequence[Mode | None], told: Transcript, modes: LearnedModes | None
) -> Arm:
    """The arm that asks every prompt's chosen mode."""
    names = told.rows.expert_ids
    wanted = {mode for mode in chosen if mode is not None}
    n_stages = max((len(mode.stages) for mode in wanted), default=1)
    weights, stages = np.zeros(told.quality.shape), np.zeros((n_stages, *told.quality.shape), bool)
    for mode in wanted:
        here = np.array([mode == other for other in chosen])
        if mode.kind == "single":
            stages[0][here, names.index(mode.members[0])] = True
            weights[here] = stages[0][here]
            continue
        assert modes is not None
        (played,) = told.part(here, mode.members).play(modes, [mode])
        winners = [names.index(mode.members[k]) for k in played.winner.tolist()]
        weights[here, winners] = 1.0
        for k, stage in enumerate(played.stages(names)):
            stages[k][here] = stage
    return Arm(name, weights, stages=tuple(stages))
