"""A ledger and its journal, for one gateway: what happens here is kept there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from coe.errors.gateway import LedgerError, LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.book import REMEMBERED_MS, Ledger
from coe.ledger.events import Event
from coe.ledger.limits import Limit
from coe.services.enduring import Enduring
from coe.services.store.journal import Journal, Row
from coe.services.store.states import worded
from coe.services.store.trouble import Say, Trouble
from coe.services.store.writer import Writer

KEEP_EVERY_ROWS = 20_000
"""After so many rows the state is kept, and what lies before the state before is dropped."""

# callers need not know which file of whom is full
_UNWRITTEN = "the ledger of the hard limits cannot be written now: ask again later"

TICK_S = 1.0
"""How often `Books.tick` is to be called."""


def wall_ms() -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


class Books:
    """The ledger of one gateway on its event loop, journalled by a thread.

    Parameters
    ----------
    ledger : as the journal left it.
    journal : open; closed with these books.
    lease_ms : how long a hold outlives the last sign of life of the gateway that made it.
    now_ms : wall clock.
    say : told when the journal cannot be written any more, and when it can again.

    Attributes
    ----------
    give_up : called once where nothing can be written any more.
    """

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        lease_ms: int,
        now_ms: Callable[[], int] = wall_ms,
        say: Say = lambda line: None,
    ) -> None:
        self.ledger = ledger
        self.lease_ms = lease_ms
        self.now_ms = now_ms
        self.gateway = journal.gateway
        self.trouble: LedgerError | None = None
        self.give_up: Callable[[LedgerError], None] = lambda error: None
        self._has_ended = False
        meanwhile = "nothing is answered under hard limits"
        self._told = Trouble(say, meanwhile, "it can be written again")
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._writer = Writer(journal, self._written)
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._flushing: dict[int, asyncio.Future[None]] = {}
        self._own: set[str] = set()
        self._given_up: list[str] = []
        self._n_failures = self._n_unwritten = 0
        self._seq = self._durable = ledger.seq
        self._kept_seq, self._kept_ms = ledger.seq, now_ms()
        self._ticks = Enduring("ticks of the ledger")
        self._hearing = Enduring("hearing what the ledger has kept")

    @classmethod
    def open(
        cls,
        path: Path,
        limits: Sequence[Limit],
        lease_ms: int,
        fsync: bool = False,
        now_ms: Callable[[], int] = wall_ms,
        say: Say = lambda line: None,
    ) -> Books:
        """The books at ``path``, under ``limits`` from now on; to be called on the event loop.

        Requests of an earlier life still hold what they held, until their leases end. A limit
        that is new, or has another window or scope than before, starts at zero.

        Raises
        ------
        LedgerError
            As `Journal.open` and `Writer.start`, or what is there does not add up.
        """
        journal = Journal.open(path, fsync)
        try:
            contents = journal.contents()
            if contents.faults:
                raise LedgerError(
                    f"{path}: the ledger does not add up ({contents.faults[0]}): "
                    "`coe ledger check` says more; move the file away to begin anew"
                )
            ledger = contents.ledger
            if ledger.limits != tuple(limits):
                ledger.limits = tuple(limits)
                closed = ledger.retire(ledger.clock_ms)
                journal.keep(ledger.seq, worded(ledger), closed.items())
            books = cls(ledger, journal, lease_ms, now_ms, say)
            books._writer.start()
        except BaseException:
            journal.close()
            raise
        return books

    async def close(self) -> None:
        """Keep everything, and let go of the file.

        Raises
        ------
        LedgerError
            For a while nothing has been kept any more.
        """
        with self._ticks:
            self.keep()
        await asyncio.to_thread(self._writer.close)
        self._journal.close()
        if self._writer.ended is not None:
            raise self._writer.ended

    async def admit(self, event: Event) -> None:
        """Wait until a hold that the ledger has is in the journal. Cancelled, it is released.

        Raises
        ------
        LedgerUnavailableError
            It cannot be written; the ledger has forgotten it.
        """
        name = event.request_id
        kept = self._waiting[name] = self._loop.create_future()
        self.note(event)
        try:
            await asyncio.shield(kept)
        except asyncio.CancelledError:
            kept.add_done_callback(lambda done: self._give_up(name, done))
            raise

    def under(self, limits: Sequence[Limit]) -> None:
        """As `KeptStore.under`; the journal hears of it before any row that comes after."""
        self.note(self.ledger.limit(limits, self.now_ms()))

    def note(self, event: Event | None) -> None:
        """Have the ledger's last event written soon; ``None``: nothing happened."""
        if event is not None:
            self._write(self.ledger.seq, event)

    def _write(self, seq: int, event: Event) -> None:
        if event.kind not in ("reserved", "renewed"):
            self._own.discard(event.request_id)
        self._seq = seq
        self._n_unwritten += 1
        self._writer.write((seq, event))

    def settle(self, request_id: str, actual: Amounts, estimated: bool = False) -> None:
        """The request took ``actual``; the journal hears of it soon.

        Raises
        ------
        LedgerConflictError
            As `Ledger.settle`.
        """
        self.note(self.ledger.settle(request_id, actual, self.now_ms(), estimated))

    def release(self, request_id: str) -> None:
        """The request took nothing; the journal hears of it soon.

        Raises
        ------
        LedgerConflictError
            As `Ledger.release`.
        """
        self.note(self.ledger.release(request_id, self.now_ms()))

    def tick(self) -> Sequence[str]:
        """Requests that changed by themselves: their leases were renewed here, or have ended.

        Leases of this gateway are renewed, those of nobody end, and the state is kept when it is
        time. Requests that were cancelled while they reserved are named, too. What fails of it
        keeps nothing else from being done.
        """
        now_ms = max(self.now_ms(), self.ledger.clock_ms)
        changed, self._given_up = self._given_up, []
        for name in tuple(self._own):
            with self._ticks:
                if self.ledger.entries[name].until_ms - now_ms < self.lease_ms // 2:
                    self.note(self.ledger.renew(name, now_ms, self.lease_ms))
                    changed.append(name)
        with self._ticks:
            expired = self.ledger.expire(now_ms, but=self._waiting)
            for seq, event in enumerate(expired, self.ledger.seq - len(expired) + 1):
                self._write(seq, event)
                changed.append(event.request_id)
        with self._ticks:
            self._keep_when_due(now_ms)
        return changed

    def _keep_when_due(self, now_ms: int) -> None:
        due = self._seq - self._kept_seq >= KEEP_EVERY_ROWS
        due = due or (self._seq > self._kept_seq and now_ms - self._kept_ms >= REMEMBERED_MS)
        if due and not self._writer.wording:
            self.keep()

    def keep(self) -> None:
        """Keep the state as it is now, and move closed windows to the totals."""
        now_ms = max(self.now_ms(), self.ledger.clock_ms)
        self.ledger.clock_ms = now_ms
        closed = self.ledger.retire(now_ms)
        self._writer.keep(self.ledger.copied(), closed, self._n_failures)
        self._kept_seq, self._kept_ms = self._seq, now_ms

    async def flush(self) -> None:
        """Wait until all that happened so far is in the journal.

        Raises
        ------
        LedgerUnavailableError
            It cannot be written now; what must not be lost is tried again.
        """
        if self._writer.ended is not None:
            raise LedgerUnavailableError(_UNWRITTEN)
        if self._n_unwritten:
            flushed = self._flushing.setdefault(self._seq, self._loop.create_future())
            await asyncio.shield(flushed)

    def _written(self, rows: Sequence[Row], error: LedgerError | None) -> None:
        self._loop.call_soon_threadsafe(self._heard, rows, error)

    def _heard(self, rows: Sequence[Row], error: LedgerError | None) -> None:
        self.trouble = error
        self._n_unwritten -= len(rows)
        for row in rows:
            with self._hearing:
                self._hear(row, error)
        if error is not None:
            self._n_failures += 1
            self._told.note(error)
        elif rows:
            self._told.end()
        done = error is not None or not self._n_unwritten
        for seq in [seq for seq in self._flushing if done or seq <= self._durable]:
            _answer(self._flushing.pop(seq), error)
        if self._writer.ended is not None and not self._has_ended:
            self._has_ended = True
            self.give_up(self._writer.ended)

    def _hear(self, row: Row, error: LedgerError | None) -> None:
        seq, event = row
        waiting = self._waiting.pop(event.request_id, None)
        try:
            if error is None:
                self._durable = max(self._durable, seq)
                if waiting is not None:
                    # from this moment on: who waits may be called after a tick
                    self._own.add(event.request_id)
            elif event.kind == "reserved":
                self.ledger.void(event.request_id)
        finally:
            if waiting is not None:
                _answer(waiting, error)

    def _give_up(self, request_id: str, kept: asyncio.Future[None]) -> None:
        if kept.exception() is None and request_id in self.ledger.held:
            self.release(request_id)
            self._given_up.append(request_id)


def _answer(waiting: asyncio.Future[None], error: LedgerError | None) -> None:
    if error is None:
        waiting.set_result(None)
    else:
        refused = LedgerUnavailableError(_UNWRITTEN)
        refused.__cause__ = error
        waiting.set_exception(refused)
