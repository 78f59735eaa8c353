"""A thread that commits what happened, many events at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from coe.errors.gateway import LedgerError
from coe.ledger.book import Ledger
from coe.ledger.events import Balance
from coe.ledger.limits import Account
from coe.services.store.journal import Journal, Row
from coe.services.store.states import worded

_LARGEST = 1000
# after a failure, what must not be lost is tried again this often
_PATIENCE_S = 1.0
_GIVEN_UP = ("reserved", "refused")
# rows that are not needed any more go a few at a time, between those that are waited for
_DROPPED_AT_ONCE = 250
_BETWEEN_DROPS_S = 0.005


@dataclass(frozen=True, slots=True)
class _Kept:
    """A state that is to be kept, of when ``n_failures`` had been heard of."""

    seq: int
    text: Future[str]
    closed: Mapping[Account, Balance]
    n_failures: int


_Command = Row | _Kept | None

Heard = Callable[[Sequence[Row], LedgerError | None], None]
"""Told of rows that were committed, or (with an error) of rows that never will be."""


class Writer:
    """Commits rows in their order, on a thread of its own, which ends with `close`.

    Whatever came while the last commit ran goes into the next one. Where a commit fails,
    reservations are given up, because nobody was dispatched on them yet, and refusals, which may be
    very many; everything else is kept for the next try. States are put into words beside it, and
    rows do not wait for them. Where the thread itself fails, nothing is kept from then on.

    Parameters
    ----------
    heard : called on the writer's thread.

    Attributes
    ----------
    ended : why nothing is written any more; ``None``: it is.
    """

    def __init__(self, journal: Journal, heard: Heard) -> None:
        self._journal = journal
        self._heard = heard
        self._queue: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._wording = ThreadPoolExecutor(1, "ledger-state")
        self._latest: Future[str] | None = None
        self._rows: list[Row] = []
        self._closed: list[tuple[Account, Balance]] = []
        self._n_failures = 0
        self._drops = False
        self.ended: LedgerError | None = None
        self._refusing = threading.Lock()

    def start(self) -> None:
        """Begin to commit.

        Raises
        ------
        LedgerError
            No thread can be started.
        """
        try:
            # also that of states: when the first one is to be kept, none may be left to be started
            self._wording.submit(bool)
            self._thread.start()
        except RuntimeError as error:
            raise LedgerError(f"{self._journal.path}: {error}") from error

    def write(self, row: Row) -> None:
        """Commit a row soon."""
        self._queue.put(row)
        if self.ended is not None:
            self._refuse(self.ended)

    def keep(self, ledger: Ledger, closed: Mapping[Account, Balance], n_failures: int) -> None:
        """Keep the state that the rows so far led to; not if it counts one that failed.

        Parameters
        ----------
        ledger : a copy that nobody changes any more.
        closed : accounts that are no longer in it.
        n_failures : how many failures it takes into account.
        """

        def put(text: Future[str]) -> None:
            self._queue.put(_Kept(ledger.seq, text, closed, n_failures))

        self._latest = self._wording.submit(worded, ledger)
        self._latest.add_done_callback(put)

    @property
    def wording(self) -> bool:
        """Whether a state is still being put into words."""
        return self._latest is not None and not self._latest.done()

    def close(self) -> None:
        """Commit what is left, and end. Blocks for as long as that takes."""
        self._wording.shutdown()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            while self._drops:
                self._drop()
        except BaseException as error:
            # nobody is to wait for what will never be written
            self.ended = LedgerError(f"the ledger is not written any more: {error!r}")
            self._refuse(self.ended)
            raise

    def _turn(self) -> bool:
        """Do what there is to do; whether there may be more."""
        states, ends = [], False
        for command in self._next():
            if isinstance(command, tuple):
                self._rows.append(command)
            elif command is None:
                ends = True
            else:
                states.append(command)
        self._commit()
        for kept in states:
            self._keep(kept)
        if self._drops:
            self._drop()
        return not ends

    def _next(self) -> list[_Command]:
        """Commands that have come; perhaps none where there is something to do without them."""
        commands: list[_Command] = []
        patience_s = _PATIENCE_S if self._rows else None
        try:
            commands.append(
                self._queue.get(timeout=_BETWEEN_DROPS_S if self._drops else patience_s)
            )
            while len(commands) < _LARGEST:
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
            self._failed(error)
        else:
            done, self._rows = self._rows, []
            self._heard(done, None)

    def _keep(self, kept: _Kept) -> None:
        self._closed += kept.closed.items()
        if kept.n_failures != self._n_failures:
            return
        if (unforeseen := kept.text.exception()) is not None:
            self._failed(LedgerError(f"the state of the ledger has no words: {unforeseen!r}"))
            return
        try:
            self._journal.keep(kept.seq, kept.text.result(), self._closed)
        except LedgerError as error:
            self._failed(error)
        else:
            self._closed, self._drops = [], True

    def _drop(self) -> None:
        try:
            self._drops = self._journal.drop(_DROPPED_AT_ONCE)
        except LedgerError as error:
            self._drops = False
            self._failed(error)

    def _failed(self, error: LedgerError) -> None:
        """Give up reservations and refusals among the rows that are not written."""
        self._n_failures += 1
        lost = [row for row in self._rows if row[1].kind in _GIVEN_UP]
        self._rows = [row for row in self._rows if row[1].kind not in _GIVEN_UP]
        self._heard(lost, error)

    def _refuse(self, error: LedgerError) -> None:
        """Give up everything that has come; on any thread."""
        with self._refusing:
            with suppress(queue.Empty):
                while True:
                    command = self._queue.get_nowait()
                    if isinstance(command, tuple):
                        self._rows.append(command)
            self._failed(error)
            self._rows = []
