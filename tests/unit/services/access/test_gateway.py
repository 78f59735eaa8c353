"""A gateway that asks for keys: whose request it is, who may answer it, and how often."""

import asyncio

import httpx
import pytest

from coe.services.gateway import Gateway

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
CODE = "Write a Python function that returns the sum of the even numbers in a list."
CHAT = "/v1/chat/completions"


def bearer(key):
    return {"authorization": f"Bearer {key}"}


async def ask(client, key, model="auto", path=CHAT, headers=None, stream=False, **coe):
    body = {"model": model, "messages": [{"role": "user", "content": CODE}], "coe": coe}
    given = (bearer(key) if key else {}) | (headers or {})
    return await client.post(path, json=body | {"stream": stream}, headers=given)


def refusal(answer):
    error = answer.json()["error"]
    return answer.status_code, error["type"], error["code"], error["param"]


async def test_a_key_is_shown_as_a_bearer_and_nowhere_else(house):
    key = house.key()
    client = house.client()
    assert (await ask(client, key)).status_code == 200
    body = {"model": "auto", "messages": [{"role": "user", "content": CODE}]}
    for answer in (
        await client.post(CHAT, params={"api_key": key, "key": key}, json=body),
        await client.post(CHAT, cookies=None, headers={"cookie": f"key={key}"}, json=body),
        await client.post(CHAT, json=body | {"api_key": key, "key": key}),
        await client.post(CHAT, headers={"api-key": key, "x-api-key": key}, json=body),
        await client.post(CHAT, headers={"proxy-authorization": f"Bearer {key}"}, json=body),
    ):
        assert refusal(answer) == (401, "invalid_request_error", "missing_api_key", None)
        assert answer.headers["www-authenticate"] == 'Bearer realm="coe"'
        assert key not in answer.text


async def test_an_expired_or_revoked_key_is_wrong(house, wall):
    keys = [house.key(expires_s=wall + 1), house.key(expires_s=wall), house.key(revoked_s=1.0)]
    client = house.client()
    answers = [await ask(client, key) for key in keys]
    assert [answer.status_code for answer in answers] == [200, 401, 401]
    assert {refusal(answer)[2] for answer in answers[1:]} == {"invalid_api_key"}
    assert 'error="invalid_token"' in answers[1].headers["www-authenticate"]


async def test_a_thousand_wrong_keys_from_one_address_are_put_off_and_a_right_one_is_not(
    house, clock
):
    client, key = house.client(client=("192.0.2.1", 1)), house.key()
    answers = []
    for n in range(1000):
        answers.append(await client.get("/v1/models", headers=bearer(f"coe-{n:012x}-{'x' * 32}")))
        clock.seconds += 0.01
    assert [answer.status_code for answer in answers[:60]] == [401] * 60
    late = [answer for answer in answers if answer.status_code == 429]
    assert len(late) >= 900
    assert refusal(late[0]) == (429, "rate_limit_error", "auth_rate_limited", None)
    assert late[0].headers["retry-after"] == "1"
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
    other = house.client(client=("192.0.2.2", 1))
    assert (await other.get("/v1/models", headers=bearer("wrong"))).status_code == 401


async def test_nothing_that_a_client_says_of_itself_changes_who_it_is(house):
    key = house.key(tenant="acme")
    said = {
        "x-user-id": "root",
        "x-tenant": "other",
        "x-forwarded-user": "root",
        "x-coe-role": "admin",
    }
    answer = await ask(house.client(), key, headers=said)
    decision_id = answer.headers["x-coe-decision-id"]
    assert house.gateway.journal.tenant(decision_id) == "acme"
    assert (await house.client().get("/metrics", headers=bearer(key) | said)).status_code == 403


async def test_the_tenant_is_the_keys_and_no_other(house):
    acme, admin = house.key(tenant="acme"), house.key(role="admin", tenant="ops")
    nobodys = house.key()
    client = house.client()
    for key, tenant, status in (
        (acme, "acme", 200),
        (acme, "other", 403),
        (nobodys, "acme", 403),
        (admin, "other", 200),
        (admin, "personal", 200),
    ):
        answer = await ask(client, key, tenant=tenant)
        assert answer.status_code == status, answer.text
        if status == 403:
            assert refusal(answer)[1:] == ("permission_error", "tenant_not_allowed", "coe.tenant")
        else:
            assert house.gateway.journal.tenant(answer.headers["x-coe-decision-id"]) == tenant


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/route"])
@pytest.mark.parametrize("coe", [7, None, [], {"tenant": 7}, {"tenant": None}, {"tenant": "a b"}])
async def test_a_malformed_tenant_gets_nobody_in(house, path, coe):
    body = {"model": "auto", "coe": coe} | (
        {"prompt": CODE}
        if "chat" not in path and "route" not in path
        else {"messages": [{"role": "user", "content": CODE}]}
    )
    answer = await house.client().post(path, json=body, headers=bearer(house.key(tenant="acme")))
    assert answer.status_code in (400, 403)
    assert answer.json()["error"]["param"].startswith("coe")


