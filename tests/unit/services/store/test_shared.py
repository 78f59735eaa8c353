"""The ledger of several gateways, with a real Redis that is flushed, killed and stopped."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import LedgerConflictError, LedgerError, LedgerUnavailableError
from coe.ledger.amounts import MOST, NOTHING, Amounts
from coe.ledger.book import REMEMBERED_MS
from coe.ledger.limits import Account, Limit, Payer
from coe.services.store.books import Books, wall_ms
from coe.services.store.enforcer import GRACE_MS, Enforcer
from coe.services.store.journal import Journal
from coe.services.store.shared import SharedStore

ALICE, BOB = Payer("alice", "k1"), Payer("bob", "k2")
TEN = Amounts(tokens=10, requests=1)
# one window for the whole test, wherever in the year it runs
YEARS_S = 100 * 365 * 86400
LIMITS = [
    Limit("house", "global", YEARS_S, tokens=1000),
    Limit("each", "tenant", YEARS_S, tokens=800),
]
LEASE_MS = 60_000


class Fleet:
    """Gateways in this process, each with a journal of its own, on one Redis."""

    def __init__(
        self, folder: Path, url: str, *limits: Limit, share: float = 0.1, grace_ms: int = 300
    ) -> None:
        self.folder, self.url, self.share, self.grace_ms = folder, url, share, grace_ms
        self.limits = limits or LIMITS
        self.stores: dict[str, SharedStore] = {}

    async def start(
        self,
        name: str,
        lease_ms: int = LEASE_MS,
        timeout_s: float = 2.0,
        now_ms: Callable[[], int] = wall_ms,
    ) -> SharedStore:
        path = self.folder / f"{name}.sqlite"
        books = Books.open(path, self.limits, lease_ms, now_ms=now_ms)
        enforcer = Enforcer(self.url, "test", books.gateway, timeout_s, self.grace_ms)
        store = self.stores[name] = SharedStore(books, enforcer, self.share)
        await store.start()
        return store

    async def stop(self, name: str) -> None:
        await self.stores.pop(name).close()

    async def ready(self) -> None:
        """Redis knows all, and grants."""
        for name, store in self.stores.items():

            async def granted(store: SharedStore = store, name: str = name) -> bool:
                epoch = store._epoch
                probe = f"probe-{name}-{random.random()}"
                said = await store._enforcer.reserve(
                    epoch, probe, ALICE, NOTHING, self.limits, LEASE_MS
                )
                if said.status == "held":
                    store._withdraw(probe, ALICE, NOTHING)
                return store.reachable and said.status in ("held", "refused")

            await eventually(granted)

    async def agree(self) -> dict[Account, tuple[Amounts, Amounts]]:
        """Held and spent by account once Redis has heard all, the same as in the journals."""
        ledgers = [store.books.ledger for store in self.stores.values()]
        store = next(iter(self.stores.values()))
        accounts = {account for ledger in ledgers for account in ledger.accounts}
        found: dict[Account, tuple[Amounts, Amounts]] = {}

        async def same() -> bool:
            for account in accounts:
                held = spent = NOTHING
                for ledger in ledgers:
                    if account in ledger.accounts:
                        held = held.plus(ledger.accounts[account].held)
                        spent = spent.plus(ledger.accounts[account].spent)
                found[account] = held, spent
            there = {a: await store._enforcer.taken(store._epoch, a) for a in accounts}
            return there == found

        await eventually(same)
        return found


async def eventually(condition: Callable[[], Any], within_s: float = 20.0) -> None:
    """Return when the condition holds; it is looked at again and again."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if await condition():
                return
        except LedgerUnavailableError:
            pass
        assert time.monotonic() < deadline, "it never came to pass"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def fleet_on(*given: Any, **more: Any) -> AsyncIterator[Fleet]:
    fleet = Fleet(*given, **more)
    try:
        yield fleet
    finally:
        for name in list(fleet.stores):
            await fleet.stop(name)


