"""The ledger of one gateway: on disk before anybody is dispatched, and still there afterwards."""

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import LedgerConflictError, LedgerError, LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.events import Event
from coe.ledger.limits import Limit, Payer
from coe.ledger.replay import state
from coe.services.store.books import Books
from coe.services.store.journal import KEPT_WINDOWS, Journal
from coe.services.store.local import LocalStore

ALICE = Payer("alice", "k1")
TEN = Amounts(tokens=10, requests=1)
LEASE_MS = 60_000
HOUR_MS = 3_600_000
LIMITS = [Limit("hour", "tenant", 3600, tokens=100), Limit("day", "global", 86400, requests=50)]


class Wall:
    """A wall clock that obeys."""

    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


def opened(path: Path, wall: Wall, *limits: Limit, fsync: bool = False) -> Books:
    return Books.open(path, limits or LIMITS, LEASE_MS, fsync, wall)


def spent(path: Path) -> dict[str, int]:
    """Tokens by limit, those of closed windows included."""
    journal = Journal.read(path)
    contents = journal.contents()
    journal.close()
    assert contents.faults == []
    found: dict[str, int] = {}
    for account, balance in [*contents.ledger.accounts.items(), *contents.totals.items()]:
        found[account.limit] = found.get(account.limit, 0) + balance.spent.tokens
    return found


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No file may grow beyond the journal's present size."""
    largest = max(os.path.getsize(f"{path}{end}") for end in ("", "-wal"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("fsync", [False, True])
async def test_room_for_five_lets_five_of_ten_in_at_once(
    path: Path, wall: Wall, fsync: bool
) -> None:
    books = opened(path, wall, Limit("hour", "global", 3600, tokens=50), fsync=fsync)
    store = LocalStore(books)
    answers = await asyncio.gather(
        *(store.reserve(f"r{n}", ALICE, TEN) for n in range(10)), return_exceptions=True
    )
    assert [type(a) for a in answers].count(BudgetExhaustedError) == 5
    await books.close()


async def test_a_hold_is_in_the_journal_when_reserve_returns(path: Path, wall: Wall) -> None:
    books = opened(path, wall)
    await LocalStore(books).reserve("a", ALICE, TEN)
    reader = Journal.read(path)
    assert state(reader.contents().ledger) == state(books.ledger)
    reader.close()
    await books.close()


async def test_a_refusal_says_when_to_come_back(path: Path, wall: Wall) -> None:
    books = opened(path, wall, Limit("hour", "tenant", 3600, energy_uj=15_000_000))
    store = LocalStore(books)
    hold = Amounts.of(energy_j=10.0)
    wall.ms = 1_800_500
    await store.reserve("a", ALICE, hold)
    with pytest.raises(BudgetExhaustedError, match="joules") as refused:
        await store.reserve("b", ALICE, hold)
    assert refused.value.retry_after_s == 1800
    assert refused.value.param == "limits.hour.energy_j"
    assert refused.value.code == "budget_exhausted"
    with pytest.raises(BudgetExhaustedError):
        await store.reserve("b", ALICE, hold)
    with pytest.raises(BudgetExhaustedError, match="in a window of 3600 s") as hopeless:
        await store.reserve("c", ALICE, Amounts.of(energy_j=16.0))
    assert hopeless.value.retry_after_s is None
    await books.close()


async def test_a_restart_loses_nothing_and_doubles_nothing(path: Path, wall: Wall) -> None:
    books = opened(path, wall)
    store = LocalStore(books)
    for name in ("a", "b", "c"):
        await store.reserve(name, ALICE, TEN)
    store.settle("a", Amounts(tokens=3, requests=1))
    store.release("b")
    before = state(books.ledger)
    await books.close()
    books = opened(path, wall)
    assert state(books.ledger) == before
    store = LocalStore(books)
    store.settle("a", Amounts(tokens=3, requests=1))
    with pytest.raises(LedgerConflictError):
        store.settle("a", Amounts(tokens=4, requests=1))
    with pytest.raises(LedgerConflictError):
        await store.reserve("a", ALICE, TEN)
    await books.close()
    assert spent(path) == {"hour": 3, "day": 3}


async def test_holds_of_the_dead_end_with_their_lease_and_those_of_the_living_do_not(
    path: Path, wall: Wall
) -> None:
    books = opened(path, wall)
    await LocalStore(books).reserve("dead", ALICE, TEN)
    await books.close()
    books = opened(path, wall)
    await LocalStore(books).reserve("alive", ALICE, TEN)
    wall.ms = LEASE_MS - 1
    assert books.tick() == ["alive"]
    assert books.ledger.held == ("dead", "alive")
    wall.ms = LEASE_MS
    assert books.tick() == ["dead"]
    for _ in range(10):
        wall.ms += LEASE_MS // 2
        books.tick()
    assert books.ledger.held == ("alive",)
    await books.close()
    assert spent(path) == {"hour": 10, "day": 10}


async def test_leases_that_end_at_once_are_rows_one_after_the_other(path: Path, wall: Wall) -> None:
    books = opened(path, wall)
    for name in ("a", "b", "c"):
        await LocalStore(books).reserve(name, ALICE, TEN)
    await books.close()
    books = opened(path, wall)
    wall.ms = LEASE_MS
    assert books.tick() == ["a", "b", "c"]
    before = state(books.ledger)
    await books.flush()
    reader = Journal.read(path)
    assert state(reader.contents().ledger) == before
    reader.close()
    await books.close()


async def test_leases_of_the_living_are_renewed_by_the_clock_that_they_end_by(
    path: Path, wall: Wall
) -> None:
    """The shared ledger may grant by a clock that is ahead of this gateway's."""
    books = opened(path, wall)
    ahead_ms = 10 * LEASE_MS
    for name, at_ms in [("a", ahead_ms), ("b", ahead_ms + LEASE_MS)]:
        event = Event("reserved", name, at_ms, ALICE, TEN, at_ms + LEASE_MS)
        await books.admit(books.ledger.apply(event))
    wall.ms = LEASE_MS
    assert books.tick() == ["a"]
    assert books.ledger.held == ("a", "b")
    await books.close()


async def test_one_file_has_one_gateway(path: Path, wall: Wall) -> None:
    books = opened(path, wall)
    with pytest.raises(LedgerError, match="another gateway"):
        opened(path, wall)
    await books.close()
    await opened(path, wall).close()


async def test_a_cancelled_reservation_holds_nothing(path: Path, wall: Wall) -> None:
    books = opened(path, wall)
    task = asyncio.create_task(LocalStore(books).reserve("a", ALICE, TEN))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # where the row was written before that, nobody has to wait for it, and it is given up next
    await asyncio.sleep(0)
    await books.flush()
    # it is given back in the turn after the one in which it was heard to be kept
    await asyncio.sleep(0)
    await books.flush()
    assert books.ledger.held == ()
    await books.close()
    assert spent(path) == {"hour": 0, "day": 0}


async def test_a_full_disk_refuses_new_requests_and_keeps_what_was_spent(
    path: Path, wall: Wall
) -> None:
    books = opened(path, wall)
    store = LocalStore(books)
    await store.reserve("a", ALICE, TEN)
    with full_disk(path):
        with pytest.raises(LedgerUnavailableError) as unavailable:
            await store.reserve("b", ALICE, TEN)
        assert unavailable.value.code == "budget_store_unavailable"
        store.settle("a", Amounts(tokens=3, requests=1))
        with pytest.raises(LedgerUnavailableError):
            await books.flush()
    assert books.ledger.held == ()
    await store.reserve("b", ALICE, TEN)
    assert books.trouble is None
    await books.close()
    assert spent(path) == {"hour": 3, "day": 3}


async def test_nobody_waits_for_a_hold_that_was_lost(path: Path, wall: Wall) -> None:
    books = opened(path, wall)
    await LocalStore(books).reserve("a", ALICE, TEN)
    with full_disk(path), pytest.raises(LedgerUnavailableError):
        await LocalStore(books).reserve("b", ALICE, TEN)
    async with asyncio.timeout(5.0):
        await books.flush()
    await books.close()


async def test_an_account_whose_only_hold_found_no_room_is_no_fault(path: Path, wall: Wall) -> None:
    books = opened(path, wall)
    store = LocalStore(books)
    await store.reserve("a", ALICE, TEN)
    with full_disk(path), pytest.raises(LedgerUnavailableError):
        await store.reserve("b", Payer("bob", "k2"), TEN)
    await books.close()
    books = opened(path, wall)
    assert books.ledger.held == ("a",)
    await books.close()


async def test_a_hold_that_was_written_while_the_machine_slept_is_one_of_the_living(
    path: Path, wall: Wall
) -> None:
    books = opened(path, wall)
    reserving = asyncio.create_task(LocalStore(books).reserve("a", ALICE, TEN))
    await asyncio.sleep(0)
    while books._waiting:  # noqa: ASYNC110 - another thread writes
        await asyncio.sleep(0)
    # it is written, and who waits for that is called in a moment
    wall.ms = 2 * LEASE_MS
    assert books.tick() == ["a"]
    await reserving
    assert books.ledger.entries["a"].status == "held"
    await books.close()


async def test_growth_is_bounded_and_no_spending_is_lost(path: Path, wall: Wall) -> None:
    books = opened(path, wall, Limit("second", "global", 1, tokens=10**6))
    store = LocalStore(books)
    for n in range(5000):
        wall.ms = n * 500
        books.note(books.ledger.reserve(f"r{n}", ALICE, TEN, wall.ms, LEASE_MS))
        store.settle(f"r{n}", TEN)
        if n % 100 == 0:
            books.tick()
    await books.close()
    db = sqlite3.connect(path)
    ((n_rows,), (n_totals,), (n_states,)) = (
        db.execute(f"SELECT count(*) FROM {table}").fetchone()
        for table in ("journal", "totals", "states")
    )
    db.close()
    assert n_states == 2
    # two rows a request, and what may still be spoken of: two stretches of 600 s and a look
    assert n_rows <= 2 * (2 * 1200 + 100)
    assert n_totals == KEPT_WINDOWS
    # windows that are over but not yet closed, and the youngest that are
    assert spent(path)["second"] >= (600 + KEPT_WINDOWS) * 2 * 10


async def test_a_changed_limit_counts_from_when_it_comes_into_force(path: Path, wall: Wall) -> None:
    books = opened(path, wall)
    await LocalStore(books).reserve("a", ALICE, TEN)
    await books.close()
    books = opened(path, wall, LIMITS[0], Limit("keys", "key", 60, tokens=15))
    store = LocalStore(books)
    await store.reserve("b", ALICE, TEN)
    with pytest.raises(BudgetExhaustedError, match="keys"):
        await store.reserve("c", ALICE, TEN)
    store.settle("a", TEN)
    store.settle("b", TEN)
    await books.close()
    assert spent(path) == {"hour": 20, "day": 10, "keys": 10}


async def test_what_was_altered_by_hand_is_found_out(path: Path, wall: Wall) -> None:
    books = opened(path, wall)
    store = LocalStore(books)
    for name in ("a", "b"):
        await store.reserve(name, ALICE, TEN)
        store.settle(name, TEN)
    books.keep()
    await books.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE journal SET tokens = 1 WHERE kind = 'settled' AND request_id = 'a'")
    db.commit()
    db.close()
    journal = Journal.read(path)
    assert any("are not what the rows before" in fault for fault in journal.contents().faults)
    journal.close()
    with pytest.raises(LedgerError, match="does not add up"):
        opened(path, wall)


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"seq": 0, "limits": [{"name": 1}]}'])
async def test_a_state_that_is_none_is_found_out(path: Path, wall: Wall, state: str) -> None:
    await opened(path, wall).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE states SET state = ?", (state,))
        db.commit()
    with pytest.raises(LedgerError, match="a state that was kept is none"):
        opened(path, wall)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger is there"):
        Journal.read(tmp_path / "absent")
    other = tmp_path / "other.sqlite"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE t(x)")
    db.close()
    with pytest.raises(LedgerError, match="schema 0"):
        Journal.open(other)
    text = tmp_path / "text"
    text.write_text("not a database, but long enough to be taken for one " * 100)
    with pytest.raises(LedgerError, match="not a database"):
        Journal.open(text)


def killed(path: Path, life: str) -> tuple[set[str], dict[str, int]]:
    """What a gateway was told to be reserved and settled before it was killed."""
    reserved: set[str] = set()
    settled: dict[str, int] = {}
    program = str(Path(__file__).with_name("ledger_child.py"))
    child = subprocess.Popen(
        [sys.executable, program, str(path), life], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for n, line in enumerate(child.stdout):
        if n == 300:
            child.send_signal(signal.SIGKILL)
        if not line.endswith("\n"):
            break
        verb, name, *tokens = line.split()
        reserved.add(name)
        if verb == "settled":
            settled[name] = int(tokens[0])
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return reserved, settled


def test_a_killed_gateway_loses_nothing_and_doubles_nothing(path: Path) -> None:
    reserved: set[str] = set()
    settled: dict[str, int] = {}
    for life in ("first", "second", "third"):
        more_reserved, more_settled = killed(path, life)
        reserved |= more_reserved
        settled |= more_settled
    assert len(reserved) > 500
    journal = Journal.read(path)
    contents = journal.contents()
    journal.close()
    entries = contents.ledger.entries
    assert contents.faults == []
    assert reserved <= entries.keys()
    assert {name: entries[name].booked.tokens for name in settled} == settled
    assert {entries[name].status for name in settled} == {"settled"}
    (balance,) = contents.ledger.accounts.values()
    assert balance.spent.tokens == sum(entry.booked.tokens for entry in entries.values())
    assert balance.held.tokens == 10 * len(contents.ledger.held)
    assert len(contents.ledger.held) == len([e for e in entries.values() if e.status == "held"])


async def test_what_fails_of_a_tick_keeps_nothing_else_from_being_done(
    path: Path, wall: Wall
) -> None:
    books = opened(path, wall)
    await LocalStore(books).reserve("of an earlier life", ALICE, TEN)
    await books.close()
    books = opened(path, wall)
    await LocalStore(books).reserve("a", ALICE, TEN)
    # of a request that there is not nobody can say until when it holds anything
    books._own.add("nobody's")
    wall.ms = LEASE_MS
    assert set(books.tick()) == {"a", "of an earlier life"}
    held = {name: entry.status for name, entry in books.ledger.entries.items()}
    assert held == {"a": "held", "of an earlier life": "expired"}
    await books.close()


async def test_whoever_waits_for_the_journal_is_answered_whatever_fails(
    path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = opened(path, wall)

    def append(self: Journal, rows: object) -> None:
        raise LedgerError("no room")

    def void(request_id: str) -> None:
        raise KeyError(request_id)

    monkeypatch.setattr(Journal, "append", append)
    monkeypatch.setattr(books.ledger, "void", void)
    async with asyncio.timeout(10.0):
        asking = [LocalStore(books).reserve(name, ALICE, TEN) for name in "abc"]
        said = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(error) for error in said} == {LedgerUnavailableError}
    await books.close()
