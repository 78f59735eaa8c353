"""Two gateways' ledgers on one Redis that is broken at random, and afterwards everything adds up.

Ten short seeds by default; ``COE_FAULT_SEEDS=50`` takes as many, and ``COE_FAULT_OPERATIONS=2000``
has each make so many reservations.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import LedgerConflictError, LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.limits import Limit, Payer
from coe.services.store.books import Books, wall_ms
from coe.services.store.enforcer import Enforcer
from coe.services.store.shared import SharedStore
from harness.checker import History, violations
from harness.dump import dumped
from harness.fleet import in_redis, summed
from harness.proxy import ByteProxy

N_SEEDS = int(os.environ.get("COE_FAULT_SEEDS", "10"))
N_OPERATIONS = int(os.environ.get("COE_FAULT_OPERATIONS", "480"))
SHARE, LEASE_MS, GRACE_MS = 0.02, 1500, 250
AGES_S = 10**9
LIMITS = (
    Limit("house", "global", AGES_S, tokens=10 * N_OPERATIONS, requests=10**6),
    Limit("tenants", "tenant", AGES_S, tokens=3 * N_OPERATIONS),
)
FAULTS = ("flush", "kill", "stop", "scripts", "partition", "clock")


@dataclass(slots=True)
class Gateway:
    """A ledger, its way to Redis, and a clock that may be wrong."""

    path: Path
    proxy: ByteProxy
    ahead_ms: int = 0
    store: SharedStore = field(init=False)

    async def start(self) -> None:
        await self.proxy.start()
        books = Books.open(self.path, LIMITS, LEASE_MS, now_ms=lambda: wall_ms() + self.ahead_ms)
        url = f"redis://127.0.0.1:{self.proxy.port}/0"
        enforcer = Enforcer(url, "jepsen", books.gateway, 0.1, GRACE_MS)
        self.store = SharedStore(books, enforcer, SHARE)
        await self.store.start()


@asynccontextmanager
async def pair(folder: Path, port: int) -> AsyncIterator[list[Gateway]]:
    found = [Gateway(folder / f"{name}.sqlite", ByteProxy(port)) for name in "ab"]
    for gateway in found:
        await gateway.start()
    try:
        yield found
    finally:
        for gateway in found:
            await gateway.store.close()
            await gateway.proxy.stop()


async def operation(store: SharedStore, name: str, dice: Random) -> str:
    """One request as gateways make them, with all that may be said twice or given up."""
    payer, hold = Payer(dice.choice("xyz")), Amounts(tokens=dice.randrange(1, 30), requests=1)
    asked = asyncio.create_task(store.reserve(name, payer, hold))
    if dice.random() < 0.05:
        await asyncio.sleep(dice.random() * 0.01)
        asked.cancel()
    try:
        await asked
    except BudgetExhaustedError:
        return "refused"
    except LedgerUnavailableError:
        return "unavailable"
    except asyncio.CancelledError:
        return "cancelled"
    if dice.random() < 0.1:
        await store.reserve(name, payer, hold)
    await asyncio.sleep(dice.random() * 0.05)
    actual = Amounts(tokens=dice.randrange(hold.tokens + 1), requests=1)
    if dice.random() < 0.1:
        store.release(name)
        return "released"
    store.settle(name, actual, dice.random() < 0.2)
    if dice.random() < 0.3:
        with suppress(LedgerConflictError):
            store.settle(name, actual)
    return "settled"


async def nemesis(server, gateways: list[Gateway], dice: Random, done: list[str]) -> None:
    """Faults until it is cancelled; ``done`` says which."""
    while True:
        await asyncio.sleep(0.1 + 0.2 * dice.random())
        fault = dice.choice(FAULTS)
        done.append(fault)
        gateway = dice.choice(gateways)
        if fault == "flush":
            await asyncio.to_thread(server.command, "FLUSHALL")
        elif fault == "scripts":
            await asyncio.to_thread(server.command, "SCRIPT", "FLUSH")
        elif fault == "kill":
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.start)
        elif fault == "stop":
            server.signal(signal.SIGSTOP)
            await asyncio.sleep(0.3)
            server.signal(signal.SIGCONT)
        elif fault == "partition":
            gateway.proxy.passing.clear()
            await asyncio.sleep(0.3)
            gateway.proxy.passing.set()
            gateway.proxy.cut()
        else:
            gateway.ahead_ms = dice.choice([-5000, 5000, 0])


@pytest.mark.parametrize("seed", range(N_SEEDS))
async def test_whatever_breaks_all_of_it_adds_up(tmp_path, redis_server, seed):
    async with pair(tmp_path, redis_server.port) as gateways:
        done: list[str] = []
        faults = nemesis(redis_server, gateways, Random(seed + 1000), done)
        breaking = asyncio.create_task(faults)

        async def client(n: int) -> list[str]:
            mine = Random(f"{seed}-{n}")
            stores = [gateway.store for gateway in gateways]
            return [
                await operation(stores[(n + k) % 2], f"c{n}-{k}", mine)
                for k in range(N_OPERATIONS // 8)
            ]

        said = [word for words in await asyncio.gather(*map(client, range(8))) for word in words]
        await mended(breaking, redis_server, gateways)
        await quiet(gateways)
        assert done
        assert said.count("settled") > N_OPERATIONS // 20
        books = [dumped(g.path, LIMITS, g.path.stem) for g in gateways]
        mine = summed([sums for book in books for sums in book.balances.values()])
        await told(redis_server.port, mine)
        history = History((), (), books, LIMITS, wall_ms(), LEASE_MS, alone=SHARE, skewed=True)
        assert [str(found) for found in violations(history)] == []


async def mended(breaking: asyncio.Task, server, gateways: list[Gateway]) -> None:
    """No faults any more, and Redis is there."""
    breaking.cancel()
    await asyncio.gather(breaking, return_exceptions=True)
    if server.process is None:
        await asyncio.to_thread(server.start)
    server.signal(signal.SIGCONT)
    for gateway in gateways:
        gateway.ahead_ms = 0
        gateway.proxy.passing.set()
        gateway.proxy.cut()


async def quiet(gateways: list[Gateway], within_s: float = 15.0) -> None:
    """Returns when no ledger holds anything, and all of it is in the files."""
    deadline = time.monotonic() + within_s
    for gateway in gateways:
        books = gateway.store.books
        while books.ledger.held or books._waiting:
            assert time.monotonic() < deadline, books.ledger.held
            await asyncio.sleep(0.02)
        await books.flush()


async def told(port: int, mine, within_s: float = 15.0) -> None:
    """Returns when Redis says what the journals do."""
    deadline = time.monotonic() + within_s
    while (there := in_redis(port)) != mine:
        assert time.monotonic() < deadline, f"Redis {there}, journals {mine}"
        await asyncio.sleep(0.05)
