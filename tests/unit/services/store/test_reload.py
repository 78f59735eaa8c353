"""Limits that change while a gateway serves hold for exactly the rows that come after."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import LedgerError
from coe.ledger.amounts import Amounts
from coe.ledger.book import REMEMBERED_MS
from coe.ledger.limits import Limit, Payer
from coe.services.store.books import Books
from coe.services.store.journal import Contents, Journal
from coe.services.store.local import LocalStore

ALICE = Payer("alice", "k1")
TEN = Amounts(tokens=10, requests=1)
LITTLE = Limit("hour", "tenant", 3600, tokens=15)
MUCH = Limit("hour", "tenant", 3600, tokens=25)
PER_KEY = Limit("keys", "key", 3600, tokens=25)
LEASE_MS = 60_000


def opened(path: Path, *limits: Limit, now_ms: Callable[[], int] = lambda: 0) -> Books:
    return Books.open(path, limits, LEASE_MS, now_ms=now_ms)


def copied(path: Path) -> Path:
    """The file as it is on the disk now, for somebody else."""
    copy = path.with_name(f"{path.name} copied")
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{copy}{end}")
    return copy


def as_if_killed(path: Path) -> Contents:
    """What somebody finds who opens the file as it is on the disk now."""
    journal = Journal.open(copied(path))
    found = journal.contents()
    journal.close()
    return found


async def test_rows_under_new_limits_are_never_on_the_disk_without_them(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    books = opened(path, LITTLE)
    store = LocalStore(books)
    await store.reserve("a", ALICE, TEN)
    with pytest.raises(BudgetExhaustedError):
        await store.reserve("b", ALICE, TEN)
    # no state is put into words before the process is killed
    may = threading.Event()
    books._writer._wording.submit(may.wait, 10.0)
    store.under([MUCH, PER_KEY])
    await store.reserve("c", ALICE, TEN)
    found = as_if_killed(path)
    assert found.faults == []
    assert found.ledger.limits == (MUCH, PER_KEY)
    assert found.ledger.accounts == books.ledger.accounts
    may.set()
    await books.close()


async def test_limits_that_change_while_the_disk_fails_are_written_later(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    books = opened(path, LITTLE)
    store = LocalStore(books)
    await store.reserve("a", ALICE, TEN)
    # a failure that the writer knows of, and the books do not yet
    books._writer._n_failures += 1
    store.under([MUCH, PER_KEY])
    books._heard([], LedgerError("what the books hear of only now"))
    await store.reserve("c", ALICE, TEN)
    books.keep()
    await books.close()
    books = opened(path, MUCH, PER_KEY)
    assert {a.limit: sums.held.tokens for a, sums in books.ledger.accounts.items()} == {
        "hour": 20,
        "keys": 10,
    }
    await books.close()


async def test_other_limits_after_a_kill_close_the_windows_that_are_over(tmp_path: Path) -> None:
    wall_ms = 0
    books = opened(tmp_path / "ledger", MUCH, now_ms=lambda: wall_ms)
    store = LocalStore(books)
    await store.reserve("a", ALICE, TEN)
    store.settle("a", TEN)
    books.keep()
    # the account was in that state, and it is time to close it when the next one is kept
    wall_ms = MUCH.window_s * 1000 + REMEMBERED_MS
    await store.reserve("b", ALICE, TEN)
    killed = copied(tmp_path / "ledger")
    await books.close()
    books = opened(killed, LITTLE)
    found = as_if_killed(killed)
    await books.close()
    assert found.faults == []
    assert [sums.held.tokens for sums in found.ledger.accounts.values()] == [10]
    assert [sums.spent.tokens for sums in found.totals.values()] == [10]
