"""What one request of a client holds and takes under hard limits, answer by answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from coe.bound import bound
from coe.core import ExpertSpec, Request
from coe.decision import Receipt
from coe.errors.experts import (
    ExpertLostError,
    ExpertRejectedError,
    ExpertUnavailableError,
    ExpertUntrustedError,
)
from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.limits import Payer
from coe.ledger.protocol import Store


@dataclass(frozen=True, slots=True)
class Hold:
    """What is held for one answer of one expert; to be ended by exactly one of its verbs."""

    tab: Tab
    hold_id: str
    most: Amounts

    def settle(self, receipt: Receipt) -> None:
        """The answer took what its receipt says; one that stood ready took nothing."""
        tokens = receipt.prompt_tokens + receipt.output_tokens
        took = Amounts.of(receipt.energy_j, receipt.cost_usd, tokens)
        if self._counts_alone:
            took = NOTHING
        estimated = receipt.tokens_source == "counted"
        self._book(took._replace(requests=self.most.requests), estimated)

    def fail(self, error: BaseException) -> None:
        """No answer began.

        An expert that is not there, refuses, or is not connected to has taken nothing. What one did
        that stayed silent or broke off nobody knows, and what is not known is not given back.
        """
        if _took_nothing(error):
            self._book(Amounts(requests=self.most.requests), estimated=False)
        else:
            self._book(self.most, estimated=True)

    def release(self) -> None:
        """The expert will not be asked.

        If it was the first, the request counts all the same where more was held for it, and else
        not yet.
        """
        tab = self.tab
        tab.n_kept -= 1
        if self.most.requests and tab.n_kept:
            self._book(Amounts(requests=self.most.requests), estimated=False)
            return
        tab.counted = tab.counted and not self.most.requests
        tab.store.release(self.hold_id)

    @property
    def _counts_alone(self) -> bool:
        """Whether the answer takes nothing but that it is one to a request."""
        return self.most._replace(requests=0) == NOTHING

    def _book(self, took: Amounts, estimated: bool) -> None:
        if took == NOTHING:
            self.tab.store.release(self.hold_id)
        else:
            self.tab.store.settle(self.hold_id, took, estimated)


@dataclass(slots=True)
class Tab:
    """Every answer that is asked for on behalf of one request.

    The request itself counts once, with the first answer that a hold was granted for, whatever
    comes of that.

    Parameters
    ----------
    name : of the request; no other has it.
    counted : whether the request has.
    n_kept : holds that were granted, and not released.
    """

    store: Store
    payer: Payer
    name: str
    counted: bool = False
    n_kept: int = 0
    _n_holds: int = 0
    _first: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def hold(self, spec: ExpertSpec, request: Request, max_tokens: int | None) -> Hold | None:
        """What is now held for an answer; ``None``: it can take nothing.

        Until one is granted, the answers of several experts wait for each other.

        Parameters
        ----------
        request, max_tokens : as in `coe.bound.bound`.

        Raises
        ------
        BudgetExhaustedError, LedgerUnavailableError
            As `Store.reserve`.
        """
        most = bound(spec, request, max_tokens)
        async with self._first:
            if not self.counted:
                held = await self._reserve(most._replace(requests=1))
                self.counted = True
                return held
        return None if most == NOTHING else await self._reserve(most)

    async def _reserve(self, most: Amounts) -> Hold:
        self._n_holds += 1
        held = Hold(self, f"{self.name}/{self._n_holds}", most)
        await self.store.reserve(held.hold_id, self.payer, most)
        self.n_kept += 1
        return held


def _took_nothing(error: BaseException) -> bool:
    """Whether it is known that the expert has not worked."""
    if isinstance(error, ExpertUntrustedError):
        return error.code != "upstream_invalid"  # it points elsewhere, or the request was not sent
    unheard = isinstance(error, ExpertRejectedError | ExpertUnavailableError)
    return unheard and not isinstance(error, ExpertLostError)
