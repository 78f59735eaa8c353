"""How late an event loop is: by how much everything that it serves waits longer than it must."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Never

from coe.services.enduring import for_ever


async def watch_lag(observe: Callable[[float], None], every_s: float = 0.25) -> Never:
    """Tell how late, in seconds, each of many short waits ends. Runs until it is cancelled.

    Parameters
    ----------
    every_s : length of a wait; what holds the loop for less than this may pass unseen.
    """
    loop = asyncio.get_running_loop()

    async def turn() -> None:
        due_s = loop.time() + every_s
        await asyncio.sleep(every_s)
        observe(max(0.0, loop.time() - due_s))

    await for_ever("lateness of the event loop", turn, 0.0)
