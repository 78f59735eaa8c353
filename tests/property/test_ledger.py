"""The ledger against a model that adds everything up anew, over any order of what can be said.

A few hundred steps by default; ``COE_LEDGER_STEPS=10000`` takes as many as it says.
"""

import json
import os
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from coe.errors.gateway import LedgerConflictError
from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.book import Ledger
from coe.ledger.events import Event
from coe.ledger.limits import Account, Limit, Payer
from coe.ledger.replay import faults, replay, restored, state

STEPS = 50
LEASE_MS = 30_000
LIMITS = (
    Limit("house", "global", 60, energy_uj=400, tokens=300),
    Limit("tenants", "tenant", 20, cost_uusd=200, requests=6),
    Limit("bob", "tenant", 120, tokens=90, of="bob"),
    Limit("keys", "key", 30, tokens=120),
)

payers = st.builds(Payer, st.sampled_from(["", "alice", "bob"]), st.sampled_from(["k1", "k2"]))
amounts = st.builds(
    Amounts,
    st.integers(0, 120),
    st.integers(0, 90),
    st.integers(0, 60),
    st.integers(0, 2),
)


@dataclass
class Told:
    """What the model knows of a request."""

    payer: Payer
    hold: Amounts
    at_ms: int
    until_ms: int
    status: str
    booked: Amounts = NOTHING


