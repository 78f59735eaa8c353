"""A thread that commits what happened, many events at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coe.errors import LedgerError
from coe.ledger.book import Ledger
from coe.ledger.events import Balance
from coe.ledger.limits import Account
from coe.ledger.replay import state
from coe.services.store.journal import Journal, Row

_LARGEST = 1000
# after a failure, what must not be lost is tried again this often
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """A ledger whose state is to be kept, of when ``n_failures`` had been heard of."""

    ledger: Ledger
    closed: Mapping[Account, Balance]
    n_failures: int


Heard = Callable[[Sequence[Row], LedgerError | None], None]
"""Told of rows that were committed, or (with an error) of rows that never will be."""


class Writer:
    """Commits rows in their order, on a thread of its own, which ends with `close`.

    Whatever came while the last commit ran goes into the next one. Where a commit fails,
    reservations are given up, because nobody was dispatched on them yet, and everything else is
    kept for the next try.

    Parameters
    ----------
    heard : called on the writer's thread.
    """

    def __init__(self, journal: Journal, heard: Heard) -> None:
        self._journal = journal
        self._heard = heard
        self._queue: queue.SimpleQueue[Row | _Kept | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._rows: list[Row] = []
        self._n_failures = 0

    def start(self) -> None:
        """Begin to commit."""
        self._thread.start()

    def write(self, row: Row) -> None:
        """Commit a row soon."""
        self._queue.put(row)

    def keep(self, ledger: Ledger, closed: Mapping[Account, Balance], n_failures: int) -> None:
        """Keep the state that the rows so far led to; not if it counts one that failed.

        Parameters
        ----------
        ledger : a copy that nobody changes any more.
        closed : accounts that are no longer in it.
        n_failures : how many failures it takes into account.
        """
        self._queue.put(_Kept(ledger, closed, n_failures))

    def close(self) -> None:
        """Commit what is left, and end. Blocks for as long as that takes."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            commands = self._next()
            kept = None
            for command in commands:
                if isinstance(command, tuple):
                    self._rows.append(command)
                elif command is not None:
                    kept = command
            self._commit()
            if kept is not None and kept.n_failures == self._n_failures:
                self._keep(kept)
            if commands and commands[-1] is None:
                return

    def _next(self) -> list[Row | _Kept | None]:
        """Commands up to the next one that is no row; none if there are old rows to try again."""
        commands: list[Row | _Kept | None] = []
        try:
            commands.append(self._queue.get(timeout=_PATIENCE_S if self._rows else None))
            while isinstance(commands[-1], tuple) and len(commands) < _LARGEST:
                commands.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return commands

    def _commit(self) -> None:
        if not self._rows:
            return
        try:
            self._journal.append(self._rows)
        except LedgerError as error:
            self._n_failures += 1
            lost = [row for row in self._rows if row[1].kind == "reserved"]
            self._rows = [row for row in self._rows if row[1].kind != "reserved"]
            self._heard(lost, error)
        else:
            done, self._rows = self._rows, []
            self._heard(done, None)

    def _keep(self, kept: _Kept) -> None:
        try:
            self._journal.keep(state(kept.ledger), kept.closed)
        except LedgerError as error:
            self._n_failures += 1
            self._heard([], error)
