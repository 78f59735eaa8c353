"""The door of a gateway: who is inside, until when, and whether anybody is let in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from coe.crowd import Crowd, Line
from coe.errors import EndingError, GatewayError, OverdueError
from coe.within import Within

Phase = Literal["open", "leaving", "shut", "cut"]
"""Open; still open, but nobody should come; nobody is let in; and who is inside has to go."""

# a request takes 2 ms to begin: so many keep everything else waiting for no longer than a glance
_PER_TURN = 8
_PATIENCE_S = 1.0


@dataclass(slots=True)
class Door:
    """Lets requests in, and shows them out when their time is over.

    Parameters
    ----------
    longest_s : that a request may take, from its head to the last byte of its answer.
    """

    crowd: Crowd
    longest_s: float
    phase: Phase = "open"
    _line: Line[asyncio.Future[None]] = field(
        default_factory=lambda: Line(_PER_TURN, _PATIENCE_S, time.monotonic)
    )
    _inside: set[Within] = field(default_factory=set)

    @asynccontextmanager
    async def inside(self, caller: str) -> AsyncIterator[None]:
        """Be inside, as one of the requests of ``caller``.

        Raises
        ------
        EndingError
            The door is shut; or it was cut, and the context cancelled.
        OverloadedError
            As `Crowd.enter`; or those who came before wait too long to begin.
        OverdueError
            The context took too long, and was cancelled.
        """
        if self.phase in ("shut", "cut"):
            raise EndingError("the gateway is being ended, and takes no more requests")
        if self._line.too_long:
            raise self.crowd.refusal("too many requests have just come")
        self.crowd.enter(caller)
        timer = Within(self.longest_s)
        try:
            with timer:
                self._inside.add(timer)
                await self._begin()
                yield
        except TimeoutError as error:
            if not timer.expired:
                raise
            raise self._why() from error
        finally:
            self._inside.discard(timer)
            self.crowd.leave(caller)

    def cut(self) -> None:
        """Let nobody in, and have everybody go."""
        self.phase = "cut"
        for timer in self._inside:
            timer.expire()

    async def _begin(self) -> None:
        """Wait in line, if there is one."""
        loop = asyncio.get_running_loop()
        if not self._line.begun:
            loop.call_soon(self._turn)
        if not self._line.begins():
            turn = loop.create_future()
            self._line.join(turn)
            await turn

    def _turn(self) -> None:
        for turn in self._line.next_turn():
            if not turn.done():
                turn.set_result(None)
        if self._line.begun:
            asyncio.get_running_loop().call_soon(self._turn)

    def _why(self) -> GatewayError:
        if self.phase == "cut":
            return EndingError("the gateway is being ended, and the answer took too long for that")
        return OverdueError(f"the request took longer than {self.longest_s:g} s")
