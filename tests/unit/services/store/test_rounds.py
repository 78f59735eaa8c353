"""The rounds of a shared ledger go on whatever fails in one. Redis is none: it obeys."""

import asyncio

import pytest

from coe.ledger.amounts import Amounts
from coe.ledger.limits import Limit, Payer
from coe.services.store import shared
from coe.services.store.books import Books
from coe.services.store.enforcer import Pulse, Verdict
from coe.services.store.shared import SharedStore

HOUSE = Limit("house", "global", 10**9, tokens=100)
ALICE, TEN = Payer("alice"), Amounts(tokens=10, requests=1)


class Obedient:
    """Grants everything; fails, as nobody foresees, as often as it is told to."""

    def __init__(self, books):
        self.books, self.n_failures, self.n_beats, self.heard = books, {}, 0, {}

    def _fail(self, verb):
        if self.n_failures.get(verb, 0):
            self.n_failures[verb] -= 1
            raise ZeroDivisionError

    async def beat(self, epoch, run_id, heard):
        self._fail("beat")
        self.n_beats += 1
        return Pulse("e", "r", 0)

    async def reserve(self, epoch, request_id, payer, hold, limits, lease_ms):
        at_ms = self.books.now_ms()
        return Verdict("held", at_ms, at_ms + lease_ms, taken={})

    async def record(self, epoch, entries):
        self._fail("record")
        self.heard |= {name: entry.status for name, entry in entries.items()}
        return dict.fromkeys(entries, "done")

    async def close(self):
        pass


@pytest.fixture
async def store(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "TICK_S", 0.0)
    monkeypatch.setattr(shared, "RETRY_S", 0.0)
    books = Books.open(tmp_path / "ledger.sqlite", [HOUSE], 60_000)
    found = SharedStore(books, Obedient(books), 0.1)
    await found.start()
    yield found
    await found.close()


async def until(condition):
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize("verb", ["beat", "record", "tick"])
async def test_rounds_go_on_after_one_that_fails(store, verb, monkeypatch):
    redis, ticks, ticking = store._enforcer, [], store.tick

    def tick():
        redis._fail("tick")
        ticks.append(ticking())

    monkeypatch.setattr(store, "tick", tick)
    await store.reserve("a", ALICE, TEN)
    redis.n_failures[verb] = 3
    store.settle("a", TEN)
    await until(lambda: not redis.n_failures.get(verb) and redis.heard.get("a") == "settled")
    n_beats, n_ticks = redis.n_beats, len(ticks)
    await until(lambda: redis.n_beats > n_beats and len(ticks) > n_ticks)
    assert store.reachable


async def test_a_last_word_that_fails_lets_go_of_the_file(tmp_path, monkeypatch):
    books = Books.open(tmp_path / "ledger.sqlite", [HOUSE], 60_000)
    found = SharedStore(books, Obedient(books), 0.1)
    await found.start()
    await found.reserve("a", ALICE, TEN)
    found._running.cancel()
    await asyncio.gather(found._running, return_exceptions=True)
    found._running = None
    found._enforcer.n_failures["record"] = 1
    found.settle("a", TEN)
    await found.close()
    again = Books.open(tmp_path / "ledger.sqlite", [HOUSE], 60_000)
    assert again.ledger.entries["a"].status == "settled"
    await again.close()
