"""An answer that is asked for twice where its first piece is late: the first to begin wins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from coe.booking import summed
from coe.core import Request
from coe.decision import Decision, Receipt
from coe.errors import CoeError
from coe.errors.experts import UNANSWERED, ExpertError
from coe.guard.hedging import Hedging
from coe.guard.retries import MOST_ATTEMPTS
from coe.reply import Reply

_OF_SIDE_EFFECTS = ("tools", "functions")


def may_hedge(request: Request) -> bool:
    """Whether it does no harm to ask twice, and a first piece is a first token."""
    return request.stream and not any(request.payload.get(name) for name in _OF_SIDE_EFFECTS)


@dataclass(slots=True)
class Hedged:
    """A stream of one of an expert's copies, with the face of a `Reply`.

    Where its first piece is later than usual, another copy is asked for the same, on a hold of its
    own, unless two have been asked already. The one that begins later is cancelled and booked for
    its prompt, as a part of the receipt.

    Parameters
    ----------
    again : the second reply, not begun, of another copy than those named.
    now : monotonic seconds.
    """

    first: Reply
    again: Callable[[frozenset[str]], Reply]
    hedging: Hedging
    now: Callable[[], float]
    second: Reply | None = None
    _winner: Reply | None = field(default=None)

    @property
    def request(self) -> Request:
        """What is asked."""
        return self.first.request

    @property
    def decision(self) -> Decision:
        """Who is asked, and why."""
        return self.first.decision

    @property
    def failed_over(self) -> tuple[str, ...]:
        """Who was tried before."""
        return self.first.failed_over

    @property
    def errors(self) -> Mapping[str, CoeError]:
        """By expert, why `begin` has failed."""
        return self.first.errors

    @property
    def receipt(self) -> Receipt | None:
        """What both took, once the answer is settled."""
        both = [one for one in (self.first, self.second) if one is not None]
        if self._winner is not None and self._winner.receipt is None:
            return None
        both.sort(key=lambda one: one is not self._winner)
        parts = [one.receipt for one in both if one.receipt is not None]
        if len(parts) < 2:
            return parts[0] if parts else None
        won = parts[0]
        return summed(
            parts,
            decision_id=won.decision_id,
            expert_id=won.expert_id,
            outcome=won.outcome,
            ttft_ms=won.ttft_ms,
            latency_ms=won.latency_ms,
            failed_over=won.failed_over,
        )

    async def begin(self) -> None:
        """Ask, and wait for the first piece of either. Cancelled meanwhile, both are given up.

        Raises
        ------
        CoeError
            As `Reply.begin`, of the first, where neither began.
        """
        asked_s = self.now()
        self.hedging.asked(asked_s)
        delay_s = self.hedging.delay_s
        if delay_s is None:
            await self.first.begin()
            self._winner = self.first
        else:
            try:
                await self._begin_within(delay_s)
            except BaseException:
                # either may have begun in the moment that this was cancelled
                await self.close()
                raise
        self.hedging.began(self.now() - asked_s)

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """As `Reply.pieces`, of the one that began."""
        assert self._winner is not None
        return self._winner.pieces()

    async def close(self) -> None:
        """Give both up; harmless where they have ended."""
        await _close(self.first, self.second)

    async def _begin_within(self, delay_s: float) -> None:
        asking = {asyncio.create_task(self.first.begin()): self.first}
        try:
            await asyncio.wait(asking, timeout=delay_s)
            copy = self.first.replica_id
            late = not next(iter(asking)).done()
            # what was sent a second time already is not sent a third time
            spare = self.first.n_attempts < MOST_ATTEMPTS
            if copy is not None and late and spare and self.hedging.take(self.now()):
                self.first.be_last()
                self.second = self.again(frozenset({copy}))
                asking[asyncio.create_task(self.second.begin())] = self.second
            self._winner = await _first_of(asking)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        await _close(*(one for one in asking.values() if one is not self._winner))
        self.hedging.n_won += self._winner is self.second


async def _close(*replies: Reply | None) -> None:
    """Give these up, all of them even if this is cancelled."""
    async with AsyncExitStack() as closing:
        for one in replies:
            if one is not None:
                closing.push_async_callback(one.close)


async def _first_of(asking: Mapping[asyncio.Task[None], Reply]) -> Reply:
    """The reply that begins first, in the order of asking where both have.

    Raises
    ------
    CoeError
        Of the first, where none does.
    """
    pending = set(asking)
    while pending:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task, reply in asking.items():
            if not task.done():
                continue
            error = task.exception()
            if error is None:
                return reply
            if not isinstance(error, UNANSWERED):
                raise error
    failed = [error for task in asking if isinstance(error := task.exception(), UNANSWERED)]
    if isinstance(failed[0], ExpertError):
        failed[0].n_attempts = sum(e.n_attempts for e in failed if isinstance(e, ExpertError))
    raise failed[0]
