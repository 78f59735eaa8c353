"""Work that goes on whatever fails in it: what nobody foresaw is told once, and counted."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Never

from prometheus_client import Counter

UNFORESEEN: Final = Counter(
    "coe_unforeseen",
    "Errors that nobody foresaw, by the work that went on.",
    ("work",),
    registry=None,
)
"""Of this process, whatever it serves; to be registered wherever somebody scrapes."""

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Enduring:
    """A context for every piece of some work: an error in it ends that piece, and nothing else.

    The first error of each kind, by its type and place, is logged with its traceback; all are
    counted. A cancellation, and what ends a process, pass. May be entered again, and by several at
    once.

    Parameters
    ----------
    work : what it is, in words that are always the same.
    latest : the type of the error that failed last, for messages; empty: nothing has.
    """

    work: str
    latest: str = ""
    _told: set[tuple[str, str, int]] = field(default_factory=set)

    def __enter__(self) -> None:
        """Begin a piece."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """End it."""
        if not isinstance(error, Exception):
            return False
        UNFORESEEN.labels(self.work).inc()
        *_, (frame, line) = traceback.walk_tb(trace)
        self.latest = type(error).__name__
        seen = (self.latest, frame.f_code.co_filename, line)
        if seen not in self._told:
            self._told.add(seen)
            _LOG.error(f"{self.work}: failed, and goes on", exc_info=error)
        return True


async def for_ever(
    work: str,
    turn: Callable[[], Awaitable[object]],
    again_s: float,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Never:
    """Do one turn of some work after the other, until cancelled, whatever fails as in `Enduring`.

    Parameters
    ----------
    turn : takes its own time.
    again_s : pause after a turn that failed.
    """
    enduring = Enduring(work)
    while True:
        with enduring:
            await turn()
            continue
        await sleep(again_s)
