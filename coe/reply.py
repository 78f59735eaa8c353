"""One expert's answer on its way: passed on, metered, settled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field

from coe.answer import AnswerMeter, Reading
from coe.booking import Booking, Books
from coe.bound import stated_bound
from coe.cache import Recording
from coe.core import ExpertSpec, Request
from coe.decision import Decision, Outcome, Receipt
from coe.errors import CoeError
from coe.errors.experts import (
    UNANSWERED,
    ExpertLostError,
    ExpertTimeoutError,
    ExpertUnaskedError,
    ExpertUnavailableError,
)
from coe.experts.guarded import GuardedAnswer
from coe.experts.protocol import Expert, close, was_sent
from coe.experts.replicated import CopysAnswer
from coe.tab import Tab
from coe.usage import WithoutUsage, with_usage


@dataclass(slots=True)
class Reply:
    """An answer on its way.

    ``hides_usage`` where the expert is asked to state it though the caller did not ask;
    ``recording`` reads along where the answer may be copied; ``tab`` is where it is charged, if
    there are hard limits. ``receipt`` is ``None`` until the pieces have ended, were closed, or
    failed; ``errors`` says by expert why `begin` has failed.
    """

    books: Books
    expert: Expert
    spec: ExpertSpec
    request: Request
    max_tokens: int | None
    decision: Decision
    started: float
    failed_over: tuple[str, ...] = ()
    hides_usage: bool = False
    recording: Recording | None = None
    tab: Tab | None = None
    errors: Mapping[str, CoeError] = field(default_factory=dict)
    booking: Booking = field(init=False)
    _first: bytes = b""
    _rest: AsyncIterator[bytes] | None = None
    _meter: AnswerMeter = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.booking = Booking(
            self.books, self.spec, self.request, self.decision, self.started, self.failed_over
        )
        self._meter = AnswerMeter(
            self.request.stream,
            self.request.n_answers,
            *stated_bound(self.spec, self.request, self.max_tokens),
        )

    @property
    def receipt(self) -> Receipt | None:
        """What the answer took, once it is settled."""
        return self.booking.receipt

    @property
    def replica_id(self) -> str | None:
        """The copy that was asked; ``None``: the expert has none, or none is asked yet."""
        return self._rest.replica_id if isinstance(self._rest, CopysAnswer) else None

    @property
    def n_attempts(self) -> int:
        """How often the request has been sent so far, to this expert's copies and before."""
        copies = len(self._rest.asked) if isinstance(self._rest, CopysAnswer) else 1
        return self.request.n_attempts + copies

    def be_last(self) -> None:
        """No other copy takes over from the one that is asked."""
        if isinstance(self._rest, CopysAnswer):
            self._rest.is_last = True

    async def begin(self) -> None:
        """Ask the expert, and wait for the first piece of its answer.

        Cancelled meanwhile, the request is booked for its prompt, if it has been sent.

        Raises
        ------
        ExpertError
            None came; the request is counted out, and what it drew is its share, on no receipt.
        BudgetExhaustedError, LedgerUnavailableError
            What the answer may take is not granted; the expert was not asked.
        """
        try:
            pieces = self._rest = await self._asked()
            await self._listen(pieces)
        except UNANSWERED as error:
            self.errors = {self.spec.id: error}
            raise

    async def _asked(self) -> AsyncIterator[bytes]:
        """What the expert is to say; it begins when it is listened to."""
        try:
            await self.booking.reserve(self.tab, self.max_tokens)
            asked = with_usage(self.request) if self.hides_usage else self.request
            pieces = self.expert.stream(asked, self.max_tokens)
            self.booking.enter(pieces)
        except BaseException:
            self.booking.end(None)
            raise
        return pieces

    async def _listen(self, pieces: AsyncIterator[bytes]) -> None:
        try:
            self._first = await self._first_of(pieces)
        except StopAsyncIteration:
            nothing = ExpertLostError(self.spec.id, "answered with nothing")
            self._abandon(nothing)
            raise nothing from None
        except asyncio.CancelledError:
            if was_sent(pieces):
                self._settle("cancelled")
            else:
                self._abandon(ExpertUnaskedError(self.spec.id, "its caller left before its turn"))
            raise
        except BaseException as error:
            self._abandon(error)
            raise
        self.booking.begin(pieces)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The pieces of the body, byte for byte as the expert sent them. To be iterated once.

        Only a usage that nobody asked for is left out.

        Raises
        ------
        ExpertError
            The expert failed in mid-answer, or ended without a proper end.
        """
        assert self._rest is not None
        outcome: Outcome = "failed"
        reading: Reading | None = None
        passing = WithoutUsage() if self.hides_usage else None
        try:
            self._feed(self._first)
            yield self._first if passing is None else passing.feed(self._first)
            async for piece in self._rest:
                self._feed(piece)
                if passing is None:
                    yield piece
                elif passed := passing.feed(piece):
                    yield passed
            if passing is not None and (rest := passing.end()):
                yield rest
            reading = self._meter.reading()
            if not reading.ended:
                raise ExpertUnavailableError(self.spec.id, "the answer broke off")
            outcome = "complete"
        except (GeneratorExit, asyncio.CancelledError):
            outcome = "cancelled"
            raise
        finally:
            await self._end(outcome, reading)

    async def close(self) -> None:
        """Give up an answer whose pieces were never asked for; harmless otherwise."""
        if self.receipt is None and self._rest is not None:
            await self._end("cancelled")

    async def _end(self, outcome: Outcome, reading: Reading | None = None) -> None:
        assert self._rest is not None
        try:
            self._settle(outcome, reading)
        finally:
            await close(self._rest)

    async def _first_of(self, pieces: AsyncIterator[bytes]) -> bytes:
        """The first piece, if it comes within what is left of the ceilings on time."""
        left_s = self._left_s()
        if left_s is None:
            return await anext(pieces)
        if isinstance(pieces, GuardedAnswer):
            pieces.due_s = self.books.now() + left_s
        try:
            async with asyncio.timeout(left_s):
                return await anext(pieces)
        except TimeoutError as error:
            if not was_sent(pieces):
                raise ExpertUnaskedError(self.spec.id, "its turn did not come in time") from error
            raise ExpertTimeoutError(
                self.spec.id, "no token within what the request may take"
            ) from error

    def _left_s(self) -> float | None:
        """Seconds that a stream may take to begin; ``None``: as many as its expert may.

        Where the policy takes an expert though none fits, ceilings are wishes, and of a whole
        answer nobody knows when it begins.
        """
        if not self.request.stream or self.request.policy.on_infeasible == "nearest":
            return None
        ceilings = self.request.ceilings
        most_ms = [ms for ms in (ceilings.latency_ms, ceilings.ttft_ms) if ms is not None]
        elapsed_s = self.books.now() - self.started
        return max(min(most_ms) / 1000.0 - elapsed_s, 0.0) if most_ms else None

    def _abandon(self, error: BaseException) -> None:
        self._rest = None
        self.booking.abandon(error)

    def _feed(self, piece: bytes) -> None:
        self._meter.feed(piece)
        if self.recording is not None:
            self.recording.feed(piece)
        if self.booking.claim is not None:
            self.booking.note(self._meter.n_tokens)

    def _settle(self, outcome: Outcome, reading: Reading | None = None) -> None:
        # an iterator may be finalised after `close`: the first settlement counts
        if self.receipt is not None:
            return
        try:
            reading = reading or self._meter.reading()
            if outcome == "cancelled" and reading.ended:
                outcome = "complete"  # who goes away after the end mark has had everything
            receipt = self.booking.settle(outcome, reading)
        except BaseException as error:
            self.booking.end(error)
            raise
        if self.recording is not None and outcome == "complete":
            self.recording.keep(receipt)
