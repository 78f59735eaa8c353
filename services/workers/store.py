"""The ledger as a worker sees it: kept by the process that started it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from coe.errors.gateway import GatewayError, LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.limits import Limit, Payer, stated
from coe.ledger.protocol import KeptStore
from coe.services.workers.line import Line


@dataclass(slots=True)
class ToldStore:
    """A `KeptStore` at the other end of a line."""

    line: Line

    async def reserve(self, request_id: str, payer: Payer, hold: Amounts) -> None:
        """As `Store.reserve`; costs one question on the line."""
        try:
            await self.line.ask("reserve", request_id, list(payer), list(hold.checked()))
        except asyncio.CancelledError:
            self.line.tell("release", request_id)
            raise
        except GatewayError as error:
            # it may have been granted before that
            self.line.tell("release", request_id)
            raise LedgerUnavailableError(f"the ledger cannot be asked: {error}") from error

    def settle(self, request_id: str, actual: Amounts, estimated: bool = False) -> None:
        """As `Store.settle`; the ledger hears of it soon."""
        self.line.tell("settle", request_id, list(actual.checked()), estimated)

    def release(self, request_id: str) -> None:
        """As `Store.release`, and as soon."""
        self.line.tell("release", request_id)

    def under(self, limits: Sequence[Limit]) -> None:
        """As `KeptStore.under`; all workers say the same."""
        self.line.tell("under", stated(limits))


@asynccontextmanager
async def told_store(line: Line, limits: Sequence[Limit]) -> AsyncIterator[KeptStore | None]:
    """The store of all workers; ``None`` as long as there are no limits."""
    there = bool(limits) and await line.ask("under", stated(limits))
    yield ToldStore(line) if there else None
