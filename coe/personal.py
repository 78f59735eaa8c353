"""A router for every tenant: beside everybody's experts its own, which no one else gets to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from coe.core import Request
from coe.offers import Offers
from coe.router import Router
from coe.routers.personal import PersonalExpectation, PersonalGate
from coe.tenants import visible

NOBODY = ""
"""Whose request it is where no tenant is named, or one without an expert of its own."""


@dataclass(frozen=True, slots=True)
class Personal:
    """What a tenant has of its own.

    ``gate`` is ``None`` where none was trained: ``expert_id`` then only answers by name, unless
    the artefact knows it.
    """

    expert_id: str
    gate: PersonalGate | None = None
    local_only: bool = False


def personal(router: Router, tenants: Mapping[str, Personal]) -> Router:
    """The router with one for every tenant in it, and one for everybody else.

    Each sees everybody's experts and its tenant's own; to it no other exists. Without tenants it is
    returned as it is.

    Raises
    ------
    ArtefactError
        A gate's rivals are not among the artefact's experts.
    """
    if not tenants:
        return router
    own = {name: tenant.expert_id for name, tenant in tenants.items()}
    views = {NOBODY: _seeing(router, visible(router.specs, own, NOBODY))}
    for name, tenant in tenants.items():
        view = _seeing(router, visible(router.specs, own, name))
        views[name] = view if tenant.gate is None else _gated(view, tenant.gate)
    return replace(router, tenants=views)


def as_wished(request: Request, tenants: Mapping[str, Personal]) -> Request:
    """The request, kept local if its tenant wants all of its requests to be."""
    tenant = tenants.get(request.tenant)
    if tenant is None or not tenant.local_only:
        return request
    return replace(request, policy=replace(request.policy, local_only=True))


def _seeing(router: Router, expert_ids: tuple[str, ...]) -> Router:
    return replace(router, specs={name: router.specs[name] for name in expert_ids})


def _gated(router: Router, gate: PersonalGate) -> Router:
    """The router that knows what to expect of a tenant's own expert: it reads every prompt.

    No plan has that expert on its menus: a tenant chooses among it and all residents of the plan.
    """
    expectation = PersonalExpectation.of_tenant(router.artefact.expectation, gate)
    artefact = replace(router.artefact, expectation=expectation)
    if router.offers is None:
        return replace(router, artefact=artefact, read_pinned=True)
    offers = Offers((*router.offers.experts, gate.premise.expert_id), menus={})
    return replace(router, artefact=artefact, offers=offers, read_pinned=True)
