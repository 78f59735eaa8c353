"""Whether the process at the other end of a line still does anything."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from coe.errors import CoeError
from coe.services.enduring import Enduring
from coe.services.workers.line import Line

PULSE_S: Final = 5.0
"""How often it is asked, and how long it may take to answer."""

_MOST_MISSED: Final = 6


async def stops(line: Line, every_s: float = PULSE_S) -> bool:
    """Whether its pulse stops: six questions in a row have no answer; or the line ends first.

    Six, and not one of six times the patience: whoever asks may have stood still himself.
    """
    n_missed, asking = 0, Enduring("asking for a worker's pulse")
    while n_missed < _MOST_MISSED:
        await asyncio.sleep(every_s)
        n_missed += 1
        with asking, suppress(TimeoutError):
            if not await _answers(line, every_s):
                return False
            n_missed = 0
    return True


async def _answers(line: Line, within_s: float) -> bool:
    """Whether it answers anything at all, or else the line has ended.

    Raises
    ------
    TimeoutError
        It does neither in time.
    """
    try:
        async with asyncio.timeout(within_s):
            await line.ask("pulse")
    except CoeError:
        return line.open
    return True
