"""One answer from several experts: asked in stages, elected, delivered, settled."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial

from coe.ballot import Elected
from coe.booking import summed
from coe.candidates import cap
from coe.combine import fusing, quote_answers
from coe.core import ExpertSpec, Request
from coe.decision import Agreement, Decision, Escalation, Outcome, Receipt
from coe.errors import CoeError
from coe.errors.experts import UNANSWERED, ExpertError
from coe.escalation import Escalations
from coe.mode import Mode
from coe.panel import Member, Panel, streamed
from coe.usage import WithoutUsage, asks_for_usage


@dataclass(slots=True)
class Ensemble:
    """The answer of several experts on its way, with the face of a `Reply`.

    Nothing of an answer is delivered before it is elected. Then it is the elected answer's own
    events, byte for byte. What a fusion writes is passed on as it comes.

    Parameters
    ----------
    panel : of nobody yet.
    now : monotonic seconds.
    specs : of the experts, by id.
    request : as the experts are to get it, but for its streaming.
    escalations : what each tenant may still go on for; ``None``: no bounds.
    nonce : a new word that delimits the answers quoted in a fusion.
    """

    panel: Panel
    now: Callable[[], float]
    specs: Mapping[str, ExpertSpec]
    request: Request
    decision: Decision
    started: float
    failed_over: tuple[str, ...] = ()
    escalations: Escalations | None = None
    nonce: Callable[[], str] = field(default=lambda: secrets.token_hex(4))
    receipt: Receipt | None = None
    _begun: float = 0.0
    _n_stages: int = 0
    _escalation: Escalation = "none"
    _elected: Elected | None = None
    _winner: Member | None = None
    _first: bytes = b""
    _first_at: float | None = None
    _handed_on: bool = False
    _body: AsyncGenerator[bytes, None] | None = None

    @property
    def mode(self) -> Mode:
        """Who is asked, when."""
        return self.decision.selection.mode

    @property
    def errors(self) -> Mapping[str, CoeError]:
        """By expert, why it gave no answer."""
        return self.panel.errors

    async def begin(self) -> None:
        """Wait for the first piece: of an answer that is elected that is all of it.

        Raises
        ------
        ExpertError, BudgetExhaustedError, LedgerUnavailableError
            Of the first expert in the order of asking, where none has answered.
        """
        self._begun = self.now()
        self._body = self._run()
        self._first = await anext(self._body)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The pieces of the body. To be iterated once.

        Raises
        ------
        ExpertError
            The writer of a fusion failed.
        """
        assert self._body is not None
        async with aclosing(self._body) as body:
            self._handed_on = True
            yield self._first
            async for piece in body:
                yield piece

    async def close(self) -> None:
        """Give up an answer; harmless when it has ended."""
        if self._body is not None:
            await self._body.aclose()

    async def _run(self) -> AsyncGenerator[bytes, None]:
        outcome: Outcome = "failed"
        deciding = asyncio.create_task(self._decide())
        try:
            await asyncio.wait({deciding})
            self._winner = deciding.result()
            async with aclosing(self._said(self._winner)) as pieces:
                async for piece in pieces:
                    if self._first_at is None:
                        self._first_at = self.now()
                    yield piece
            outcome = "complete"
        except (GeneratorExit, asyncio.CancelledError):
            outcome = "cancelled"
            raise
        finally:
            deciding.cancel()
            async with AsyncExitStack() as ending:
                # last first, and each of them even if this is cancelled once more
                ending.callback(self._settle, outcome)
                ending.push_async_callback(self.panel.close)
                await asyncio.gather(deciding, return_exceptions=True)

    async def _decide(self) -> Member:
        """Ask one stage after the other; whose answer is delivered.

        That of the writer of a streamed fusion is still on its way.
        """
        mode, asked = self.mode, streamed(self.request)
        for stage in mode.stages:
            last = stage is mode.stages[-1]
            if self._n_stages and not self._goes_on(stage):
                break
            if mode.kind == "fuse" and last and self._elected is not None:
                if (writer := await self._write(stage[0], asked)) is not None:
                    return writer
                break
            self._n_stages += 1
            await self.panel.ask(stage, asked, partial(self._enough, last))
            if hand := self.panel.hand:
                self._elected = self.panel.ballot.elect(hand, surest=mode.kind == "rank")
        if self._elected is None:
            raise next(one.error for one in self.panel.members if one.error is not None)
        return self.panel.member(self._elected.answer)

    def _enough(self, last: bool, outstanding: Sequence[str]) -> bool:
        """Whether the ``outstanding`` experts of a stage can change nothing any more."""
        ballot, hand, mode = self.panel.ballot, self.panel.hand, self.mode
        if mode.kind not in ("vote", "cascade") or not ballot.settled(hand, outstanding):
            return False
        return last or ballot.stays_sure(hand, outstanding, mode.threshold)

    def _goes_on(self, stage: Sequence[str]) -> bool:
        """Whether a later stage is needed, has the time, and is one that the tenant has left.

        Nothing is needed any more where experts were cancelled. A cascade without an answer goes
        on at nobody's expense.
        """
        elected, mode = self._elected, self.mode
        if mode.kind == "cascade" and elected is not None:
            if self.panel.cancelled or elected.confidence >= mode.threshold:
                return False
        ceiling_ms = self.decision.budget.latency_ms
        elapsed_ms = (self.now() - self._begun) * 1000.0
        takes_ms = max(self.panel.ballot.alone[name].latency_ms for name in stage)
        if ceiling_ms is not None and elapsed_ms + takes_ms > ceiling_ms:
            self._escalation = "late"
            return False
        if mode.kind != "cascade" or elected is None:
            return True
        free = self.escalations is None or self.escalations.take(self.request.tenant)
        self._escalation = "asked" if free else "declined"
        return free

    async def _write(self, expert_id: str, asked: Request) -> Member | None:
        """Who writes from the answers in hand; ``None``: they leave no room, or it failed."""
        fused = self._fused(expert_id, asked)
        if fused is None:
            return None
        self._n_stages += 1
        if not self.request.stream:
            await self.panel.ask((expert_id,), fused, lambda outstanding: False)
            writer = self.panel.members[-1]
            return writer if writer.given is not None and writer.given.text.strip() else None
        writer = self.panel.add(expert_id, fused)
        try:
            await writer.reply.begin()
        except UNANSWERED as error:
            writer.error = error
            return None
        return writer

    def _fused(self, expert_id: str, asked: Request) -> Request | None:
        """The request with the answers in hand, best expert first, and room left to answer it."""
        spec, alone = self.specs[expert_id], self.panel.ballot.alone
        own = cap(spec, asked, None) or math.ceil(alone[expert_id].output_tokens)
        room = spec.context_tokens - asked.prompt_tokens - own
        hand = sorted(self.panel.hand, key=lambda a: (-alone[a.expert_id].quality, a.expert_id))
        quoted = quote_answers([answer.text for answer in hand], room, self.nonce())
        return None if quoted is None else fusing(asked, quoted)

    async def _said(self, winner: Member) -> AsyncGenerator[bytes, None]:
        """The answer as the caller wants it: whole, its events, or those that are still to come."""
        if not self.request.stream:
            yield winner.assembly.document()
            return
        passing = None if asks_for_usage(self.request) else WithoutUsage()
        if winner.given is not None:
            recorded = b"".join(winner.recorded)
            yield recorded if passing is None else passing.feed(recorded) + passing.end()
            return
        try:
            async with aclosing(winner.reply.pieces()) as pieces:
                async for piece in pieces:
                    if passed := piece if passing is None else passing.feed(piece):
                        yield passed
        except ExpertError as error:
            winner.error = error
            raise
        if passing is not None and (rest := passing.end()):
            yield rest

    def _settle(self, outcome: Outcome) -> None:
        """Sum up what everyone took."""
        ended, parts = self.now(), self.panel.receipts
        own = None if self._winner is None else self._winner.reply.receipt
        if outcome == "cancelled" and self._handed_on and own and own.outcome == "complete":
            outcome = "complete"  # who goes away after the end has had everything
        first_at = ended if self._first_at is None else self._first_at
        self.receipt = summed(
            parts,
            decision_id=self.decision.decision_id,
            expert_id=self.decision.expert_id if own is None else own.expert_id,
            outcome=outcome,
            ttft_ms=(first_at - self.started) * 1000.0,
            latency_ms=(ended - self.started) * 1000.0,
            failed_over=self.failed_over + self.panel.unbegun,
            agreement=self._agreement(),
        )

    def _agreement(self) -> Agreement | None:
        elected = self._elected
        if elected is None or self._winner is None:
            return None
        own = self._winner.expert_id
        return Agreement(
            share=elected.share,
            tie=elected.tie,
            agreeing=elected.agreeing,
            cancelled=tuple(name for name in self.panel.cancelled if name != own),
            confidence=elected.confidence,
            n_stages=self._n_stages,
            escalation=self._escalation,
        )
