"""Work that goes on whatever fails in it: what nobody foresaw is told once, and counted."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Never

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
    latest : the type of the error that failed last; empty: nothing has.
    """

    work: str
    latest: str = ""
    _told: set[tuple[str, str, int]] = field(default_factory=set)

    @property
    def why(self) -> str:
        """What failed last, in words for whoever it was done for."""
        return f"nobody foresaw {self.latest}"

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


@asynccontextmanager
async def alongside(
    work: Callable[[], Coroutine[Any, Any, object]], name: str
) -> AsyncIterator[None]:
    """Do some work in the background while the context lasts; it is to endure by itself."""
    task = asyncio.create_task(work(), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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