class LedgerMachine(RuleBasedStateMachine):
    requests: Bundle[str] = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(LIMITS)
        self.kept: list[tuple[int, Event]] = []
        self.now_ms = self.clock_ms = 0
        self.told: dict[str, Told] = {}
        self.closed: dict[Account, tuple[Amounts, Amounts]] = {}
        self.n_ids = 0

    def keep(self, *events: Event | None) -> None:
        rows = [event for event in events if event is not None]
        first = self.ledger.seq - len(rows) + 1
        self.kept += list(enumerate(rows, first))

    def sums(self) -> dict[Account, tuple[Amounts, Amounts]]:
        """Held and spent of every account, from the requests alone."""
        found: dict[Account, tuple[Amounts, Amounts]] = {}
        for told in self.told.values():
            for limit in LIMITS:
                account = limit.account(told.payer, told.at_ms)
                if account is None or told.status == "refused":
                    continue
                held, spent = found.get(account, (NOTHING, NOTHING))
                held = held.plus(told.hold if told.status == "held" else NOTHING)
                found[account] = held, spent.plus(told.booked)
        return found

    def fits(self, payer: Payer, hold: Amounts) -> bool:
        sums = self.sums()
        for limit in LIMITS:
            account = limit.account(payer, self.clock_ms)
            if account is not None:
                held, spent = sums.get(account, (NOTHING, NOTHING))
                taken = held.plus(spent).plus(hold)
                ceilings = limit.ceilings()
                if any(c is not None and n > c for n, c in zip(taken, ceilings, strict=True)):
                    return False
        return True

    def look(self) -> None:
        self.clock_ms = max(self.clock_ms, self.now_ms)

    @rule(target=requests, payer=payers, hold=amounts)
    def reserve(self, payer: Payer, hold: Amounts) -> str:
        self.look()
        self.n_ids += 1
        name = f"r{self.n_ids}"
        fits = self.fits(payer, hold)
        event = self.ledger.reserve(name, payer, hold, self.now_ms, LEASE_MS)
        self.keep(event)
        assert event is not None
        assert event.kind == ("reserved" if fits else "refused")
        self.told[name] = Told(
            payer, hold, self.clock_ms, self.clock_ms + LEASE_MS, "held" if fits else "refused"
        )
        if not fits:
            limit = next(limit for limit in LIMITS if limit.name == event.limit)
            assert limit.account(payer, self.clock_ms) is not None
            assert event.until_ms > self.clock_ms
        return name

    @rule(name=requests, payer=payers, hold=amounts, same=st.booleans())
    def reserve_again(self, name: str, payer: Payer, hold: Amounts, same: bool) -> None:
        told = self.told[name]
        if same:
            payer, hold = told.payer, told.hold
        try:
            assert self.ledger.reserve(name, payer, hold, self.now_ms, LEASE_MS) is None
            assert (payer, hold) == (told.payer, told.hold)
        except LedgerConflictError:
            assert (payer, hold) != (told.payer, told.hold)

    @rule(name=requests, actual=amounts, estimated=st.booleans(), same=st.booleans())
    def settle(self, name: str, actual: Amounts, estimated: bool, same: bool) -> None:
        told = self.told[name]
        actual = told.booked if same else actual
        self.finish(name, "estimated" if estimated else "settled", actual)

    @rule(name=requests)
    def release(self, name: str) -> None:
        self.finish(name, "released", NOTHING)

    def finish(self, name: str, status: str, actual: Amounts) -> None:
        told = self.told[name]
        try:
            if status == "released":
                event = self.ledger.release(name, self.now_ms)
            else:
                event = self.ledger.settle(name, actual, self.now_ms, status == "estimated")
        except LedgerConflictError:
            assert told.status not in ("held", "expired")
            assert (told.status, told.booked) != (status, actual)
            return
        self.keep(event)
        if event is None:
            assert (told.status, told.booked) == (status, actual)
            return
        self.look()
        assert told.status in ("held", "expired")
        told.status, told.booked = status, actual

    @rule(name=requests)
    def renew(self, name: str) -> None:
        event = self.ledger.renew(name, self.now_ms, LEASE_MS)
        self.keep(event)
        if event is not None:
            self.look()
            assert self.told[name].status == "held"
            self.told[name].until_ms = self.clock_ms + LEASE_MS

    @rule()
    def expire(self) -> None:
        self.look()
        events = self.ledger.expire(self.now_ms)
        self.keep(*events)
        over = {
            name
            for name, told in self.told.items()
            if told.status == "held" and told.until_ms <= self.clock_ms
        }
        assert {event.request_id for event in events} == over
        for name in over:
            self.told[name].status, self.told[name].booked = "expired", self.told[name].hold

    @rule(name=consumes(requests))
    def lose(self, name: str) -> None:
        """The event of a hold could not be kept; nobody speaks of the request again."""
        if self.told[name].status == "held":
            self.ledger.void(name)
            self.kept = [row for row in self.kept if row[1].request_id != name]
            del self.told[name]

    @rule(step_ms=st.integers(-3_000, 12_000))
    def pass_time(self, step_ms: int) -> None:
        self.now_ms = max(self.now_ms + step_ms, 0)

    @rule()
    def restart(self) -> None:
        """A new ledger from what was kept, which then goes on."""
        again = Ledger(LIMITS)
        assert replay(again, self.kept) == []
        again.clock_ms, again.seq = self.ledger.clock_ms, self.ledger.seq
        # an account of which all was voided is empty here, and unheard of there
        mine, theirs = state(self.ledger), state(again)
        mine_used, theirs_used = (
            sorted(row for row in found.pop("accounts") if any(map(any, row[4:])))
            for found in (mine, theirs)
        )
        assert mine_used == theirs_used
        assert mine == theirs
        assert state(restored(json.loads(json.dumps(state(again))))) == state(again)
        self.ledger = again

    @invariant()
    def adds_up(self) -> None:
        assert faults(self.ledger) == []
        sums = {a: s for a, s in self.sums().items() if s != (NOTHING, NOTHING)}
        accounts = {a: (b.held, b.spent) for a, b in self.ledger.accounts.items()}
        assert {a: s for a, s in accounts.items() if s != (NOTHING, NOTHING)} == sums

    @invariant()
    def nothing_is_above_its_limit_but_by_overruns(self) -> None:
        limits = {limit.name: limit for limit in LIMITS}
        for account, balance in self.ledger.accounts.items():
            assert limits[account.limit].exceeded_by(balance.taken.minus(balance.overrun)) is None


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=max(1, int(os.environ.get("COE_LEDGER_STEPS", "450")) // 45),
    stateful_step_count=STEPS,
    suppress_health_check=[HealthCheck.too_slow],
    deadline=None,
)
