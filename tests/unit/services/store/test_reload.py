"""Limits that change while a gateway serves hold for exactly the rows that come after."""

import shutil
import threading
from pathlib import Path

import pytest

from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import LedgerError
from coe.ledger.amounts import Amounts
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


def opened(path: Path, *limits: Limit) -> Books:
    return Books.open(path, limits, LEASE_MS, now_ms=lambda: 0)


def as_if_killed(path: Path) -> Contents:
    """What somebody finds who opens the file as it is on the disk now."""
    copy = path.with_name("copy")
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{copy}{end}")
    journal = Journal.open(copy)
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
