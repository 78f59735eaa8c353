"""The journal of a ledger, in one SQLite file: the truth of a gateway.

Rows are only ever added. Now and then the state of the ledger is kept beside them, and what lies
before the state kept last but one is dropped, a little at a time: so much is left that the younger
state can be checked against the older one and the rows between. Balances of windows that are over
are kept as totals. A killed process loses nothing that was committed; whether a power cut does is
up to ``fsync``.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coe.errors.gateway import LedgerError
from coe.ledger.amounts import RESOURCES, Amounts
from coe.ledger.book import Ledger
from coe.ledger.events import Balance, Event
from coe.ledger.limits import Account, Payer, limits_of
from coe.ledger.replay import faults, replay, restored, state

SCHEMA = 1
KEPT_WINDOWS = 100
"""How many closed windows of every limit keep their totals."""

_SUMS = [f"{part}_{name}" for part in ("spent", "overrun") for name in RESOURCES]
_TABLES = f"""
CREATE TABLE journal(
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, request_id TEXT NOT NULL, at_ms INTEGER NOT NULL,
  tenant TEXT NOT NULL, key TEXT NOT NULL,
  {", ".join(f"{name} INTEGER NOT NULL" for name in RESOURCES)},
  until_ms INTEGER NOT NULL, "limit" TEXT NOT NULL, resource TEXT NOT NULL) STRICT;
CREATE TABLE states(seq INTEGER PRIMARY KEY, state TEXT NOT NULL) STRICT;
CREATE TABLE totals(
  "limit" TEXT NOT NULL, holder TEXT NOT NULL,
  started_ms INTEGER NOT NULL, window_ms INTEGER NOT NULL,
  {", ".join(f"{name} INTEGER NOT NULL" for name in _SUMS)},
  PRIMARY KEY("limit", holder, started_ms, window_ms)) STRICT;
CREATE TABLE identity(gateway TEXT NOT NULL) STRICT;
INSERT INTO identity VALUES (lower(hex(randomblob(8))));
PRAGMA user_version = {SCHEMA};
"""  # noqa: S608
# what these are made of are names of columns and question marks
_INSERT = f"INSERT INTO journal VALUES ({', '.join('?' * (9 + len(RESOURCES)))})"  # noqa: S608
_ADD_TOTALS = (
    f"INSERT INTO totals VALUES ({', '.join('?' * (4 + len(_SUMS)))}) "  # noqa: S608
    "ON CONFLICT DO UPDATE SET " + ", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMS)
)
# the 100 youngest windows of a limit, whoever held an account in them
_TRIM_TOTALS = """
DELETE FROM totals WHERE "limit" = ?1 AND started_ms NOT IN (
  SELECT DISTINCT started_ms FROM totals WHERE "limit" = ?1 ORDER BY started_ms DESC LIMIT ?2)"""
# all but the youngest of those before
_DROP_STATES = "DELETE FROM states WHERE seq < (SELECT max(seq) FROM states WHERE seq < ?)"
_ROWS = """
SELECT * FROM journal WHERE seq > coalesce((SELECT min(seq) FROM states), -1) ORDER BY seq"""
_DROP_ROWS = """
DELETE FROM journal WHERE seq IN (
  SELECT seq FROM journal WHERE seq <= (SELECT min(seq) FROM states) ORDER BY seq LIMIT ?)"""

Row = tuple[int, Event]
"""An event and its number in the journal."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal says: the ledger as it stands, totals of closed windows, what is wrong."""

    ledger: Ledger
    totals: Mapping[Account, Balance]
    faults: Sequence[str]
    n_rows: int


