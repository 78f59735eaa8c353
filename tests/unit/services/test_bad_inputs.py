"""What nobody should send, and what is answered: `tests/data/bad_inputs.jsonl`, a case a line.

``body`` changes a good body, ``document`` is another one, ``text`` and ``bytes`` (hexadecimal) are
sent as they are; ``[part, n]`` and ``{"$times": [part, n]}`` repeat. What only raw bytes can say
(``raw``) is sent to a process in `tests/integration/test_bad_inputs.py`. With ``access`` the
gateway asks for keys: ``$good`` and the like stand for one.

Where others answer otherwise, and why not here: a key of one request that is malformed is no
conflict, but ``invalid_idempotency_key``; ceilings stand in the object ``coe``, and so do their
names. What experts send is in `tests/unit/coe/test_http_truth.py`.
"""

import json
import secrets
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from coe.access.failures import Failures
from coe.access.keys import digest_of, minted
from coe.access.rates import RateMeter
from coe.budgets import load_policies
from coe.capability import EVERYTHING
from coe.config import DATA, load_config
from coe.engine import Engine
from coe.experts.stub import StubExpert
from coe.router import Router
from coe.services.access.keyfile import KeyFile, KeyRecord
from coe.services.access.keyring import Keyring
from coe.services.access.porter import Porter
from coe.services.fleet import Fleet
from coe.services.gateway import Gateway
from coe.services.runtime import Runtime

LINES = (Path(__file__).parents[2] / "data" / "bad_inputs.jsonl").read_text().splitlines()
CASES = [case for case in map(json.loads, LINES) if "raw" not in case]
GOOD = {"model": "auto", "messages": [{"role": "user", "content": "hours"}]}
MOST_ECHOED = 200
NOW_S = 1_000_000.0


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


def connected(gateway):
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


def spelt(text, names):
    """A text with what names in it stand for."""
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, names[name])
    return text


async def post(client, case, names):
    headers = {"content-type": "application/json"} | case.get("headers", {})
    headers = {name: spelt(value, names) for name, value in headers.items()}
    return await client.request(
        case.get("method", "POST"),
        spelt(case.get("path", "/v1/chat/completions"), names),
        content=content(case, names),
        headers=[
            *((name, value.encode()) for name, value in headers.items()),
            *((name, value.encode()) for name, value in case.get("headers_list", ())),
        ],
    )


@pytest.fixture
def keys(tmp_path, gateway):
    """A porter of this gateway, and the keys that it knows."""
    kinds = {
        "$good": {},
        "$revoked": {"revoked_s": NOW_S - 1},
        "$expired": {"expires_s": NOW_S},
        "$expiring": {"expires_s": NOW_S + 1},
        "$limited": {"models": ["smollm2-135m"]},
        "$routed": {"overrides": False},
        "$spent": {"requests_per_minute": 0.001},
    }
    file, names = KeyFile(tmp_path / "keys.json", b"p" * 32), {}
    for name, fields in kinds.items():
        key_id, names[name] = minted(secrets.token_bytes)
        digest = digest_of(file.pepper, names[name]).hex()
        file.add(KeyRecord(id=key_id, digest=digest, created_s=0.0, **fields))
    good = names["$good"]
    names["$flipped"] = good[:-1] + chr(ord(good[-1]) ^ 1)
    names["$cut"] = good[:20]
    names["$digest"] = digest_of(file.pepper, good).hex()
    names["$mixed"] = good[:17] + names["$spent"][17:]
    porter = Porter(
        Keyring(file), RateMeter(lambda: 0.0), Failures(60.0, lambda: 0.0), wall=lambda: NOW_S
    )
    porter.keyring.open()
    porter.rates.admit(porter.keyring.ring.caller(names["$spent"], NOW_S))
    return porter, names


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
async def test_it_is_answered_as_listed_and_the_next_one_too(gateway, keys, case):
    names = {"$embedder": gateway.runtime.engine.router.embedder.name}
    good = {}
    if case.get("access"):
        porter, named = keys
        gateway = Gateway(gateway.runtime, porter=porter)
        names |= named
        good = {"authorization": f"Bearer {named['$good']}"}
    client = connected(gateway)
    answer = await post(client, case, names)
    assert answer.status_code == case["status"], answer.text[:400]
    if case["status"] != 200:
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == (case["type"], case["code"])
        assert error["param"] == case["param"]
        longest = max((len(word) for word in error["message"].split()), default=0)
        assert longest <= MOST_ECHOED
    assert answer.headers["content-type"] == "application/json"
    again = await client.post("/v1/chat/completions", json=GOOD, headers=good)
    assert again.status_code == 200


def test_no_two_cases_have_one_name():
    names = [json.loads(line)["id"] for line in LINES]
    assert len({*names}) == len(names)


async def test_a_key_of_one_request_does_not_come_with_another(gateway):
    client = connected(gateway)
    headers = {"idempotency-key": "order-7"}
    other = GOOD | {"max_tokens": 9}
    asked = [(GOOD, headers), (GOOD, headers), (other, headers), (other, {})]
    answers = [await client.post("/v1/chat/completions", json=b, headers=h) for b, h in asked]
    assert [answer.status_code for answer in answers] == [200, 200, 409, 200]
    assert answers[2].json()["error"]["code"] == "idempotency_conflict"
    mine = headers | {"authorization": "Bearer mine"}
    assert (await client.post("/v1/chat/completions", json=other, headers=mine)).status_code == 200
