"""Routers of tenants: whose expert answers whom."""

from dataclasses import replace

import numpy as np
import pytest

from coe.core import Budget, Message, Policy, Prices, Request
from coe.errors.callers import InfeasibleError, UnknownExpertError
from coe.errors.files import ArtefactError
from coe.free import NullSection, free_spec
from coe.offers import Menu, Offers
from coe.personal import Personal, as_wished, personal
from coe.routers.personal import PersonalGate, Premise
from coe.stock import Declination

PREMISE = Premise("acme", "own", ("a", "b"), None, "words", "0" * 64)
SURE_OF_CODE = np.array([0.9, -0.9, 0.0, 0.0, 0.0], dtype=np.float32)


def gate(coef=SURE_OF_CODE, declined=False, **changed):
    return PersonalGate(replace(PREMISE, **changed), 0.0, coef, 0.05, 50.0, 80.0, declined)


def asked(text, tenant="", **more):
    return Request((Message("user", text),), tenant=tenant, **more)


@pytest.fixture
def router(make_router, make_spec):
    """Of two global experts; the own one is configured, and not in the artefact."""
    specs = [make_spec("a"), make_spec("b")]
    found = make_router(specs, [[0.6, 0.4], [0.4, 0.6], [0.5, 0.4]])
    return replace(found, specs={spec.id: spec for spec in [*specs, make_spec("own", watts=1.0)]})


def test_the_tenant_gets_its_expert_where_the_gate_expects_more_of_it(router):
    found = personal(router, {"acme": Personal("own", gate())})
    code = found.decide(asked("some code", "acme"))
    assert code.expert_id == "own"
    assert code.predicted.quality == pytest.approx(0.9)
    assert code.predicted.quality_se == pytest.approx(0.05)
    assert code.predicted.output_tokens == 50.0
    assert code.cautious.output_tokens == 80.0
    assert found.decide(asked("some maths", "acme")).expert_id == "b"


@pytest.mark.parametrize("tenant", ["", "other"])
def test_nobody_else_does(router, tenant):
    found = personal(router, {"acme": Personal("own", gate())})
    decision = found.decide(asked("some code", tenant))
    assert decision.expert_id == "a"
    assert [other.expert_id for other in decision.alternatives] == ["b"]
    with pytest.raises(UnknownExpertError, match="no expert is called 'own'; there are a, b"):
        found.decide(asked("some code", tenant, pinned="own"))
    assert found.decide(asked("some code", "acme", pinned="own")).status == "pinned"


def test_without_tenants_nothing_changes(router):
    assert personal(router, {}) is router
    assert router.of_tenant("acme") is router


def test_a_gate_that_declined_leaves_its_expert_to_prices_and_ceilings(router):
    found = personal(router, {"acme": Personal("own", gate(declined=True))})
    assert found.decide(asked("some code", "acme")).expert_id == "a"
    thrifty = Policy("thrifty", prices=Prices(per_joule=0.1))
    assert found.decide(asked("some code", "acme", policy=thrifty)).expert_id == "own"
    tight = found.decide(asked("some code", "acme", budget=Budget(energy_j=3.0)))
    assert (tight.expert_id, tight.binding) == ("own", "energy_j")


def test_without_a_gate_the_own_expert_answers_by_name_alone(router):
    found = personal(router, {"acme": Personal("own")})
    assert found.decide(asked("some code", "acme")).expert_id == "a"
    assert found.decide(asked("some code", "acme", pinned="own")).expert_id == "own"


def test_an_expert_that_the_artefact_knows_can_be_withdrawn(router):
    found = personal(router, {"acme": Personal("b")})
    assert found.decide(asked("some maths")).expert_id == "a"
    assert found.decide(asked("some maths", "acme")).expert_id == "b"


def test_when_every_expert_is_somebodys_own_nobody_else_is_answered(router):
    found = personal(router, {n: Personal(e) for n, e in {"t": "a", "u": "b", "v": "own"}.items()})
    with pytest.raises(InfeasibleError, match="knows none of the configured experts"):
        found.decide(asked("some code"))


def test_under_a_plan_a_tenant_has_its_residents_and_its_own(router):
    only_b = Offers(("b",), {"code": Menu.of(np.ones((1, 1), dtype=bool), np.ones(1))})
    found = personal(replace(router, offers=only_b), {"acme": Personal("own", gate())})
    assert found.decide(asked("some code")).expert_id == "b"
    decision = found.decide(asked("some code", "acme"))
    assert decision.expert_id == "own"
    assert [other.expert_id for other in decision.alternatives] == ["b"]


def test_under_a_plan_a_tenant_still_has_whoever_is_not_of_the_plan(router):
    only_b = Offers(("b",), {"code": Menu.of(np.ones((1, 1), dtype=bool), np.ones(1))})
    none = free_spec(NullSection(id="none", kind="null"))
    stocked = replace(
        router,
        offers=only_b,
        specs={**router.specs, "none": none},
        stocks={"none": Declination("Nobody answers.")},
    )
    found = personal(stocked, {"acme": Personal("own", gate())})
    for tenant in ("", "acme"):
        assert found.decide(asked("some code", tenant, pinned="a")).expert_id == "a"
        beyond = asked("some code", tenant, budget=Budget(energy_j=1e-6))
        assert found.decide(beyond).declined
        assert found.decide(asked("some code", tenant, deny=frozenset({"a"}))).expert_id != "a"


def test_the_gates_rivals_must_be_known(router):
    with pytest.raises(ArtefactError, match="the artefact does not: z"):
        personal(router, {"acme": Personal("own", gate(rivals=("z",)))})


def test_a_tenant_may_want_all_of_its_requests_local():
    tenants = {"acme": Personal("own", local_only=True), "other": Personal("own")}
    assert as_wished(asked("code", "acme"), tenants).policy.local_only
    for tenant in ("other", "nobody", ""):
        request = asked("code", tenant)
        assert as_wished(request, tenants) is request
