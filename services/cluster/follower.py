"""A gateway's view of the fleet: the supervisor's latest snapshot, kept when it falls silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Never

import httpx
from pydantic import TypeAdapter, ValidationError

from coe.errors.gateway import FleetError
from coe.load import Presence
from coe.replica import HostState, Replica, Snapshot
from coe.services.enduring import alongside, for_ever

Say = Callable[[str], None]

_SNAPSHOT = TypeAdapter(Snapshot)
_BEST_FIRST: tuple[HostState, ...] = ("ready", "starting", "draining", "failed", "stopped")


@dataclass(frozen=True, slots=True)
class FleetClient:
    """The supervisor's HTTP face, from outside.

    Every verb raises `FleetError` where the supervisor is not there or refuses.
    """

    client: httpx.AsyncClient
    url: str
    token: str = field(repr=False)

    async def snapshot(self, seen: Snapshot | None = None, wait_s: float = 0.0) -> Snapshot:
        """The snapshot; with one ``seen``, a newer one or the same after ``wait_s``."""
        query: dict[str, Any] = {"wait_s": wait_s}
        if seen is not None:
            query |= {"epoch": seen.epoch, "version": seen.version}
        return await self._asked("GET", "", params=query, timeout=wait_s + 5.0)

    async def scale(self, expert_id: str, replicas: int | None) -> Snapshot:
        """As `Supervisor.scale`; returns what there is by then."""
        return await self._asked("POST", "/scale", json={"expert": expert_id, "replicas": replicas})

    async def drain(self, node: str, drained: bool = True) -> Snapshot:
        """As `Supervisor.shun`; returns what there is by then."""
        return await self._asked("POST", "/drain", json={"node": node, "drained": drained})

    async def _asked(self, method: str, path: str, **options: Any) -> Snapshot:
        headers = {"authorization": f"Bearer {self.token}"}
        try:
            answer = await self.client.request(
                method, f"{self.url}/v1/fleet{path}", headers=headers, **options
            )
        except httpx.HTTPError as error:
            raise FleetError(
                f"the fleet's supervisor at {self.url} does not answer "
                f"({type(error).__name__}); `coe fleet up` starts it"
            ) from error
        if not answer.is_success:
            raise FleetError(f"the fleet's supervisor at {self.url}: {_reason(answer)}")
        try:
            return _SNAPSHOT.validate_json(answer.content)
        except ValidationError as error:
            raise FleetError(f"{self.url} is not a fleet's supervisor") from error


@dataclass(slots=True)
class Follower:
    """The fleet as a gateway knows it.

    Parameters
    ----------
    noticed : called with every snapshot.
    kept_on : node that an expert must not leave, by expert; its copies elsewhere are nobody's.
    wait_s : how long the supervisor may keep a question for news; queues are known as of then.
    again_s : pause after a question that failed.
    """

    source: FleetClient
    say: Say = lambda line: None
    noticed: Callable[[Snapshot], None] = lambda snapshot: None
    kept_on: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 1.0
    again_s: float = 0.5
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    snapshot: Snapshot = field(default_factory=lambda: Snapshot("", -1, {}))
    silent: bool = False
    _copies: dict[str, list[Replica]] = field(default_factory=dict)

    async def run(self) -> Never:
        """Follow for ever. While the supervisor is silent its last word holds."""
        await for_ever("following the fleet", self._turn, self.again_s, self.sleep)

    async def _turn(self) -> None:
        try:
            found = await self.source.snapshot(self.snapshot, self.wait_s)
        except FleetError as error:
            if not self.silent:
                self.say(f"{error}; its last word holds")
            self.silent = True
            await self.sleep(self.again_s)
        else:
            if self.silent:
                self.say("the fleet's supervisor answers again")
            self.silent = False
            self.notice(found)

    def notice(self, snapshot: Snapshot) -> None:
        """Know the fleet as it is in this snapshot."""
        self.snapshot = snapshot
        # every request asks for them, snapshots come once a second
        self._copies = {}
        for replica in snapshot.replicas.values():
            if self.kept_on.get(replica.expert_id) in (None, replica.node):
                self._copies.setdefault(replica.expert_id, []).append(replica)
        self.noticed(snapshot)

    def ready(self, expert_id: str) -> list[Replica]:
        """The copies of an expert that can be asked now."""
        return [r for r in self._copies.get(expert_id, ()) if r.report.state == "ready"]

    def state(self, expert_id: str) -> str:
        """The best state of an expert's copies; ``absent`` where there are none."""
        states = {replica.report.state for replica in self._copies.get(expert_id, ())}
        return next((state for state in _BEST_FIRST if state in states), "absent")

    def presence(self, expert_id: str) -> Presence:
        """How many copies of an expert can be asked, and the requests in all of them."""
        reports = [replica.report for replica in self.ready(expert_id)]
        return Presence(len(reports), sum(r.n_running + r.n_waiting for r in reports))


@asynccontextmanager
async def following(
    source: FleetClient,
    say: Say = lambda line: None,
    noticed: Callable[[Snapshot], None] = lambda snapshot: None,
    kept_on: Mapping[str, str] | None = None,
) -> AsyncIterator[Follower]:
    """A follower that has the first snapshot, and follows until the context ends.

    A supervisor that is not there yet is no error: its experts are absent until it is.
    """
    follower = Follower(source, say, noticed, kept_on or {})
    try:
        follower.notice(await source.snapshot())
    except FleetError as error:
        follower.silent = True
        say(f"{error}; until it answers, its experts are absent")
    async with alongside(follower.run, "fleet follower"):
        yield follower


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"
