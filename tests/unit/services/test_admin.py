"""The operator's routes: shut without a token, and effective at once with one."""

import httpx
import pytest

from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.engine import Engine
from coe.errors.files import ConfigError
from coe.experts.stub import StubExpert
from coe.router import Router
from coe.services.fleet import Fleet
from coe.services.gateway import Gateway
from coe.services.runtime import Runtime

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
CODE = "Write a Python function that returns the sum of the even numbers in a list."
TOKEN = "an operator's secret"
SHOWN = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def gateway():
    config = load_config(DATA / "coe.yaml")
    router = Router.load(config.artefact, list(config.specs.values()))
    stubs = {name: StubExpert(name) for name in (SMALL, LARGE)}
    fleet = Fleet(specs=config.specs, experts=stubs, hosts={})
    engine = Engine(router, stubs)
    return Gateway(Runtime(config, load_policies(config.budgets), engine, fleet))


@pytest.fixture
def client(gateway, monkeypatch):
    """A client of a gateway that was started with a token, or with none."""

    def connected(token=TOKEN):
        if token is None:
            monkeypatch.delenv("COE_ADMIN_TOKEN", raising=False)
        else:
            monkeypatch.setenv("COE_ADMIN_TOKEN", token)
        transport = httpx.ASGITransport(gateway.app(), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://gateway")

    return connected


async def ask(client, model="auto", **extras):
    body = {"model": model, "messages": [{"role": "user", "content": CODE}], "coe": extras}
    return await client.post("/v1/chat/completions", json=body)


async def switch(client, expert_id, to, headers=SHOWN):
    return await client.put(f"/admin/experts/{expert_id}", json={"switch": to}, headers=headers)


@pytest.mark.parametrize("token", [None, "", "\n"])
@pytest.mark.parametrize("shown", [{}, {"authorization": "Bearer "}, SHOWN])
async def test_without_a_token_there_are_no_switches(client, gateway, token, shown):
    shut = client(token)
    for answer in (
        await shut.get("/admin/experts", headers=shown),
        await switch(shut, LARGE, "ban", shown),
    ):
        assert answer.status_code == 403
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("admin_disabled", "invalid_request_error")
        assert "COE_ADMIN_TOKEN" in error["message"]
    assert gateway.runtime.engine.switches.of(LARGE) == "on"


@pytest.mark.parametrize(
    "shown", ["", "Bearer", "Bearer ", "Bearer x", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "é"]
)
async def test_a_wrong_token_is_refused_before_anything_is_said(client, gateway, shown):
    headers = {"authorization": shown.encode()} if shown else {}
    for expert_id in (LARGE, "nobody"):
        answer = await switch(client(), expert_id, "ban", headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_token"
        assert TOKEN not in answer.text
    assert (await client().get("/admin/experts", headers=headers)).status_code == 401
    assert gateway.runtime.engine.switches.of(LARGE) == "on"


def test_a_token_that_no_header_can_hold_keeps_a_gateway_from_starting(client):
    with pytest.raises(ConfigError, match="COE_ADMIN_TOKEN holds no token"):
        client("clé")


async def test_a_switch_holds_for_the_next_request(client):
    running = client()
    assert (await ask(running)).json()["model"] == LARGE
    banned = await switch(running, LARGE, "ban")
    assert (banned.status_code, banned.json()["switch"]) == (200, "ban")
    assert (await ask(running)).json()["model"] == SMALL
    assert (await switch(running, LARGE, "on")).json()["switch"] == "on"
    assert (await ask(running)).json()["model"] == LARGE


async def test_every_expert_is_listed_as_it_is_switched(client):
    running = client()
    await switch(running, SMALL, "force")
    listed = await running.get("/admin/experts", headers=SHOWN)
    assert listed.json() == {
        "object": "list",
        "data": [
            {
                "id": name,
                "switch": to,
                "state": "ready",
                "local": True,
                "shared": False,
                "queued": 0,
                "replicas": [],
            }
            for name, to in ((SMALL, "force"), (LARGE, "on"))
        ],
    }


async def test_what_is_banned_is_refused_by_name_and_still_listed_as_a_model(client):
    running = client()
    await switch(running, LARGE, "ban")
    refused = await ask(running, LARGE)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "expert_banned"
    assert "switched off" in refused.json()["error"]["message"]
    assert (await running.get(f"/v1/models/{LARGE}")).status_code == 200
    await switch(running, SMALL, "ban")
    assert (await ask(running)).json()["error"]["code"] == "no_expert"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"ban", b'{"switch": "off"}', b'{"switch": "ban", "for": 1}', b"[" * 99]
)
async def test_a_wrong_body_is_refused_with_what_is_right(client, gateway, content):
    answer = await client().put(f"/admin/experts/{LARGE}", content=content, headers=SHOWN)
    assert answer.status_code == 400
    assert 'the body must be {"switch": "on"}' in answer.json()["error"]["message"]
    assert gateway.runtime.engine.switches.of(LARGE) == "on"


async def test_who_does_not_exist_and_what_is_too_large_are_refused(client):
    unknown = await switch(client(), "a/b", "ban")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"].startswith("no expert is called 'a/b'")
    large = await client().put(f"/admin/experts/{LARGE}", content=b" " * 9999, headers=SHOWN)
    assert large.status_code == 413


async def test_decisions_are_listed_for_operators_newest_first(client):
    http = client()
    names = [(await ask(http, model)).headers["x-coe-decision-id"] for model in ("auto", SMALL)]
    assert (await http.get("/admin/decisions")).status_code == 401
    rows = (await http.get("/admin/decisions", headers=SHOWN)).json()["data"]
    assert [row["decision_id"] for row in rows] == names[::-1]
    assert (rows[0]["experts"], rows[0]["outcome"]) == ([SMALL], "complete")
    for query, n_rows in (("limit=1", 1), (f"expert={LARGE}", 1), ("since=1e12", 0)):
        found = await http.get(f"/admin/decisions?{query}", headers=SHOWN)
        assert len(found.json()["data"]) == n_rows, query
    for query, param in (("limit=0", "limit"), ("since=nan", "since"), ("by=me", "by")):
        refused = await http.get(f"/admin/decisions?{query}", headers=SHOWN)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_a_kept_decision_says_what_would_have_been_otherwise(client):
    http = client()
    decision_id = (await ask(http, mode="single")).headers["x-coe-decision-id"]
    kept = (await http.get(f"/v1/decisions/{decision_id}")).json()
    second = kept["counterfactual"]["runner_up"]
    assert second["id"] == SMALL
    assert second["difference"]["quality"] < 0
    (resource, bounds), *_ = second["ceilings"].items()
    tight = {resource: bounds["from"]}
    assert (await ask(http, mode="single", budget=tight)).headers["x-coe-experts"] == SMALL
