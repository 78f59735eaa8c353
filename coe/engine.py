"""One request from start to finish: decide, dispatch, fail over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from coe.ballot import Ballot
from coe.cache import AnswerCache
from coe.candidates import cap
from coe.core import Budget, Prices, Request
from coe.decision import Decision
from coe.dispatch import among_present
from coe.energy import EnergyAccount
from coe.ensemble import Ensemble
from coe.errors.callers import InfeasibleError, RequestError
from coe.errors.experts import UNANSWERED
from coe.escalation import Escalations
from coe.experts.protocol import Expert
from coe.failover import Failover
from coe.guard.guards import Guards
from coe.guard.retries import MOST_ATTEMPTS
from coe.hedged import Hedged, may_hedge
from coe.ledger.limits import Payer
from coe.ledger.protocol import Store
from coe.load import Load, Presence
from coe.logprobs import with_logprobs
from coe.mixing import Mixing
from coe.optimizer.pacing import Pacer
from coe.optimizer.steering import declined, observe, running_prices, steered
from coe.panel import Panel
from coe.reply import Reply
from coe.router import Router
from coe.routers.confidence import Confidence
from coe.routers.habit import Habit
from coe.switches import Switches
from coe.tab import Tab
from coe.usage import asks_for_usage

# what they do depends on how sure answers are
_GO_BY_SURENESS = frozenset({"cascade", "rank"})

_IDLE = Load()
_ALONE = Presence(1, 0)
_NOTHING_ADDED = Prices()

AnyReply = Reply | Hedged | Ensemble | Mixing
"""The answer of one expert or of several, on its way."""


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
    guards : of the experts; one that is failing is left out likewise. Their budget of retries
        bounds how often another expert takes over.
    accounts : of the machines whose joules are measured, by the experts that run there. The
        receipts of other experts go by their device profiles.
    copy_accounts : the same of an expert's copies, by their ids.
    confidence, n_options, habits : what several answers to one request are weighed by, as in
        `coe.ballot.Ballot`.
    escalations : how often cascades may go on; ``None``: always.
    switches : what an operator has switched; they hold from the next decision on.
    cache : is fed the answers of single experts; ``None``: no expert copies answers.
    store : grants what every answer may take, before its expert is asked; ``None``: there are no
        hard limits.
    """

    router: Router
    experts: Mapping[str, Expert]
    now: Callable[[], float] = time.monotonic
    warm: Callable[[Sequence[str]], Awaitable[None]] | None = None
    pacer: Pacer | None = None
    presence: Callable[[], Mapping[str, Presence]] = dict
    guards: Guards = field(default_factory=Guards)
    accounts: Mapping[str, EnergyAccount] = field(default_factory=dict)
    copy_accounts: Mapping[str, EnergyAccount] = field(default_factory=dict)
    confidence: Confidence | None = None
    n_options: float = 2.0
    habits: Mapping[str, Habit] = field(default_factory=dict)
    escalations: Escalations | None = None
    switches: Switches = field(default_factory=Switches)
    cache: AnswerCache | None = None
    store: Store | None = None
    _loads: dict[str, Load] = field(default_factory=dict)

    @property
    def config(self) -> str:
        """Short name of the configuration that it answers under; empty where nobody said."""
        return self.router.config

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
        decision, _ = among_present(
            self.router.dispatch, priced, left, *self._now(request), frozenset()
        )
        decision = _paced(decision, running)
        if (refusal := self._refusal(request, decision)) is not None:
            raise refusal
        return decision

    async def answer(
        self, request: Request, opened: Callable[[AnyReply], None] = lambda reply: None
    ) -> AnyReply:
        """The reply, its first piece in hand.

        An expert that fails before its first piece, or that the hard limits do not leave enough
        for, is replaced by the next best one, as long as one fits what is left of the budget.
        After the first piece nothing is retried. Of several experts those that give no answer are
        left out; if none does, or one of a mixture does not, the next best decision without them
        takes over.

        Parameters
        ----------
        opened : told of every reply before its experts are asked.

        Raises
        ------
        RequestError
            As `decide`; `BudgetExhaustedError` where a hard limit leaves enough for nobody.
        ExpertError
            Of the first expert tried, when no other could take over.
        LedgerUnavailableError
            Nobody can say what the hard limits leave.
        """
        started = self.now()
        left = await self.prepare(request)
        self._note(request, "prepare", started)
        decision, outgoing = await self._dispatch(request, left)
        if self.pacer is not None:
            # whether it is refused hangs on the prices of now; as demand it counts either way
            refusal = self._refusal(request, decision)
            observe(self.pacer, started, decision, request.policy.prices)
            if refusal is not None:
                raise refusal
        tab = self._tab(request, decision)
        tried = Failover(request, self.guards.retries)
        tried.retries.asked(started)
        while True:
            reply = self._reply(outgoing, decision, tried.failed, started, tab)
            opened(reply)
            try:
                await reply.begin()
                return reply
            except UNANSWERED as error:
                tried.note(error, reply.errors)
                if not tried.others_may_answer(error):
                    tried.last_word(error)
                    raise
            decision, outgoing = await self._instead(request, decision, tried, started)

    async def _instead(
        self, request: Request, before: Decision, tried: Failover, started: float
    ) -> tuple[Decision, Request]:
        """The next best decision without those that were tried, in what is left of the budget.

        Raises
        ------
        CoeError
            The first error, where there is none, or no attempt is left.
        """
        if tried.is_spent:
            raise tried.first
        left = request.ceilings.after((self.now() - started) * 1000.0)
        try:
            other, outgoing = await self._dispatch(request, left, frozenset(tried.lost))
        except RequestError as error:
            raise tried.first from error
        if other.declined or not tried.pays(self.now()):
            raise tried.first
        why = f"{tried.why}; {other.why}"
        again = replace(outgoing, budget=other.budget, n_attempts=tried.n_attempts)
        return replace(other, decision_id=before.decision_id, why=why), again

    def _note(self, request: Request, name: str, started: float) -> None:
        """A step that ends now, where the request's are noted."""
        if request.steps is not None:
            request.steps.note(name, started, self.now())

    async def _dispatch(
        self, request: Request, budget: Budget | None, excluded: frozenset[str] = frozenset()
    ) -> tuple[Decision, Request]:
        """As `Router.dispatch`; a search that takes long keeps no other request waiting."""
        started = self.now()
        retriever = self.router.retriever
        priced, running = self._priced(request)
        given = (self.router.dispatch, priced, budget, *self._now(request), excluded)
        if (
            retriever is not None
            and request.retrieve != "never"
            and retriever.takes_long(request.text)
        ):
            decision, outgoing = await asyncio.to_thread(among_present, *given)
        else:
            decision, outgoing = among_present(*given)
        self._note(request, "decide", started)
        return _paced(decision, running), outgoing

    def seen(self, request: Request) -> tuple[Request, dict[str, Load], dict[str, str]]:
        """A request under the switches and prices of now, how busy experts are, who is absent.

        Raises
        ------
        InfeasibleError
            It asks for an expert that is switched off.
        """
        return (self._priced(request)[0], *self._now(request))

    def _now(self, request: Request) -> tuple[dict[str, Load], dict[str, str]]:
        """How busy experts are, requests of other gateways included; who is absent, and why.

        Of those, only whom the request's tenant may know of.
        """
        loads, presence = dict(self._loads), self.presence()
        for expert_id, there in presence.items():
            loads[expert_id] = loads.get(expert_id, _IDLE).shared(there)
        absent = self.guards.absent(self.now())
        absent |= {name: "not running" for name, at in presence.items() if at.n_copies == 0}
        seen = self.router.of_tenant(request.tenant).specs if absent else {}
        return loads, {name: why for name, why in absent.items() if name in seen}

    def _priced(self, request: Request) -> tuple[Request, Prices]:
        """The request under the switches and prices of now, and what budgets add to the prices."""
        seen = self.router.of_tenant(request.tenant).specs
        request = self.switches.among(seen).applied(request)
        if self.pacer is None:
            return request, _NOTHING_ADDED
        running = running_prices(self.pacer, self.now())
        return replace(request, policy=steered(request.policy, running), read=True), running

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

    def _tab(self, request: Request, decision: Decision) -> Tab | None:
        """Where the answers to the request are charged; ``None``: nowhere."""
        if self.store is None:
            return None
        return Tab(self.store, Payer(request.tenant, request.key), decision.decision_id)

    def _reply(
        self,
        request: Request,
        decision: Decision,
        failed: tuple[str, ...],
        started: float,
        tab: Tab | None,
    ) -> AnyReply:
        """Of one expert or several, not begun."""
        chosen, specs = decision.selection, self.router.specs
        if chosen.mode.kind == "single":
            longest = decision.max_tokens
            one = self._open(decision.expert_id, request, longest, decision, started, tab, failed)
            asks = request.stream and one.spec.stream_usage
            one.hides_usage = asks and not asks_for_usage(request)
            return self._twice(one)
        if chosen.mode.kind == "mixture":
            return Mixing(self, self.experts, specs, request, decision, started, failed, tab)

        telling = self.habits.keys() if chosen.mode.kind in _GO_BY_SURENESS else ()

        def open_member(expert_id: str, asked: Request) -> Reply:
            if expert_id in telling and specs[expert_id].logprobs:
                asked = with_logprobs(asked)
            longest = cap(specs[expert_id], asked, None)
            return self._open(expert_id, asked, longest, decision, started, tab)

        alone = dict(zip(chosen.expert_ids, chosen.alone, strict=True))
        form = request.payload.get("response_format")
        form = form if isinstance(form, Mapping) else {}
        ballot = Ballot(alone, self.confidence, self.n_options, form, self.habits)
        return Ensemble(
            panel=Panel(open_member, ballot),
            now=self.now,
            specs=specs,
            request=request,
            decision=decision,
            started=started,
            failed_over=failed,
            escalations=self.escalations,
        )

    def _twice(self, one: Reply) -> Reply | Hedged:
        """The reply, or where its expert is hedged, one that may ask another copy as well."""
        hedging = self.guards.hedges.get(one.spec.id)
        if hedging is None or not may_hedge(one.request):
            return one

        def again(avoid: frozenset[str]) -> Reply:
            asked = replace(one.request, avoid=avoid, n_attempts=MOST_ATTEMPTS - 1)
            given = (asked, one.max_tokens, one.decision, one.started, one.tab, one.failed_over)
            other = self._open(one.spec.id, *given)
            other.hides_usage = one.hides_usage
            return other

        return Hedged(one, again, hedging, self.now)

    def _open(
        self,
        expert_id: str,
        request: Request,
        max_tokens: int | None,
        decision: Decision,
        started: float,
        tab: Tab | None,
        failed: tuple[str, ...] = (),
    ) -> Reply:
        return Reply(
            books=self,
            expert=self.experts[expert_id],
            spec=self.router.specs[expert_id],
            request=request,
            max_tokens=max_tokens,
            decision=decision,
            started=started,
            failed_over=failed,
            recording=None if self.cache is None else self.cache.recording(request, decision),
            tab=tab,
        )

    def account(self, expert_id: str, pieces: AsyncIterator[bytes]) -> EnergyAccount | None:
        """The account of the machine that an answer comes from."""
        replica_id = getattr(pieces, "replica_id", None)
        if replica_id is None:
            return self.accounts.get(expert_id)
        return self.copy_accounts.get(replica_id)

    def enter(self, expert_id: str) -> tuple[float, float]:
        """Count a request in; by how much others stretch it, and how long loading takes first."""
        load = self._loads.get(expert_id, _IDLE)
        shared = load.shared(self.presence().get(expert_id, _ALONE))
        stretch = self.router.specs[expert_id].stretch(shared)
        self._loads[expert_id] = load.entered()
        return stretch, shared.delay_ms

    def leave(self, expert_id: str, slowdown: float | None = None) -> None:
        """Count a request out, and learn from its measured over predicted time."""
        self._loads[expert_id] = self._loads[expert_id].left(slowdown)

    def forget(self, left: Collection[str]) -> None:
        """Know nothing any more of experts that are not ``left``, but while they answer."""
        for name in [n for n, load in self._loads.items() if not load.n_in_flight]:
            if name not in left:
                del self._loads[name]


def _paced(decision: Decision, running: Prices) -> Decision:
    """The decision with what budgets over time added to its prices."""
    return decision if running == decision.running else replace(decision, running=running)
