"""Several gateways over the same experts, on one Redis, each reached through a proxy of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from coe.errors.gateway import LedgerUnavailableError
from coe.services.store.enforcer import Enforcer
from harness.account import ZERO
from harness.checker import History, violations
from harness.client import Caller, Seen
from harness.dump import Book, Sum
from harness.expert import FakeExpert
from harness.gateway import LARGE, PLENTY, SMALL, Setup, Threaded, threaded, written
from harness.proxy import ByteProxy

PARTS = ("energy_uj", "cost_uusd", "tokens", "requests")


@dataclass(slots=True)
class Member:
    """One gateway, its way to Redis, and who asks it."""

    setup: Setup
    gateway: Threaded
    proxy: ByteProxy
    caller: Caller


@dataclass(slots=True)
class Fleet:
    """Gateways that share a limit."""

    experts: list[FakeExpert]
    redis_port: int
    share: float
    members: list[Member] = field(default_factory=list)

    @property
    def seen(self) -> list[Seen]:
        """What all callers saw."""
        return [seen for member in self.members for seen in member.caller.seen]

    async def checked(self, alone: float = 0.0, **more: Any) -> History:
        """The history so far, of which nothing is wrong; Redis says the same as the journals."""
        for member in self.members:
            await member.gateway.flushed()
        books = [member.setup.book(f"gateway {n}") for n, member in enumerate(self.members)]
        await self.agreed(books)
        attested = sorted((e for x in self.experts for e in x.log), key=lambda e: e.at_s)
        limits, now_ms = self.members[0].setup.limits, time.time_ns() // 1_000_000
        history = History(self.seen, attested, books, limits, now_ms, alone=alone, **more)
        if found := violations(history):
            raise AssertionError("\n".join(map(str, found)))
        return history

    async def agreed(self, books: list[Book], within_s: float = 15.0) -> None:
        """Returns when Redis holds what all journals together do."""
        mine = summed([sums for book in books for sums in book.balances.values()])
        deadline = time.monotonic() + within_s
        while (there := in_redis(self.redis_port)) != mine:
            assert time.monotonic() < deadline, f"Redis: {there}, journals: {mine}"
            await asyncio.sleep(0.05)


def summed(balances: list[tuple[Sum, Sum]]) -> tuple[Sum, Sum]:
    """Held and spent of all of them."""
    return (
        tuple(map(sum, zip(ZERO, *(held for held, _ in balances), strict=True))),
        tuple(map(sum, zip(ZERO, *(spent for _, spent in balances), strict=True))),
    )


def in_redis(port: int) -> tuple[Sum, Sum] | None:
    """Held and spent in the accounts of the present epoch; ``None``: Redis does not say."""
    try:
        with redis.Redis(port=port, decode_responses=True, socket_timeout=2.0) as client:
            epochs = [client.hget(key, "id") for key in client.scan_iter("coe:{*}:epoch")]
            accounts = [
                client.hgetall(key)
                for epoch in epochs
                for key in client.scan_iter(f"coe:{{*}}:{epoch}:a:*")
            ]
    except redis.RedisError:
        return None
    return summed([(_amounts(found, "held"), _amounts(found, "spent")) for found in accounts])


def _amounts(found: dict[str, str], column: str) -> Sum:
    return tuple(int(found.get(f"{column}:{part}", 0)) for part in PARTS)


async def begun(port: int) -> None:
    """A Redis that is not down is one that gateways have had for long: none is waited for."""
    enforcer = Enforcer(f"redis://127.0.0.1:{port}/0", "coe", "gone", 1.0, grace_ms=0)
    with suppress(LedgerUnavailableError):
        await enforcer.beat()
    await enforcer.close()


@asynccontextmanager
async def fleet(
    folder: Path,
    redis_port: int,
    n_gateways: int = 1,
    share: float = 0.0,
    timeout_s: float = 0.25,
    ceilings: dict[str, float] | None = None,
    lease_s: int = 60,
) -> AsyncIterator[Fleet]:
    """So many gateways in threads; Redis may be down when they start."""
    experts = [FakeExpert(SMALL), FakeExpert(LARGE)]
    await begun(redis_port)
    async with AsyncExitStack() as stack:
        for expert in experts:
            await expert.start()
            stack.push_async_callback(expert.die)
        found = Fleet(experts, redis_port, share)
        for n in range(n_gateways):
            proxy = ByteProxy(redis_port)
            await proxy.start()
            stack.push_async_callback(proxy.stop)
            os.environ[f"FAULTS_REDIS_{n}"] = f"redis://127.0.0.1:{proxy.port}/0"
            store = {"kind": "redis", "url_env": f"FAULTS_REDIS_{n}", "share": share}
            setup = written(
                folder / f"gateway-{n}",
                {expert.name: expert.url for expert in experts},
                ceilings or PLENTY,
                store | {"timeout_s": timeout_s, "lease_s": lease_s},
            )
            gateway = await stack.enter_async_context(threaded(setup))
            caller = Caller(gateway.port, f"g{n}-")
            stack.callback(caller.close)
            found.members.append(Member(setup, gateway, proxy, caller))
        yield found
