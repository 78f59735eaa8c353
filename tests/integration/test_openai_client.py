"""The real OpenAI client against the real gateway and real engines."""

import json
import time

import httpx
import openai
import pytest

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
JSON = {"content-type": "application/json"}
pytestmark = pytest.mark.engine


def ask(gateway, content, model="auto", **more):
    messages = [{"role": "user", "content": content}]
    return gateway.client.chat.completions.create(model=model, messages=messages, **more)


def decide(gateway, content, model="auto", **coe):
    body = {"model": model, "messages": [{"role": "user", "content": content}], "coe": coe}
    return httpx.post(f"{gateway.url}/v1/route", json=body, timeout=30)


def test_whole_answer_carries_decision_and_receipt(gateway):
    answer = ask(gateway, "Hello! How are you today?", max_tokens=16)
    assert answer.choices[0].message.content
    assert answer.model in (SMALL, LARGE)
    extras = answer.model_extra["coe"]
    assert extras["experts"][0]["id"] == answer.model
    assert extras["receipt"]["output_tokens"] == answer.usage.completion_tokens <= 16
    assert extras["receipt"]["outcome"] == "complete"
    assert extras["receipt"]["energy_j"] > 0
    assert extras["receipt"]["energy_source"] == "modelled"
    assert extras["why"]


def test_headers_name_decision_experts_category_and_figures(gateway):
    raw = gateway.client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": "What is 3 + 4?"}], max_tokens=8
    )
    extras = raw.parse().model_extra["coe"]
    assert raw.headers["x-coe-decision-id"] == extras["decision_id"]
    assert raw.headers["x-coe-experts"] == extras["experts"][0]["id"]
    assert raw.headers["x-coe-category"] == extras["category"] == "maths"
    assert float(raw.headers["x-coe-energy-j"]) == extras["receipt"]["energy_j"]
    assert float(raw.headers["x-coe-latency-ms"]) == extras["receipt"]["latency_ms"]


def test_streamed_answer_equals_the_whole_one(gateway):
    whole = ask(gateway, "Name three colours.", model=SMALL, max_tokens=24)
    stream = ask(gateway, "Name three colours.", model=SMALL, max_tokens=24, stream=True)
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_streamed_bytes_are_the_engines_own(gateway):
    body = {
        "messages": [{"role": "user", "content": "Count to five."}],
        "max_tokens": 12,
        "stream": True,
        "temperature": 0,
    }
    engine = gateway.runtime.fleet.hosts[SMALL].address

    def events(url, model):
        answer = httpx.post(f"{url}/v1/chat/completions", json=body | {"model": model}, timeout=60)
        lines = [line for line in answer.content.split(b"\n\n") if line.startswith(b"data: {")]
        documents = [json.loads(line[6:]) for line in lines]
        for document in documents:
            for changing in ("id", "created", "timings"):
                document.pop(changing, None)
        return answer, documents

    (_, expected), (routed, found) = events(engine, SMALL), events(gateway.url, SMALL)
    assert found == expected
    assert routed.content.endswith(b"data: [DONE]\n\n")
    assert routed.headers["content-type"].startswith("text/event-stream")
    receipt = gateway.receipt(routed.headers["x-coe-decision-id"])
    assert receipt["tokens_source"] == "stated"
    assert receipt["output_tokens"] == 12


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "expected"), [("auto", LARGE), ("auto:eco", SMALL)])
def test_the_policy_decides_who_answers(gateway, model, expected, stream):
    """Maths goes to the large expert, unless its joules are above eco's ceiling."""
    raw = gateway.client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": "What is 17 * 6?"}],
        stream=stream,
    )
    answer = raw.parse()
    models = {chunk.model for chunk in answer} if stream else {answer.model}
    assert models == {expected} == {raw.headers["x-coe-experts"]}
    decision = httpx.get(
        f"{gateway.url}/v1/decisions/{raw.headers['x-coe-decision-id']}", timeout=30
    ).json()
    assert decision["category"] == "maths"
    assert decision["binding"] == (None if model == "auto" else "energy_j")


@pytest.mark.parametrize("name", ["n_predict", "n_cmpl"])
def test_an_engines_own_names_do_not_step_around_the_cap(gateway, name):
    with pytest.raises(openai.BadRequestError) as raised:
        ask(gateway, "Count to fifty.", model=SMALL, max_tokens=5, extra_body={name: 40})
    assert (raised.value.code, raised.value.param) == ("unknown_parameter", name)


def test_several_answers_are_all_paid_for(gateway):
    answer = ask(gateway, "Count to fifty.", model=SMALL, max_tokens=6, n=3)
    assert len(answer.choices) == 3
    assert answer.model_extra["coe"]["receipt"]["output_tokens"] >= 15


