"""``coe chat``."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from coe.config import Config
from coe.services.cli.connection import connection, reached, refusal
from coe.services.cli.console import configuration, notes, print_json, say
from coe.services.cli.serve import gateway_on, listen, own_address

_PROBE_S = 0.5
_ANSWER_TIMEOUT = httpx.Timeout(600.0, connect=5.0)


def run(
    prompt: str,
    model: str,
    ceilings: Mapping[str, float | None],
    several: Mapping[str, str | int | None],
    max_tokens: int | None,
    url: str | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Ask the running gateway, or one that lives for this question.

    Parameters
    ----------
    several : ``mode`` and ``k`` of the request, where they are given.

    Raises
    ------
    RequestError
        The gateway refused the question.
    GatewayError
        No gateway is there, or nobody answered.
    """
    config = configuration(config_path, quiet=True)
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "coe": {"budget": _given(ceilings), **_given(several)},
    }
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    asyncio.run(_ask(body, url, config, as_json))


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


async def _ask(body: Mapping[str, Any], url: str | None, config: Config, as_json: bool) -> None:
    async with AsyncExitStack() as stack:
        base = (
            (url and url.rstrip("/").removesuffix("/v1"))
            or await _running_gateway(config)
            or await _own_gateway(config, stack)
        )
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=base, timeout=_ANSWER_TIMEOUT, **connection(config))
        )
        answer: list[str] = []
        try:
            with reached(base):
                async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                    if response.is_error:
                        raise refusal(json.loads(await response.aread()))
                    decision_id = response.headers["x-coe-decision-id"]
                    async for text in _texts(response):
                        answer.append(text)
                        if not as_json:
                            sys.stdout.write(text)
                            sys.stdout.flush()
                decision = (await client.get(f"/v1/decisions/{decision_id}")).json()
        finally:
            if answer and not as_json:
                sys.stdout.write("\n")
    if as_json:
        print_json({"answer": "".join(answer), "decision": decision})
    elif "receipt" in decision:
        notes.print(_summary(decision), style="dim", markup=False)


async def _own_gateway(config: Config, stack: AsyncExitStack) -> str:
    """The address of a gateway that lives as long as ``stack``, its experts ready."""
    say("no gateway is running: starting the experts for this question")
    # on loopback, for as long as it takes, and for nobody who has a key
    open_to_us = {"access": None, "gateway": config.gateway.model_copy(update={"tls": None})}
    config = config.model_copy(update=open_to_us)
    listener = stack.enter_context(listen("127.0.0.1", 0))
    url, runtime = await stack.enter_async_context(gateway_on(config, listener, say))
    await runtime.fleet.settled()
    return url


async def _running_gateway(config: Config) -> str | None:
    """The address of the configured gateway, if one answers there."""
    url = own_address(config)
    try:
        async with httpx.AsyncClient(timeout=_PROBE_S, **connection(config)) as client:
            response = await client.get(f"{url}/readyz")
            is_coe = "status" in response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    return url if is_coe else None


async def _texts(response: httpx.Response) -> AsyncIterator[str]:
    """The pieces of text in a stream of chat completion events."""
    async for line in response.aiter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise refusal(event)
        for choice in event.get("choices") or []:
            if text := choice["delta"].get("content"):
                yield text


def _summary(decision: Mapping[str, Any]) -> str:
    """One line: who answered, category, milliseconds, joules, why."""
    receipt = decision["receipt"]
    who = receipt["expert_id"]
    if receipt["parts"]:
        who += f", of {', '.join(part['expert_id'] for part in receipt['parts'])}"
    return (
        f"[{who} | {decision['category']} | {receipt['latency_ms']:.0f} ms | "
        f"{receipt['energy_j']:.2g} J {receipt['energy_source']} | {decision['why']}]"
    )
