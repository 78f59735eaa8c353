"""Asks prompts through a real gateway over HTTP, in a world where time runs faster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openai

from coe.config import Config
from coe.experts.replay import prompt_key
from coe.routers.outcomes import Outcomes
from coe.services.cli.serve import gateway_on, listen
from coe.services.recording import read_recording


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to choose who answers: ``model`` is an expert's id, or ``auto:POLICY``.

    ``coe`` is what the requests ask for beside that.
    """

    name: str
    model: str
    coe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_budget(self) -> bool:
        """Whether the router chooses."""
        return self.model.startswith("auto:")


@dataclass(frozen=True, slots=True)
class Answered:
    """What the HTTP answer to one prompt says of itself, and the score it had when recorded.

    ``device_ms`` is what the profile says of an answer of that length. A ``cut`` answer ended at
    a cap and scores 0: what ZeroEval grades stands at the end. ``nearest``: nobody was expected
    to keep the ceilings. ``exceeded``: somebody was, but the cautious estimate, or the joules
    or dollars of the receipt, are beyond one.
    """

    prompt_id: str
    expert_id: str
    score: float
    latency_ms: float
    device_ms: float
    energy_j: float
    cost_usd: float
    cut: bool
    nearest: bool
    exceeded: bool


class Experiment:
    """Prompts, the experts that once answered them, and how fast time runs.

    Parameters
    ----------
    config : replay experts; their ``time_scale`` and ``slots`` are overridden.
    rows : prompts to ask, every one recorded by every expert.
    speed : device seconds in a second of this machine.
    gap_s : seconds of this machine from one request of an arm to the next.
    """

    def __init__(self, config: Config, rows: Outcomes, speed: float, gap_s: float) -> None:
        fast = {"time_scale": 1 / speed, "slots": len(rows.prompts)}
        replayed = [expert.model_copy(update=fast) for expert in config.experts]
        self._config = config.model_copy(update={"experts": replayed})
        self._specs = config.specs
        self._rows = rows
        # the longest answers first: none is waited for in the end
        longest_first = np.argsort(-rows.tokens.max(axis=1), kind="stable")
        self._turns = np.argsort(longest_first).tolist()
        self._speed, self._gap_s = speed, gap_s
        self._recorded = {e.id: read_recording(e.recording, e.id) for e in config.experts}

    async def run(self, arms: Sequence[Arm]) -> dict[str, list[Answered]]:
        """The answers of each arm, in the order of the prompts.

        Every arm has a gateway of its own and asks at a steady rate, whatever is still under way.
        There are as many of each device as answers at once: none waits for another.
        """
        async with AsyncExitStack() as stack:
            clients = [await self._client(stack) for _ in arms]
            start = asyncio.get_running_loop().time() + self._gap_s
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._answers(client, arm, start + k * self._gap_s / len(arms))
                    )
                    for k, (client, arm) in enumerate(zip(clients, arms, strict=True))
                ]
        return {arm.name: task.result() for arm, task in zip(arms, tasks, strict=True)}

    async def _client(self, stack: AsyncExitStack) -> openai.AsyncOpenAI:
        """A client of a gateway that was started for it."""
        listener = stack.enter_context(listen("127.0.0.1", 0))
        gateway = gateway_on(self._config, listener, now=self._now)
        url, _ = await stack.enter_async_context(gateway)
        client = openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600.0
        )
        await stack.enter_async_context(client)
        await client.models.list()  # connected, and all code loaded, before anything is timed
        return client

    def _now(self) -> float:
        """Seconds of the devices' time."""
        return time.monotonic() * self._speed

    async def _answers(self, client: openai.AsyncOpenAI, arm: Arm, start: float) -> list[Answered]:
        async def ask(n: int) -> Answered:
            await asyncio.sleep(
                start + self._turns[n] * self._gap_s - asyncio.get_running_loop().time()
            )
            return await self._ask(client, arm, n)

        return await asyncio.gather(*map(ask, range(len(self._rows.prompts))))

    async def _ask(self, client: openai.AsyncOpenAI, arm: Arm, n: int) -> Answered:
        prompt = self._rows.prompts[n]
        answer = await client.chat.completions.create(
            model=arm.model,
            messages=[{"role": "user", "content": prompt}],
            extra_body={"coe": dict(arm.coe)},
        )
        extras: dict[str, Any] = (answer.model_extra or {})["coe"]
        receipt, choice = extras["receipt"], answer.choices[0]
        expert_id, cut = receipt["expert_id"], choice.finish_reason == "length"
        self._check(expert_id, prompt, choice.message.content or "", cut)
        score = self._rows.scores[n, self._rows.expert_ids.index(expert_id)]
        nearest = extras["status"] == "nearest"
        return Answered(
            prompt_id=self._rows.prompt_ids[n],
            expert_id=expert_id,
            score=0.0 if cut else float(score),
            latency_ms=receipt["latency_ms"],
            device_ms=self._device_ms(receipt),
            energy_j=receipt["energy_j"],
            cost_usd=receipt["cost_usd"],
            cut=cut,
            nearest=nearest,
            exceeded=not nearest and beyond(extras["budget"], extras["cautious"], receipt),
        )

    def _device_ms(self, receipt: Mapping[str, Any]) -> float:
        """What the profile says of an answer of one expert."""
        profile = self._specs[receipt["expert_id"]].profile
        prefill_ms = profile.ttft_ms(receipt["prompt_tokens"])
        return prefill_ms + profile.decode_ms(receipt["output_tokens"])

    def _check(self, expert_id: str, prompt: str, said: str, cut: bool) -> None:
        """Raise `RuntimeError` unless this is what was recorded, or the beginning of it."""
        recorded = self._recorded[expert_id][prompt_key(prompt)].text
        if recorded != said and not (cut and recorded.startswith(said)):
            raise RuntimeError(f"{expert_id} did not say what was recorded of it")


def beyond(
    budget: Mapping[str, float], cautious: Mapping[str, float], receipt: Mapping[str, Any]
) -> bool:
    """Whether an estimate exceeds a ceiling, or a receipt one that caps keep: joules, dollars."""
    capped = {"energy_j", "cost_usd"} & budget.keys()
    return any(cautious[axis] > most for axis, most in budget.items()) or any(
        receipt[axis] > budget[axis] for axis in capped
    )


def asked(outcomes: Outcomes, split: str, n_prompts: int) -> Outcomes:
    """The first ``n_prompts`` of a split; the table is in an order that mixes the tasks."""
    rows = outcomes.rows(outcomes.splits == split)
    return rows.rows(np.arange(len(rows.prompts)) < n_prompts)
