"""The host of an expert that cannot run where it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from coe.replica import HostReport


@dataclass(frozen=True, slots=True)
class UnopenedHost:
    """Says why an expert does not run. A `coe.replica.Host`."""

    reason: str

    async def start(self) -> None:
        """Nothing."""

    async def report(self) -> HostReport:
        """``failed``."""
        return HostReport("failed", self.reason)

    async def changed(self) -> None:
        """Never returns."""
        await asyncio.Event().wait()

    async def drain(self, timeout_s: float) -> bool:
        """True: it has begun nothing."""
        return True

    async def stop(self) -> None:
        """Nothing."""
