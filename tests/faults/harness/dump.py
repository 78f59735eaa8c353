"""A gateway's ledger as its file has it, read without the code that wrote it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from coe.ledger.amounts import Amounts
from coe.ledger.book import Ledger
from coe.ledger.events import Event
from coe.ledger.limits import Limit, Payer
from coe.ledger.replay import replay, state
from coe.services.store.journal import Journal

Sum = tuple[int, int, int, int]
"""Microjoules, millionths of a dollar, tokens, requests."""

Key = tuple[str, str, int]
"""An account: limit, holder, beginning of its window."""

_CELLS = (
    "seq, kind, request_id, at_ms, tenant, energy_uj, cost_uusd, tokens, requests, until_ms,"
    ' key, "limit", resource'
)


class Row(NamedTuple):
    """One event of the journal."""

    seq: int
    kind: str
    request_id: str
    at_ms: int
    tenant: str
    amounts: Sum
    until_ms: int


@dataclass(frozen=True, slots=True)
class Book:
    """What one gateway kept.

    Parameters
    ----------
    balances : held and spent by account, as the gateway's own code reads its file.
    faults : what that code finds wrong.
    kept, replayed : the state, and what the rows lead to on an empty ledger; as text.
    """

    name: str
    rows: Sequence[Row]
    balances: dict[Key, tuple[Sum, Sum]]
    faults: Sequence[str] = ()
    kept: str = ""
    replayed: str = ""


def dumped(path: Path, limits: Sequence[Limit], name: str = "gateway") -> Book:
    """The ledger at ``path``; its gateway may be running."""
    with closing(Journal.read(path)) as journal:
        contents = journal.contents()
    ledger = contents.ledger
    cells = _cells(path, 0, ledger.seq)
    balances = {
        (a.limit, a.holder, a.started_ms): (tuple(b.held), tuple(b.spent))
        for a, b in ledger.accounts.items()
    }
    rows = [_row(c) for c in cells]
    again = _text(ledger)
    anew = _anew(ledger, cells, limits) if rows and rows[0].seq == 1 else again
    return Book(name, rows, balances, contents.faults, again, anew)


def _anew(ledger: Ledger, cells: Sequence[Sequence[Any]], limits: Sequence[Limit]) -> str:
    """The state of an empty ledger after all rows."""
    empty = Ledger(limits)
    events = [
        (c[0], Event(c[1], c[2], c[3], Payer(c[4], c[10]), Amounts(*c[5:9]), c[9], c[11], c[12]))
        for c in cells
    ]
    faults = replay(empty, events)
    # the clock of the gateway goes on without events
    empty.clock_ms = ledger.clock_ms
    return _text(empty) + "".join(faults)


def _text(ledger: Ledger) -> str:
    kept = state(ledger)
    return json.dumps(kept | {"accounts": sorted(kept["accounts"])})


def rows_after(path: Path, seq: int) -> list[Row]:
    """The events at ``path`` that came after one; its gateway may be running."""
    return [_row(c) for c in _cells(path, seq, 2**62)]


def _cells(path: Path, after: int, until: int) -> list[Sequence[Any]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)) as db:
        found = db.execute(
            f"SELECT {_CELLS} FROM journal WHERE seq > ? AND seq <= ? ORDER BY seq", (after, until)
        )
        return found.fetchall()


def _row(cells: Sequence[Any]) -> Row:
    return Row(*cells[:5], tuple(cells[5:9]), cells[9])
