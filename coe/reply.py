"""One expert's answer on its way: passed on, metered, settled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from coe.answer import AnswerMeter
from coe.cache import Recording
from coe.core import ExpertSpec, Request
from coe.decision import Decision, Outcome, Receipt
from coe.energy import Claim, EnergyAccount
from coe.errors import ExpertUnavailableError
from coe.experts.protocol import Expert, close
from coe.optimizer.pacing import Pacer
from coe.optimizer.steering import settle


class Books(Protocol):
    """What answers are booked in: an engine."""

    @property
    def pacer(self) -> Pacer | None:
        """Makes budgets over time last; ``None``: there are none."""
        ...

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def enter(self, expert_id: str) -> tuple[float, float]:
        """Count a request in; by how much others stretch it, and how long loading takes first."""
        ...

    def leave(self, expert_id: str, slowdown: float | None = None) -> None:
        """Count a request out, and learn from its measured over predicted time."""
        ...

    def account(self, expert_id: str, pieces: AsyncIterator[bytes]) -> EnergyAccount | None:
        """The account of the machine that an answer comes from."""
        ...


@dataclass(slots=True)
class Reply:
    """An answer on its way.

    ``recording`` reads along where the answer may be copied. ``receipt`` is ``None`` until the
    pieces have ended, were closed, or failed.
    """

    books: Books
    expert: Expert
    spec: ExpertSpec
    request: Request
    max_tokens: int | None
    decision: Decision
    started: float
    failed_over: tuple[str, ...] = ()
    dispatched: float = 0.0
    stretch: float = 1.0
    delay_ms: float = 0.0
    recording: Recording | None = None
    claim: Claim | None = None
    receipt: Receipt | None = None
    _first: bytes = b""
    _rest: AsyncIterator[bytes] | None = None
    _first_at: float | None = None
    _meter: AnswerMeter = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._meter = AnswerMeter(self.request.stream, self.request.n_answers)

    @property
    def failed(self) -> tuple[str, ...]:
        """Who has failed where `begin` has: the expert."""
        return (self.spec.id,)

    async def begin(self) -> None:
        """Ask the expert, and wait for the first piece of its answer.

        Cancelled meanwhile, the request is booked for its prompt.

        Raises
        ------
        ExpertError
            None came; the request is counted out, and what it drew is its share, on no receipt.
        """
        expert_id = self.spec.id
        pieces = self._rest = self.expert.stream(self.request, self.max_tokens)
        self.stretch, self.delay_ms = self.books.enter(expert_id)
        self.dispatched = self.books.now()
        self.claim_on(self.books.account(expert_id, pieces))
        try:
            self._first = await anext(pieces)
        except StopAsyncIteration:
            self._abandon()
            raise ExpertUnavailableError(expert_id, "answered with nothing") from None
        except asyncio.CancelledError:
            self._settle("cancelled")
            raise
        except BaseException:
            self._abandon()
            raise
        self._first_at = self.books.now()
        self.claim_on(self.books.account(expert_id, pieces))

    def claim_on(self, account: EnergyAccount | None) -> None:
        """Claim on a machine's account; on another one than before where another copy took over.

        What that copy drew until then is not known, so the answer is not metered, and only keeps
        others from getting its share.
        """
        claimed = None if self.claim is None else self.claim.account
        if account is claimed:
            return
        if self.claim is not None:
            self.claim.leave()
        self.claim = None
        if account is not None:
            begins = self._first_at is None
            prompt_tokens = self.request.prompt_tokens if begins else 0
            n_answers = self.request.n_answers
            self.claim = account.enter(self.spec.profile, prompt_tokens, n_answers)
            self.claim.metered = begins

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The pieces of the body, byte for byte as the expert sent them. To be iterated once.

        Raises
        ------
        ExpertError
            The expert failed in mid-answer, or ended without a proper end.
        """
        assert self._rest is not None
        outcome: Outcome = "failed"
        try:
            self._feed(self._first)
            yield self._first
            async for piece in self._rest:
                self._feed(piece)
                yield piece
            if not self._meter.reading().ended:
                raise ExpertUnavailableError(self.spec.id, "the answer broke off")
            outcome = "complete"
        except (GeneratorExit, asyncio.CancelledError):
            outcome = "cancelled"
            raise
        finally:
            self._settle(outcome)
            await close(self._rest)

    async def close(self) -> None:
        """Give up an answer whose pieces were never asked for; harmless otherwise."""
        if self.receipt is None and self._rest is not None:
            self._settle("cancelled")
            await close(self._rest)

    def _abandon(self) -> None:
        self._rest = None
        self.books.leave(self.spec.id)
        if self.claim is not None:
            self.claim.leave()

    def _feed(self, piece: bytes) -> None:
        self._meter.feed(piece)
        if self.recording is not None:
            self.recording.feed(piece)
        if self.claim is not None:
            self.claim.note(self._meter.n_tokens)

    def _settle(self, outcome: Outcome) -> None:
        # an iterator may be finalised after `close`: the first settlement counts
        if self.receipt is not None:
            return
        ended = self.books.now()
        reading = self._meter.reading()
        if outcome == "cancelled" and reading.ended:
            outcome = "complete"  # who goes away after the end mark has had everything
        prompt_tokens = reading.prompt_tokens
        if prompt_tokens is None:
            prompt_tokens = self.request.prompt_tokens
        profile = self.spec.profile
        measured_ms = (ended - self.dispatched) * 1000.0
        predicted_ms = profile.ttft_ms(prompt_tokens) + profile.decode_ms(reading.output_tokens)
        # one that waited for its expert to be loaded waited for others, too: that is not slowness
        telling = outcome == "complete" and predicted_ms > 0 and not self.delay_ms
        slowdown = measured_ms / (predicted_ms * self.stretch) if telling else None
        self.books.leave(self.spec.id, slowdown)
        energy_j, source, scope = self._energy(prompt_tokens, reading.output_tokens)
        ready = self.request.standing.get(self.spec.id)
        first_at = ended if self._first_at is None else self._first_at
        self.receipt = Receipt(
            decision_id=self.decision.decision_id,
            expert_id=self.spec.id,
            outcome=outcome,
            ttft_ms=(first_at - self.started) * 1000.0,
            latency_ms=(ended - self.started) * 1000.0,
            prompt_tokens=prompt_tokens,
            output_tokens=reading.output_tokens,
            tokens_source="stated" if reading.stated else "counted",
            energy_j=energy_j,
            energy_source=source,
            energy_scope=scope,
            cost_usd=self.spec.cost_usd(prompt_tokens, reading.output_tokens),
            failed_over=self.failed_over,
            copied_from=None if ready is None else ready.origin,
        )
        if self.recording is not None and outcome == "complete":
            self.recording.keep(self.receipt)
        if self.books.pacer is not None:
            settle(self.books.pacer, self.started, self.receipt)

    def _energy(
        self, prompt_tokens: int, output_tokens: int
    ) -> tuple[float, Literal["measured", "modelled"], str]:
        """Joules of the answer that ends now, where they come from, and what they cover."""
        if self.claim is not None:
            self.claim.note(output_tokens)
            if (measured_j := self.claim.leave()) is not None:
                return measured_j, "measured", self.claim.account.scope
        profile = self.spec.profile
        return profile.energy_j(prompt_tokens, output_tokens), "modelled", profile.scope
