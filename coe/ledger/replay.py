"""A ledger kept and restored, events replayed, and whether all of it adds up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from coe.errors.gateway import LedgerError
from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.book import Ledger
from coe.ledger.events import Balance, Entry, Event
from coe.ledger.limits import Account, Payer, limits_of, stated


def state(ledger: Ledger, listed: Callable[[Iterable[list[Any]]], Any] = list) -> dict[str, Any]:
    """Limits, clock, balances, open holds and those that expired, as JSON can hold them.

    Other finished requests are not in it: their events are. O(accounts + held + expired).

    Parameters
    ----------
    listed : makes a list of the accounts; they may be very many.
    """
    return {
        "limits": stated(ledger.limits),
        "clock_ms": ledger.clock_ms,
        "seq": ledger.seq,
        "accounts": listed(_account_row(*kept) for kept in ledger.accounts.items()),
        "held": [_entry_row(name, ledger.entries[name]) for name in ledger.held],
        "expired": [
            [*_entry_row(name, entry), entry.changed_ms]
            for name, entry in ledger.expired(ledger.clock_ms).items()
        ],
    }


def _account_row(account: Account, balance: Balance) -> list[Any]:
    sums = (balance.held, balance.spent, balance.overrun)
    return [*account, *(list(amounts) for amounts in sums)]


def _entry_row(name: str, entry: Entry) -> list[Any]:
    accounts = [list(account) for account in entry.accounts]
    times = [entry.at_ms, entry.until_ms]
    return [name, list(entry.payer), list(entry.hold), *times, accounts, entry.seq]


def restored(kept: dict[str, Any]) -> Ledger:
    """The ledger that gave this `state`, but for the requests that had finished."""
    ledger = Ledger(limits_of(kept["limits"]))
    ledger.clock_ms = kept["clock_ms"]
    ledger.seq = ledger.forgotten = kept["seq"]
    for limit, holder, started_ms, window_ms, *sums in kept["accounts"]:
        account = Account(limit, holder, started_ms, window_ms)
        ledger.accounts[account] = Balance(*(Amounts(*amounts) for amounts in sums))
    for name, *row in kept["held"]:
        entry = _entry(*row)
        ledger.entries[name] = entry._replace(changed_ms=entry.at_ms)
    # a state of before these were kept names none
    for name, *row, changed_ms in kept.get("expired", ()):
        entry = _entry(*row)
        ledger.entries[name] = entry._replace(
            status="expired", booked=entry.hold, changed_ms=changed_ms
        )
    return ledger


def _entry(
    payer: list[str],
    hold: list[int],
    at_ms: int,
    until_ms: int,
    accounts: list[list[Any]],
    seq: int,
) -> Entry:
    charged = tuple(Account(*account) for account in accounts)
    return Entry("held", Payer(*payer), Amounts(*hold), at_ms, until_ms, charged, seq=seq)


def faults(ledger: Ledger) -> list[str]:
    """What does not add up, in words; empty where all does. O(accounts + held * limits).

    Nothing may be negative, and what an account holds must be the sum of what its requests hold.
    """
    holding: dict[Account, Amounts] = {}
    for name in ledger.held:
        entry = ledger.entries[name]
        for account in entry.accounts:
            holding[account] = holding.get(account, NOTHING).plus(entry.hold)
    found = []
    for account in sorted(ledger.accounts.keys() | holding.keys()):
        balance = ledger.accounts.get(account, Balance())
        held = holding.get(account, NOTHING)
        if balance.held != held:
            found.append(f"{named(account)}: holds {balance.held}, its requests {held}")
        for part in (balance.held, balance.spent, balance.overrun):
            if min(part) < 0:
                found.append(f"{named(account)}: negative: {part}")
    return found


def named(account: Account) -> str:
    """An account in words, for messages."""
    whose = f" of {account.holder!r}" if account.holder else ""
    return f"limit {account.limit!r}{whose}, window from {account.started_ms} ms"


def replay(ledger: Ledger, rows: Iterable[tuple[int, Event]]) -> list[str]:
    """Apply numbered events in their order; what is wrong with them, in words.

    An event that cannot follow on what was before is left out. No reservation may take more than
    what the limits then left.
    """
    found = []
    for seq, event in rows:
        if seq <= ledger.seq:
            found.append(f"row {seq}: follows on row {ledger.seq}")
            continue
        ledger.seq = seq - 1
        if event.kind == "reserved":
            over = ledger.refused_by(event.payer, event.amounts, event.at_ms)
            if over is not None:
                found.append(f"row {seq}: {over[1]} of {named(over[0])} does not leave the hold")
        try:
            ledger.apply(event)
        except (LedgerError, LookupError, TypeError, ValueError) as error:
            found.append(f"row {seq}: {error}")
    return found
