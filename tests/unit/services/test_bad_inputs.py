"""What nobody should send, and what is answered: `tests/data/bad_inputs.jsonl`, a case a line.

``body`` changes a good body, ``document`` is another one, ``text`` and ``bytes`` (hexadecimal) are
sent as they are; ``[part, n]`` and ``{"$times": [part, n]}`` repeat. What only raw bytes can say
(``raw``) is sent to a process in `tests/integration/test_bad_inputs.py`.

Where others answer otherwise, and why not here: a key of one request that is malformed is no
conflict, but ``invalid_idempotency_key``; ceilings stand in the object ``coe``, and so do their
names. What experts send is in `tests/unit/coe/test_http_truth.py`.
"""

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from coe.budgets import load_policies
from coe.capability import EVERYTHING
from coe.config import DATA, load_config
from coe.engine import Engine
from coe.experts.stub import StubExpert
from coe.router import Router
from coe.services.fleet import Fleet
from coe.services.gateway import Gateway
from coe.services.runtime import Runtime

LINES = (Path(__file__).parents[2] / "data" / "bad_inputs.jsonl").read_text().splitlines()
CASES = [case for case in map(json.loads, LINES) if "raw" not in case]
GOOD = {"model": "auto", "messages": [{"role": "user", "content": "hours"}]}
MOST_ECHOED = 200


@pytest.fixture(scope="module")
def gateway():
    """Over two stubs with the context of the embedded default, which can do everything."""
    config = load_config(DATA / "coe.yaml")
    specs = [replace(spec, capabilities=EVERYTHING) for spec in config.specs.values()]
    router = Router.load(config.artefact, specs)
    stubs = {name: StubExpert(name, tokens=["I", " am ", name]) for name in config.specs}
    fleet = Fleet(specs=config.specs, experts=stubs, hosts={})
    policies = load_policies(config.budgets)
    return Gateway(Runtime(config, policies, Engine(router, stubs), fleet))


@pytest.fixture
def client(gateway):
    transport = httpx.ASGITransport(gateway.app())
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


def built(value, names):
    """What a case says in short, at length."""
    if isinstance(value, dict) and "$times" in value:
        part, n = value["$times"]
        return part * n
    if isinstance(value, dict):
        return {key: built(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [built(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def content(case, names):
    """The bytes of a case's body."""
    if "bytes" in case:
        return bytes.fromhex(case["bytes"])
    if "text" in case:
        return "".join(part * n for part, n in case["text"]).encode()
    if "keys" in case:
        return json.dumps({f"k{n}": n for n in range(case["keys"])}).encode()
    document = case.get("document") or GOOD | case.get("body", {})
    left = {k: v for k, v in document.items() if k not in case.get("without", ())}
    return json.dumps(built(left, names)).encode()


async def post(client, case, names):
    headers = {"content-type": "application/json"} | case.get("headers", {})
    return await client.request(
        case.get("method", "POST"),
        case.get("path", "/v1/chat/completions"),
        content=content(case, names),
        headers=[
            *((name, value.encode()) for name, value in headers.items()),
            *((name, value.encode()) for name, value in case.get("headers_list", ())),
        ],
    )


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
async def test_it_is_answered_as_listed_and_the_next_one_too(client, gateway, case):
    answer = await post(client, case, {"$embedder": gateway.runtime.engine.router.embedder.name})
    assert answer.status_code == case["status"], answer.text[:400]
    if case["status"] != 200:
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == (case["type"], case["code"])
        assert error["param"] == case["param"]
        longest = max((len(word) for word in error["message"].split()), default=0)
        assert longest <= MOST_ECHOED
    assert answer.headers["content-type"] == "application/json"
    assert (await client.post("/v1/chat/completions", json=GOOD)).status_code == 200


def test_no_two_cases_have_one_name():
    names = [json.loads(line)["id"] for line in LINES]
    assert len({*names}) == len(names)


async def test_a_key_of_one_request_does_not_come_with_another(client):
    headers = {"idempotency-key": "order-7"}
    other = GOOD | {"max_tokens": 9}
    asked = [(GOOD, headers), (GOOD, headers), (other, headers), (other, {})]
    answers = [await client.post("/v1/chat/completions", json=b, headers=h) for b, h in asked]
    assert [answer.status_code for answer in answers] == [200, 200, 409, 200]
    assert answers[2].json()["error"]["code"] == "idempotency_conflict"
    mine = headers | {"authorization": "Bearer mine"}
    assert (await client.post("/v1/chat/completions", json=other, headers=mine)).status_code == 200