async def tried(store: SharedStore, name: str, payer: Payer = ALICE, hold: Amounts = TEN) -> str:
    try:
        await store.reserve(name, payer, hold)
    except BudgetExhaustedError:
        return "refused"
    except LedgerUnavailableError:
        return "unavailable"
    return "held"


def total(sums: dict[Account, tuple[Amounts, Amounts]], limit: str = "house") -> int:
    """Tokens held and spent under a limit."""
    return sum(h.tokens + s.tokens for account, (h, s) in sums.items() if account.limit == limit)


async def test_two_gateways_spend_one_budget_and_no_more(tmp_path: Path, redis_server: Any) -> None:
    """2,400 reservations at once, of which the budget has room for a few hundred."""
    async with fleet_on(
        tmp_path, redis_server.url, Limit("house", "global", YEARS_S, tokens=2000)
    ) as fleet:
        stores = [await fleet.start("a"), await fleet.start("b")]
        await fleet.ready()
        dice = random.Random(7)

        async def one(n: int) -> str:
            store, name = stores[n % 2], f"r{n}"
            said = await tried(store, name)
            if dice.random() < 0.2:
                assert await tried(store, name) == said
            if said == "held":
                actual = Amounts(tokens=dice.randrange(11), requests=1)
                store.settle(name, actual)
                if dice.random() < 0.3:
                    store.settle(name, actual)
                    with pytest.raises(LedgerConflictError):
                        store.release(name)
            return said

        said = await asyncio.gather(*map(one, range(2400)))
        sums = await fleet.agree()
        assert {"held", "refused"} == set(said)
        assert total(sums) <= 2000
        # as many as fit while all of them hold ten, at least
        assert said.count("held") >= 200
        for store in stores:
            entries = store.books.ledger.entries.values()
            assert {entry.status for entry in entries} == {"settled", "refused"}
        n_settled = sum(
            e.status == "settled" for s in stores for e in s.books.ledger.entries.values()
        )
        assert n_settled == said.count("held")


async def test_all_accounts_or_none_and_the_tenant_is_named(
    tmp_path: Path, redis_server: Any
) -> None:
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        store = await fleet.start("a")
        await fleet.ready()
        for n in range(80):
            assert await tried(store, f"r{n}") == "held"
        with pytest.raises(BudgetExhaustedError, match="'each'") as refused:
            await store.reserve("one more", ALICE, TEN)
        assert refused.value.retry_after_s
        assert await tried(store, "of bob", BOB) == "held"
        sums = await fleet.agree()
        assert (total(sums), total(sums, "each")) == (810, 810)


@pytest.mark.parametrize("ceiling", [MOST])
async def test_large_amounts_are_kept_exactly(
    tmp_path: Path, redis_server: Any, ceiling: int
) -> None:
    limit = Limit("house", "global", YEARS_S, energy_uj=ceiling)
    async with fleet_on(tmp_path, redis_server.url, limit) as fleet:
        store = await fleet.start("a")
        await fleet.ready()
        assert await tried(store, "a", hold=Amounts(energy_uj=ceiling - 1)) == "held"
        assert await tried(store, "b", hold=Amounts(energy_uj=2)) == "refused"
        assert await tried(store, "c", hold=Amounts(energy_uj=1)) == "held"
        assert await tried(store, "d", hold=Amounts(energy_uj=1)) == "refused"
        store.settle("a", Amounts(energy_uj=ceiling - 7))
        assert [h.energy_uj + s.energy_uj for h, s in (await fleet.agree()).values()] == [
            ceiling - 6
        ]


