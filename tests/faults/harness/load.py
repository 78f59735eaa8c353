"""Open-loop load: requests are sent when they are due, whatever became of those before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

from harness.client import STAYS, Caller, Leaving, Seen
from harness.script import Script

Draw = Callable[[Random], tuple[Script, bool, Leaving]]
"""What the next request is: script, whether streamed, when its caller leaves."""


def plain(script: Script | None = None, stream_share: float = 0.5) -> Draw:
    """The same answer to everybody, streamed to some."""
    same = script or Script(tokens=6, pace_s=0.005)
    return lambda dice: (same, dice.random() < stream_share, STAYS)


async def poisson(
    caller: Caller,
    per_s: float,
    seconds: float,
    dice: Random,
    draw: Draw,
    prefix: str = "b",
    **more: object,
) -> list[Seen]:
    """What callers saw who came at random at this rate, once all of them have ended."""
    started_s = time.monotonic()
    due_s, n, running = started_s, 0, []
    while True:
        due_s += dice.expovariate(per_s)
        if due_s >= started_s + seconds:
            break
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        script, stream, leaving = draw(dice)
        asked = caller.ask(f"{prefix}{n}", script, stream, due_s=due_s, leaving=leaving, **more)
        running.append(asyncio.create_task(asked))
        n += 1
    return list(await asyncio.gather(*running))


@asynccontextmanager
async def background(
    caller: Caller, per_s: float = 20.0, draw: Draw | None = None, prefix: str = "b", seed: int = 1
) -> AsyncIterator[list[Seen]]:
    """Load as long as the context lasts; the list is filled at its end."""
    seen: list[Seen] = []
    dice, running = Random(seed), []
    chosen = draw or plain()

    async def go() -> None:
        n = 0
        while True:
            await asyncio.sleep(dice.expovariate(per_s))
            script, stream, leaving = chosen(dice)
            asked = caller.ask(f"{prefix}{n}", script, stream, leaving=leaving)
            running.append(asyncio.create_task(asked))
            n += 1

    task = asyncio.create_task(go())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        seen += await asyncio.gather(*running)
