"""The ledger of a gateway, for one of its processes: what it holds is booked when it is gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from coe.errors.gateway import LedgerConflictError, LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.limits import Limit, Payer, limits_of
from coe.ledger.protocol import KeptStore

Office = Callable[[Sequence[Limit]], Awaitable[KeptStore | None]]
"""Gives the store of all processes under these limits; the first ones open it."""


class Desk:
    """Where one process reserves and settles.

    Parameters
    ----------
    office : of the process that keeps the ledger.
    """

    def __init__(self, office: Office) -> None:
        self._office = office
        self._store: KeptStore | None = None
        self._held: dict[str, Amounts] = {}
        self._under_way: set[str] = set()
        self._given_up: set[str] = set()
        self._closed = False

    async def under(self, limits: list[dict[str, Any]]) -> bool:
        """Have all go by these limits; whether there is a store now."""
        self._store = await self._office(limits_of(limits))
        return self._store is not None

    async def reserve(self, request_id: str, payer: list[str], hold: list[int]) -> None:
        """As `Store.reserve`."""
        if self._store is None:
            raise LedgerUnavailableError("the ledger is not open yet")
        amounts = Amounts(*hold)
        self._under_way.add(request_id)
        try:
            await self._store.reserve(request_id, Payer(*payer), amounts)
        except BaseException:
            self._given_up.discard(request_id)
            raise
        finally:
            self._under_way.discard(request_id)
        if self._closed or request_id in self._given_up:
            # nobody was told, so nobody was asked
            self._given_up.discard(request_id)
            self._store.release(request_id)
        else:
            self._held[request_id] = amounts

    def settle(self, request_id: str, actual: list[int], estimated: bool) -> None:
        """As `Store.settle`."""
        self._held.pop(request_id, None)
        if self._store is not None:
            with suppress(LedgerConflictError):
                self._store.settle(request_id, Amounts(*actual), estimated)

    def release(self, request_id: str) -> None:
        """As `Store.release`, also of what is still being reserved."""
        if request_id in self._under_way:
            self._given_up.add(request_id)
        elif self._held.pop(request_id, None) is not None and self._store is not None:
            with suppress(LedgerConflictError):
                self._store.release(request_id)

    def close(self) -> int:
        """The process is gone: book what it holds, whole; of how many requests that was.

        Whether their experts were asked nobody knows, and what is not known is not given back.
        """
        self._closed = True
        held, self._held = self._held, {}
        for request_id, amounts in held.items():
            self.settle(request_id, list(amounts), True)
        return len(held)
