"""The gateway over stub experts: what is rendered, and how errors look."""

import asyncio
import itertools
import json
from dataclasses import replace

import httpx
import pytest

from coe.answer import DONE, pieces_of
from coe.capability import EVERYTHING
from coe.config import load_config
from coe.energy import EnergyAccount
from coe.errors.experts import (
    ExpertRejectedError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    ExpertUntrustedError,
)
from coe.experts.continuation import Token
from coe.experts.standing import StandingExpert
from coe.experts.stub import StubContinuation, StubExpert
from coe.free import free_spec, stock_of
from coe.meter import MeterReading
from coe.mode import Mode
from coe.optimizer.pacing import Allowance, Pacer
from coe.retrieval import Retriever
from coe.routers.retrieve import Index, Passage
from coe.services.observing.exchange import exchange_of
from coe.services.streamed import Streamed
from coe.services.wire.chat import parse_chat

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
CODE = "Write a Python function that returns the sum of the even numbers in a list."


@pytest.fixture
def stubs():
    return {name: StubExpert(name, tokens=["I", " am ", name]) for name in (SMALL, LARGE)}


@pytest.fixture
def client(gateway):
    transport = httpx.ASGITransport(gateway.app(), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


def body(content=CODE, model="auto", **more):
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


async def post(client, document, path="/v1/chat/completions"):
    return await client.post(path, json=document)


async def test_the_expert_gets_the_body_without_model_and_extras(client, stubs):
    extras = {"coe": {"explain": True}, "temperature": 0.5, "stop": ["x"], "max_tokens": 9}
    answer = await post(client, body(**extras))
    assert answer.status_code == 200
    (request,) = stubs[LARGE].requests
    assert set(request.payload) == {"messages", "temperature", "stop", "max_tokens"}
    assert stubs[LARGE].caps == [9]
    assert answer.json()["coe"]["alternatives"][-1]["id"] == SMALL


async def test_alternatives_only_when_asked_to_explain(client):
    assert "alternatives" not in (await post(client, body())).json()["coe"]


async def test_a_stream_passes_through_and_its_head_predicts(client, gateway, stubs):
    answer = await post(client, body(stream=True))
    assert answer.content.endswith(DONE)
    assert answer.headers["x-coe-figures"] == "predicted"
    kept, receipt = gateway.journal.find(answer.headers["x-coe-decision-id"])
    assert kept.expert_id == answer.headers["x-coe-experts"] == LARGE
    assert (receipt.outcome, receipt.output_tokens) == ("complete", 3)


async def test_a_scarce_period_budget_shows_its_price(client, gateway):
    engine = gateway.runtime.engine
    engine.pacer = Pacer([Allowance("energy_j", 1e-6, 1e6)], engine.now())
    first = (await post(client, body())).json()["coe"]
    assert "running_prices" not in first
    for _ in range(20):
        last = (await post(client, body())).json()["coe"]
    assert last["running_prices"]["per_joule"] > 0
    assert last["running_prices"]["per_usd"] == 0
    assert (first["experts"][0]["id"], last["experts"][0]["id"]) == (LARGE, SMALL)


async def test_measured_joules_are_said_to_be_and_the_meter_is_on_the_metrics(client, gateway):
    joules = itertools.count()
    account = EnergyAccount("rail", now=lambda: float(next(joules)))
    account.refresh = lambda: account.note_reading(MeterReading(now := account.now(), 3.0 * now))
    gateway.runtime.engine.accounts = {LARGE: account}
    gateway.runtime = replace(gateway.runtime, machines={"gateway": account})
    answer = await post(client, body())
    assert answer.headers["x-coe-figures"] == "measured"
    receipt = answer.json()["coe"]["receipt"]
    assert (receipt["energy_source"], receipt["energy_scope"]) == ("measured", "rail")
    page = (await client.get("/metrics")).text
    for part in ("metered", "idle", "requests", "carried"):
        assert f'coe_meter_joules{{machine="gateway",part="{part}"}}' in page
    assert f'coe_energy_joules_total{{expert="{LARGE}",source="measured"}}' in page


async def test_text_parts_are_read_and_other_parts_go_to_who_sees(client, gateway, stubs):
    parts = [{"type": "text", "text": CODE}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    document = {"model": "auto", "messages": [{"role": "user", "content": parts}]}
    refused = (await post(client, document)).json()["error"]
    assert (refused["code"], refused["param"]) == ("capability_missing", "messages[0].content")
    engine = gateway.runtime.engine
    seeing = replace(engine.router.specs[SMALL], capabilities=EVERYTHING)
    engine.router = replace(engine.router, specs={**engine.router.specs, SMALL: seeing})
    answer = await post(client, document)
    assert answer.json()["coe"]["category"] == "code"
    assert answer.json()["coe"]["why"].endswith(f"{LARGE} lacks images")
    assert stubs[SMALL].requests[0].payload["messages"] == document["messages"]


async def test_only_user_turns_are_routed_on(client):
    messages = [
        {"role": "system", "content": "You translate everything into French."},
        {"role": "user", "content": CODE},
        {"role": "assistant", "content": "Good morning, how lovely to see you!"},
    ]
    answer = await post(client, {"model": "auto", "messages": messages}, "/v1/route")
    assert answer.json()["category"] == "code"


async def test_a_follow_up_says_which_turn_it_is_routed_by(client):
    messages = [
        {"role": "user", "content": CODE},
        {"role": "assistant", "content": "def f(xs): ..."},
        {"role": "user", "content": "And why?"},
    ]
    for n_messages, turns_ago in [(1, 0), (3, 1)]:
        document = {"model": "auto", "messages": messages[:n_messages]}
        decision = (await post(client, document, "/v1/route")).json()
        assert (decision["category"], decision["category_turns_ago"]) == ("code", turns_ago)
    assert "kept from an earlier turn" in decision["why"]


async def test_a_remote_embedder_fetches_before_every_decision(client, gateway):
    fetched = []

    async def warm(texts):
        fetched.extend(texts)

    gateway.runtime.engine.warm = warm
    await post(client, body("first"))
    await post(client, body("second"), "/v1/route")
    assert fetched == ["first", "second"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ExpertUnavailableError(LARGE, "down"), 503, "expert_unavailable"),
        (ExpertTimeoutError(LARGE, "silent"), 504, "upstream_timeout"),
        (ExpertRejectedError(LARGE, "answered HTTP 500", 500), 502, "expert_failed"),
        (ExpertUntrustedError(LARGE, "no answer"), 502, "upstream_invalid"),
        (ExpertRejectedError(LARGE, "no", 400, b"context too long"), 400, "upstream_rejected"),
        (ExpertRejectedError(LARGE, "no", 401, b"bad key sk-1"), 502, "expert_failed"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_pinned_experts_error_is_openai_shaped(client, stubs, error, status, code, stream):
    stubs[LARGE].error = error
    answer = await post(client, body(model=LARGE, stream=stream))
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == code
    assert ("retry-after" in answer.headers) == (status == 503)


async def test_an_error_after_the_first_piece_ends_the_stream_visibly(client, gateway, stubs):
    stubs[LARGE].error, stubs[LARGE].error_after = ExpertUnavailableError(LARGE, "gone"), 2
    answer = await post(client, body(stream=True))
    assert DONE not in answer.content
    last = [line for line in answer.text.split("\n\n") if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "expert_unavailable"
    _, receipt = gateway.journal.find(answer.headers["x-coe-decision-id"])
    assert receipt.outcome == "failed"


async def test_a_defect_is_a_500_without_details_and_the_gateway_lives(client, stubs):
    stubs[LARGE].error = ZeroDivisionError("secret detail")
    answer = await post(client, body(model=LARGE))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]["type"] == "server_error"
    assert (await client.get("/healthz")).status_code == 200


async def test_an_infeasible_budget_states_what_is_needed(client):
    answer = await post(client, body(coe={"budget": {"energy_j": 1e-6}}))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "budget_infeasible")
    assert error["needed"]["energy_j"] > 0


async def test_metrics_tell_answers_refusals_and_failovers(client, stubs):
    stubs[LARGE].error = ExpertUnavailableError(LARGE, "down")
    await post(client, body())
    await post(client, body(model="nobody"))
    page = (await client.get("/metrics")).text
    assert 'coe_failovers_total{expert="qwen2.5-coder-0.5b"} 1.0' in page
    assert 'coe_refusals_total{code="model_not_found"} 1.0' in page
    assert 'coe_answers_total{category="code",expert="smollm2-135m",outcome="complete"} 1.0' in page


async def test_fifty_streams_at_once_stay_apart(client, stubs):
    async def one(n):
        name = (SMALL, LARGE)[n % 2]
        answer = await post(client, body(model=name, stream=True))
        return name in answer.text and (SMALL, LARGE)[1 - n % 2] not in answer.text

    assert all(await asyncio.gather(*(one(n) for n in range(50))))


async def test_readiness_and_decisions(client):
    assert (await client.get("/readyz")).json()["status"] == "ready"
    decided = (await post(client, body(), "/v1/route")).json()
    kept = (await client.get(f"/v1/decisions/{decided['decision_id']}")).json()
    assert kept["receipt"] is None
    assert kept["why"] == decided["why"]


async def test_what_an_expert_says_to_the_operator_is_not_passed_on(client, stubs):
    stubs[LARGE].error = ExpertRejectedError(LARGE, "answered HTTP 401", 401, b"bad key sk-12")
    assert "sk-12" not in (await post(client, body(model=LARGE))).text


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"no\r\n\x1b[2J " + b"x" * 10_000, ""),
        (b'{"error": {"message": "the prompt is ...", "code": 400}}', ""),
        (
            b'{"error": {"code": "context_length_exceeded", "param": "messages[0]"}}',
            ": context_length_exceeded, messages[0]",
        ),
        (b'{"error": {"type": "bad", "param": "two words"}}', ": bad"),
        (b'{"error": "no"}', ""),
        (b"[" * 4000, ""),
    ],
)
async def test_of_what_an_expert_says_is_wrong_only_words_are_passed_on(client, stubs, said, told):
    stubs[LARGE].error = ExpertRejectedError(LARGE, "answered HTTP 400", 400, said)
    message = (await post(client, body(model=LARGE))).json()["error"]["message"]
    assert message == f"expert {LARGE!r}: answered HTTP 400{told}"


