"""What serves requests: a fleet, a router over it, and the budget policies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from coe.budgets import load_budgets
from coe.cache import AnswerCache
from coe.config import Config, RetrievalSection
from coe.core import ExpertSpec, Policy
from coe.energy import EnergyAccount
from coe.engine import Engine
from coe.errors import ConfigError, PlanError
from coe.escalation import Escalations
from coe.offers import Offers
from coe.optimizer.pacing import Pacer
from coe.personal import Personal, personal
from coe.plan import Plan
from coe.retrieval import Retriever
from coe.router import Router
from coe.routers.embed import Embedder
from coe.routers.retrieve import Index
from coe.services.embedding import HttpEmbedder, check_local, configured
from coe.services.fleet import Fleet, running
from coe.services.metering.machine import metered
from coe.services.personal import tenants_of
from coe.services.prefetch import prefetching
from coe.services.runnable import Say
from coe.services.store.opening import opened
from coe.stock import Constants, Stock


@dataclass(frozen=True, slots=True)
class Runtime:
    """A configuration brought to life.

    ``machines`` are those whose joules are measured, ``tenants`` those with an expert of their own.
    ``embedder`` gives vectors to whoever asks; ``None``: the router's does.
    """

    config: Config
    policies: Mapping[str, Policy]
    engine: Engine
    fleet: Fleet
    machines: Mapping[str, EnergyAccount] = field(default_factory=dict)
    tenants: Mapping[str, Personal] = field(default_factory=dict)
    embedder: Embedder | None = None


@asynccontextmanager
async def serving(
    config: Config,
    say: Say = lambda line: None,
    now: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Runtime]:
    """The runtime of ``config``, which ends with the context. Engines may still be starting.

    Parameters
    ----------
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
    policies = budgets.as_policies()
    check_local(config.embedder, policies, config.tenants)
    async with running(config, say, now=now) as fleet, AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(config.store, budgets.as_limits()))
        # in a thread: an endpoint may take its time, and engines are starting
        embedder = await asyncio.to_thread(configured, config.embedder)
        router = await asyncio.to_thread(router_of, config, fleet.specs, embedder, fleet.stocks)
        tenants = await asyncio.to_thread(tenants_of, config, router.embedder)
        learned = {one.expert_id for one in tenants.values() if one.gate is not None}
        known = {*router.artefact.expectation.expert_ids, *learned, *fleet.stocks}
        for name in fleet.specs.keys() - known:
            say(f"expert {name}: not in the artefact, so it only answers when asked for by name")
        for remark in _unheard_of(fleet.stocks, router.artefact.category.classes_.tolist()):
            say(remark)
        engine = Engine(router, fleet.experts, now, store=store)
        engine.cache = next((s for s in fleet.stocks.values() if isinstance(s, AnswerCache)), None)
        if isinstance(embedder, HttpEmbedder):
            prefetched = await stack.enter_async_context(prefetching(embedder, say))
            engine.router = embedded_by(prefetched, engine.router)
            engine.warm = prefetched.warm
        engine.router = personal(engine.router, tenants)
        machines: Mapping[str, EnergyAccount] = fleet.accounts.machines
        engine.copy_accounts = fleet.accounts.copies
        # the meter sees this machine only: experts behind HTTP are elsewhere, replays nowhere
        if fleet.hosts:
            account = await stack.enter_async_context(metered(config.metering, say))
            if account is not None:
                engine.accounts = dict.fromkeys(fleet.hosts, account)
                machines = {"gateway": account}
        if (modes := router.artefact.modes) is not None:
            engine.confidence, engine.n_options = modes.confidence, modes.n_options
            engine.habits = modes.habits
        if (bounds := config.routing.escalations) is not None:
            engine.escalations = Escalations(bounds.per_minute, bounds.burst, engine.now)
        if allowances := budgets.as_allowances():
            engine.pacer = Pacer(allowances, engine.now())
        engine.presence = fleet.presence
        yield Runtime(config, policies, engine, fleet, machines, tenants, router.embedder)


def _unheard_of(stocks: Mapping[str, Stock], known: Collection[str]) -> Iterator[str]:
    """A line for every expert whose canned answers are for categories that no prompt is of."""
    for name, stock in stocks.items():
        if isinstance(stock, Constants):
            named = {category for canned in stock.answers for category in canned.categories}
            if unknown := sorted(named - set(known)):
                there = ", ".join(sorted(known))
                yield f"expert {name}: no prompt is of category {', '.join(unknown)}, only {there}"


def router_of(
    config: Config,
    specs: Mapping[str, ExpertSpec],
    embedder: Embedder | None,
    stocks: Mapping[str, Stock],
) -> Router:
    """The router of a configuration, under its plan and with its index, tenants left aside.

    Parameters
    ----------
    embedder : the configured one; ``None``: the artefact's.

    Raises
    ------
    ArtefactError, ConfigError, PlanError
        As `Router.load`, `retriever_of` and `offers_of`.
    """
    router = Router.load(config.artefact, list(specs.values()), embedder)
    retriever = retriever_of(config.retrieval, router.embedder)
    routing = config.routing.model_dump(exclude={"escalations"})
    under = router.under(offers_of(config, specs))
    return replace(under, retriever=retriever, stocks=stocks, **routing)


def offers_of(config: Config, experts: Collection[str]) -> Offers | None:
    """What the configured plan offers; ``None`` where there is none.

    Raises
    ------
    PlanError
        It is absent or malformed, it found nothing that fits, or none of its experts is among
        ``experts``.
    """
    if config.plan is None:
        return None
    found = Plan.load(config.plan)
    if found.certificate is None:
        raise PlanError(
            f"{config.plan}: nothing fitted when it was made ({found.status}): "
            "make it again with other budgets"
        )
    if not set(found.experts) & set(experts):
        planned, running_now = ", ".join(found.experts) or "none", ", ".join(experts)
        raise PlanError(
            f"{config.plan}: planned for {planned}, but what runs is {running_now}: "
            "make it again with `coe plan`"
        )
    return Offers.of(found)


def retriever_of(section: RetrievalSection | None, embedder: Embedder) -> Retriever | None:
    """What retrieves under this configuration; ``None`` where there is no section.

    Raises
    ------
    ArtefactError
        The index is absent, altered, or its vectors are another embedder's.
    ConfigError
        The mode needs vectors that the index does not have.
    """
    if section is None:
        return None
    index = Index.load(section.index, embedder)
    if section.mode == "dense" and index.dense is None:
        raise ConfigError(
            f"retrieval.mode: {section.index} has no vectors, so it cannot be searched by dense: "
            "choose bm25 or hybrid, or build it with vectors"
        )
    return Retriever(index, section.k, section.passage_tokens, section.mode)


def embedded_by(embedder: Embedder, router: Router) -> Router:
    """The router with another embedder of the same name, also where it searches."""
    retriever = router.retriever
    if retriever is not None and retriever.index.dense is not None:
        dense = replace(retriever.index.dense, embedder=embedder)
        retriever = replace(retriever, index=replace(retriever.index, dense=dense))
    return replace(router, embedder=embedder, retriever=retriever)