async def test_an_expert_of_its_own_is_the_tenants_key_alone(house):
    own, other = house.key(tenant="personal"), house.key(tenant="acme")
    client = house.client()
    assert (await ask(client, own, LARGE)).status_code == 200
    assert refusal(await ask(client, other, LARGE))[:3] == (
        404,
        "invalid_request_error",
        "model_not_found",
    )
    listed = [
        {row["id"] for row in (await client.get("/v1/models", headers=bearer(key))).json()["data"]}
        for key in (own, other)
    ]
    assert listed[0] - listed[1] == {LARGE}


async def test_decisions_are_read_by_their_tenant_by_viewers_and_admins(house):
    acme, other, viewer = house.key(tenant="acme"), house.key(), house.key(role="viewer")
    admin = house.key(role="admin")
    client = house.client()
    for path in (CHAT, "/v1/route"):
        decided = await ask(client, acme, path=path)
        decision_id = decided.headers.get("x-coe-decision-id") or decided.json()["decision_id"]
        found = {
            key: await client.get(f"/v1/decisions/{decision_id}", headers=bearer(key))
            for key in (acme, other, viewer, admin)
        }
        assert [answer.status_code for answer in found.values()] == [200, 404, 200, 200]
        unknown = await client.get("/v1/decisions/dec-x", headers=bearer(other))
        assert found[other].json() == unknown.json()


async def test_an_idempotency_key_is_one_keys(house):
    one, two = house.key(tenant="acme"), house.key(tenant="acme")
    client, named = house.client(), {"idempotency-key": "order-7"}
    answers = [
        await ask(client, one, headers=named),
        await ask(client, two, SMALL, headers=named),
        await ask(client, one, SMALL, headers=named),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 409]


async def test_a_key_of_some_experts_asks_those(shared):
    key = shared.key(models=[SMALL, "gone"])
    client = shared.client()
    every = shared.key()
    assert (await ask(client, every)).headers["x-coe-experts"] == LARGE
    assert (await ask(client, key)).headers["x-coe-experts"] == SMALL
    assert (await ask(client, key, SMALL)).status_code == 200
    refused = await ask(client, key, LARGE)
    assert refusal(refused) == (403, "permission_error", "model_not_allowed", "model")
    for wish in ({"allow": [LARGE]}, {"allow": [SMALL, LARGE]}):
        refused = await ask(client, key, experts=wish)
        assert refusal(refused)[2:] == ("model_not_allowed", "coe.experts.allow")
    assert (await ask(client, key, experts={"allow": [SMALL]})).status_code == 200
    assert refusal(await ask(client, key, experts={"deny": [SMALL]}))[2] == "no_expert"
    listed = (await client.get("/v1/models", headers=bearer(key))).json()["data"]
    names = {row["id"] for row in listed}
    assert SMALL in names
    assert LARGE not in names
    assert (await client.get(f"/v1/models/{LARGE}", headers=bearer(key))).status_code == 404
    unknown = await ask(client, key, "no-such")
    assert unknown.status_code == 404
    assert LARGE not in unknown.text


async def test_a_key_of_experts_that_are_gone_asks_nobody(shared):
    key = shared.key(models=["gone"])
    assert refusal(await ask(shared.client(), key))[2] == "no_expert"


async def test_a_key_without_overrides_leaves_the_choice_to_the_router(shared):
    key, client = shared.key(overrides=False), shared.client()
    for model, coe, param in (
        (SMALL, {}, "model"),
        ("auto", {"experts": {"deny": [LARGE]}}, "coe.experts"),
        ("auto", {"mode": "single"}, "coe.mode"),
        ("auto", {"k": 2}, "coe.k"),
    ):
        refused = await ask(client, key, model, **coe)
        assert refusal(refused) == (403, "permission_error", "override_not_allowed", param)
    assert (await ask(client, key, "auto:best", budget={"energy_j": 1000})).status_code == 200
    listed = (await client.get("/v1/models", headers=bearer(key))).json()["data"]
    assert not {SMALL, LARGE} & {row["id"] for row in listed}


@pytest.mark.parametrize(
    "header", ["x-coe-expert", "x-coe-experts", "x-router-model", "x-coe-mode"]
)
async def test_no_header_chooses_an_expert(shared, header):
    plain = await ask(shared.client(), shared.key())
    wished = await ask(shared.client(), shared.key(), headers={header: SMALL})
    assert plain.headers["x-coe-experts"] == wished.headers["x-coe-experts"] == LARGE