def test_usage_in_a_stream_reaches_the_client(gateway):
    options = {"include_usage": True}
    stream = ask(gateway, "Hi", model=SMALL, max_tokens=6, stream=True, stream_options=options)
    assert [c.usage.completion_tokens for c in stream if c.usage] == [6]


def test_policies_and_experts_are_models(gateway):
    names = {model.id for model in gateway.client.models.list()}
    assert {"auto", "auto:fast", "auto:eco", "auto:best", SMALL, LARGE} <= names
    assert gateway.client.models.retrieve("auto:eco").id == "auto:eco"


def test_a_pinned_expert_answers_itself(gateway):
    for expert in (SMALL, LARGE):
        answer = ask(gateway, "Say yes.", model=expert, max_tokens=4)
        assert answer.model == expert
        assert answer.model_extra["coe"]["status"] == "pinned"


def test_an_unknown_model_is_404(gateway):
    with pytest.raises(openai.NotFoundError) as raised:
        ask(gateway, "Hello", model="gpt-oracle")
    assert raised.value.code == "model_not_found"
    assert raised.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        ask(gateway, "Hello", model="auto:nothing-like-it")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{not json", 400, None),
        (b"[1, 2]", 400, None),
        (b'{"model": "auto", "messages": [], "x": NaN}', 400, None),
        (b"\xff\xfe", 400, None),
        (b"[" * 100_000, 400, None),
        (b'{"model": "auto"}', 400, "messages"),
        (b'{"model": "auto", "messages": []}', 400, "messages"),
        (b'{"model": "auto", "messages": [{"role": "user"}]}', 400, "messages[0].content"),
        (b'{"model": "auto", "messages": [{"role": "wizard", "content": ""}]}', 400, "role"),
        (b'{"model": "auto", "messages": [{"role": "system", "content": "x"}]}', 400, "messages"),
        (b'{"model": 7, "messages": [{"role": "user", "content": "x"}]}', 400, "model"),
    ],
)
def test_bad_bodies_get_openai_shaped_errors(gateway, body, status, param):
    answer = httpx.post(f"{gateway.url}/v1/route", content=body, headers=JSON, timeout=30)
    assert answer.status_code == status
    if status != 200:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert param is None or param in error["param"]


@pytest.mark.parametrize(
    ("coe", "param"),
    [
        ({"budget": {"energy_j": -1}}, "coe.budget.energy_j"),
        ({"budget": {"latency_ms": 0}}, "coe.budget.latency_ms"),
        ({"budget": {"watts": 3}}, "coe.budget.watts"),
        ({"experts": {"allow": []}}, "coe.experts.allow"),
        ({"experts": {"allow": ["nobody"]}}, "coe.experts.allow"),
        ({"k": 9}, "coe.k"),
    ],
)
def test_wrong_extras_are_named(gateway, coe, param):
    answer = decide(gateway, "Hello", **coe)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


def test_a_body_over_the_limit_is_413(gateway):
    limit = gateway.runtime.config.gateway.max_body_bytes
    answer = httpx.post(f"{gateway.url}/v1/route", content=b" " * (limit + 1), headers=JSON)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_unknown_paths_and_methods_are_openai_shaped(gateway):
    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/route", 405)):
        answer = httpx.request(method, gateway.url + path, timeout=30)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{gateway.url}/v1/decisions/none", timeout=30).status_code == 404


def test_a_client_that_leaves_stops_the_generation(gateway, eventually):
    stream = ask(
        gateway,
        "Write a long story about a lighthouse keeper, with many details.",
        model=SMALL,
        max_tokens=1500,
        stream=True,
    )
    decision_id = stream.response.headers["x-coe-decision-id"]
    for _, _chunk in zip(range(4), stream, strict=False):
        pass
    stream.close()
    receipt = gateway.receipt(decision_id)
    assert receipt["outcome"] == "cancelled"
    assert receipt["output_tokens"] < 200
    engine = gateway.runtime.fleet.hosts[SMALL].address

    def idle():
        slots = httpx.get(f"{engine}/slots", timeout=30).json()
        return not any(slot["is_processing"] for slot in slots)

    started = time.monotonic()
    eventually(idle, "an idle engine", 15)
    # 1500 tokens would take the engine half a minute
    assert time.monotonic() - started < 15
    assert ask(gateway, "Still there?", model=SMALL, max_tokens=4).choices


def test_a_whole_answer_is_given_up_when_the_client_leaves(gateway, eventually):
    body = {
        "model": SMALL,
        "messages": [{"role": "user", "content": "Write a very long essay about rivers."}],
        "max_tokens": 1500,
    }
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=1.5)
    engine = gateway.runtime.fleet.hosts[SMALL].address

    def idle():
        slots = httpx.get(f"{engine}/slots", timeout=30).json()
        return not any(slot["is_processing"] for slot in slots)

    eventually(idle, "an idle engine", 15)
