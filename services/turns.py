"""Engines of one machine that take turns in its memory: loaded when asked for, or just before."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Never

from coe.core import Request
from coe.errors.experts import ExpertUnavailableError
from coe.experts.protocol import Expert, close
from coe.load import Presence
from coe.optimizer.eviction import grouped
from coe.optimizer.residency import Load, Loadable, Residency
from coe.services.enduring import Enduring, alongside, for_ever
from coe.services.host.watched import WatchedHost

MEMORY_S = 600.0
"""Time constant with which it is forgotten who was asked for how often."""

_AGAIN_S = 0.5


class Turns:
    """Who is in memory, and who may answer when: `coe.optimizer.residency` on real engines.

    Parameters
    ----------
    hosts : of the engines, by expert; nobody else starts or stops them.
    loadables : what they take; how often they are asked for, and how long they load, is learned.
    memory_gb, max_wait_s, max_group : as in `Residency`.
    now : monotonic seconds.
    """

    def __init__(
        self,
        hosts: Mapping[str, WatchedHost],
        loadables: Mapping[str, Loadable],
        memory_gb: float,
        max_wait_s: float = 30.0,
        max_group: int = 16,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosts = hosts
        self._node = Residency(loadables, memory_gb, grouped, max_wait_s, max_group)
        self._now = now
        self._asked_s = dict.fromkeys(loadables, now())
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._names = map(str, itertools.count())
        self._due = asyncio.Event()
        self._loading = Enduring("loading an engine")

    @property
    def expert_ids(self) -> tuple[str, ...]:
        """Who takes turns."""
        return tuple(self._node.experts)

    @property
    def n_loads(self) -> int:
        """How often an engine was loaded."""
        return self._node.n_loads

    async def run(self) -> Never:
        """Load, start and evict for ever."""
        async with asyncio.TaskGroup() as loads:

            async def turn() -> None:
                self._due.clear()
                now = self._now()
                self._let_start(now)
                if (load := self._node.order(now)) is not None:
                    loads.create_task(self._carried_out(load))
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s(now)):
                        await self._due.wait()

            await for_ever("turns in memory", turn, _AGAIN_S)

    @asynccontextmanager
    async def turn(self, expert_id: str) -> AsyncIterator[None]:
        """The time in which the expert is in memory for one request; waits for its beginning.

        Raises
        ------
        ExpertUnavailableError
            Its engine cannot be started.
        """
        name, now = next(self._names), self._now()
        self._learn(expert_id, now)
        started = self._waiting[name] = asyncio.get_running_loop().create_future()
        self._node.wait(name, expert_id, now)
        self._due.set()
        try:
            await started
            yield
        finally:
            self._waiting.pop(name, None)
            if not self._node.cancel(name, expert_id) and not _failed(started):
                self._node.end(expert_id, self._now())
            self._due.set()

    def presence(self, expert_id: str) -> Presence:
        """One copy, its requests, and how long a new one waits for it to be loaded."""
        occupant = self._node.occupants[expert_id]
        out_s = 0.0 if occupant.phase == "in" else self._node.experts[expert_id].load_s
        return Presence(1, occupant.n_running + len(occupant.queue), 1000.0 * out_s)

    def noticed(self, host: WatchedHost) -> None:
        """An engine has changed its state; one that gave up is out of memory."""
        occupant = self._node.occupants.get(host.name)
        if host.state == "failed" and occupant is not None and occupant.phase == "in":
            self._give_up(host.name, host.reason)
            self._due.set()

    def _let_start(self, now: float) -> None:
        for name, _ in self._node.start(now):
            started = self._waiting[name]
            if not started.done():
                started.set_result(None)

    def _pause_s(self, now: float) -> float | None:
        due_s = self._node.due_s(now)
        return None if math.isinf(due_s) else due_s - now

    async def _carried_out(self, load: Load) -> None:
        """Carry it out; whoever waits for it is told where that fails."""
        with self._loading:
            await self._carry_out(load)
            return
        if self._node.occupants[load.expert_id].phase == "loading":
            self._give_up(load.expert_id, self._loading.why)
            self._due.set()

    async def _carry_out(self, load: Load) -> None:
        for name in load.evict:
            await self._hosts[name].stop()
        host, expert_id, began = self._hosts[load.expert_id], load.expert_id, self._now()
        if host.state == "failed":  # one that gave up starts again only after it was stopped
            await host.stop()
        await host.start()
        state, now = await host.settled(), self._now()
        if state == "ready":
            one = self._node.experts[expert_id]
            self._node.experts[expert_id] = replace(one, load_s=now - began)
            self._node.loaded(expert_id, now)
        else:
            self._give_up(expert_id, host.reason)
            await host.stop()
        self._due.set()

    def _give_up(self, expert_id: str, reason: str) -> None:
        """Nobody waits for an engine that does not start; the next request tries again."""
        error = ExpertUnavailableError(expert_id, f"its engine did not start: {reason}")
        for waiting in list(self._node.occupants[expert_id].queue):
            self._node.cancel(waiting.request_id, expert_id)
            started = self._waiting[waiting.request_id]
            if not started.done():  # who is just leaving has not gone yet
                started.set_exception(error)
        self._node.lost(expert_id)
        one = self._node.experts[expert_id]
        self._node.experts[expert_id] = replace(one, rate_per_s=0.0)

    def _learn(self, expert_id: str, now: float) -> None:
        """The expert is asked for: requests per second, those of long ago counting less."""
        for name, one in self._node.experts.items():
            kept = math.exp((self._asked_s[name] - now) / MEMORY_S)
            came = 1.0 / MEMORY_S if name == expert_id else 0.0
            rate_per_s = kept * one.rate_per_s + came
            self._node.experts[name] = replace(one, rate_per_s=rate_per_s)
            self._asked_s[name] = now


def working(turns: Turns) -> AbstractAsyncContextManager[None]:
    """The turns at work while the context lasts."""
    return alongside(turns.run, "turns")


def _failed(started: asyncio.Future[None]) -> bool:
    return started.done() and not started.cancelled() and started.exception() is not None


@dataclass(frozen=True, slots=True)
class ExpertByTurns:
    """An expert whose engine is not always in memory."""

    expert_id: str
    inner: Expert
    turns: Turns = field(repr=False)

    async def stream(self, request: Request, max_tokens: int | None) -> AsyncGenerator[bytes, None]:
        """As the expert itself, once it is its turn.

        Raises
        ------
        ExpertError
            As the expert; `ExpertUnavailableError` also where its engine cannot be started.
        """
        async with self.turns.turn(self.expert_id):
            pieces = self.inner.stream(request, max_tokens)
            try:
                async for piece in pieces:
                    yield piece
            finally:
                await close(pieces)
