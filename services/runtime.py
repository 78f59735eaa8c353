"""What serves requests: a fleet, a router over it, and the budget policies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial

from coe.budgets import load_budgets
from coe.cache import AnswerCache
from coe.config import Config, EscalationsSection
from coe.core import Policy
from coe.energy import EnergyAccount
from coe.engine import Engine
from coe.escalation import Escalations
from coe.guard.guards import Guards
from coe.ledger.protocol import KeptStore
from coe.optimizer.pacing import Allowance, Pacer
from coe.personal import NOBODY, Personal, personal
from coe.router import Router
from coe.routers.embed import Embedder
from coe.services.draft import Draft, drafted
from coe.services.embedding import HttpEmbedder, check_local, configured
from coe.services.enduring import alongside
from coe.services.fleet import Fleet, running
from coe.services.guarding import guarded_experts
from coe.services.means import ALONE, Means, Siblings
from coe.services.metering.machine import metered
from coe.services.observing.lag import watch_lag
from coe.services.prefetch import PrefetchedEmbedder, prefetching
from coe.services.reloading import Reloading
from coe.services.runnable import Say
from coe.services.shadowing import Shadow
from coe.tenants import visible


@dataclass(slots=True)
class Runtime:
    """A configuration brought to life; another one may take its place between two requests.

    ``machines`` are those whose joules are measured, ``tenants`` those with an expert of their own.
    ``embedder`` gives vectors to whoever asks; ``None``: the router's does. ``ground`` is what
    another configuration is built on, and ``reloads`` who does that; ``None``: nobody. ``shadow``
    decides beside the engine, for comparison; ``siblings`` are the other processes of a gateway.

    What requests ask for again and again is worked out once: by tenant the expert that it keeps to
    itself (``own``), and fields beyond OpenAI's interface that some expert takes (``extras``).
    """

    config: Config
    policies: Mapping[str, Policy]
    engine: Engine
    fleet: Fleet
    machines: Mapping[str, EnergyAccount] = field(default_factory=dict)
    tenants: Mapping[str, Personal] = field(default_factory=dict)
    embedder: Embedder | None = None
    ground: Ground | None = None
    shadow: Shadow | None = None
    reloads: Reloading | None = None
    siblings: Siblings | None = None
    own: Mapping[str, str] = field(init=False)
    extras: frozenset[str] = field(init=False)
    _known: Mapping[str, frozenset[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.own = {name: tenant.expert_id for name, tenant in self.tenants.items()}
        self.extras = frozenset().union(*(spec.extras for spec in self.fleet.specs.values()))
        self._known = {
            name: frozenset(visible(self.fleet.experts, self.own, name))
            for name in (NOBODY, *self.tenants)
        }

    def known_to(self, tenant: str) -> frozenset[str]:
        """The experts that a tenant may know of; `NOBODY`'s are everybody's."""
        return self._known.get(tenant, self._known[NOBODY])

    def become(self, other: Runtime) -> None:
        """Serve what another one does, from the next request on."""
        for one in fields(self):
            if one.name not in ("reloads", "siblings"):
                setattr(self, one.name, getattr(other, one.name))


@dataclass(slots=True)
class Ground:
    """What stays under a gateway whatever its configuration becomes.

    Parameters
    ----------
    stack : ends with the gateway.
    embedder : the configured one; ``None``: the artefact's.
    store : of hard limits; ``None`` as long as there were none.
    prefetched : what fetches vectors from an endpoint before a decision.
    account : of this machine's meter.
    shadow : of this configuration, or of the last one that had any.
    """

    stack: AsyncExitStack
    embedder: Embedder | None
    say: Say
    store: KeptStore | None = None
    prefetched: PrefetchedEmbedder | None = None
    account: EnergyAccount | None = None
    shadow: Shadow | None = None
    means: Means = ALONE

    def runtime(self, draft: Draft, fleet: Fleet, before: Engine) -> Runtime:
        """What serves a draft, with all that an engine before it has learned and counts.

        Prices, loads and switches are the engine's own, those of budgets and experts that stay.
        """
        router, modes, section = draft.router, draft.router.artefact.modes, draft.config.routing
        if self.prefetched is not None:
            router = embedded_by(self.prefetched, router)
        router = replace(router, config=draft.tag)
        before.forget(fleet.specs)
        engine = replace(
            before,
            router=personal(router, draft.tenants),
            experts=guarded_experts(fleet, draft.config.resilience, before),
            warm=None if self.prefetched is None else self.prefetched.warm,
            pacer=self._paced(before, draft.budgets.as_allowances()),
            presence=fleet.presence,
            accounts={} if self.account is None else dict.fromkeys(fleet.hosts, self.account),
            copy_accounts=fleet.accounts.copies,
            confidence=None if modes is None else modes.confidence,
            n_options=2.0 if modes is None else modes.n_options,
            habits={} if modes is None else modes.habits,
            escalations=_bounded(before, section.escalations),
            cache=next((s for s in fleet.stocks.values() if isinstance(s, AnswerCache)), None),
            store=self.store,
        )
        machines = fleet.accounts.machines
        return Runtime(
            draft.config,
            draft.policies,
            engine,
            fleet,
            machines if self.account is None else {"gateway": self.account},
            draft.tenants,
            draft.router.embedder,
            self,
            self._shadowed(draft),
        )

    def _paced(self, before: Engine, allowances: Sequence[Allowance]) -> Pacer | None:
        """The pacer of an engine under other budgets over time, or a new one."""
        if not allowances:
            return None
        if before.pacer is None:
            return self.means.pacer(allowances, before.now())
        before.pacer.become(allowances, before.now())
        return before.pacer

    def _shadowed(self, draft: Draft) -> Shadow | None:
        """What compares the second router of a draft with the first, from zero."""
        section, router = draft.config.shadow, draft.shadow
        if section is None or router is None:
            return None
        if self.prefetched is not None and self.prefetched.name == router.embedder.name:
            router = embedded_by(self.prefetched, router)
        router = personal(router, {n: replace(t, gate=None) for n, t in draft.tenants.items()})
        if self.shadow is None:
            thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
            self.stack.callback(thread.shutdown, cancel_futures=True)
            self.shadow = Shadow(router, section.share, thread)
        else:
            self.shadow = self.shadow.successor(router, section.share)
        return self.shadow


@asynccontextmanager
async def serving(
    config: Config,
    say: Say = lambda line: None,
    now: Callable[[], float] = time.monotonic,
    means: Means = ALONE,
) -> AsyncIterator[Runtime]:
    """The runtime of ``config``, which ends with the context. Engines may still be starting.

    Parameters
    ----------
    means : how what several processes share is come by.
    now : seconds by which answers are timed; a clock that runs faster than the world's goes
        with replay experts whose ``time_scale`` is as much below 1.

    Raises
    ------
    ConfigError
        As `coe.services.fleet.running`, `coe.services.metering.machine.metered`,
        `coe.services.embedding.check_local`, `coe.services.personal.tenants_of` and
        `coe.services.store.opening.opened`.
    ArtefactError
        The artefact is absent, altered, or fails a canary prompt; or as `retriever_of` and
        `coe.services.personal.tenants_of`.
    LedgerError
        As `coe.services.store.opening.opened`.
    PlanError
        As `offers_of`.
    EmbeddingError
        The configured endpoint does not embed the canary prompts. Once it has, the gateway
        does without it when it is down.
    """
    budgets = load_budgets(config.budgets, config.specs)
    check_local(config.embedder, budgets.as_policies(), config.tenants)
    guards = config.resilience.guards(config.computing)
    async with (
        running(config, say, now=now, guards=guards, means=means) as fleet,
        AsyncExitStack() as stack,
    ):
        opening = means.open_store(config.store, budgets.as_limits(), say)
        store = await stack.enter_async_context(opening)
        # in a thread: an endpoint may take its time, and engines are starting
        embedder = await asyncio.to_thread(configured, config.embedder)
        draft = await asyncio.to_thread(
            drafted, config, budgets, fleet.specs, embedder, fleet.stocks
        )
        for remark in draft.remarks():
            say(remark)
        ground = Ground(stack, embedder, say, store, means=means)
        if isinstance(embedder, HttpEmbedder):
            ground.prefetched = await stack.enter_async_context(prefetching(embedder, say))
        # the meter sees this machine only: experts behind HTTP are elsewhere, replays nowhere
        if fleet.hosts and means.meters:
            ground.account = await stack.enter_async_context(metered(config.metering, say))
        await stack.enter_async_context(_lag_noted(guards, now))
        first = Engine(draft.router, fleet.experts, now, guards=guards)
        yield ground.runtime(draft, fleet, first)


def _lag_noted(guards: Guards, now: Callable[[], float]) -> AbstractAsyncContextManager[None]:
    """Guards know when this gateway was late, while the context lasts."""
    return alongside(partial(watch_lag, lambda late_s: guards.lag.note(late_s, now())), "lag")


def _bounded(before: Engine, bounds: EscalationsSection | None) -> Escalations | None:
    """The buckets of an engine where their bounds are the same, else new ones."""
    if bounds is None:
        return None
    known = before.escalations
    if known is not None and (known.per_minute, known.burst) == (bounds.per_minute, bounds.burst):
        return known
    return Escalations(bounds.per_minute, bounds.burst, before.now)


def embedded_by(embedder: Embedder, router: Router) -> Router:
    """The router with another embedder of the same name, also where it searches."""
    retriever = router.retriever
    if retriever is not None and retriever.index.dense is not None:
        dense = replace(retriever.index.dense, embedder=embedder)
        retriever = replace(retriever, index=replace(retriever.index, dense=dense))
    return replace(router, embedder=embedder, retriever=retriever)
