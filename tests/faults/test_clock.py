"""Clocks that jump: no window begins again, no hold ends early, and nobody waits for the past."""

import pytest

from coe.errors.callers import BudgetExhaustedError
from coe.ledger.amounts import Amounts
from coe.ledger.limits import NOBODY, Limit
from coe.services.store.books import Books
from coe.services.store.local import LocalStore
from harness.checker import History, violations
from harness.dump import dumped

HOUR_MS = 3_600_000
# an hour's window, and the test begins in its middle
START_MS = 500_000 * HOUR_MS + HOUR_MS // 2
LIMITS = (Limit("house", "global", 3600, tokens=100),)
TEN = Amounts(tokens=10)


class Jumping:
    """A clock that stands where it was put."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS, -5_000, 1_000, -1, 10 * HOUR_MS])
async def test_f23_a_clock_that_jumps_refills_no_window(tmp_path, jump_ms):
    clock = Jumping()
    path = tmp_path / "ledger.sqlite"
    books = Books.open(path, LIMITS, 60_000, now_ms=clock)
    store = LocalStore(books)
    granted = await granted_of(store, "before", 6)
    clock.ms += jump_ms
    granted += await granted_of(store, "after", 20)
    # there and back again
    clock.ms = START_MS
    granted += await granted_of(store, "back", 20)
    # what is over stays over: a new window begins once, and the one before never again
    assert granted == (6 + 10 if jump_ms >= HOUR_MS else 10)
    books.tick()
    for name in books.ledger.held:
        store.settle(name, TEN)
    await books.flush()
    history = History((), (), [dumped(path, LIMITS)], LIMITS, books.ledger.clock_ms)
    assert violations(history) == []
    await books.close()


async def granted_of(store: LocalStore, name: str, n: int) -> int:
    """How many reservations are granted; of the others, when it is worth to ask again."""
    refused = []
    for k in range(n):
        try:
            await store.reserve(f"{name}{k}", NOBODY, TEN)
        except BudgetExhaustedError as error:
            refused.append(error.retry_after_s or 0)
    assert all(again_s >= 1 for again_s in refused)
    return n - len(refused)


async def test_f23_leases_are_not_ended_by_a_jump(tmp_path):
    clock = Jumping()
    books = Books.open(tmp_path / "ledger.sqlite", LIMITS, 60_000, now_ms=clock)
    store = LocalStore(books)
    await store.reserve("running", NOBODY, TEN)
    for jump_ms in (30_001, HOUR_MS, -2 * HOUR_MS, 5 * HOUR_MS):
        clock.ms += jump_ms
        books.tick()
        assert books.ledger.entries["running"].status == "held"
    store.settle("running", Amounts(tokens=3))
    await books.close()
