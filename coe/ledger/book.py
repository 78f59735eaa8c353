"""A state machine on events: what requests may take, hold, and have taken.

A request reserves before it is dispatched and settles with what it really took, once. Commands
look at the state and say what happens as an `Event`; `Ledger.apply` is the one place where the
state changes, so that the events in their order, replayed, give the same state. It has no clock,
does no I/O, and is not thread-safe.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from itertools import islice

from coe.errors.gateway import LedgerConflictError, LedgerError
from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.entries import Entries
from coe.ledger.events import Balance, Entry, Event, Kind, Status
from coe.ledger.limits import Account, Limit, Payer, limits_of, stated

REMEMBERED_MS = 600_000
"""How long a finished request is remembered, so that what is said of it again changes nothing."""

MOST_REMEMBERED = 100_000
"""As long as they are no more than this; each takes about 0.9 kB."""

_FINAL: dict[Kind, Status] = {
    "settled": "settled",
    "estimated": "estimated",
    "released": "released",
    "expired": "expired",
}
_UNTOUCHED = Balance()


class Ledger:
    """Accounts of some limits, and how every request of late stands.

    Attributes
    ----------
    limits : in force.
    accounts : balances of the windows that somebody reserved in.
    entries : requests that hold something, or finished within `REMEMBERED_MS`; of those the
        youngest `MOST_REMEMBERED`.
    clock_ms : the latest time seen. A clock that steps back stands still instead, so that no
        window begins twice.
    seq : number of the last event.
    forgotten : number of the youngest event of a request that may be remembered no longer.
    """

    def __init__(self, limits: Iterable[Limit]) -> None:
        self.limits = tuple(limits)
        self.accounts: dict[Account, Balance] = {}
        self.entries = Entries()
        self.clock_ms = 0
        self.seq = self.forgotten = 0
        self._finished: deque[tuple[int, int, str]] = deque()

    def reserve(
        self, request_id: str, payer: Payer, hold: Amounts, now_ms: int, lease_ms: int
    ) -> Event | None:
        """``reserved``, or ``refused`` where a limit does not leave ``hold``; see `entries`.

        All accounts of the payer or none. Of several limits that refuse, the one whose window
        ends last is named. ``None``: the request was heard of before, and stands as it did.
        O(limits).

        Parameters
        ----------
        hold : a strict upper bound of what the request can take.
        lease_ms : after this time the request counts as given up, unless it is renewed.

        Raises
        ------
        LedgerConflictError
            The id was used for another payer or another hold.
        ValueError
            As `Amounts.checked`.
        """
        known = self.entries.get(request_id)
        if known is not None:
            if (known.payer, known.hold) != (payer, hold):
                raise LedgerConflictError(request_id, "was reserved before, with other figures")
            return None
        now_ms = max(now_ms, self.clock_ms)
        event = Event("reserved", request_id, now_ms, payer, hold.checked(), now_ms + lease_ms)
        refused = self.refused_by(payer, hold, now_ms)
        if refused is not None:
            account, resource = refused
            until_ms, limit = account.ends_ms, account.limit
            event = event._replace(
                kind="refused", until_ms=until_ms, limit=limit, resource=resource
            )
        return self.apply(event)

    def limit(self, limits: Iterable[Limit], now_ms: int) -> Event | None:
        """``limited``: these limits are in force from now on; ``None``: they were before.

        What was reserved stays charged where it was.
        """
        wanted = tuple(limits)
        if wanted == self.limits:
            return None
        at_ms = max(now_ms, self.clock_ms)
        return self.apply(Event("limited", "", at_ms, limit=json.dumps(stated(wanted))))

    def refused_by(self, payer: Payer, hold: Amounts, at_ms: int) -> tuple[Account, str] | None:
        """Account and resource that do not leave ``hold``, of the window that ends last."""
        found: tuple[Account, str] | None = None
        for limit in self.limits:
            account = limit.account(payer, at_ms)
            if account is None:
                continue
            resource = limit.exceeded_by(self.accounts.get(account, _UNTOUCHED).taken.plus(hold))
            if resource is not None and (found is None or account.ends_ms > found[0].ends_ms):
                found = account, resource
        return found

    def settle(
        self, request_id: str, actual: Amounts, now_ms: int, estimated: bool = False
    ) -> Event | None:
        """The request took ``actual``; ``None``: that was said before.

        More than its hold is booked all the same, and shows as overrun. A request whose lease ran
        out is corrected.

        Raises
        ------
        LedgerConflictError
            It is not known, was refused, or ended in another way.
        ValueError
            As `Amounts.checked`.
        """
        kind: Kind = "estimated" if estimated else "settled"
        return self._finish(kind, request_id, actual.checked(), now_ms)

    def release(self, request_id: str, now_ms: int) -> Event | None:
        """The request took nothing: no expert was asked. ``None``: that was said before.

        Raises
        ------
        LedgerConflictError
            As `settle`.
        """
        return self._finish("released", request_id, NOTHING, now_ms)

    def renew(self, request_id: str, now_ms: int, lease_ms: int) -> Event | None:
        """The request is still being answered; ``None``: it holds nothing, or for longer anyway."""
        known = self.entries.get(request_id)
        until_ms = max(now_ms, self.clock_ms) + lease_ms
        if known is None or known.status != "held" or known.until_ms >= until_ms:
            return None
        return self.apply(Event("renewed", request_id, until_ms - lease_ms, until_ms=until_ms))

    def expire(self, now_ms: int, but: Collection[str] = ()) -> list[Event]:
        """Requests whose lease ended by ``now_ms``: given up, booked at their whole hold.

        Whether an expert was asked nobody knows, and what is not known is not given back. O(held).

        Parameters
        ----------
        but : requests to leave alone.
        """
        self.clock_ms = now_ms = max(now_ms, self.clock_ms)
        held = self.entries.held
        over = [n for n in held if self.entries[n].until_ms <= now_ms and n not in but]
        return [
            self.apply(Event("expired", name, now_ms, amounts=self.entries[name].hold))
            for name in over
        ]

    def retire(self, now_ms: int) -> dict[Account, Balance]:
        """Accounts whose window is over and of which nothing is held; they are forgotten here.

        A window is kept for `REMEMBERED_MS` after its end, and as long as a request of it may
        still be corrected.
        """
        open_ones = {
            account for entry in self.expired(now_ms).values() for account in entry.accounts
        }
        gone = {
            account: balance
            for account, balance in self.accounts.items()
            if account.ends_ms + REMEMBERED_MS <= now_ms
            and balance.held == NOTHING
            and account not in open_ones
        }
        for account in gone:
            del self.accounts[account]
        return gone

    def void(self, request_id: str) -> None:
        """Forget a request that holds something: its event could not be kept."""
        entry = self.entries.pop(request_id)
        self._book(entry.accounts, held=NOTHING.minus(entry.hold))

    def copied(self) -> Ledger:
        """A ledger of the same limits, balances and holds that goes its own way."""
        copy = Ledger(self.limits)
        copy.clock_ms, copy.seq = self.clock_ms, self.seq
        copy.accounts = dict(self.accounts)
        copy.entries.update((name, self.entries[name]) for name in self.entries.held)
        copy.entries.update(self.entries.expired)
        return copy

    @property
    def held(self) -> Sequence[str]:
        """Requests that hold something, oldest first."""
        return tuple(self.entries.held)

    def expired(self, now_ms: int) -> dict[str, Entry]:
        """Requests whose lease ran out, and that may still be corrected, by id."""
        expired = self.entries.expired.items()
        return {name: entry for name, entry in expired if _correctable(entry, now_ms)}

    def apply(self, event: Event) -> Event:
        """``event``, which has happened. No limit is looked at: whoever made it has done that.

        Raises
        ------
        LedgerError
            It cannot follow on what happened to the request before.
        """
        known = self.entries.get(event.request_id)
        self.clock_ms = max(self.clock_ms, event.at_ms)
        self.seq += 1
        if event.kind == "limited":
            self.limits = limits_of(json.loads(event.limit))
        elif event.kind == "reserved" or event.kind == "refused":
            self._begin(event, known)
        elif known is None:
            raise LedgerError(f"request {event.request_id!r}: {event.kind}, but never reserved")
        elif event.kind == "renewed":
            if known.status != "held":
                raise LedgerError(f"request {event.request_id!r}: renewed while {known.status}")
            until_ms = max(known.until_ms, event.until_ms)
            self.entries[event.request_id] = known._replace(until_ms=until_ms, seq=self.seq)
        else:
            self._end(event, known)
        self._forget()
        return event

    def _finish(self, kind: Kind, request_id: str, amounts: Amounts, now_ms: int) -> Event | None:
        known = self.entries.get(request_id)
        if known is None:
            raise LedgerConflictError(request_id, "is not known, or no longer")
        if known.status == kind and known.booked == amounts:
            return None
        if known.status not in ("held", "expired"):
            raise LedgerConflictError(request_id, f"was {known.status} before, with other figures")
        at_ms = max(now_ms, self.clock_ms)
        if known.status == "expired" and not _correctable(known, at_ms):
            raise LedgerConflictError(request_id, "is known no longer")
        return self.apply(Event(kind, request_id, at_ms, amounts=amounts))

    def _begin(self, event: Event, known: Entry | None) -> None:
        if known is not None:
            raise LedgerError(f"request {event.request_id!r}: {event.kind} twice")
        held = event.kind == "reserved"
        found = (limit.account(event.payer, event.at_ms) for limit in self.limits if held)
        accounts = tuple(account for account in found if account is not None)
        self.entries[event.request_id] = Entry(
            "held" if held else "refused",
            event.payer,
            event.amounts,
            event.at_ms,
            event.until_ms,
            accounts,
            limit=event.limit,
            resource=event.resource,
            changed_ms=event.at_ms,
            seq=self.seq,
        )
        if held:
            self._book(accounts, held=event.amounts)
        else:
            self._finished.append((event.at_ms, self.seq, event.request_id))

    def _end(self, event: Event, known: Entry) -> None:
        status = _FINAL[event.kind]
        if known.status != "held" and (known.status != "expired" or status == "expired"):
            raise LedgerError(f"request {event.request_id!r}: {status} after {known.status}")
        if known.status == "held":
            self._book(known.accounts, NOTHING.minus(known.hold), event.amounts)
        else:
            self._book(known.accounts, NOTHING, event.amounts.minus(known.booked))
        self._book(known.accounts, overrun=event.amounts.beyond(known.hold))
        self.entries[event.request_id] = known._replace(
            status=status, booked=event.amounts, changed_ms=event.at_ms, seq=self.seq
        )
        if status != "expired":
            self._finished.append((event.at_ms, self.seq, event.request_id))

    def _book(
        self,
        accounts: tuple[Account, ...],
        held: Amounts = NOTHING,
        spent: Amounts = NOTHING,
        overrun: Amounts = NOTHING,
    ) -> None:
        if held == spent == overrun == NOTHING:
            return
        for account in accounts:
            known = self.accounts.get(account, _UNTOUCHED)
            self.accounts[account] = Balance(
                known.held.plus(held), known.spent.plus(spent), known.overrun.plus(overrun)
            )

    def _forget(self) -> None:
        """Drop what finished long ago; at most two at a time, which is more than are added."""
        over = self.entries.expired
        for name in [*islice(over, 2)]:
            if not _correctable(over[name], self.clock_ms):
                self._drop(name, over[name].seq)
        finished = self._finished
        for _ in range(2):
            if not finished:
                return
            is_young = finished[0][0] + REMEMBERED_MS > self.clock_ms
            if is_young and len(finished) <= MOST_REMEMBERED:
                return
            _, seq, request_id = finished.popleft()
            if self.entries.finished_seq(request_id) == seq:
                self._drop(request_id, seq)

    def _drop(self, request_id: str, seq: int) -> None:
        del self.entries[request_id]
        self.forgotten = max(self.forgotten, seq)


def _correctable(expired: Entry, at_ms: int) -> bool:
    """Whether the truth about a request whose lease ran out may still come at this time."""
    return at_ms < expired.changed_ms + REMEMBERED_MS
