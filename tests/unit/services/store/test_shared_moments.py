"""What happens while Redis is being asked, or told: one moment at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import LedgerError, LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.events import Entry
from coe.ledger.limits import Account, Limit, Payer
from coe.services.store.books import Books
from coe.services.store.enforcer import Enforcer, Pulse, Verdict
from coe.services.store.journal import Journal
from coe.services.store.shared import SharedStore

ALICE = Payer("alice", "k1")
TEN = Amounts(tokens=10, requests=1)
LEASE_MS = 60_000
YEARS_S = 100 * 365 * 86400
HOUSE = Limit("house", "global", YEARS_S, tokens=100)
EACH = Limit("each", "tenant", YEARS_S, tokens=100)
GRANTED = Verdict("held", 0, LEASE_MS, taken={})

Meanwhile = Callable[[], Any]


class Scripted(Enforcer):
    """Says what it is told to, and lets something happen before."""

    def __init__(self) -> None:
        self.verdict: Verdict | None = GRANTED
        self.meanwhile: Meanwhile = lambda: None
        self.heard: list[dict[str, str]] = []

    async def close(self) -> None:
        pass

    async def beat(self, *words: Any) -> Pulse:
        return Pulse("epoch", "process", 0)

    async def reserve(self, *words: Any) -> Verdict:
        await asyncio.sleep(0)
        self.meanwhile()
        if self.verdict is None:
            raise LedgerUnavailableError("nobody hears")
        return self.verdict

    async def record(self, epoch: str, entries: Mapping[str, Entry]) -> dict[str, str]:
        await asyncio.sleep(0)
        self.meanwhile()
        self.heard.append({name: entry.status for name, entry in entries.items()})
        return dict.fromkeys(entries, "done")


class Disk(Journal):
    """Has no room while it is full."""

    full = False

    def append(self, rows: Any) -> None:
        if self.full:
            raise LedgerError("full")
        super().append(rows)


@asynccontextmanager
async def scripted(
    folder: Path, limits: Sequence[Limit] = (HOUSE,), share: float = 0.5
) -> AsyncIterator[tuple[SharedStore, Scripted, Disk]]:
    """A gateway whose Redis obeys, and whose moments are told one by one."""
    path = folder / "a.sqlite"
    await Books.open(path, limits, LEASE_MS, now_ms=lambda: 0).close()
    journal = Disk.open(path)
    assert isinstance(journal, Disk)
    books = Books(journal.contents().ledger, journal, LEASE_MS, now_ms=lambda: 0)
    books._writer.start()
    enforcer = Scripted()
    store = SharedStore(books, enforcer, share)
    await store.beat()
    try:
        yield store, enforcer, journal
    finally:
        enforcer.meanwhile = lambda: None
        journal.full = False
        await store.close()


async def test_redis_that_always_has_something_to_hear_keeps_no_lease_waiting(
    tmp_path: Path,
) -> None:
    async with scripted(tmp_path) as (store, enforcer, _):
        names = [f"r{n}" for n in range(8)]
        for name in names:
            await store.reserve(name, ALICE, TEN)
        enforcer.meanwhile = lambda: names and store.release(names.pop())
        store.release(names.pop())
        await store.deliver()
        assert enforcer.heard == [{"r7": "released"}]
        await store.deliver()
        assert enforcer.heard[1:] == [{"r6": "released"}]


async def test_a_refusal_by_a_limit_that_is_gone_meanwhile_is_one(tmp_path: Path) -> None:
    async with scripted(tmp_path) as (store, enforcer, _):
        enforcer.verdict = Verdict("refused", 0, 5000, "house", "tokens")
        enforcer.meanwhile = lambda: store.under([EACH])
        for _ in range(2):
            with pytest.raises(BudgetExhaustedError, match="no longer in force") as refused:
                await store.reserve("a", ALICE, TEN)
            assert refused.value.retry_after_s == 1


async def test_who_asks_twice_at_once_holds_once(tmp_path: Path) -> None:
    async with scripted(tmp_path) as (store, enforcer, _):
        await asyncio.gather(*(store.reserve("a", ALICE, TEN) for _ in range(3)))
        ((_, sums),) = store.books.ledger.accounts.items()
        assert sums.held == TEN
        # nobody knows what Redis made of one of them
        enforcer.verdict = None
        first, second = (asyncio.create_task(store.reserve("b", ALICE, TEN)) for _ in range(2))
        await asyncio.gather(first, second)
        store.reachable = True
        await store.deliver()
        assert enforcer.heard[-1]["b"] == "held"


async def test_what_the_disk_did_not_take_is_given_back_although_redis_was_just_told(
    tmp_path: Path,
) -> None:
    async with scripted(tmp_path) as (store, enforcer, journal):
        enforcer.verdict = Verdict("rebuilding")
        journal.full = True
        reserving = asyncio.create_task(store.reserve("a", ALICE, TEN))
        while "a" not in store._unsaid:  # noqa: ASYNC110 - it is granted in a few turns of the loop
            await asyncio.sleep(0)
        unsaid = asyncio.gather(reserving, return_exceptions=True)
        slow = asyncio.Event()

        async def record(epoch: str, entries: Mapping[str, Entry]) -> dict[str, str]:
            enforcer.heard.append({name: entry.status for name, entry in entries.items()})
            await slow.wait()
            return dict.fromkeys(entries, "done")

        enforcer.record = record  # type: ignore[method-assign]
        telling = asyncio.create_task(store.deliver())
        assert isinstance((await unsaid)[0], LedgerUnavailableError)
        slow.set()
        await telling
        await store.deliver()
        assert enforcer.heard == [{"a": "held"}, {"a": "released"}]


async def test_what_was_granted_alone_and_cancelled_leaves_the_share_as_it_was(
    tmp_path: Path,
) -> None:
    async with scripted(tmp_path) as (store, _, _):
        store.reachable = False
        reserving = asyncio.create_task(store.reserve("a", ALICE, Amounts(tokens=50)))
        await asyncio.sleep(0)
        reserving.cancel()
        await asyncio.gather(reserving, return_exceptions=True)
        async with asyncio.timeout(5.0):
            while store.books.ledger.held:  # noqa: ASYNC110 - another thread writes
                await asyncio.sleep(0)
        store.tick()
        assert store._ration.held == ()
        await store.reserve("b", ALICE, Amounts(tokens=50))


async def sums(store: SharedStore) -> dict[str, tuple[int, int]]:
    """Tokens held and spent by limit, as Redis has them."""
    found = {}
    for limit in store.books.ledger.limits:
        account = limit.account(ALICE, store.books.now_ms())
        assert isinstance(account, Account)
        held, spent = await store._enforcer.taken(store._epoch, account)
        found[limit.name] = held.tokens, spent.tokens
    return found


class Delayed(Enforcer):
    """Lets something happen, or loses the answer, once Redis has heard of a reservation."""

    meanwhile: Meanwhile = staticmethod(lambda: None)

    async def reserve(self, *words: Any) -> Verdict:
        verdict = await super().reserve(*words)
        self.meanwhile()
        return verdict


@asynccontextmanager
async def delayed(folder: Path, url: str) -> AsyncIterator[tuple[SharedStore, Delayed]]:
    books = Books.open(folder / "a.sqlite", [HOUSE], LEASE_MS)
    enforcer = Delayed(url, "test", books.gateway, 2.0, grace_ms=0)
    store = SharedStore(books, enforcer, 0.5)
    await store.beat()
    try:
        yield store, enforcer
    finally:
        enforcer.meanwhile = lambda: None
        await store.close()


async def test_what_redis_refused_unheard_and_a_gateway_granted_alone_is_known_to_both(
    tmp_path: Path, redis_server: Any
) -> None:
    async with delayed(tmp_path, redis_server.url) as (store, enforcer):
        other = Enforcer(redis_server.url, "test", "other", 2.0, grace_ms=0)
        full = Amounts(tokens=100)
        limits = store.books.ledger.limits
        await other.reserve(store._epoch, "of the other", ALICE, full, limits, LEASE_MS)
        await other.close()

        def lost() -> None:
            raise LedgerUnavailableError("the answer is lost")

        enforcer.meanwhile = lost
        await store.reserve("a", ALICE, TEN)
        enforcer.meanwhile = lambda: None
        await store.beat()
        await store.deliver()
        assert await sums(store) == {"house": (110, 0)}
        store.settle("a", Amounts(tokens=3))
        await store.deliver()
        assert await sums(store) == {"house": (100, 3)}


async def test_what_was_granted_under_limits_of_before_is_charged_where_the_journal_has_it(
    tmp_path: Path, redis_server: Any
) -> None:
    async with delayed(tmp_path, redis_server.url) as (store, enforcer):
        enforcer.meanwhile = lambda: store.under([HOUSE, EACH])
        await store.reserve("a", ALICE, TEN)
        await store.deliver()
        assert await sums(store) == {"house": (10, 0), "each": (10, 0)}
        store.settle("a", Amounts(tokens=3))
        await store.deliver()
        assert await sums(store) == {"house": (0, 3), "each": (0, 3)}


async def test_a_redis_of_before_a_gateway_said_its_sums_hears_of_no_request_twice(
    tmp_path: Path, redis_server: Any
) -> None:
    other = Enforcer(redis_server.url, "test", "other", 2.0, grace_ms=0)
    await other.beat()
    await other.close()
    redis_server.command("SAVE")
    async with delayed(tmp_path, redis_server.url) as (store, _):
        redis_server.kill()
        redis_server.start()
        await store.reserve("a", ALICE, TEN)
        store.settle("a", Amounts(tokens=3))
        # the gateway has not noticed that it is another process
        await store.deliver()
        for _ in range(2):
            await store.beat()
        await store.deliver()
        assert await sums(store) == {"house": (0, 3)}
