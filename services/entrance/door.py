"""The door of a gateway: who is inside, until when, and whether anybody is let in."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from coe.crowd import Crowd, Line
from coe.errors.gateway import EndingError, GatewayError, OverdueError
from coe.services.enduring import Enduring
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
    _turning: Enduring = field(default_factory=lambda: Enduring("letting requests begin"))

    def inside(self, caller: str) -> Inside:
        """The context of one of the requests of ``caller``, to be waited in for its turn."""
        return Inside(self, caller)

    def let_in(self, timer: Within, caller: str) -> asyncio.Future[None] | None:
        """Count a request in; what it is to wait for before it begins, ``None``: nothing.

        Raises
        ------
        EndingError
            The door is shut.
        OverloadedError
            As `Crowd.enter`; or those who came before wait too long to begin.
        """
        if self.phase in ("shut", "cut"):
            raise EndingError("the gateway is being ended, and takes no more requests")
        if self._line.too_long:
            raise self.crowd.refusal("too many requests have just come")
        self.crowd.enter(caller)
        self._inside.add(timer)
        try:
            return self._place_in_line()
        except BaseException:
            self.show_out(timer, caller)
            raise

    def show_out(self, timer: Within, caller: str) -> None:
        """Count a request out."""
        self._inside.discard(timer)
        self.crowd.leave(caller)

    def why(self) -> GatewayError:
        """The error of a request whose time was over."""
        if self.phase == "cut":
            return EndingError("the gateway is being ended, and the answer took too long for that")
        return OverdueError(f"the request took longer than {self.longest_s:g} s")

    def cut(self) -> None:
        """Let nobody in, and have everybody go."""
        self.phase = "cut"
        for timer in self._inside:
            timer.expire()

    def _place_in_line(self) -> asyncio.Future[None] | None:
        loop = asyncio.get_running_loop()
        if not self._line.begun:
            loop.call_soon(self._turn)
        if self._line.begins():
            return None
        turn = loop.create_future()
        self._line.join(turn)
        return turn

    def _turn(self) -> None:
        with self._turning:
            for turn in self._line.next_turn():
                if not turn.done():
                    turn.set_result(None)
        if self._line.begun:
            asyncio.get_running_loop().call_soon(self._turn)


class Inside(Within):
    """A request that is inside, until its time is over.

    Raises
    ------
    EndingError, OverloadedError
        As `Door.let_in`; or the door was cut, and the context cancelled.
    OverdueError
        The context took too long, and was cancelled.
    """

    __slots__ = ("_caller", "_door", "turn")

    def __init__(self, door: Door, caller: str) -> None:
        super().__init__(door.longest_s)
        self._door = door
        self._caller = caller

    def __enter__(self) -> Inside:
        """Come in; ``turn`` is what to wait for before anything is done, ``None``: nothing."""
        self.turn = self._door.let_in(self, self._caller)
        try:
            super().__enter__()
        except BaseException:
            self._door.show_out(self, self._caller)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Go; as `Within`, but with the door's own errors."""
        self._door.show_out(self, self._caller)
        try:
            super().__exit__(kind, error, trace)
        except TimeoutError:
            raise self._door.why() from error
        if self.expired and isinstance(error, TimeoutError):
            raise self._door.why() from error
