"""What every host has: a state, those who wait for it to change, and a task that watches."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from coe.replica import HostReport, HostState
from coe.services.enduring import Enduring


@dataclass(frozen=True, slots=True)
class Watch:
    """Periods and limits of watching an engine, in seconds unless a count.

    An engine that was ready for ``settled_s`` has its crashes forgotten.
    """

    start_timeout_s: float = 60.0
    health_period_s: float = 2.0
    health_timeout_s: float = 5.0
    n_failed_checks: int = 3
    first_delay_s: float = 0.25
    max_delay_s: float = 30.0
    settled_s: float = 30.0
    n_crashes: int = 8

    def delay_s(self, crashes: int) -> float:
        """Wait before the next start, after that many crashes in a row (1, 2, ...)."""
        return min(self.first_delay_s * 2.0 ** min(crashes - 1, 64), self.max_delay_s)


class WatchedHost(ABC):
    """A `coe.replica.Host` with a name and a state.

    Parameters
    ----------
    name : the expert's id, for messages.
    on_change : called with the host after every change of state.
    """

    def __init__(
        self, name: str, on_change: Callable[[WatchedHost], None] = lambda host: None
    ) -> None:
        self.name = name
        self.state: HostState = "stopped"
        self.reason = ""
        self.n_starts = 0
        self._address: str | None = None
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._telling = Enduring("telling of an engine")
        self._keeping = Enduring("watching an engine")

    @property
    def address(self) -> str | None:
        """``http://host:port`` while it answers, also what it has begun; else ``None``."""
        return self._address if self.state in ("ready", "draining") else None

    async def start(self) -> None:
        """Begin to start and watch the engine; returns at once. `settled` waits."""
        if self._watching is None:
            self._become("starting", "")
            self._watching = asyncio.create_task(self._watch_over(), name=f"host {self.name}")

    async def changed(self) -> None:
        """Returns after the next change of state."""
        self._changed.clear()
        await self._changed.wait()

    async def settled(self) -> HostState:
        """The state once it is no longer ``starting``."""
        while self.state == "starting":
            await self.changed()
        return self.state

    async def stop(self) -> None:
        """End the engine process and stop watching. Harmless when not started."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        self._become("stopped", "")

    @abstractmethod
    async def report(self) -> HostReport:
        """How it is now."""

    @abstractmethod
    async def drain(self, timeout_s: float) -> bool:
        """Take nothing new; whether all that had begun has ended within ``timeout_s``."""

    @abstractmethod
    async def _supervise(self) -> None:
        """Watch until cancelled, or until there is nothing left to watch."""

    async def _watch_over(self) -> None:
        """What nobody foresaw ends in ``failed`` too: who waits must not wait for ever."""
        with self._keeping:
            await self._supervise()
            return
        self._become("failed", self._keeping.why)

    def _become(self, state: HostState, reason: str) -> None:
        self.state, self.reason = state, reason
        self._changed.set()
        with self._telling:
            self._on_change(self)
