"""An answer that several experts write together, on its way: passed on, metered, settled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from coe.answer import AnswerMeter, Reading
from coe.booking import Booking, Books, summed
from coe.core import ExpertSpec, Request
from coe.decision import Decision, Outcome, Receipt
from coe.errors import CoeError
from coe.errors.experts import UNANSWERED, ExpertError
from coe.experts.mixed import MixedAnswer, MixedExpert
from coe.experts.protocol import Expert
from coe.tab import Tab


@dataclass(slots=True)
class Mixing:
    """The answer of a mixture, with the face of a `Reply`.

    It bears the name of its mode. Each member has a part of its receipt: it reads the prompt in its
    own template, and makes every token.

    Parameters
    ----------
    experts, specs : the members among them, by id.
    tab : where every member's part is charged, if there are hard limits.
    errors : by member, why `begin` or the pieces have failed; of the first only.
    receipt : ``None`` until the pieces have ended, were closed, or failed.
    """

    books: Books
    experts: Mapping[str, Expert]
    specs: Mapping[str, ExpertSpec]
    request: Request
    decision: Decision
    started: float
    failed_over: tuple[str, ...] = ()
    tab: Tab | None = None
    errors: Mapping[str, CoeError] = field(default_factory=dict)
    receipt: Receipt | None = None
    bookings: dict[str, Booking] = field(init=False)
    _answer: MixedAnswer | None = None
    _first: bytes = b""
    _meter: AnswerMeter = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._meter = AnswerMeter(self.request.stream)
        self.bookings = {
            name: Booking(self.books, self.specs[name], self.request, self.decision, self.started)
            for name in self.decision.selection.expert_ids
        }

    async def begin(self) -> None:
        """Ask every member, and wait for the first token.

        Cancelled meanwhile, every member is booked for its prompt.

        Raises
        ------
        RequestError
            A field of the request is wrong; nobody has been asked.
        ExpertError
            Of the first member that failed; all are counted out, on no receipt.
        BudgetExhaustedError, LedgerUnavailableError
            What a member may take is not granted; nobody has been asked.
        """
        try:
            mixed = MixedExpert.of(self.decision.selection, self.experts)
            answer = mixed.stream(self.request, self.decision.max_tokens)
            await self._reserve()
            await self._open(answer)
        except BaseException as error:
            if isinstance(error, ExpertError):
                self.errors = {error.expert_id: error}
            self._drop(error)
            raise

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The pieces of the body, as the tokens come. To be iterated once.

        Raises
        ------
        ExpertError
            A member failed in mid-answer.
        """
        assert self._answer is not None
        outcome: Outcome = "failed"
        try:
            self._feed(self._first)
            yield self._first
            async for piece in self._answer:
                self._feed(piece)
                yield piece
            outcome = "complete"
        except (GeneratorExit, asyncio.CancelledError):
            outcome = "cancelled"
            raise
        except ExpertError as error:
            self.errors = {error.expert_id: error}
            raise
        finally:
            await self._end(outcome)

    async def close(self) -> None:
        """Give up an answer whose pieces were never asked for; harmless otherwise."""
        if self.receipt is None and self._answer is not None:
            await self._end("cancelled")

    async def _end(self, outcome: Outcome) -> None:
        assert self._answer is not None
        try:
            self._settle(outcome)
        finally:
            await self._answer.aclose()

    async def _reserve(self) -> None:
        """Hold what every member may take, or nothing."""
        for name, booking in self.bookings.items():
            try:
                await booking.reserve(self.tab, self.decision.max_tokens)
            except BaseException as error:
                self._drop(None)
                if isinstance(error, UNANSWERED):
                    self.errors = {name: error}
                raise

    async def _open(self, answer: MixedAnswer) -> None:
        self._answer = answer
        try:
            for booking in self.bookings.values():
                booking.enter(answer)
            self._first = await anext(answer)
        except asyncio.CancelledError:
            self._settle("cancelled")
            raise
        except BaseException as error:
            self._answer = None
            with ExitStack() as ending:
                for booking in reversed(self.bookings.values()):
                    ending.callback(booking.abandon, error)
            raise
        for booking in self.bookings.values():
            booking.begin(answer)

    def _feed(self, piece: bytes) -> None:
        assert self._answer is not None
        self._meter.feed(piece)
        for name, spent in self._answer.spent.items():
            self.bookings[name].note(spent.output_tokens)

    def _settle(self, outcome: Outcome) -> None:
        # an iterator may be finalised after `close`: the first settlement counts
        if self.receipt is not None:
            return
        try:
            if outcome == "cancelled" and self._meter.reading().ended:
                outcome = "complete"  # who goes away after the end mark has had everything
            self._sum_up(outcome)
        except BaseException as error:
            self._drop(error)
            raise

    def _sum_up(self, outcome: Outcome) -> None:
        # a member waits for the others at every token: its time does not say how fast it is
        parts = [
            booking.receipt
            or booking.settle(self._own(name, outcome), self._reading(name), telling=False)
            for name, booking in self.bookings.items()
        ]
        self.receipt = summed(
            parts,
            decision_id=self.decision.decision_id,
            expert_id=self.decision.selection.mode.name,
            outcome=outcome,
            ttft_ms=parts[0].ttft_ms,
            latency_ms=parts[0].latency_ms,
            failed_over=self.failed_over,
        )

    def _drop(self, error: BaseException | None) -> None:
        """As `Booking.end`, of every member."""
        with ExitStack() as ending:
            # last first: with the first the request counts as long as others are held for
            for booking in self.bookings.values():
                ending.callback(booking.end, error)

    def _own(self, expert_id: str, outcome: Outcome) -> Outcome:
        """How a member's part ended: where another failed, it was stopped."""
        return "cancelled" if self.errors and expert_id not in self.errors else outcome

    def _reading(self, expert_id: str) -> Reading:
        """The tokens of a member; none yet where the first did not come."""
        assert self._answer is not None
        spent = self._answer.spent.get(expert_id)
        if spent is None:
            return Reading(None, 0, stated=False, ended=False)
        return Reading(spent.prompt_tokens, spent.output_tokens, stated=True, ended=True)
