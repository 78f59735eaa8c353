"""What one expert does for an answer: counted in and out, metered, put on a receipt."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from coe.answer import Reading
from coe.core import ExpertSpec, Request
from coe.decision import Agreement, Decision, Outcome, Receipt
from coe.energy import Claim, EnergyAccount
from coe.errors.experts import ExpertUnaskedError
from coe.optimizer.pacing import Pacer
from coe.optimizer.steering import settle
from coe.tab import Hold, Tab

_T = TypeVar("_T")


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
class Booking:
    """One expert's part in one answer.

    Parameters
    ----------
    started : when the request came.
    failed_over : who was tried before.
    dispatched, first_at : when the expert was asked, and when its first piece was there.
    stretch, delay_ms : as `Books.enter` says.
    hold : of what it may take under hard limits, until it has ended; ``None``: there are none, or
        it can take nothing.
    receipt : ``None`` until it is settled.
    """

    books: Books
    spec: ExpertSpec
    request: Request
    decision: Decision
    started: float
    failed_over: tuple[str, ...] = ()
    dispatched: float = 0.0
    first_at: float | None = None
    stretch: float = 1.0
    delay_ms: float = 0.0
    claim: Claim | None = None
    hold: Hold | None = None
    receipt: Receipt | None = None
    _entered: bool = False

    async def reserve(self, tab: Tab | None, max_tokens: int | None) -> None:
        """Hold what the expert may take for an answer of that length, before it is asked.

        Raises
        ------
        BudgetExhaustedError, LedgerUnavailableError
            As `Tab.hold`.
        """
        if tab is not None:
            began = self.books.now()
            self.hold = await tab.hold(self.spec, self.request, max_tokens)
            self._note("reserve", began, self.books.now())

    def release(self) -> None:
        """Hold nothing any more: the expert will not be asked."""
        hold, self.hold = self.hold, None
        if hold is not None:
            hold.release()

    def enter(self, pieces: AsyncIterator[bytes]) -> None:
        """The expert is asked now, and ``pieces`` are to be its answer."""
        self.stretch, self.delay_ms = self.books.enter(self.spec.id)
        self._entered = True
        self.dispatched = self.books.now()
        self._claim_on(self.books.account(self.spec.id, pieces))

    def begin(self, pieces: AsyncIterator[bytes]) -> None:
        """The first of the pieces is there."""
        self.first_at = self.books.now()
        self._note("dispatch", self.dispatched, self.first_at)
        self._claim_on(self.books.account(self.spec.id, pieces))

    def note(self, n_tokens: int) -> None:
        """The answer has ``n_tokens`` by now."""
        if self.claim is not None:
            self.claim.note(n_tokens)

    def abandon(self, error: BaseException) -> None:
        """It has failed before its first piece: count it out, without a receipt."""
        try:
            self._note("dispatch", self.dispatched, self.books.now(), type(error).__name__)
        finally:
            self.end(error)

    def end(self, error: BaseException | None) -> None:
        """Count it out and hold nothing any more, as far as that has not been done.

        Parameters
        ----------
        error : that it ends with; ``None``: the expert was not asked.
        """
        with ExitStack() as ending:
            # last first, and each of them whatever becomes of the others
            ending.callback(self._end_hold, error)
            ending.callback(self._leave_account)
            self._leave()

    def settle(self, outcome: Outcome, reading: Reading, telling: bool = True) -> Receipt:
        """The receipt of an answer that ends now; to be called once.

        Parameters
        ----------
        reading : its tokens; where it does not say those of the prompt, they are estimated.
        telling : whether the time that a complete answer took says how fast the expert is.
        """
        ended = self.books.now()
        prompt_tokens, output_tokens = reading.prompt_tokens, reading.output_tokens
        if prompt_tokens is None:
            prompt_tokens = self.request.prompt_tokens
        telling = telling and outcome == "complete"
        slowdown = self._slowdown(ended, prompt_tokens, output_tokens) if telling else None
        self._leave(slowdown)
        energy_j, source, scope = self._energy(prompt_tokens, output_tokens)
        ready = self.request.standing.get(self.spec.id)
        first_at = ended if self.first_at is None else self.first_at
        self.receipt = Receipt(
            decision_id=self.decision.decision_id,
            expert_id=self.spec.id,
            outcome=outcome,
            ttft_ms=(first_at - self.started) * 1000.0,
            latency_ms=(ended - self.started) * 1000.0,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            tokens_source="stated" if reading.stated else "counted",
            energy_j=energy_j,
            energy_source=source,
            energy_scope=scope,
            cost_usd=self.spec.cost_usd(prompt_tokens, output_tokens),
            failed_over=self.failed_over,
            copied_from=None if ready is None else ready.origin,
            config=self.decision.config,
        )
        self._settle_hold(self.receipt)
        if self.books.pacer is not None:
            settle(self.books.pacer, self.started, self.receipt)
        self._note("stream", first_at, ended, "" if outcome == "complete" else outcome)
        self._note("settle", ended, self.books.now())
        return self.receipt

    def _leave(self, slowdown: float | None = None) -> None:
        entered, self._entered = self._entered, False
        if entered:
            self.books.leave(self.spec.id, slowdown)

    def _leave_account(self) -> float | None:
        """The joules that the answer drew, where they were metered."""
        claim, self.claim = self.claim, None
        return None if claim is None else claim.leave()

    def _settle_hold(self, receipt: Receipt) -> None:
        hold, self.hold = self.hold, None
        if hold is None:
            return
        try:
            hold.settle(receipt)
        except BaseException as error:
            hold.fail(error)
            raise

    def _end_hold(self, error: BaseException | None) -> None:
        if error is None or isinstance(error, ExpertUnaskedError):
            self.release()
        elif self.hold is not None:
            hold, self.hold = self.hold, None
            hold.fail(error)

    def _note(self, name: str, started: float, ended: float, error: str = "") -> None:
        """A step of the expert's, where the request's are noted."""
        if self.request.steps is not None:
            self.request.steps.note(name, started, ended, self.spec.id, error)

    def _claim_on(self, account: EnergyAccount | None) -> None:
        """Claim on a machine's account; on another one than before where another copy took over.

        What that copy drew until then is not known, so the answer is not metered, and only keeps
        others from getting its share.
        """
        claimed = None if self.claim is None else self.claim.account
        if account is claimed:
            return
        self._leave_account()
        if account is not None:
            begins = self.first_at is None
            prompt_tokens = self.request.prompt_tokens if begins else 0
            n_answers = self.request.n_answers
            self.claim = account.enter(self.spec.profile, prompt_tokens, n_answers)
            self.claim.metered = begins

    def _slowdown(self, ended: float, prompt_tokens: int, output_tokens: int) -> float | None:
        """Measured over predicted time; ``None`` where nothing was predicted."""
        profile = self.spec.profile
        predicted_ms = profile.ttft_ms(prompt_tokens) + profile.decode_ms(output_tokens)
        # one that waited for its expert to be loaded waited for others, too: that is not slowness
        if predicted_ms <= 0 or self.delay_ms:
            return None
        return (ended - self.dispatched) * 1000.0 / (predicted_ms * self.stretch)

    def _energy(
        self, prompt_tokens: int, output_tokens: int
    ) -> tuple[float, Literal["measured", "modelled"], str]:
        """Joules of the answer that ends now, where they come from, and what they cover."""
        if (claim := self.claim) is not None:
            claim.note(output_tokens)
            if (measured_j := self._leave_account()) is not None:
                return measured_j, "measured", claim.account.scope
        profile = self.spec.profile
        return profile.energy_j(prompt_tokens, output_tokens), "modelled", profile.scope


def summed(
    parts: Sequence[Receipt],
    *,
    decision_id: str,
    expert_id: str,
    outcome: Outcome,
    ttft_ms: float,
    latency_ms: float,
    failed_over: tuple[str, ...],
    agreement: Agreement | None = None,
) -> Receipt:
    """The receipt of an answer that several experts made; of tokens, joules and dollars the sums.

    It says that they were stated or measured only where every part says so.
    """
    return Receipt(
        decision_id=decision_id,
        expert_id=expert_id,
        outcome=outcome,
        ttft_ms=ttft_ms,
        latency_ms=latency_ms,
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        tokens_source=_weakest({part.tokens_source for part in parts}, "counted", "stated"),
        energy_j=math.fsum(part.energy_j for part in parts),
        energy_source=_weakest({p.energy_source for p in parts}, "modelled", "measured"),
        energy_scope=" + ".join(sorted({part.energy_scope for part in parts})),
        cost_usd=math.fsum(part.cost_usd for part in parts),
        failed_over=failed_over,
        parts=tuple(parts),
        agreement=agreement,
        config=parts[0].config if parts else "",
    )


def _weakest(found: set[_T], weak: _T, strong: _T) -> _T:
    """What can be said of a sum of figures of these sources."""
    return strong if found == {strong} else weak
