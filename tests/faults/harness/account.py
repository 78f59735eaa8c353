"""The sums of ledgers, added up anew from their rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from coe.ledger.limits import Limit, Payer
from harness.dump import Key, Row, Sum

FINAL = frozenset({"settled", "estimated", "released"})
ZERO: Sum = (0, 0, 0, 0)


@dataclass(slots=True)
class Told:
    """One hold, as the rows tell it."""

    request_id: str
    tenant: str
    hold: Sum
    at_ms: int
    until_ms: int
    kinds: list[str] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    booked: Sum = ZERO

    @property
    def status(self) -> str:
        """The last that was said of it, leases aside."""
        return next((k for k in reversed(self.kinds) if k != "renewed"), "")


@dataclass(slots=True)
class Account:
    """Held, spent and overrun of every account, as rows come in."""

    limits: Sequence[Limit]
    holds: dict[str, Told] = field(default_factory=dict)
    sums: dict[Key, list[Sum]] = field(default_factory=dict)

    def take(self, row: Row) -> Iterator[Key]:
        """Add a row; the accounts that it touched."""
        told = self.holds.get(row.request_id)
        if told is None:
            told = Told(row.request_id, row.tenant, row.amounts, row.at_ms, row.until_ms)
            self.holds[row.request_id] = told
        was = told.status
        told.kinds.append(row.kind)
        told.times_ms.append(row.at_ms)
        if row.kind == "renewed":
            told.until_ms = max(told.until_ms, row.until_ms)
        if row.kind in ("renewed", "refused"):
            return
        for key in self.keys(told):
            held, spent, overrun = self.sums.get(key, [ZERO, ZERO, ZERO])
            if row.kind == "reserved":
                held = _plus(held, row.amounts)
            elif was == "reserved":
                held = _minus(held, told.hold)
                spent = _plus(spent, row.amounts)
                overrun = _plus(overrun, _beyond(row.amounts, told.hold))
            else:
                spent = _plus(_minus(spent, told.booked), row.amounts)
                overrun = _plus(overrun, _beyond(row.amounts, told.hold))
            self.sums[key] = [held, spent, overrun]
            yield key
        if row.kind != "reserved":
            told.booked = row.amounts

    def keys(self, told: Told) -> Iterator[Key]:
        """The accounts that a hold is charged to."""
        for limit in self.limits:
            account = limit.account(Payer(told.tenant), told.at_ms)
            if account is not None:
                yield account.limit, account.holder, account.started_ms

    def over(self, key: Key, more: float = 0.0) -> bool:
        """Whether more is taken than the ceilings and ``more`` of them, overruns aside."""
        limit = next(limit for limit in self.limits if limit.name == key[0])
        held, spent, overrun = self.sums[key]
        taken = _minus(_plus(held, spent), overrun)
        ceilings = limit.ceilings()
        return any(
            ceiling is not None and amount > ceiling + int(ceiling * more)
            for amount, ceiling in zip(taken, ceilings, strict=True)
        )


def in_order(books: Sequence[Sequence[Row]]) -> Iterator[Row]:
    """Rows of several gateways by time, each in its own order; of one moment, what frees first."""
    left = [list(reversed(rows)) for rows in books if rows]
    while left:
        first = min(left, key=lambda rows: (rows[-1].at_ms, rows[-1].kind == "reserved"))
        yield first.pop()
        left = [rows for rows in left if rows]


def _plus(a: Sum, b: Sum) -> Sum:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _minus(a: Sum, b: Sum) -> Sum:
    return tuple(x - y for x, y in zip(a, b, strict=True))


def _beyond(a: Sum, b: Sum) -> Sum:
    return tuple(max(0, x - y) for x, y in zip(a, b, strict=True))