async def test_a_flush_is_made_good_from_the_journals(tmp_path: Path, redis_server: Any) -> None:
    async with fleet_on(tmp_path, redis_server.url, share=0.0, grace_ms=GRACE_MS) as fleet:
        one, two = await fleet.start("a"), await fleet.start("b")
        await fleet.ready()
        for n in range(20):
            assert await tried(one, f"a{n}") == await tried(two, f"b{n}", BOB) == "held"
        for n in range(10):
            one.settle(f"a{n}", Amounts(tokens=3, requests=1))
        before = await fleet.agree()
        redis_server.command("FLUSHALL")
        assert await tried(one, "too early") == "unavailable"
        for n in range(10, 15):
            one.settle(f"a{n}", TEN)
        await fleet.ready()
        assert total(await fleet.agree()) == total(before)
        said = [await tried(two, f"c{n}", BOB) for n in range(100)]
        assert total(await fleet.agree()) <= 1000
        assert said.count("refused") > 0


async def test_a_flush_of_scripts_is_not_noticed(tmp_path: Path, redis_server: Any) -> None:
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        store = await fleet.start("a")
        await fleet.ready()
        redis_server.command("SCRIPT", "FLUSH")
        assert await tried(store, "a") == "held"
        redis_server.command("SCRIPT", "FLUSH")
        store.settle("a", TEN)
        assert total(await fleet.agree()) == 10


async def test_without_redis_a_share_is_granted_and_then_nothing(
    tmp_path: Path, redis_server: Any
) -> None:
    async with fleet_on(tmp_path, redis_server.url, grace_ms=GRACE_MS) as fleet:
        one, two = await fleet.start("a"), await fleet.start("b")
        await fleet.ready()
        assert await tried(one, "before") == "held"
        await fleet.agree()
        redis_server.kill()
        said = [await tried(one, f"a{n}") for n in range(20)]
        # a tenth of what "each" allows, which is the tighter of the two
        assert said == ["held"] * 8 + ["unavailable"] * 12
        assert [await tried(two, f"b{n}", BOB) for n in range(9)].count("held") == 8
        one.settle("a0", Amounts(tokens=4, requests=1))
        assert [await tried(one, f"c{n}", hold=Amounts(tokens=3)) for n in range(3)] == [
            "held",
            "held",
            "unavailable",
        ]
        redis_server.start()
        await fleet.ready()
        sums = await fleet.agree()
        assert total(sums) == 10 + 4 + 70 + 6 + 80
        assert await tried(one, "after") == "held"


async def test_what_is_nearly_used_up_is_not_granted_alone(
    tmp_path: Path, redis_server: Any
) -> None:
    async with fleet_on(tmp_path, redis_server.url, share=0.5) as fleet:
        store = await fleet.start("a")
        await fleet.ready()
        assert await tried(store, "most", hold=Amounts(tokens=785)) == "held"
        redis_server.kill()
        assert [await tried(store, f"r{n}") for n in range(3)] == [
            "held",
            "unavailable",
            "unavailable",
        ]


async def test_a_gateway_may_start_before_redis(tmp_path: Path, redis_server: Any) -> None:
    redis_server.kill()
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        store = await fleet.start("a")
        assert not store.reachable
        assert await tried(store, "early") == "held"
        redis_server.start()
        await fleet.ready()
        assert total(await fleet.agree()) == 10


async def test_a_redis_that_stands_still_keeps_nobody_waiting(
    tmp_path: Path, redis_server: Any
) -> None:
    async with fleet_on(tmp_path, redis_server.url, share=0.0) as fleet:
        store = await fleet.start("a", timeout_s=0.25)
        await fleet.ready()
        redis_server.signal(signal.SIGSTOP)
        before = time.monotonic()
        assert await tried(store, "stopped") == "unavailable"
        assert time.monotonic() - before < 1.0
        before = time.monotonic()
        for n in range(50):
            assert await tried(store, f"r{n}") == "unavailable"
        assert time.monotonic() - before < 1.0
        redis_server.signal(signal.SIGCONT)
        await fleet.ready()
        # what Redis granted after all is given back
        assert await tried(store, "again") == "held"
        assert total(await fleet.agree()) == 10


