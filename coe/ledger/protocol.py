"""What a gateway asks of a ledger, wherever it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from coe.ledger.amounts import Amounts
from coe.ledger.limits import Limit, Payer


class Store(Protocol):
    """Reserve before an expert is asked, then settle or release: once, and never neither."""

    async def reserve(self, request_id: str, payer: Payer, hold: Amounts) -> None:
        """Hold so much for a request; when this returns, the hold outlives this process.

        Raises
        ------
        BudgetExhaustedError
            A limit does not leave so much.
        LedgerUnavailableError
            Nobody can say now.
        LedgerConflictError
            The id was used for something else, or the request has ended.
        """

    def settle(self, request_id: str, actual: Amounts, estimated: bool = False) -> None:
        """The request took so much; ``estimated`` where nobody stated it.

        Raises
        ------
        LedgerConflictError
            It holds nothing, and ended otherwise.
        """

    def release(self, request_id: str) -> None:
        """The request took nothing.

        Raises
        ------
        LedgerConflictError
            As `settle`.
        """


class KeptStore(Store, Protocol):
    """A store whose limits can be others from one moment to the next."""

    def under(self, limits: Sequence[Limit]) -> None:
        """Go by these limits from now on; what requests hold and took remains booked.

        A limit that is new, or has another window or scope than before, starts at zero.
        """
