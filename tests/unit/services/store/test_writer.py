"""Whoever waits for a row waits for nothing else, and not for ever."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import pytest

from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import LedgerError, LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.book import REMEMBERED_MS, Ledger
from coe.ledger.limits import Limit, Payer
from coe.services.store.books import Books
from coe.services.store.journal import Journal
from coe.services.store.local import LocalStore
from coe.services.store.states import worded
from coe.services.store.writer import Writer

HOUR = Limit("hour", "tenant", 3600, tokens=10**9)
LEASE_MS = 60_000
TEN = Amounts(tokens=10, requests=1)


class HeldUp(dict):
    """Accounts that nobody gets to see until he may."""

    def __init__(self, accounts, may):
        super().__init__(accounts)
        self.may = may

    def items(self):
        self.may.wait(10.0)
        return super().items()


class Failing(Journal):
    """Fails as no journal is foreseen to."""

    def append(self, rows):
        raise RuntimeError("out of the blue")


def reserved(ledger, name, now_ms=0):
    """A row of the ledger's next event."""
    event = ledger.reserve(name, Payer(f"tenant {name}", ""), TEN, now_ms, LEASE_MS)
    return ledger.entries[name].seq, event


def settled(ledger, name, now_ms=0):
    event = ledger.settle(name, TEN, now_ms)
    return ledger.entries[name].seq, event


def begun(path: Path, kind=Journal):
    """A journal with a ledger of which nothing has happened, and that ledger."""
    journal, ledger = kind.open(path), Ledger([HOUR])
    journal.keep(0, worded(ledger), ())
    return journal, ledger


def n_rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        (found,) = db.execute("SELECT count(*) FROM journal").fetchone()
    return int(found)


def read(path: Path):
    with closing(Journal.read(path)) as journal:
        return journal.contents()


def test_rows_are_written_while_a_state_is_still_put_into_words(tmp_path):
    path, heard, may = tmp_path / "ledger", SimpleQueue(), threading.Event()
    journal, ledger = begun(path)
    writer = Writer(journal, lambda rows, error: heard.put((rows, error)))
    writer.start()
    writer.write(reserved(ledger, "before"))
    assert heard.get(timeout=5.0)[1] is None
    copy = ledger.copied()
    copy.accounts = HeldUp(copy.accounts, may)
    writer.keep(copy, {}, 0)
    for n in range(3):
        writer.write(reserved(ledger, f"after {n}"))
        ((row,), error) = heard.get(timeout=5.0)
        assert (row[1].request_id, error) == (f"after {n}", None)
    may.set()
    writer.close()
    journal.close()
    found = read(path)
    assert found.faults == []
    assert found.ledger.accounts == ledger.accounts
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT seq FROM states ORDER BY seq").fetchall() == [(0,), (1,)]


def test_what_lies_before_the_state_before_is_dropped_between_rows(tmp_path):
    path = tmp_path / "ledger"
    journal, ledger = begun(path)
    writer = Writer(journal, lambda rows, error: None)
    writer.start()
    for stretch in range(3):
        for n in range(600):
            writer.write(reserved(ledger, f"{stretch}.{n}"))
            writer.write(settled(ledger, f"{stretch}.{n}"))
        writer.keep(ledger.copied(), {}, 0)
    writer.close()
    journal.close()
    assert n_rows(path) == 1200
    found = read(path)
    assert found.faults == []
    assert found.ledger.accounts == ledger.accounts
    assert found.ledger.seq == 3600


def test_rows_that_are_still_to_be_dropped_are_none(tmp_path):
    path = tmp_path / "ledger"
    journal, ledger = begun(path)
    for n in range(3):
        journal.append([reserved(ledger, f"{n}.{k}") for k in range(10)])
        journal.keep(ledger.seq, worded(ledger), ())
    assert journal.drop(5)
    contents = journal.contents()
    assert (contents.faults, contents.n_rows) == ([], 10)
    assert journal.drop(10)
    assert not journal.drop(10)
    assert n_rows(path) == 10
    journal.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_fails_keeps_nobody_waiting(tmp_path):
    journal, ledger = begun(tmp_path / "ledger", Failing)
    told = []
    books = Books(ledger, journal, LEASE_MS, say=told.append)
    books._writer.start()
    store, given_up = LocalStore(books), []
    books.give_up = given_up.append
    async with asyncio.timeout(10.0):
        for name in ("a", "b"):
            with pytest.raises(LedgerUnavailableError, match="cannot be written now: ask again"):
                await store.reserve(name, Payer("t", ""), TEN)
        many = [store.reserve(f"c{n}", Payer("t", ""), TEN) for n in range(50)]
        said = await asyncio.gather(*many, return_exceptions=True)
        assert {type(error) for error in said} == {LedgerUnavailableError}
        assert books.ledger.held == ()
        with pytest.raises(LedgerUnavailableError, match="cannot be written now"):
            await books.flush()
        with pytest.raises(LedgerError, match="not written any more"):
            await books.close()
    assert len(given_up) == 1
    # why, is the operator's business, once
    (line,) = told
    assert "out of the blue" in line