async def test_half_an_emoji_does_not_cost_the_answer(client, stubs):
    stubs[LARGE].tokens = ["half \ud83d"]
    answer = await post(client, body(model=LARGE))
    assert answer.status_code == 200
    assert json.loads(answer.content)["choices"][0]["message"]["content"] == "half \ud83d"


async def test_a_client_that_leaves_while_a_piece_is_sent_is_settled(gateway, stubs):
    """The receipt comes though the generator is suspended at a piece nobody takes."""
    request, _ = parse_chat(
        json.dumps(body(model=LARGE, stream=True)).encode(),
        gateway.runtime.policies,
        frozenset(stubs),
    )
    streamed = Streamed(gateway, request, False, exchange_of({}))
    await streamed.open()
    events = streamed.events()
    await anext(events)
    await events.aclose()
    await streamed.close()
    _, receipt = gateway.journal.find(streamed.headers["x-coe-decision-id"])
    assert receipt.outcome == "cancelled"
    assert stubs[LARGE].n_closed == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_whoever_is_cut_off_before_the_first_piece_has_a_receipt(gateway, stubs, stream):
    began = asyncio.Event()

    async def never(seconds):
        began.set()
        await asyncio.Event().wait()

    stubs[LARGE].token_s, stubs[LARGE].sleep = 1.0, never
    transport = httpx.ASGITransport(gateway.app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        asking = asyncio.create_task(post(client, body(model=LARGE, stream=stream)))
        await began.wait()
        gateway.door.cut()
        answer = await asking
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
        page = (await client.get("/metrics")).text
    told = [line for line in page.splitlines() if line.startswith("coe_answers_total{")]
    assert len(told) == 1
    assert 'outcome="cancelled"' in told[0]


# ---- several experts


@pytest.fixture
def both(gateway, stubs, in_mode):
    """The gateway while it asks both experts for every answer."""
    engine = gateway.runtime.engine
    engine.router = in_mode(engine.router, Mode("vote", ((SMALL, LARGE),)))
    stubs[SMALL].tokens, stubs[LARGE].tokens = ["4"], ["5"]
    return gateway


async def test_an_answer_of_several_says_whose_it_is_and_who_was_asked(both, client):
    answer = await post(client, body())
    document = answer.json()
    receipt = document["coe"]["receipt"]
    winner = receipt["expert_id"]
    assert document["model"] == winner
    assert document["choices"][0]["message"]["content"] == {SMALL: "4", LARGE: "5"}[winner]
    assert answer.headers["x-coe-experts"] == f"{SMALL},{LARGE}"
    assert {part["expert_id"] for part in receipt["parts"]} == {SMALL, LARGE}
    assert receipt["agreement"]["agreeing"] == [winner]
    assert float(answer.headers["x-coe-energy-j"]) == pytest.approx(receipt["energy_j"])
    kept = (await client.get(f"/v1/decisions/{receipt['decision_id']}")).json()
    assert kept["receipt"] == receipt


async def test_a_stream_of_several_says_in_its_head_who_may_answer(both, client, stubs):
    answer = await post(client, body(stream=True))
    assert {*answer.headers["x-coe-experts"].split(",")} == {SMALL, LARGE}
    assert answer.headers["x-coe-figures"] == "predicted"
    assert answer.content.endswith(DONE)
    _, receipt = both.journal.find(answer.headers["x-coe-decision-id"])
    assert (receipt.outcome, len(receipt.parts)) == ("complete", 2)


async def test_what_several_took_counts_for_each_and_the_answer_for_one(both, client):
    receipt = (await post(client, body())).json()["coe"]["receipt"]
    page = (await client.get("/metrics")).text
    answers = [line for line in page.splitlines() if line.startswith("coe_answers_total{")]
    assert len(answers) == 1
    for part in receipt["parts"]:
        (line,) = (
            line
            for line in page.splitlines()
            if line.startswith(f'coe_energy_joules_total{{expert="{part["expert_id"]}"')
        )
        assert float(line.split()[-1]) == pytest.approx(part["energy_j"], rel=1e-4)
    assert "coe_in_flight 0.0" in page


async def test_where_several_fail_the_error_is_that_of_one(both, client, stubs):
    for name, stub in stubs.items():
        stub.error = ExpertUnavailableError(name, "down")
    answer = await post(client, body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "expert_unavailable")


async def test_a_failure_of_one_of_several_is_counted(both, client, stubs):
    stubs[SMALL].error = ExpertUnavailableError(SMALL, "down")
    assert (await post(client, body())).json()["model"] == LARGE
    page = (await client.get("/metrics")).text
    assert f'coe_failovers_total{{expert="{SMALL}"}} 1.0' in page


# ---- passages

PASSAGE = Passage("p1", "The Zarbon engine was built in 1873.", "engines.md", "Engines", 0, 4)


@pytest.fixture
def indexed(gateway):
    """The gateway with an index of one passage."""
    engine = gateway.runtime.engine
    engine.router = replace(engine.router, retriever=Retriever(Index.build([PASSAGE])))
    return gateway


def zarbon(retrieve, **more):
    return body("Zarbon engine?", LARGE, coe={"retrieve": retrieve}, **more)


CITATION = {
    "n": 1,
    "passage_id": "p1",
    "source": "engines.md",
    "title": "Engines",
    "page": 4,
}


async def test_a_whole_answer_cites_the_passages_that_the_expert_got(indexed, client, stubs):
    answer = await post(client, zarbon("always"))
    extras = answer.json()["coe"]
    (cited,) = extras["citations"]
    assert cited.items() >= CITATION.items()
    assert cited["score"] > 0
    assert extras["retrieval"]["retrieve"] is True
    assert answer.headers["x-coe-retrieved"] == "1"
    quoted, asked = stubs[LARGE].requests[0].payload["messages"]
    assert (quoted["role"], asked["content"]) == ("user", "Zarbon engine?")
    assert PASSAGE.text in quoted["content"]
    kept = (await client.get(f"/v1/decisions/{extras['decision_id']}")).json()
    assert kept["citations"] == extras["citations"]


async def test_a_stream_with_passages_has_one_more_event_before_its_end(indexed, client):
    plain = await post(client, zarbon("never", stream=True))
    cited = await post(client, zarbon("always", stream=True))
    assert cited.headers["x-coe-retrieved"] == "1"
    before, event, end = cited.content.rsplit(b"data: ", 2)
    assert b"data: " + end == DONE
    assert (before + b"data: " + end).replace(b"stub-2", b"stub-1") == plain.content
    document = json.loads(event)
    assert document["choices"] == []
    assert document["coe"]["citations"][0].items() >= CITATION.items()
    assert document["coe"]["decision_id"] == cited.headers["x-coe-decision-id"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_mixture_has_a_name_of_its_own(indexed, client, in_mode, stream):
    engine, mode = indexed.runtime.engine, Mode("mixture", ((SMALL, LARGE),))
    engine.router = in_mode(engine.router, mode)
    said = [{Token(1, b"yes"): 0.0}, {Token(0, b""): 0.0}]
    engine.experts = {name: StubContinuation(said) for name in (SMALL, LARGE)}
    answer = await post(client, body("Zarbon engine?", coe={"retrieve": "always"}, stream=stream))
    assert answer.headers["x-coe-retrieved"] == "1"
    assert {*answer.headers["x-coe-experts"].split(",")} == {SMALL, LARGE}
    if stream:
        events = [json.loads(line[6:]) for line in answer.text.split("\n") if "{" in line]
        assert events[-1]["coe"]["citations"]
    else:
        events = [answer.json()]
        parts = events[0]["coe"]["receipt"]["parts"]
        assert {part["expert_id"] for part in parts} == {SMALL, LARGE}
    assert {event["model"] for event in events} == {mode.name}


@pytest.mark.parametrize("retrieve", ["never", "auto"])
async def test_without_passages_a_stream_is_the_experts_own_bytes(indexed, client, retrieve):
    answer = await post(client, zarbon(retrieve, stream=True))
    assert answer.content == b"".join(pieces_of("chatcmpl-stub-1", LARGE, ["I", " am ", LARGE]))
    assert answer.headers["x-coe-retrieved"] == "0"


async def test_an_answer_without_passages_cites_nothing(indexed, client):
    extras = (await post(client, zarbon("never"))).json()["coe"]
    assert "citations" not in extras
    assert extras["retrieval"] == {
        "retrieve": False,
        "gain": None,
        "price": None,
        "why": "not retrieved, as asked",
    }


async def test_always_without_an_index_is_refused(client):
    answer = await post(client, zarbon("always"))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "coe.retrieve"


@pytest.mark.parametrize("stream", [False, True])
async def test_neither_decisions_nor_metrics_hold_a_prompt(indexed, client, stream):
    answer = await post(client, zarbon("always", stream=stream))
    await client.post("/v1/route", json=zarbon("never"))
    decision = await client.get(f"/v1/decisions/{answer.headers['x-coe-decision-id']}")
    page = await client.get("/metrics")
    assert decision.json()["receipt"]["outcome"] == "complete"
    assert "Zarbon engine?" not in decision.text + page.text + str(answer.headers)


FREE_CONFIG = """
experts:
  - {id: faq, kind: constant, answers: [{text: Nine to five., patterns: [hours]}]}
  - {id: nobody, kind: 'null'}
"""


@pytest.fixture
def free(gateway, stubs, tmp_path):
    """The gateway with two more experts, which compute nothing."""
    (tmp_path / "coe.yaml").write_text(FREE_CONFIG)
    sections = load_config(tmp_path / "coe.yaml").experts
    stocks = {section.id: stock_of(section) for section in sections}
    engine, fleet = gateway.runtime.engine, gateway.runtime.fleet
    specs = {**fleet.specs, **{section.id: free_spec(section) for section in sections}}
    experts = {**stubs, **{name: StandingExpert(name) for name in stocks}}
    engine.experts, engine.router = experts, replace(engine.router, specs=specs, stocks=stocks)
    fleet = replace(fleet, specs=specs, experts=experts, stocks=stocks)
    gateway.runtime = replace(gateway.runtime, fleet=fleet)
    return gateway


async def test_a_declined_request_says_so_and_what_would_do(free, client, stubs):
    tight = body(coe={"budget": {"energy_j": 0.1}})
    answer = await post(client, tight)
    document = answer.json()
    assert answer.headers["x-coe-declined"] == "true"
    assert document["choices"][0]["finish_reason"] == "stop"
    assert "No expert answers this" in document["choices"][0]["message"]["content"]
    extras = document["coe"]
    assert extras["declined"] is True
    assert extras["needed"]["energy_j"] > 0.1
    assert extras["receipt"]["energy_j"] == 0
    enough = await post(client, body(coe={"budget": extras["needed"]}))
    assert enough.headers["x-coe-declined"] == "false"
    assert "declined" not in enough.json()["coe"]
    assert sum(len(stub.requests) for stub in stubs.values()) == 1
    assert (
        b'coe_answers_total{category="code",expert="nobody",outcome="complete"} 1.0'
        in (await client.get("/metrics")).content
    )


async def test_a_canned_answer_by_name_or_none_at_all(free, client):
    hours = await post(client, body("opening hours?", model="faq"))
    assert hours.json()["usage"]["completion_tokens"] == 4
    refused = await post(client, body("something else", model="faq"))
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "no_answer_ready"


async def test_models_and_readiness_tell_them_apart(free, client):
    rows = {row["id"]: row for row in (await client.get("/v1/models")).json()["data"]}
    assert rows["faq"]["owned_by"] == "constant"
    assert rows["nobody"]["description"] == "computes nothing"
    assert (await client.get("/readyz")).json()["experts"]["nobody"] == "ready"


async def test_a_wrong_path_or_method_is_told_where_to_look(client):
    nowhere, get = await client.get("/v1"), await client.get("/v1/chat/completions")
    assert nowhere.json()["error"]["message"] == (
        "there is nothing at /v1: GET /openapi.json has what there is for callers"
    )
    assert get.json()["error"]["message"] == "/v1/chat/completions takes POST, and no GET"
    assert (nowhere.status_code, get.status_code, get.headers["allow"]) == (404, 405, "POST")
