"""A mixture from request to receipt: a real gateway, real engines, the real OpenAI client."""

import concurrent.futures
from dataclasses import replace

import httpx
import openai
import pytest

from coe.config import DATA, load_config

ONE, OTHER = "smollm2-135m", "qwen2.5-coder-0.5b"
pytestmark = pytest.mark.engine
# two copies of one model, by the names of experts that the shipped artefact knows
CONFIG = f"""
artefact: {DATA / "artefact"}
budgets: {DATA / "budgets.yaml"}
devices:
  core: {{ttft_b_ms: 5, ttft_c_ms: 200, decode_tokens_per_s: 50, prefill_w: 12, decode_w: 10}}
experts:
  - {{id: {ONE}, kind: embedded, weights: smollm2-135m-instruct-q4_1, device: core,
     context_tokens: 1024, vocabulary: smollm2}}
  - {{id: {OTHER}, kind: embedded, weights: smollm2-135m-instruct-q4_1, device: core,
     context_tokens: 1024, vocabulary: smollm2, usd_per_mtok_out: 1000}}
"""
MIXTURE = {"mode": "mixture"}
CAP = 24


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, embedded_config, serve):
    path = tmp_path_factory.mktemp("mixture") / "coe.yaml"
    path.write_text(CONFIG)
    with serve(load_config(path)) as running:
        yield running


def ask(gateway, model="auto", text="What is the capital of Spain?", coe=None, **more):
    """The raw answer: headers too."""
    return gateway.client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        **{"max_tokens": CAP, "temperature": 0} | more,
        extra_body={"coe": coe} if coe else None,
    )


def alone(gateway, **more):
    """What one copy says; what a cached prefix was read with decides near-ties: read it before."""
    ask(gateway, model=ONE, **more)
    return ask(gateway, model=ONE, **more).parse()


def name(receipt):
    return " ~ ".join(part["expert_id"] for part in receipt["parts"])


def check(receipt, answer):
    """That two members made this answer, each all of its tokens."""
    parts = receipt["parts"]
    assert {part["expert_id"] for part in parts} == {ONE, OTHER}
    assert receipt["expert_id"] == name(receipt)
    assert receipt["agreement"] is None
    assert [part["outcome"] for part in (receipt, *parts)] == ["complete"] * 3
    n_tokens = answer.usage.completion_tokens
    assert [part["output_tokens"] for part in parts] == [n_tokens] * 2
    assert [part["prompt_tokens"] for part in parts] == [answer.usage.prompt_tokens] * 2
    assert {part["tokens_source"] for part in parts} == {"stated"}
    (paid,) = (part["cost_usd"] for part in parts if part["expert_id"] == OTHER)
    assert receipt["cost_usd"] == paid == pytest.approx(n_tokens * 1e-3)
    assert receipt["energy_j"] == pytest.approx(sum(p["energy_j"] for p in parts), rel=1e-4)


def idle(gateway):
    loads = gateway.runtime.engine._loads
    return all(loads[name].n_in_flight == 0 for name in (ONE, OTHER))


@pytest.mark.parametrize("text", ["What is the capital of Spain?", "Write a haiku."])
def test_two_copies_of_one_model_say_what_it_says(gateway, text):
    single = alone(gateway, text=text)
    raw = ask(gateway, text=text, coe=MIXTURE)
    answer = raw.parse()
    assert answer.choices[0].message.content == single.choices[0].message.content
    assert answer.choices[0].finish_reason == single.choices[0].finish_reason
    said = answer.model_extra["coe"]
    check(said["receipt"], answer)
    assert answer.model == said["mode_name"] == name(said["receipt"])
    assert set(raw.headers["x-coe-experts"].split(",")) == {ONE, OTHER}
    assert raw.headers["x-coe-figures"] == "modelled"
    assert said["mode"] == "mixture"
    assert said["why"].endswith("mode mixture as asked for")
    assert idle(gateway)


def test_a_stream_is_the_same_token_by_token(gateway):
    single = alone(gateway)
    raw = ask(gateway, coe=MIXTURE, stream=True)
    chunks = list(raw.parse())
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == single.choices[0].message.content
    assert len([c for c in chunks if c.choices[0].delta.content]) > 3
    assert set(raw.headers["x-coe-experts"].split(",")) == {ONE, OTHER}
    receipt = gateway.receipt(raw.headers["x-coe-decision-id"])
    check(receipt, chunks[-1])
    assert {chunk.model for chunk in chunks} == {name(receipt)}
    assert receipt["ttft_ms"] < receipt["latency_ms"]
    assert idle(gateway)  # as there is a receipt


def test_mixtures_share_the_engines(gateway, eventually):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, gateway, coe=MIXTURE) for _ in range(3)]
        answers = [future.result().parse() for future in asked]
    for answer in answers:
        check(answer.model_extra["coe"]["receipt"], answer)
    eventually(lambda: idle(gateway), "idle experts", 10)


def test_who_leaves_stops_both_engines(gateway, eventually):
    body = {
        "model": "auto", "messages": [{"role": "user", "content": "Count to a hundred."}],
        "stream": True, "max_tokens": 400, "coe": MIXTURE,
    }  # fmt: skip
    url = f"{gateway.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=60, trust_env=False) as answer:
        pieces = answer.iter_raw()
        for _ in range(5):
            next(pieces)
    receipt = gateway.receipt(answer.headers["x-coe-decision-id"])
    parts = receipt["parts"]
    assert [part["outcome"] for part in (receipt, *parts)] == ["cancelled"] * 3
    assert all(0 < part["output_tokens"] < 400 for part in parts)
    eventually(lambda: idle(gateway), "idle experts", 10)


@pytest.mark.parametrize(
    ("field", "value"), [("response_format", {"type": "json_object"}), ("n", 2)]
)
def test_what_cannot_be_mixed_is_refused_with_the_reason(gateway, field, value):
    with pytest.raises(openai.BadRequestError, match=f"cannot do '{field}'") as refused:
        ask(gateway, coe=MIXTURE, **{field: value})
    assert (refused.value.param, refused.value.code) == ("coe.mode", "mode_unavailable")


def test_who_is_left_answers_alone(gateway):
    engine, before = gateway.runtime.engine, gateway.runtime.engine.experts
    inner = before[OTHER].inner
    gone = replace(inner, engine=replace(inner.engine, address=lambda: None))
    engine.experts = {**before, OTHER: replace(before[OTHER], inner=gone)}
    try:
        answer = ask(gateway, coe=MIXTURE).parse()
    finally:
        engine.experts = before
    said = answer.model_extra["coe"]
    receipt = said["receipt"]
    assert (answer.model, receipt["failed_over"], receipt["parts"]) == (ONE, [OTHER], [])
    assert f"{OTHER} did not answer" in said["why"]
    assert idle(gateway)
