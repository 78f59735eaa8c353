"""The state of a host, and who waits for it to change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coe.replica import HostState


class Standing:
    """What every host is, whatever it watches.

    Parameters
    ----------
    name : the expert's id, for messages.
    on_change : called with the host after every change of state.
    """

    def __init__(
        self, name: str, on_change: Callable[[Standing], None] = lambda host: None
    ) -> None:
        self.name = name
        self.state: HostState = "stopped"
        self.reason = ""
        self.n_starts = 0
        self._address: str | None = None
        self._on_change = on_change
        self._changed = asyncio.Event()

    @property
    def address(self) -> str | None:
        """``http://host:port`` while it answers, also what it has begun; else ``None``."""
        return self._address if self.state in ("ready", "draining") else None

    async def changed(self) -> None:
        """Returns after the next change of state."""
        self._changed.clear()
        await self._changed.wait()

    async def settled(self) -> HostState:
        """The state once it is no longer ``starting``."""
        while self.state == "starting":
            await self.changed()
        return self.state

    def _become(self, state: HostState, reason: str) -> None:
        self.state, self.reason = state, reason
        self._changed.set()
        self._on_change(self)
