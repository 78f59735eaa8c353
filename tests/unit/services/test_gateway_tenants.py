"""The gateway over stub experts, one of which is a tenant's own: to others there is none such."""

from dataclasses import replace

import httpx
import numpy as np
import pytest

from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.engine import Engine
from coe.experts.stub import StubExpert
from coe.load import Presence
from coe.personal import Personal, personal
from coe.router import Router
from coe.routers.personal import PersonalGate, Premise
from coe.services.fleet import Fleet
from coe.services.gateway import Gateway
from coe.services.runtime import Runtime

SMALL, LARGE, OWN = "smollm2-135m", "qwen2.5-coder-0.5b", "ownling"
TENANT = {"tenant": "acme"}


@pytest.fixture
def engine():
    """Of two global experts and one of tenant acme, sure to be right there."""
    config = load_config(DATA / "coe.yaml")
    specs = config.specs
    specs = {**specs, OWN: replace(specs[SMALL], id=OWN, local=True)}
    router = Router.load(config.artefact, list(specs.values()))
    premise = Premise("acme", OWN, (SMALL, LARGE), None, router.embedder.name, "0" * 64)
    coef = np.zeros(router.embedder.dim + 2, dtype=np.float32)
    coef[-1] = 1.0
    tenants = {"acme": Personal(OWN, PersonalGate(premise, 0.0, coef, 0.0, 9.0, 9.0, False))}
    stubs = {name: StubExpert(name, tokens=["I", " am ", name]) for name in specs}
    return Engine(personal(router, tenants), stubs), tenants


@pytest.fixture
def gateway(engine):
    config = load_config(DATA / "coe.yaml")
    engine, tenants = engine
    fleet = Fleet(specs=engine.router.specs, experts=engine.experts, hosts={})
    return Gateway(Runtime(config, load_policies(config.budgets), engine, fleet, tenants=tenants))


@pytest.fixture
def client(gateway):
    transport = httpx.ASGITransport(gateway.app(), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def ask(client, path="/v1/chat/completions", model="auto:best", **coe):
    body = {"model": model, "messages": [{"role": "user", "content": "Is this void?"}], "coe": coe}
    return await client.post(path, json=body)


async def test_the_tenants_expert_answers_the_tenant(client):
    answer = await ask(client, explain=True, **TENANT)
    assert answer.headers["x-coe-experts"] == OWN
    assert answer.json()["choices"][0]["message"]["content"] == f"I am {OWN}"
    assert {other["id"] for other in answer.json()["coe"]["alternatives"]} >= {SMALL, LARGE}


@pytest.mark.parametrize("coe", [{}, {"tenant": "stranger"}])
async def test_nobody_else_hears_of_it(client, gateway, coe):
    replies = [
        await ask(client, explain=True, **coe),
        await ask(client, "/v1/route", **coe),
        await ask(client, model="no-such", **coe),
        await ask(client, experts={"deny": ["no-such"]}, **coe),
        await ask(client, experts={"allow": ["no-such"]}, **coe),
        await client.get("/v1/models"),
    ]
    assert [reply.status_code for reply in replies] == [200, 200, 404, 404, 404, 200]
    assert all(OWN not in reply.text + str(reply.headers) for reply in replies)
    assert not gateway.runtime.engine.experts[OWN].requests


@pytest.mark.parametrize("coe", [{}, {"tenant": "stranger"}])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route"])
async def test_nobody_else_can_ask_for_it_by_name(client, path, coe):
    for reply in (
        await ask(client, path, model=OWN, **coe),
        await ask(client, path, experts={"allow": [OWN]}, **coe),
        await ask(client, path, experts={"deny": [OWN]}, **coe),
    ):
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "model_not_found"
    assert (await client.get(f"/v1/models/{OWN}")).status_code == 404
    assert (await ask(client, path, model=OWN, **TENANT)).status_code == 200


async def test_that_it_is_not_running_is_no_one_elses_business(client, gateway):
    gateway.runtime.engine.presence = lambda: {OWN: Presence(0, 0)}
    assert OWN not in (await ask(client, "/v1/route")).text
    theirs = (await ask(client, "/v1/route", **TENANT)).json()
    assert f"{OWN}: not running" in theirs["why"]


@pytest.mark.parametrize("switch", ["ban", "force"])
@pytest.mark.parametrize("coe", [{}, {"tenant": "stranger"}])
async def test_how_it_is_switched_is_no_one_elses_business(client, gateway, switch, coe):
    engine = gateway.runtime.engine
    before = await ask(client, **coe)
    engine.switches = engine.switches.turned(OWN, switch)
    after = await ask(client, **coe)
    assert (after.status_code, after.json()["model"]) == (200, before.json()["model"])
    unknown = await ask(client, model=OWN, **coe)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    theirs = await ask(client, model=OWN, **TENANT)
    assert theirs.status_code == (400 if switch == "ban" else 200)
    assert (await ask(client, **TENANT)).json()["model"] == (LARGE if switch == "ban" else OWN)


async def test_a_tenants_requests_stay_local_where_it_wants_that(client, gateway):
    tenants = gateway.runtime.tenants
    wishes = {"acme": replace(tenants["acme"], local_only=True)}
    gateway.runtime = replace(gateway.runtime, tenants=wishes)
    stubs = gateway.runtime.engine.experts
    await ask(client, **TENANT)
    await ask(client, model=SMALL)
    assert [stubs[name].requests[0].policy.local_only for name in (OWN, SMALL)] == [True, False]


async def test_a_tenant_has_a_name_of_letters_and_digits(client):
    answer = await ask(client, tenant="a b")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "coe.tenant"
