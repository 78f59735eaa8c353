"""The ledger of one gateway alone: it decides, and its journal remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coe.errors.gateway import LedgerConflictError
from coe.ledger.amounts import Amounts
from coe.ledger.limits import Limit, Payer
from coe.services.store.books import Books
from coe.services.store.refusal import exhausted


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A `Store` whose limits hold for this gateway alone."""

    books: Books

    async def reserve(self, request_id: str, payer: Payer, hold: Amounts) -> None:
        """As `Store.reserve`; costs one commit, shared with whoever reserves at the same time."""
        books = self.books
        ledger = books.ledger
        event = ledger.reserve(request_id, payer, hold, books.now_ms(), books.lease_ms)
        if event is not None and event.kind == "reserved":
            await books.admit(event)
            return
        books.note(event)
        entry = ledger.entries[request_id]
        if entry.status == "refused":
            raise exhausted(entry, {limit.name: limit for limit in ledger.limits}, books.now_ms())
        if entry.status != "held":
            raise LedgerConflictError(request_id, f"was {entry.status} before")
        await books.flush()

    def settle(self, request_id: str, actual: Amounts, estimated: bool = False) -> None:
        """As `Store.settle`; costs no wait."""
        self.books.settle(request_id, actual, estimated)

    def release(self, request_id: str) -> None:
        """As `Store.release`; costs no wait."""
        self.books.release(request_id)

    def under(self, limits: Sequence[Limit]) -> None:
        """As `KeptStore.under`."""
        self.books.under(limits)