async def test_what_redis_missed_is_said_however_long_it_took(
    tmp_path: Path, redis_server: Any
) -> None:
    ahead = [0]
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        store = await fleet.start("a", timeout_s=0.25, now_ms=lambda: wall_ms() + ahead[0])
        await fleet.ready()
        assert await tried(store, "before") == "held"
        redis_server.signal(signal.SIGSTOP)
        store.settle("before", Amounts(tokens=4, requests=1))
        assert await tried(store, "alone") == "held"
        store.settle("alone", Amounts(tokens=7, requests=1))
        ahead[0] = 2 * REMEMBERED_MS
        for name in ("later", "and later", "and later still"):
            assert await tried(store, name) == "held"
            store.release(name)
        assert not {"before", "alone"} & store.books.ledger.entries.keys()
        redis_server.signal(signal.SIGCONT)
        await fleet.ready()
        assert total(await fleet.agree()) == 11


async def test_holds_of_a_dead_gateway_end_with_their_leases(
    tmp_path: Path, redis_server: Any
) -> None:
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        dead = await fleet.start("dead", lease_ms=300)
        alive = await fleet.start("alive", lease_ms=300)
        await fleet.ready()
        assert await tried(dead, "a") == await tried(alive, "b", BOB) == "held"
        await fleet.stop("dead")
        (account,) = (a for a in alive.books.ledger.accounts if a.limit == "house")

        async def over() -> bool:
            held, spent = await alive._enforcer.taken(alive._epoch, account)
            return (held.tokens, spent.tokens) == (10, 10)

        await eventually(over)
        again = await fleet.start("dead", lease_ms=300)
        await eventually(lambda: _expired(again, "a"))
        assert total(await fleet.agree()) == 20
        assert alive.books.ledger.entries["b"].status == "held"


async def _expired(store: SharedStore, name: str) -> bool:
    return store.books.ledger.entries[name].status == "expired"


async def test_a_gateway_that_comes_back_is_not_counted_twice(
    tmp_path: Path, redis_server: Any
) -> None:
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        store = await fleet.start("a")
        await fleet.ready()
        for n in range(10):
            await store.reserve(f"r{n}", ALICE, TEN)
        for n in range(5):
            store.settle(f"r{n}", Amounts(tokens=1, requests=1))
        before = await fleet.agree()
        for _ in range(2):
            await fleet.stop("a")
            store = await fleet.start("a")
            await fleet.ready()
            assert await fleet.agree() == before
        redis_server.command("FLUSHALL")
        await fleet.ready()
        await fleet.stop("a")
        await fleet.start("a")
        assert await fleet.agree() == before


def torn(folder: Path) -> None:
    """Take the last bytes off the log of a server that was killed."""
    (log,) = folder.glob("appendonlydir/*.incr.aof")
    log.write_bytes(log.read_bytes()[:-37])


async def test_a_redis_that_restarts_with_less_is_told_again(
    tmp_path: Path, redis_server: Any
) -> None:
    redis_server.kill()
    redis_server.start("--appendonly", "yes")
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        store = await fleet.start("a")
        await fleet.ready()
        await store.reserve("a", ALICE, TEN)
        store.settle("a", TEN)
        await fleet.agree()
        redis_server.kill()
        torn(tmp_path)
        redis_server.start("--appendonly", "yes", "--aof-load-truncated", "yes")
        await fleet.ready()
        assert total(await fleet.agree()) == 10