async def test_requests_beyond_a_rate_are_refused_until_it_has_recovered(house, clock):
    key, other = house.key(requests_per_minute=2), house.key()
    client = house.client()
    first, second, third = [await ask(client, key) for _ in range(3)]
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert second.headers["x-ratelimit-reset-requests"] == "60.000s"
    assert refusal(third) == (429, "rate_limit_error", "rate_limit_exceeded", None)
    assert third.headers["retry-after"] == "30"
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    unlimited = await ask(client, other)
    assert unlimited.status_code == 200
    assert not any(name.startswith("x-ratelimit") for name in unlimited.headers)
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
    clock.seconds += 30
    assert (await ask(client, key, path="/v1/route")).status_code == 200
    assert (await ask(client, key)).status_code == 429


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_are_taken_as_the_receipt_says(house, clock, stream):
    key, client = house.key(tokens_per_minute=5), house.client()
    answer = await ask(client, key, stream=stream)
    decision_id = answer.headers["x-coe-decision-id"]
    kept = await client.get(f"/v1/decisions/{decision_id}", headers=bearer(key))
    receipt = kept.json()["receipt"]
    took = receipt["prompt_tokens"] + receipt["output_tokens"]
    assert took > 5
    refused = await ask(client, key, stream=stream)
    assert refusal(refused)[2] == "rate_limit_exceeded"
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    wait_s = int(refused.headers["retry-after"])
    assert wait_s == (took - 5 + 1) * 12
    clock.seconds += wait_s
    assert (await ask(client, key)).status_code == 200


async def test_joules_are_taken_as_the_receipt_says(house):
    key, client = house.key(joules_per_minute=0.001), house.client()
    assert (await ask(client, key)).status_code == 200
    assert refusal(await ask(client, key))[2] == "rate_limit_exceeded"


async def test_many_at_once_are_no_more_than_a_rate(house):
    key, client = house.key(requests_per_minute=10), house.client()
    answers = await asyncio.gather(*(ask(client, key) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 40


async def test_the_interface_says_that_keys_are_asked_for(house):
    document = (await house.client().get("/openapi.json", headers=bearer(house.key()))).json()
    assert document["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert "security" not in document["paths"]["/metrics"]["get"]


async def test_refusals_are_counted(house):
    client = house.client()
    await ask(client, None)
    await ask(client, "wrong")
    page = (await client.get("/metrics", headers=bearer(house.key(role="viewer")))).text
    assert 'coe_refusals_total{code="missing_api_key"} 1.0' in page
    assert 'coe_refusals_total{code="invalid_api_key"} 1.0' in page


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8"]])
async def test_only_a_trusted_proxy_says_who_is_behind_it(house, trusted, clock):
    section = house.gateway.runtime.config.gateway
    section = type(section)(**section.model_dump() | {"trusted_proxies": trusted})
    config = house.gateway.runtime.config.model_copy(update={"gateway": section})
    runtime = type(house.gateway.runtime)(
        config,
        house.gateway.runtime.policies,
        house.gateway.runtime.engine,
        house.gateway.runtime.fleet,
        tenants=house.gateway.runtime.tenants,
    )
    house.gateway = Gateway(runtime, porter=house.gateway.porter)
    client = house.client(client=("10.0.0.1", 4))

    async def wrong(address):
        said = {"x-forwarded-for": f"{', '.join(['1.2.3.4'] * 499)}, {address}"}
        return (await client.get("/v1/models", headers=bearer("wrong") | said)).status_code

    assert {await wrong("198.51.100.1") for _ in range(60)} == {401}
    assert await wrong("198.51.100.1") == 429
    assert await wrong("198.51.100.2") == (401 if trusted else 429)


async def test_the_operators_token_does_what_it_did(house):
    client, token = house.client(), bearer("the operator's token")
    assert (await client.get("/admin/experts", headers=token)).status_code == 200
    turned = await client.put(f"/admin/experts/{LARGE}", json={"switch": "ban"}, headers=token)
    assert turned.json()["switch"] == "ban"
    assert (await ask(client, "the operator's token", SMALL)).status_code == 200


async def test_without_a_porter_there_are_no_callers(house):
    open_house = Gateway(house.gateway.runtime)
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(open_house.app()), base_url="http://gateway"
    )
    assert (await ask(client, None, tenant="acme")).status_code == 200
    assert "experts" in (await client.get("/readyz")).json()
    assert (await client.get("/metrics")).status_code == 200


async def test_whose_key_it_was_is_known_of_what_is_refused_too(house):
    told = []
    house.gateway.tell = [told.append]
    key = house.key(role="viewer")
    async with house.client() as client:
        await client.put("/admin/experts/x", headers={"authorization": f"Bearer {key}"})
        await client.put("/admin/experts/x", headers={"authorization": "Bearer coe-none"})
    assert [(done.code, done.key_id) for done in told] == [
        ("role_not_allowed", key.split("-")[1]),
        ("invalid_api_key", ""),
    ]
