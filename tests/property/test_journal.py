"""A ledger that is kept, killed and restored in any order is the one that went on.

A few hundred steps by default; ``COE_LEDGER_STEPS=10000`` takes as many as it says.
"""

import os
import shutil
import tempfile
from functools import reduce
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coe.errors.gateway import LedgerConflictError
from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.book import Ledger
from coe.ledger.events import Balance, Event
from coe.ledger.limits import Account, Limit, Payer
from coe.ledger.replay import faults, state
from coe.services.store.journal import Journal
from coe.services.store.states import worded

STEPS = 50
LEASE_MS = 30_000
# the last of them always, so that there is an account of which everything is a part
ALL = Limit("all", "global", 86_400, requests=10**6)
SETS = (
    (Limit("house", "global", 60, tokens=300), ALL),
    (Limit("house", "global", 60, tokens=100), Limit("keys", "key", 20, tokens=90), ALL),
    (Limit("house", "global", 90, tokens=300), Limit("bob", "tenant", 7, tokens=90, of="bob"), ALL),
)

payers = st.builds(Payer, st.sampled_from(["", "alice", "bob"]), st.sampled_from(["k1", "k2"]))
amounts = st.builds(Amounts, st.integers(0, 9), st.just(0), st.integers(0, 60), st.integers(0, 1))


class JournalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "0"
        self.journal = Journal.open(self.path)
        self.ledger = Ledger(SETS[0])
        self.closed: list[tuple[Account, Balance]] = []
        self.journal.keep(0, worded(self.ledger), ())
        self.now_ms = self.n_ids = self.n_lives = 0
        self.booked: dict[str, Amounts] = {}
        self.unwritten: list[tuple[int, Event]] = []

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.folder)

    def note(self, *events: Event | None) -> None:
        rows = [event for event in events if event is not None]
        self.unwritten += enumerate(rows, self.ledger.seq - len(rows) + 1)
        for row in rows:
            if row.kind in ("settled", "estimated", "released", "expired"):
                self.booked[row.request_id] = row.amounts

    def write(self) -> None:
        self.journal.append(self.unwritten)
        self.unwritten = []

    def name(self, data: st.DataObject) -> str:
        return f"r{data.draw(st.integers(1, max(self.n_ids, 1)))}"

    @rule(payer=payers, hold=amounts)
    def reserve(self, payer: Payer, hold: Amounts) -> None:
        self.n_ids += 1
        self.note(self.ledger.reserve(f"r{self.n_ids}", payer, hold, self.now_ms, LEASE_MS))

    @rule(data=st.data(), actual=amounts)
    def settle(self, data: st.DataObject, actual: Amounts) -> None:
        try:
            self.note(self.ledger.settle(self.name(data), actual, self.now_ms))
        except LedgerConflictError:
            pass

    @precondition(lambda self: self.ledger.entries.expired)
    @rule(data=st.data(), actual=amounts)
    def correct(self, data: st.DataObject, actual: Amounts) -> None:
        """The truth about a request whose lease ran out."""
        name = data.draw(st.sampled_from(sorted(self.ledger.entries.expired)))
        try:
            self.note(self.ledger.settle(name, actual, self.now_ms))
        except LedgerConflictError:
            pass

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        try:
            self.note(self.ledger.release(self.name(data), self.now_ms))
        except LedgerConflictError:
            pass

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        self.note(self.ledger.renew(self.name(data), self.now_ms, LEASE_MS))

    @rule()
    def expire(self) -> None:
        self.note(*self.ledger.expire(self.now_ms))

    @rule(limits=st.sampled_from(SETS))
    def limit(self, limits: tuple[Limit, ...]) -> None:
        self.note(self.ledger.limit(limits, self.now_ms))

    @rule(step_ms=st.one_of(st.integers(-3_000, 30_000), st.integers(100_000, 700_000)))
    def pass_time(self, step_ms: int) -> None:
        self.now_ms = max(self.now_ms + step_ms, 0)

    @rule(fails=st.booleans())
    def lose(self, fails: bool) -> None:
        """What is unwritten is written; or only what must not be lost is, later."""
        if fails:
            lost = [row for row in self.unwritten if row[1].kind in ("reserved", "refused")]
            later = {
                e.request_id for _, e in self.unwritten if e.kind not in ("reserved", "refused")
            }
            if any(event.request_id in later for _, event in lost):
                return
            self.unwritten = [row for row in self.unwritten if row not in lost]
            for _, event in lost:
                if event.kind == "reserved":
                    self.ledger.void(event.request_id)
        self.write()

    @rule(fails=st.booleans())
    def keep(self, fails: bool) -> None:
        self.write()
        self.ledger.clock_ms = max(self.now_ms, self.ledger.clock_ms)
        self.closed += self.ledger.retire(self.ledger.clock_ms).items()
        if not fails:
            copy = self.ledger.copied()
            self.journal.keep(copy.seq, worded(copy), self.closed)
            self.closed = []
            while self.journal.drop(3):
                pass

    @rule(limits=st.sampled_from(SETS))
    def die(self, limits: tuple[Limit, ...]) -> None:
        """Killed; and started again, perhaps under other limits."""
        self.write()
        before = self.ledger
        self.n_lives += 1
        path = self.folder / str(self.n_lives)
        for end in ("", "-wal"):
            if Path(f"{self.path}{end}").exists():
                shutil.copy(f"{self.path}{end}", f"{path}{end}")
        self.journal.close()
        self.path, self.journal = path, Journal.open(path)
        contents = self.journal.contents()
        self.ledger, self.closed = contents.ledger, []
        assert contents.faults == []
        assert self.ledger.limits == before.limits
        assert self.ledger.seq <= before.seq
        self.ledger.clock_ms = before.clock_ms
        mine, theirs = state(self.ledger), state(before)
        assert (mine["held"], mine["expired"]) == (theirs["held"], theirs["expired"])
        spent = NOTHING
        for account, sums in [*self.ledger.accounts.items(), *contents.totals.items()]:
            spent = spent.plus(sums.spent if account.limit == ALL.name else NOTHING)
        assert spent == reduce(Amounts.plus, self.booked.values(), NOTHING)
        if limits != self.ledger.limits:
            self.ledger.limits = limits
            closed = self.ledger.retire(self.ledger.clock_ms)
            self.journal.keep(self.ledger.seq, worded(self.ledger), closed.items())

    @invariant()
    def adds_up(self) -> None:
        assert faults(self.ledger) == []


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(
    max_examples=max(1, int(os.environ.get("COE_LEDGER_STEPS", "450")) // 45),
    stateful_step_count=STEPS,
    suppress_health_check=[HealthCheck.too_slow],
    deadline=None,
)