async def test_cancelled_reservations_hold_nothing_and_mix_nothing_up(
    tmp_path: Path, redis_server: Any
) -> None:
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        store = await fleet.start("a")
        await fleet.ready()
        dice = random.Random(3)
        for n in range(300):
            payer = ALICE if n % 2 else BOB
            task = asyncio.create_task(tried(store, f"r{n}", payer, Amounts(tokens=n % 7)))
            for _ in range(dice.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await store.books.flush()
        await eventually(lambda: _idle(store))
        for name, entry in store.books.ledger.entries.items():
            assert entry.hold.tokens == int(name[1:]) % 7
            if entry.status == "held":
                store.release(name)
        assert total(await fleet.agree()) == 0


async def _idle(store: SharedStore) -> bool:
    return not store.books._waiting


async def test_a_redis_that_evicts_is_refused(tmp_path: Path, redis_server: Any) -> None:
    redis_server.command("CONFIG", "SET", "maxmemory", "100mb")
    redis_server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        with pytest.raises(LedgerError, match="allkeys-lru"):
            await fleet.start("a")


async def test_scripts_that_are_flushed_all_the_time_are_sent_along(redis_server: Any) -> None:
    enforcer = Enforcer(redis_server.url, "test", "a", 2.0, grace_ms=0)
    epoch = (await enforcer.beat()).epoch
    await enforcer.contribute(epoch, 0, {})
    async with redis.asyncio.Redis(port=redis_server.port) as other:
        enough = asyncio.Event()

        async def flush() -> None:
            while not enough.is_set():
                await other.script_flush()

        flushing = asyncio.create_task(flush())
        for n in range(300):
            said = await enforcer.reserve(epoch, f"r{n}", ALICE, NOTHING, LIMITS, LEASE_MS)
            assert said.status == "held"
        enough.set()
        await flushing
    await enforcer.close()


async def test_what_answers_as_no_redis_does_is_one_that_cannot_be_asked() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(10_000):
            writer.write(b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        enforcer = Enforcer(f"redis://127.0.0.1:{port}/0", "test", "a", 1.0)
        with pytest.raises(LedgerUnavailableError, match="no Redis"):
            await enforcer.beat()
        await enforcer.close()


class Failing(Enforcer):
    """Fails as no enforcer is foreseen to."""

    async def _run(self, script: Any, calls: Any) -> list[Any]:
        raise RuntimeError("out of the blue")


async def test_whatever_fails_nobody_waits_for_ever() -> None:
    enforcer = Failing("redis://127.0.0.1:1/0", "test", "a", 1.0)
    asked = [enforcer.reserve("e", f"r{n}", ALICE, TEN, LIMITS, LEASE_MS) for n in range(300)]
    async with asyncio.timeout(5.0):
        said = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(error) for error in said} == {LedgerUnavailableError}
    with pytest.raises(LedgerUnavailableError):
        await enforcer.reserve("e", "again", ALICE, TEN, LIMITS, LEASE_MS)
    await enforcer.close()


async def test_the_journal_is_let_go_of_although_closing_was_given_up(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    books = Books.open(path, LIMITS, LEASE_MS)
    store = SharedStore(books, Enforcer("redis://127.0.0.1:1/0", "test", books.gateway, 1.0), 0.1)
    await store.start()
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    Journal.open(path).close()


def test_the_grace_is_what_the_promise_says() -> None:
    assert GRACE_MS <= 2000


def test_a_journal_has_a_name_of_its_own(tmp_path: Path) -> None:
    names = set()
    for n in range(2):
        for _ in range(2):
            journal = Journal.open(tmp_path / f"{n}.sqlite")
            names.add(journal.gateway)
            journal.close()
    assert len(names) == 2


@asynccontextmanager
async def one_gateway(folder: Path, url: str) -> AsyncIterator[tuple[Fleet, SharedStore]]:
    """A gateway with room for a hundred tokens; what it has kept lets it start again at the end."""
    limit = Limit("house", "global", YEARS_S, tokens=100)
    async with fleet_on(folder, url, limit) as fleet:
        store = await fleet.start("a")
        await fleet.ready()
        yield fleet, store
        await fleet.stop("a")
        await fleet.start("a")


async def test_more_than_was_held_is_known_here_before_redis_grants(
    tmp_path: Path, redis_server: Any
) -> None:
    async with one_gateway(tmp_path, redis_server.url) as (fleet, store):
        assert await tried(store, "much") == "held"
        store.settle("much", Amounts(tokens=95, requests=1))
        # Redis has not heard of it yet
        assert await tried(store, "more") == "refused"
        assert total(await fleet.agree()) == 95


async def test_a_limit_that_is_lowered_holds_for_those_under_way(
    tmp_path: Path, redis_server: Any
) -> None:
    async with one_gateway(tmp_path, redis_server.url) as (fleet, store):
        asked = asyncio.create_task(tried(store, "more"))
        await asyncio.sleep(0)
        store.under([Limit("house", "global", YEARS_S, tokens=5)])
        assert await asked == "refused"
        assert total(await fleet.agree()) == 0


async def test_a_redis_that_restarts_with_less_than_is_remembered_is_told_sums(
    tmp_path: Path, redis_server: Any
) -> None:
    """From a snapshot that is older than what a gateway remembers of single requests."""
    ahead = [0]
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        store = await fleet.start("a", now_ms=lambda: wall_ms() + ahead[0])
        other = await fleet.start("b")
        await fleet.ready()
        assert await tried(store, "early") == await tried(other, "of the other") == "held"
        redis_server.command("SAVE")
        assert await tried(store, "unknown") == "held"
        store.settle("unknown", Amounts(tokens=7, requests=1))
        ahead[0] = 2 * REMEMBERED_MS
        for name in ("later", "and later", "and later still"):
            assert await tried(store, name) == "held"
            store.release(name)
        assert "unknown" not in store.books.ledger.entries
        assert total(await fleet.agree()) == 27
        before = store._epoch
        redis_server.kill()
        redis_server.start()
        await fleet.ready()
        assert total(await fleet.agree()) == 27
        assert before != store._epoch == other._epoch
        keys = redis_server.command("KEYS", f"*{before}*")
        assert all(redis_server.command("PTTL", key) > 0 for key in keys)


async def test_a_gateway_that_restarts_says_what_redis_missed_however_long_ago(
    tmp_path: Path, redis_server: Any
) -> None:
    redis_server.kill()
    redis_server.start("--appendonly", "yes")
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        store = await fleet.start("a")
        await fleet.ready()
        assert await tried(store, "before") == "held"
        await fleet.agree()
        redis_server.kill()
        assert await tried(store, "alone") == "held"
        store.settle("alone", Amounts(tokens=7, requests=1))
        store.books.keep()
        assert await tried(store, "later") == "held"
        store.release("later")
        await fleet.stop("a")
        redis_server.start("--appendonly", "yes")
        store = await fleet.start("a")
        assert "alone" not in store.books.ledger.entries
        await fleet.ready()
        assert total(await fleet.agree()) == 17


async def test_what_expired_before_a_flush_is_corrected_after_it(
    tmp_path: Path, redis_server: Any
) -> None:
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        store = await fleet.start("a", lease_ms=300)
        await fleet.ready()
        for name in ("a", "b"):
            assert await tried(store, name) == "held"
        await fleet.stop("a")
        store = await fleet.start("a", lease_ms=300)
        for name in ("a", "b"):
            await eventually(lambda name=name: _expired(store, name))
        redis_server.command("FLUSHALL")
        await fleet.ready()
        assert total(await fleet.agree()) == 20
        store.settle("a", Amounts(tokens=3, requests=1))
        assert total(await fleet.agree()) == 13


async def test_a_gateway_that_restarts_begins_no_epoch(tmp_path: Path, redis_server: Any) -> None:
    async with fleet_on(tmp_path, redis_server.url) as fleet:
        epochs = set()
        for life in range(4):
            store = await fleet.start("a")
            await fleet.ready()
            for n in range(10):
                assert await tried(store, f"{life}-{n}") == "held"
                store.settle(f"{life}-{n}", Amounts(tokens=1, requests=1))
            store.books.keep()
            epochs.add(store._epoch)
            await fleet.stop("a")
        assert len(epochs) == 1
