"""One request from start to finish: decide, dispatch, fail over, meter, settle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from typing import Literal

from coe.answer import AnswerMeter
from coe.core import Budget, ExpertSpec, Prices, Request
from coe.decision import Decision, Outcome, Receipt
from coe.dispatch import among_present
from coe.energy import Claim, EnergyAccount
from coe.errors import (
    ExpertError,
    ExpertRejectedError,
    ExpertUnavailableError,
    InfeasibleError,
)
from coe.experts.protocol import Expert, close
from coe.load import Load, Presence
from coe.optimizer.pacing import Pacer
from coe.optimizer.steering import declined, observe, running_prices, settle, steered
from coe.router import Router

# what any other expert would say too
_SHARED_STATUSES = frozenset({400, 413, 415, 422})


@dataclass(slots=True)
class Engine:
    """Answers requests with the experts it was handed.

    Parameters
    ----------
    router : decides.
    experts : by id; every id is also one of the router's specs.
    now : monotonic seconds.
    warm : awaited with the texts of a request before it is decided, so that the router's
        embedder need not wait for the network. Must not raise for an endpoint that is down.
    pacer : makes budgets over time last, on the same clock; ``None``: there are none.
    presence : of the experts that come and go; one of which no copy can answer is left out
        while another can. An expert that it does not name is taken to be there.
    accounts : of the machines whose joules are measured, by the experts that run there. The
        receipts of other experts go by their device profiles.
    copy_accounts : the same of an expert's copies, by their ids.
    """

    router: Router
    experts: Mapping[str, Expert]
    now: Callable[[], float] = time.monotonic
    warm: Callable[[Sequence[str]], Awaitable[None]] | None = None
    pacer: Pacer | None = None
    presence: Callable[[], Mapping[str, Presence]] = dict
    accounts: Mapping[str, EnergyAccount] = field(default_factory=dict)
    copy_accounts: Mapping[str, EnergyAccount] = field(default_factory=dict)
    _loads: dict[str, Load] = field(default_factory=dict)

    async def prepare(self, request: Request) -> Budget | None:
        """Let the embedder fetch what `decide` needs; returns the ceilings that are left by then.

        ``None``: it took less than a millisecond, and all are.
        """
        if self.warm is None:
            return None
        started = self.now()
        await self.warm(self.router.texts(request))
        waited_ms = round((self.now() - started) * 1000.0)
        return request.ceilings.after(float(waited_ms)) if waited_ms else None

    def decide(self, request: Request, left: Budget | None = None) -> Decision:
        """The decision for ``request`` under the present load, without answering.

        Parameters
        ----------
        left : what `prepare` left of the ceilings.

        Raises
        ------
        RequestError
            As `Router.decide`; `InfeasibleError` also where a budget over time declines.
        """
        priced, running = self._priced(request)
        decision, _ = among_present(self.router.dispatch, priced, left, *self._now(), frozenset())
        decision = replace(decision, running=running)
        if (refusal := self._refusal(request, decision)) is not None:
            raise refusal
        return decision

    async def answer(self, request: Request) -> Reply:
        """The reply, its first piece in hand.

        An expert that fails before its first piece is replaced by the next best one, as long
        as one fits what is left of the budget. After the first piece nothing is retried.

        Raises
        ------
        RequestError
            As `decide`.
        ExpertError
            Of the first expert tried, when no other could take over.
        """
        started = self.now()
        decision, outgoing = await self._dispatch(request, await self.prepare(request))
        if self.pacer is not None:
            # whether it is refused hangs on the prices of now; as demand it counts either way
            refusal = self._refusal(request, decision)
            observe(self.pacer, started, decision, request.policy.prices)
            if refusal is not None:
                raise refusal
        first_error: ExpertError | None = None
        failed: list[str] = []
        while True:
            try:
                return await self._begin(outgoing, decision, tuple(failed), started)
            except ExpertError as error:
                first_error = first_error or error
                if not _others_may_answer(error, request):
                    raise
                failed.append(decision.expert_id)
                elapsed_ms = (self.now() - started) * 1000.0
            try:
                other, outgoing = await self._dispatch(
                    request, request.ceilings.after(elapsed_ms), frozenset(failed)
                )
            except InfeasibleError as error:
                raise first_error from error
            decision = replace(
                other,
                decision_id=decision.decision_id,
                why=f"{', '.join(failed)} did not answer; {other.why}",
            )

    async def _dispatch(
        self, request: Request, budget: Budget | None, excluded: frozenset[str] = frozenset()
    ) -> tuple[Decision, Request]:
        """As `Router.dispatch`; a search that takes long keeps no other request waiting."""
        retriever = self.router.retriever
        priced, running = self._priced(request)
        given = (self.router.dispatch, priced, budget, *self._now(), excluded)
        if (
            retriever is not None
            and request.retrieve != "never"
            and retriever.takes_long(request.text)
        ):
            decision, outgoing = await asyncio.to_thread(among_present, *given)
        else:
            decision, outgoing = among_present(*given)
        return replace(decision, running=running), outgoing

    def _now(self) -> tuple[dict[str, Load], frozenset[str]]:
        """How busy every expert is, requests of other gateways included, and who is absent."""
        loads, presence = dict(self._loads), self.presence()
        for expert_id, there in presence.items():
            loads[expert_id] = loads.get(expert_id, Load()).shared(there)
        return loads, frozenset(name for name, there in presence.items() if there.n_copies == 0)

    def _priced(self, request: Request) -> tuple[Request, Prices]:
        """The request at the prices of now, and what budgets over time add to them."""
        if self.pacer is None:
            return request, Prices()
        running = running_prices(self.pacer, self.now())
        return replace(request, policy=steered(request.policy, running)), running

    def _refusal(self, request: Request, decision: Decision) -> InfeasibleError | None:
        """Why a budget over time declines the request, if one does."""
        if self.pacer is None:
            return None
        allowance = declined(self.pacer, decision, request.policy.prices)
        if allowance is None:
            return None
        return InfeasibleError(
            f"what is left of period {allowance.name!r} ({allowance.resource}) is kept for "
            "requests that gain more from it: ask again later",
            f"periods.{allowance.name}.{allowance.resource}",
            "period_declined",
        )

    async def _begin(
        self, request: Request, decision: Decision, failed: tuple[str, ...], started: float
    ) -> Reply:
        expert_id = decision.expert_id
        pieces = self.experts[expert_id].stream(request, decision.max_tokens)
        stretch, delay_ms = self._enter(expert_id)
        reply = Reply(
            engine=self,
            request=request,
            decision=decision,
            spec=self.router.specs[expert_id],
            failed_over=failed,
            started=started,
            dispatched=self.now(),
            stretch=stretch,
            delay_ms=delay_ms,
        )
        reply.claim_on(self._account(expert_id, pieces))
        try:
            reply.hold(await anext(pieces), pieces)
            reply.claim_on(self._account(expert_id, pieces))
        except StopAsyncIteration:
            reply.abandon()
            raise ExpertUnavailableError(expert_id, "answered with nothing") from None
        except BaseException:
            reply.abandon()
            raise
        return reply

    def _account(self, expert_id: str, pieces: AsyncIterator[bytes]) -> EnergyAccount | None:
        """The account of the machine that an answer comes from."""
        replica_id = getattr(pieces, "replica_id", None)
        if replica_id is None:
            return self.accounts.get(expert_id)
        return self.copy_accounts.get(replica_id)

    def _enter(self, expert_id: str) -> tuple[float, float]:
        """Count a request in; by how much others stretch it, and how long loading takes first."""
        load = self._loads.get(expert_id, Load())
        self._loads[expert_id] = load.entered()
        shared = load.shared(self.presence().get(expert_id, Presence(1, 0)))
        return self.router.specs[expert_id].stretch(shared), shared.delay_ms

    def leave(self, expert_id: str, slowdown: float | None = None) -> None:
        """Count a request out, and learn from its measured over predicted time."""
        self._loads[expert_id] = self._loads[expert_id].left(slowdown)


@dataclass(slots=True)
class Reply:
    """An answer on its way.

    ``receipt`` is ``None`` until the pieces have ended, were closed, or failed.
    """

    engine: Engine
    request: Request
    decision: Decision
    spec: ExpertSpec
    failed_over: tuple[str, ...]
    started: float
    dispatched: float
    stretch: float
    delay_ms: float
    claim: Claim | None = None
    receipt: Receipt | None = None
    _first: bytes = b""
    _rest: AsyncIterator[bytes] | None = None
    _first_at: float = 0.0
    _meter: AnswerMeter = field(init=False, repr=False)

    def hold(self, first: bytes, rest: AsyncIterator[bytes]) -> None:
        """Keep the first piece, which has just come, and the iterator of the others."""
        self._first, self._rest, self._first_at = first, rest, self.engine.now()
        self._meter = AnswerMeter(self.request.stream, self.request.n_answers)

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
            begins = self._rest is None
            prompt_tokens = self.request.prompt_tokens if begins else 0
            n_answers = self.request.n_answers
            self.claim = account.enter(self.spec.profile, prompt_tokens, n_answers)
            self.claim.metered = begins

    def abandon(self) -> None:
        """Count the request out, which got no answer; what it drew is its share, on no receipt."""
        self.engine.leave(self.spec.id)
        if self.claim is not None:
            self.claim.leave()

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

    def _feed(self, piece: bytes) -> None:
        self._meter.feed(piece)
        if self.claim is not None:
            self.claim.note(self._meter.n_tokens)

    def _settle(self, outcome: Outcome) -> None:
        # an iterator may be finalised after `close`: the first settlement counts
        if self.receipt is not None:
            return
        ended = self.engine.now()
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
        self.engine.leave(self.spec.id, slowdown)
        energy_j, source, scope = self._energy(prompt_tokens, reading.output_tokens)
        self.receipt = Receipt(
            decision_id=self.decision.decision_id,
            expert_id=self.spec.id,
            outcome=outcome,
            ttft_ms=(self._first_at - self.started) * 1000.0,
            latency_ms=(ended - self.started) * 1000.0,
            prompt_tokens=prompt_tokens,
            output_tokens=reading.output_tokens,
            tokens_source="stated" if reading.stated else "counted",
            energy_j=energy_j,
            energy_source=source,
            energy_scope=scope,
            cost_usd=self.spec.cost_usd(prompt_tokens, reading.output_tokens),
            failed_over=self.failed_over,
        )
        if self.engine.pacer is not None:
            settle(self.engine.pacer, self.started, self.receipt)

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


def _others_may_answer(error: ExpertError, request: Request) -> bool:
    """Whether another expert could do better than this error."""
    if request.pinned:
        return False
    if isinstance(error, ExpertRejectedError):
        return error.status not in _SHARED_STATUSES
    return True
