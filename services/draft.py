"""What a configuration comes to once its files are read and checked; nothing of it is live yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from coe.budgets import Budgets
from coe.cache import AnswerCache
from coe.config import Config, RetrievalSection
from coe.core import ExpertSpec, Policy
from coe.errors.files import ArtefactError, ConfigError, PlanError
from coe.offers import Offers
from coe.personal import Personal
from coe.plan import Plan
from coe.retrieval import Retriever
from coe.router import Router
from coe.routers.artefact import Artefact
from coe.routers.embed import Embedder
from coe.routers.folder import identity
from coe.routers.retrieve import Index
from coe.services.embedding import check_local
from coe.services.personal import tenants_of
from coe.stock import Constants, Stock


@dataclass(frozen=True, slots=True)
class Draft:
    """A configuration, read and checked.

    Parameters
    ----------
    router : under the plan and with the index, tenants left aside.
    tag : short name of all of it: the same for the same settings, budgets, plan and artefact.
    shadow : the second router, which nobody is answered by; ``None`` where there is none.
    """

    config: Config
    budgets: Budgets
    policies: Mapping[str, Policy]
    router: Router
    tenants: Mapping[str, Personal]
    tag: str
    shadow: Router | None = None

    def remarks(self) -> Iterator[str]:
        """A line for everything in it that will do less than it seems to."""
        router = self.router
        learned = {one.expert_id for one in self.tenants.values() if one.gate is not None}
        known = {*router.artefact.expectation.expert_ids, *learned, *router.stocks}
        for name in router.specs.keys() - known:
            yield f"expert {name}: not in the artefact, so it only answers when asked for by name"
        yield from _unheard_of(router.stocks, router.artefact.category.classes_.tolist())


def drafted(
    config: Config,
    budgets: Budgets,
    specs: Mapping[str, ExpertSpec],
    embedder: Embedder | None,
    stocks: Mapping[str, Stock],
    present: Embedder | None = None,
) -> Draft:
    """The draft of a configuration, its canary prompts answered. Takes its time.

    Parameters
    ----------
    embedder : the configured one; ``None``: the artefact's.
    present : one that is loaded already, and is taken if it is the artefact's.

    Raises
    ------
    ArtefactError, ConfigError, PlanError
        As `router_of`, `coe.services.embedding.check_local` and
        `coe.services.personal.tenants_of`.
    """
    policies = budgets.as_policies()
    check_local(config.embedder, policies, config.tenants)
    tag = tag_of(config, budgets)
    if embedder is None and present is not None:
        embedder = present if Artefact.load(config.artefact).embedder == present.name else None
    router = router_of(config, specs, embedder, stocks)
    tenants = tenants_of(config, router.embedder)
    return Draft(config, budgets, policies, router, tenants, tag, _shadow_of(config, router))


def _shadow_of(config: Config, live: Router) -> Router | None:
    """The second router of a configuration, over the same experts and under the same plan rules.

    It has no copies of answers and no tenants' gates, which belong to the live artefact, and
    searches only where the live router's index suits it.
    """
    section = config.shadow
    if section is None:
        return None
    own = {"artefact": section.artefact, "plan": section.plan, "retrieval": None}
    copies = {name for name, stock in live.stocks.items() if isinstance(stock, AnswerCache)}
    specs = {name: spec for name, spec in live.specs.items() if name not in copies}
    stocks = {name: stock for name, stock in live.stocks.items() if name not in copies}
    same = Artefact.load(section.artefact).embedder == live.embedder.name
    embedder = live.embedder if same else None
    router = router_of(config.model_copy(update=own), specs, embedder, stocks)
    return replace(router, retriever=live.retriever) if same else router


def tag_of(config: Config, budgets: Budgets) -> str:
    """Twelve hexadecimal digits that name a configuration with all the files it names.

    Raises
    ------
    ArtefactError, PlanError
        A file that it names cannot be read.
    """
    said: list[object] = [config.model_dump(mode="json"), budgets.model_dump(mode="json")]
    shadow = config.shadow
    said.append(_identity("artefact", config.artefact, "train"))
    if shadow is not None:
        said.append(_identity("shadow.artefact", shadow.artefact, "train"))
    for plan in filter(None, [config.plan, None if shadow is None else shadow.plan]):
        try:
            said.append(hashlib.sha256(plan.read_bytes()).hexdigest())
        except OSError as error:
            raise PlanError(f"{plan}: cannot be read: {error.strerror}") from error
    if config.retrieval is not None:
        said.append(_identity("retrieval.index", config.retrieval.index, "index build"))
    gates = {name: one.gate for name, one in config.tenants.items() if one.gate is not None}
    said += [_identity(f"tenants.{name}.gate", gate, "personalise") for name, gate in gates.items()]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def _identity(setting: str, folder: Path, verb: str) -> str:
    """As `identity`; an error says which setting names the folder, and which verb makes it."""
    try:
        return identity(folder)
    except ArtefactError as error:
        raise ArtefactError(f"{setting}: {error}: `coe {verb}` makes one") from error


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
