"""Whether the process at the other end of a line still does anything."""

from __future__ import annotations

import asyncio
from typing import Final

from coe.errors.gateway import GatewayError
from coe.services.workers.line import Line

PULSE_S: Final = 5.0
"""How often it is asked, and how long it may take to answer."""

_MOST_MISSED: Final = 6


async def stops(line: Line, every_s: float = PULSE_S) -> bool:
    """Whether its pulse stops: six questions in a row have no answer; or the line ends first.

    Six, and not one of six times the patience: whoever asks may have stood still himself.
    """
    n_missed = 0
    while n_missed < _MOST_MISSED:
        await asyncio.sleep(every_s)
        try:
            async with asyncio.timeout(every_s):
                await line.ask("pulse")
            n_missed = 0
        except TimeoutError:
            n_missed += 1
        except GatewayError:
            return False
    return True