async def test_totals_of_windows_survive_a_state_that_was_not_kept(tmp_path):
    path = tmp_path / "ledger"
    journal, ledger = begun(path)
    now_ms = 0
    books = Books(ledger, journal, LEASE_MS, now_ms=lambda: now_ms)
    books._writer.start()
    store = LocalStore(books)
    await store.reserve("a", Payer("t", ""), TEN)
    store.settle("a", TEN)
    await books.flush()
    now_ms = 3 * 3_600_000
    # a failure that the writer knows of and the books do not: this state counts for nothing
    books._writer._n_failures += 1
    books.keep()
    books._heard([], LedgerError("what the books hear of only now"))
    await store.reserve("b", Payer("t", ""), TEN)
    await books.close()
    found = read(path)
    assert found.faults == []
    assert [sums.spent.tokens for sums in found.totals.values()] == [10]
    assert [sums.held.tokens for sums in found.ledger.accounts.values()] == [10]


class Full(Journal):
    """Has no room while it is full."""

    full = False

    def append(self, rows):
        if self.full:
            raise LedgerError("full")
        super().append(rows)


async def test_a_flush_after_a_reservation_was_given_up_ends(tmp_path):
    journal, ledger = begun(tmp_path / "ledger", Full)
    books = Books(ledger, journal, LEASE_MS, now_ms=lambda: 0)
    books._writer.start()
    store = LocalStore(books)
    await store.reserve("a", Payer("t", ""), TEN)
    journal.full = True
    store.settle("a", TEN)
    with pytest.raises(LedgerUnavailableError, match="cannot be written"):
        await store.reserve("b", Payer("t", ""), TEN)
    journal.full = False
    # the settlement is tried again, and the last number was given to a row that never will be
    async with asyncio.timeout(5.0):
        await books.flush()
    await books.close()
    assert read(tmp_path / "ledger").ledger.entries["a"].status == "settled"


async def test_refusals_do_not_gather_while_the_disk_is_full(tmp_path):
    journal, ledger = begun(tmp_path / "ledger", Full)
    ledger.limits = (Limit("hour", "tenant", 3600, tokens=10),)
    books = Books(ledger, journal, LEASE_MS, now_ms=lambda: 0)
    books._writer.start()
    store = LocalStore(books)
    await store.reserve("a", Payer("t", ""), TEN)
    journal.full = True
    for n in range(100):
        with pytest.raises(BudgetExhaustedError):
            await store.reserve(f"refused {n}", Payer("t", ""), TEN)
    store.settle("a", TEN)
    with pytest.raises(LedgerUnavailableError, match="cannot be written"):
        await store.reserve("b", Payer("other", ""), TEN)
    assert [event.kind for _, event in books._writer._rows] == ["settled"]
    with pytest.raises(BudgetExhaustedError):
        await store.reserve("refused 0", Payer("t", ""), TEN)
    journal.full = False
    async with asyncio.timeout(5.0):
        await books.flush()
    await books.close()
    found = read(tmp_path / "ledger")
    assert (found.faults, found.n_rows) == ([], 2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_nothing_gathers_that_will_never_be_written(tmp_path):
    journal, ledger = begun(tmp_path / "ledger", Failing)
    for name in ("a", "b"):
        ledger.reserve(name, Payer("t", ""), TEN, 0, LEASE_MS)
    books = Books(ledger, journal, LEASE_MS, now_ms=lambda: 0)
    books._writer.start()
    with pytest.raises(LedgerUnavailableError, match="cannot be written"):
        await LocalStore(books).reserve("c", Payer("t", ""), TEN)
    for name in ("a", "b"):
        books.settle(name, TEN)
    assert books._writer._rows == []
    assert books._writer._queue.empty()
    with pytest.raises(LedgerError, match="not written any more"):
        await books.close()


async def test_states_do_not_gather_while_one_is_put_into_words(tmp_path):
    path = tmp_path / "ledger"
    journal, ledger = begun(path)
    now_ms, may = 0, threading.Event()
    books = Books(ledger, journal, LEASE_MS, now_ms=lambda: now_ms)
    books._writer.start()
    store = LocalStore(books)
    books._writer._wording.submit(may.wait, 10.0)
    for n in range(5):
        await store.reserve(f"a{n}", Payer("t", ""), TEN)
        store.settle(f"a{n}", TEN)
        now_ms += REMEMBERED_MS
        books.tick()
    assert books._writer._wording._work_queue.qsize() == 1
    may.set()
    await books.close()
    found = read(path)
    assert (found.faults, found.ledger.seq) == ([], 10)


def no_more(thread):
    raise RuntimeError("can't start new thread")


async def test_totals_survive_that_no_thread_can_be_started_any_more(tmp_path, monkeypatch):
    path, now_ms = tmp_path / "ledger", 0
    books = Books.open(path, [HOUR], LEASE_MS, now_ms=lambda: now_ms)
    store = LocalStore(books)
    await store.reserve("a", Payer("t", ""), TEN)
    store.settle("a", TEN)
    await books.flush()
    now_ms = 3 * 3_600_000
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", no_more)
        # time to keep the state, of which the window is no part any more
        books.tick()
    assert not books.ledger.accounts
    await books.close()
    found = read(path)
    assert [sums.spent.tokens for sums in found.totals.values()] == [10]


async def test_who_can_start_no_thread_lets_go_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "ledger"
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", no_more)
        with pytest.raises(LedgerError, match="can't start new thread"):
            Books.open(path, [HOUR], LEASE_MS)
    await Books.open(path, [HOUR], LEASE_MS).close()
