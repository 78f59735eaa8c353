"""What the supervisor asks of the cluster that it runs copies on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from coe.replica import Card, Deployment, HostReport


class RunningCopy(Protocol):
    """A handle of a copy; every verb raises `FleetError` where the copy is not there."""

    async def card(self) -> Card:
        """What it was started as; waits until it has been placed."""
        ...

    async def watch(self, seen: HostReport | None, wait_s: float) -> HostReport:
        """Its report: at once if state or address is not as seen, else after the wait."""
        ...

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing new; whether it emptied in time."""
        ...

    async def end(self) -> None:
        """End it, for good."""


class Cluster(Protocol):
    """Where copies run, and what outlives the supervisor."""

    def start(
        self, replica_id: str, deployment: Deployment, card: Card, avoided: Collection[str] = ()
    ) -> RunningCopy:
        """A new copy, on none of the nodes of these names that there are now."""
        ...

    def running(self) -> Mapping[str, RunningCopy]:
        """The copies that there are, by replica id."""
        ...

    def remember(self, state: bytes) -> None:
        """Keep what `recall` is to return."""

    def recall(self) -> bytes | None:
        """What was last remembered."""
        ...