class Journal:
    """One open file. Used by one thread at a time."""

    def __init__(self, path: Path, db: sqlite3.Connection, lock: int | None) -> None:
        self.path = path
        self._db = db
        self._lock = lock

    @classmethod
    def open(cls, path: Path, fsync: bool = False) -> Journal:
        """The journal at ``path``, made if it is not there; this process alone may write to it.

        Parameters
        ----------
        fsync : every commit is on the disk when it returns, and survives a power cut.

        Raises
        ------
        LedgerError
            Another process has it, it cannot be made, or is no journal of this version.
        """
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
                db = _connect(path)
                db.execute("PRAGMA journal_mode = WAL")
                db.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                    db.executescript(f"BEGIN; {_TABLES} COMMIT;")
                _check_schema(path, db)
            except BlockingIOError:
                os.close(lock)
                raise LedgerError(
                    f"{path}: another gateway keeps its ledger there: give this one a `store.path` "
                    "of its own"
                ) from None
            except BaseException:
                os.close(lock)
                raise
        return cls(path, db, lock)

    @classmethod
    def read(cls, path: Path) -> Journal:
        """The journal at ``path``, to be read, also while a gateway writes to it.

        Raises
        ------
        LedgerError
            It is not there, or is no journal of this version.
        """
        if not path.exists():
            raise LedgerError(f"{path}: no ledger is there")
        with _explained(path):
            db = _connect(path)
            db.execute("PRAGMA query_only = ON")
            _check_schema(path, db)
        return cls(path, db, None)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)

    @property
    def gateway(self) -> str:
        """A name that no other journal has, made with it."""
        with _explained(self.path):
            (name,) = self._db.execute("SELECT gateway FROM identity").fetchone()
        return str(name)

    def append(self, rows: Iterable[Row]) -> None:
        """Commit rows, all or none.

        Raises
        ------
        LedgerError
            The disk is full, or the file cannot be written.
        """
        with _explained(self.path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_INSERT, map(_cells, rows))

    def keep(self, seq: int, text: str, closed: Iterable[tuple[Account, Balance]]) -> None:
        """Keep a state of which all rows are here; younger ones may be, too.

        What the older states make needless may be dropped from now on.

        Parameters
        ----------
        seq : the last row that led to it.
        text : of `worded`.
        closed : accounts that are no longer in it: their sums join the totals.

        Raises
        ------
        LedgerError
            As `append`.
        """
        db = self._db
        totals = [(*account, *balance.spent, *balance.overrun) for account, balance in closed]
        with _explained(self.path), db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(_DROP_STATES, (seq,))
            db.execute("INSERT OR REPLACE INTO states VALUES (?, ?)", (seq, text))
            db.executemany(_ADD_TOTALS, totals)
            db.executemany(_TRIM_TOTALS, [(name, KEPT_WINDOWS) for name in {t[0] for t in totals}])

    def drop(self, n_rows: int) -> bool:
        """Drop so many rows that lie before the oldest state; whether there may be more of them.

        Raises
        ------
        LedgerError
            As `append`.
        """
        with _explained(self.path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            return self._db.execute(_DROP_ROWS, (n_rows,)).rowcount == n_rows

    def contents(self) -> Contents:
        """The ledger that the rows lead to, and whether all adds up.

        A younger state that was kept must be what the older one and the rows between lead to.
        O(rows). Without any state, a ledger without limits.

        Raises
        ------
        LedgerError
            The file cannot be read, or a state in it.
        """
        with _explained(self.path), self._db:
            self._db.execute("BEGIN")
            texts = self._db.execute("SELECT state FROM states ORDER BY seq").fetchall()
            rows = [_row(cells) for cells in self._db.execute(_ROWS)]
            totals = {
                Account(*cells[:4]): Balance(
                    spent=Amounts(*cells[4 : 4 + len(RESOURCES)]),
                    overrun=Amounts(*cells[4 + len(RESOURCES) :]),
                )
                for cells in self._db.execute("SELECT * FROM totals ORDER BY started_ms")
            }
        try:
            return _replayed([json.loads(text) for (text,) in texts], rows, totals)
        except (LookupError, TypeError, ValueError) as error:
            raise LedgerError(f"{self.path}: a state that was kept is none: {error!r}") from error


def _replayed(kept: list[Any], rows: list[Row], totals: Mapping[Account, Balance]) -> Contents:
    if not kept:
        found = [f"row {seq}: before any state" for seq, _ in rows[:1]]
        return Contents(Ledger(()), totals, found, len(rows))
    ledger = restored(kept[0])
    found = []
    for after, until in zip(kept, [*kept[1:], None], strict=True):
        if after is not kept[0]:
            found += _differences(ledger, after)
            ledger.limits = limits_of(after["limits"])
        part = [
            row
            for row in rows
            if row[0] > after["seq"] and (until is None or row[0] <= until["seq"])
        ]
        found += replay(ledger, part)
    return Contents(ledger, totals, [*found, *faults(ledger)], len(rows))


def _differences(ledger: Ledger, kept: dict[str, Any]) -> list[str]:
    """How the ledger differs from a state that was kept at this row."""
    ledger.clock_ms, ledger.seq = kept["clock_ms"], kept["seq"]
    ledger.retire(kept["clock_ms"])
    theirs = restored(kept)
    equal = {
        "accounts": _used(ledger) == _used(theirs),
        "held": state(ledger)["held"] == state(theirs)["held"],
    }
    return [
        f"{part} kept at row {kept['seq']} are not what the rows before it lead to"
        for part, same in equal.items()
        if not same
    ]


def _used(ledger: Ledger) -> dict[Account, Balance]:
    """Accounts that say something: one whose only hold could not be written is as if unheard of."""
    return {account: sums for account, sums in ledger.accounts.items() if sums != Balance()}


def _cells(row: Row) -> tuple[Any, ...]:
    seq, event = row
    return (
        seq,
        event.kind,
        event.request_id,
        event.at_ms,
        *event.payer,
        *event.amounts,
        event.until_ms,
        event.limit,
        event.resource,
    )


def _row(cells: tuple[Any, ...]) -> Row:
    seq, kind, request_id, at_ms, tenant, key, *rest = cells
    amounts = Amounts(*rest[: len(RESOURCES)])
    return seq, Event(kind, request_id, at_ms, Payer(tenant, key), amounts, *rest[len(RESOURCES) :])


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA busy_timeout = 5000")
    return db


def _check_schema(path: Path, db: sqlite3.Connection) -> None:
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found != SCHEMA:
        raise LedgerError(f"{path}: schema {found} is not the ledger's, which is {SCHEMA}")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, BlockingIOError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise LedgerError(f"{path}: {reason}") from error
