"""A cluster that does as it is told, and a supervisor on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest

from coe.errors.gateway import FleetError
from coe.replica import Card, Deployment, HostReport
from coe.services.cluster.supervisor import Pace, Supervisor

QUICK = Pace(watch_s=0.02, grace_s=0.05, reconcile_s=0.02, drain_s=1.0, adopt_s=0.2, again_s=0.01)


READY = HostReport("ready", address="http://127.0.0.1:1")


@dataclass
class StubCopy:
    """A copy that is ready at once, and does what a test says."""

    given: Card
    node: str = "here"
    report: HostReport = READY
    gone: bool = False
    not_yet: bool = False
    silent: bool = False
    busy: bool = False
    held: bool = False
    ended: bool = False
    drained: bool = False

    async def card(self) -> Card:
        await self._answer()
        if self.not_yet:
            self.not_yet = False
            raise FleetError("being started")
        return replace(self.given, node=self.node)

    async def watch(self, seen: HostReport | None, wait_s: float) -> HostReport:
        await self._answer()
        if seen is not None and (seen.state, seen.address) == (
            self.report.state,
            self.report.address,
        ):
            await asyncio.sleep(wait_s)
        return self.report

    async def drain(self, timeout_s: float) -> bool:
        await self._answer()
        self.drained = True
        async with asyncio.timeout(timeout_s):
            while self.busy:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return True

    async def end(self) -> None:
        while self.held:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.ended = True

    async def _answer(self) -> None:
        if self.gone:
            raise FleetError("no such actor")
        if self.silent:
            await asyncio.Event().wait()


@dataclass
class StubCluster:
    """Copies by replica id; remembers what it is told, as the real one does."""

    copies: dict[str, StubCopy] = field(default_factory=dict)
    kept: bytes | None = None
    node: str = "here"
    full: bool = False
    gone_at_first: bool = False

    def start(
        self, replica_id: str, deployment: Deployment, card: Card, avoided: Collection[str] = ()
    ) -> StubCopy:
        node = deployment.labels.get("coe-node", self.node)
        waits = self.full or node in avoided
        self.copies[replica_id] = StubCopy(card, node, silent=waits, not_yet=self.gone_at_first)
        return self.copies[replica_id]

    def running(self) -> Mapping[str, StubCopy]:
        return self.alive

    def remember(self, state: bytes) -> None:
        self.kept = state

    def recall(self) -> bytes | None:
        return self.kept

    @property
    def alive(self) -> dict[str, StubCopy]:
        return {name: copy for name, copy in self.copies.items() if not copy.ended}

    def of(self, expert_id: str) -> list[StubCopy]:
        return [copy for copy in self.alive.values() if copy.given.expert_id == expert_id]


@pytest.fixture
def cluster() -> StubCluster:
    return StubCluster()


@pytest.fixture
def pace() -> Pace:
    return QUICK


@pytest.fixture(name="supervising")
def _supervising() -> Callable:
    return supervising


@asynccontextmanager
async def supervising(cluster: StubCluster, pace: Pace = QUICK, **given) -> AsyncIterator:
    """A supervisor at work, until the context ends."""
    supervisor = Supervisor(cluster, pace, **given)
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture(name="until")
def _until() -> Callable:
    return until


async def until(condition: Callable[[], object], timeout_s: float = 5.0):
    """The first true value of a condition, asked whenever others have run."""
    async with asyncio.timeout(timeout_s):
        while not (value := condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return value
