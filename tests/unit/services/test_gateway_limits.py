"""Hard limits over HTTP: what fits is answered, and what does not is refused in OpenAI's words."""

import asyncio
import gc
from concurrent.futures import Executor, Future
from functools import partial

import httpx
import openai
import pytest

from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.engine import Engine
from coe.experts.stub import StubExpert
from coe.ledger.limits import Limit
from coe.router import Router
from coe.services.fleet import Fleet
from coe.services.gateway import Gateway
from coe.services.runtime import Runtime
from coe.services.shadowing import Shadow
from failing import Steps

ASKED = {"model": "auto", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 9}


@pytest.fixture
def limited(memory_store):
    """A client of a gateway over stubs under these limits, and the gateway's engine."""
    config = load_config(DATA / "coe.yaml")
    specs = config.specs
    router = Router.load(config.artefact, list(specs.values()))

    def build(*limits):
        stubs = {name: StubExpert(name) for name in specs}
        engine = Engine(router, stubs, store=memory_store(*limits))
        fleet = Fleet(specs=specs, experts=stubs, hosts={})
        app = Gateway(Runtime(config, load_policies(config.budgets), engine, fleet)).app()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://gateway/v1"), engine

    return build


async def ask(client, **more):
    return await client.post("/chat/completions", json=ASKED | more)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_beyond_a_limit_is_refused_with_the_time_to_wait(limited, stream):
    client, engine = limited(Limit("house", "global", 60, requests=2))
    answers = [await ask(client, stream=stream) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    refused = answers[-1]
    assert refused.headers["retry-after"] == "60"
    assert refused.headers["x-should-retry"] == "false"
    error = refused.json()["error"]
    assert error.pop("message")
    assert error == {
        "type": "insufficient_quota",
        "param": "limits.house.requests",
        "code": "budget_exhausted",
    }
    assert engine.store.spent.requests == 2
    page = (await client.get("http://gateway/metrics")).text
    assert 'coe_refusals_total{code="budget_exhausted"} 1.0' in page


async def test_without_the_ledger_nothing_is_answered(limited):
    client, engine = limited()
    engine.store.unavailable = True
    refused = await ask(client)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "budget_store_unavailable")


async def test_the_openai_client_raises_at_once(limited):
    client, engine = limited(Limit("house", "global", 60, requests=1))
    asking = openai.AsyncOpenAI(base_url="http://gateway/v1", api_key="unused", http_client=client)
    await asking.chat.completions.create(**ASKED)
    with pytest.raises(openai.RateLimitError) as refused:
        await asking.chat.completions.create(**ASKED)
    assert refused.value.code == "budget_exhausted"
    assert len(engine.store.ledger.entries) == 2, "it was not tried again"


async def test_every_tenant_has_a_limit_of_its_own(limited):
    client, _ = limited(Limit("tenants", "tenant", 60, requests=1))
    asked = ["alice", "alice", "bob", "bob"]
    answers = [await ask(client, coe={"tenant": tenant}) for tenant in asked]
    assert [answer.status_code for answer in answers] == [200, 429, 200, 429]


HTTP = ("services", *(f"services/{room}" for room in ("wire", "entrance", "observing", "access")))
# what gives something back, and cannot be given back itself
GIVING_BACK = {"Crowd.leave", "Door.show_out", "Engine.leave", "Inside.__exit__", "Load.left"}
steps = partial(Steps, ("", "experts", "guard", *HTTP), GIVING_BACK)


class Idle(Executor):
    """A second router that has not come to it yet."""

    def submit(self, *given):
        return Future()


@pytest.fixture
def shadowed(memory_store):
    """A new gateway over stubs, under limits out of reach, and beside a second router."""
    config = load_config(DATA / "coe.yaml")
    specs, policies = config.specs, load_policies(config.budgets)
    router = Router.load(config.artefact, list(specs.values()))

    def build():
        stubs = {name: StubExpert(name) for name in specs}
        engine = Engine(router, stubs, store=memory_store())
        runtime = Runtime(config, policies, engine, Fleet(specs=specs, experts=stubs, hosts={}))
        runtime.shadow = Shadow(router, 1.0, Idle())
        return Gateway(runtime)

    # what is left open stays so: nothing is closed by being collected
    gc.disable()
    yield build
    gc.enable()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("stream", [False, True])
async def test_wherever_a_request_fails_as_nobody_foresaw_nothing_stays_held(shadowed, stream):
    async def left(gateway, taken):
        """What is counted or held after a request."""
        transport = httpx.ASGITransport(gateway.app(), raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://gateway/v1")
        with taken:
            async with asyncio.timeout(5.0):
                await asyncio.gather(ask(client, stream=stream), return_exceptions=True)
        engine = gateway.runtime.engine
        counts = {
            "held": len(engine.store.ledger.held),
            "inside": gateway.door.crowd.n,
            "in flight": gateway.metrics.n_in_flight,
            "loads": sum(load.n_in_flight for load in engine._loads.values()),
        }
        return {name: n for name, n in counts.items() if n}

    # what is worked out once is so before
    for every in (steps(), steps()):
        assert not await left(shadowed(), every)
    assert len(every.seen) > 200
    for step in every.seen:
        failing = steps(step)
        assert not await left(shadowed(), failing), f"{step} fails"
        assert failing.struck, step
