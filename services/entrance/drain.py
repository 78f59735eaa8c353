"""The end of a gateway: step by step, and no longer than its answers take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import uvicorn

from coe.services.entrance.door import Door
from coe.services.runnable import Say

# after the cut: for what was made of the answers to be booked, and for the last words to go out
_BOOKING_S = 2.0
_FLUSHING_S = 1.0
_SAID_EVERY_S = 5.0
_STEP_S = 0.05


@dataclass(slots=True)
class Drain:
    """Ends a server: first nobody should come, then nobody may, then everybody goes.

    Parameters
    ----------
    server : running, or about to.
    accept_s : how long requests are still taken.
    answers_s : how long those that were taken may then go on.
    """

    door: Door
    server: uvicorn.Server
    accept_s: float
    answers_s: float
    say: Say
    _hurried: asyncio.Event = field(default_factory=asyncio.Event)
    _ending: asyncio.Task[None] | None = None

    def begin(self, accept_s: float | None = None) -> None:
        """Begin to end; whoever asks again does not want to wait.

        Parameters
        ----------
        accept_s : instead of the usual; 0 where nobody has to notice first.
        """
        if self._ending is None:
            accept_s = self.accept_s if accept_s is None else accept_s
            self._ending = asyncio.create_task(self._end(accept_s))
        else:
            self._hurried.set()

    @property
    def begun(self) -> bool:
        """Whether it has begun to end."""
        return self._ending is not None

    async def over(self) -> None:
        """Wait for the end that has begun; at once where none has."""
        if self._ending is not None:
            await self._ending

    async def _end(self, accept_s: float) -> None:
        """Whatever fails, the server ends."""
        try:
            await self._step_by_step(accept_s)
        finally:
            self.door.cut()
            self.server.should_exit = self.server.force_exit = True

    async def _step_by_step(self, accept_s: float) -> None:
        self.door.phase = "leaving"
        if not self._empty():
            self.say(f"{self._inside()}, and waited for")
        await self._wait(accept_s, lambda: False)
        self.door.phase = "shut"
        self.server.should_exit = True
        await self._wait(self.answers_s, self._empty)
        if not self._empty():
            self.say(f"{self._inside()}, and not waited for any longer")
        self.door.cut()
        # who is in a hurry waits for what is booked: it takes moments
        self._hurried.clear()
        await self._wait(_BOOKING_S, self._empty)
        await self._wait(_FLUSHING_S, lambda: not self.server.server_state.connections)
        for connection in tuple(self.server.server_state.connections):
            connection.transport.abort()

    async def _wait(self, longest_s: float, over: Callable[[], bool]) -> None:
        """Wait until it is over, but not longer than that, and not once somebody is in a hurry."""
        now = asyncio.get_running_loop().time
        began = said = now()
        while not over() and not self._hurried.is_set() and (left := began + longest_s - now()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, _STEP_S)):
                    await self._hurried.wait()
            if now() - said >= _SAID_EVERY_S:
                said = now()
                self.say(f"{self._inside()}; {max(0.0, began + longest_s - now()):.0f} s are left")

    def _empty(self) -> bool:
        return not self.door.crowd.n

    def _inside(self) -> str:
        n = self.door.crowd.n
        return f"{n} {'request is' if n == 1 else 'requests are'} being answered"
