"""Policies tried out on training prompts: the engine and the experts, in a time that jumps."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from coe.budgets import load_policies
from coe.config import Config
from coe.core import Message, Policy, Request
from coe.engine import Engine
from coe.experts.replay import ReplayExpert
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.services.recording import read_recording


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__(_Jumping(self))
        self.elapsed = 0.0

    def time(self) -> float:
        """Seconds on its clock."""
        return self.elapsed


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            self._loop.elapsed += timeout
        return super().select(0)


def tried(config: Config, rows: Outcomes, arms: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Mean score, joules and dollars of the prompts under each arm: an expert, or a policy."""
    policies = load_policies(config.budgets)
    loop = JumpingLoop()
    try:
        return {
            name: loop.run_until_complete(_means(_engine(config, loop), rows, model, policies))
            for name, model in arms.items()
        }
    finally:
        loop.close()


def _engine(config: Config, loop: JumpingLoop) -> Engine:
    experts = {
        expert.id: ReplayExpert(
            replace(config.spec(expert), slots=10_000), read_recording(expert.recording, expert.id)
        )
        for expert in config.experts
    }
    router = Router.load(config.artefact, list(config.specs.values()))
    modes = router.artefact.modes
    assert modes is not None
    return Engine(
        router, experts, loop.time, confidence=modes.confidence, n_options=modes.n_options
    )


async def _means(
    engine: Engine, rows: Outcomes, model: str, policies: Mapping[str, Policy]
) -> dict[str, float]:
    found = []
    for n, prompt in enumerate(rows.prompts):
        pinned = None if model.startswith("auto:") else model
        policy = Policy("pinned") if pinned else policies[model.removeprefix("auto:")]
        messages = (Message("user", prompt),)
        reply = await engine.answer(Request(messages, policy, pinned=pinned))
        async for _ in reply.pieces():
            pass
        assert reply.receipt is not None
        score = rows.scores[n, rows.expert_ids.index(reply.receipt.expert_id)]
        found.append((score, reply.receipt.energy_j, reply.receipt.cost_usd))
    return dict(
        zip(("score", "energy_j", "cost_usd"), np.mean(found, axis=0).tolist(), strict=True)
    )
