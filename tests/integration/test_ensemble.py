"""Several experts make one answer: a real gateway, real HTTP, the real OpenAI client."""

import re
import time
from contextlib import contextmanager

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coe.config import load_config
from coe.escalation import Escalations
from coe.mode import Mode

PROMPT = "some code"
SAID = {"a": "four it is\nThe answer is 4.", "b": "4", "slow": "5 " * 300, "other": "5"}
CONFIG = """
gateway: {waiting_every_s: 0.02}
devices:
  brisk: {ttft_b_ms: 0, ttft_c_ms: 200, decode_tokens_per_s: 100, prefill_w: 40, decode_w: 30}
  slow: {ttft_b_ms: 0, ttft_c_ms: 10, decode_tokens_per_s: 10, prefill_w: 40, decode_w: 30}
experts:
  - {id: a, kind: replay, recording: said.parquet, device: brisk}
  - {id: b, kind: replay, recording: said.parquet, device: brisk}
  - {id: other, kind: replay, recording: said.parquet, device: brisk}
  - {id: slow, kind: replay, recording: said.parquet, device: slow}
"""
QUALITY = {"a": 0.9, "b": 0.8, "other": 0.95, "slow": 0.6}


@pytest.fixture(scope="module")
def running(tmp_path_factory, serve):
    folder = tmp_path_factory.mktemp("ensemble")
    columns = {f"answer__{name}": [text] for name, text in SAID.items()}
    pq.write_table(pa.table({"prompt": [PROMPT]} | columns), folder / "said.parquet")
    (folder / "coe.yaml").write_text(CONFIG)
    with serve(load_config(folder / "coe.yaml")) as gateway:
        yield gateway


@pytest.fixture
def deciding_on(running, make_router, in_mode):
    """The gateway while its router decides on a mode."""

    @contextmanager
    def forced(kind, *stages, threshold=0.0):
        engine, specs = running.runtime.engine, list(running.runtime.fleet.specs.values())
        router = make_router(specs, [[QUALITY[spec.id] for spec in specs]] * 3, tokens=10.0)
        before, engine.router = engine.router, in_mode(router, Mode(kind, stages, threshold))
        try:
            yield running
        finally:
            engine.router, engine.escalations = before, None

    return forced


def ask(gateway, **more):
    messages = [{"role": "user", "content": PROMPT}]
    return gateway.client.chat.completions.create(model="auto", messages=messages, **more)


VOTE = ("vote", ("a", "b", "slow"))


def test_a_whole_answer_does_not_wait_for_who_cannot_change_it(deciding_on):
    with deciding_on(*VOTE) as gateway:
        started = time.monotonic()
        answer = ask(gateway)
        # all that the slow one has to say would take half a minute
        assert time.monotonic() - started < 10
    assert (answer.model, answer.choices[0].message.content) == ("a", SAID["a"])
    receipt = answer.model_extra["coe"]["receipt"]
    assert receipt["agreement"]["agreeing"] == ["a", "b"]
    assert receipt["agreement"]["cancelled"] == ["slow"]
    parts = {part["expert_id"]: part for part in receipt["parts"]}
    assert parts["slow"]["outcome"] == "cancelled"
    assert parts["slow"]["output_tokens"] < 100
    assert receipt["energy_j"] == pytest.approx(
        sum(part["energy_j"] for part in parts.values()), rel=1e-4
    )
    assert answer.usage.completion_tokens == parts["a"]["output_tokens"]


def test_a_streamed_vote_says_what_a_whole_one_does(deciding_on):
    with deciding_on(*VOTE) as gateway:
        chunks = list(ask(gateway, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == SAID["a"]
    assert {c.model for c in chunks} == {"a"}
    assert chunks[-1].choices[0].finish_reason == "stop"


def stream(gateway, **more):
    body = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
    return httpx.stream(
        "POST", f"{gateway.url}/v1/chat/completions", json=body | more, timeout=60, trust_env=False
    )


def test_a_stream_waits_with_comments_and_then_is_the_winner_s_own(deciding_on):
    with deciding_on("single", ("a",)) as gateway, stream(gateway) as answer:
        alone = answer.read()
    with deciding_on(*VOTE) as gateway, stream(gateway) as answer:
        assert answer.headers["x-coe-experts"] == "a,b,slow"
        voted = answer.read()
        receipt = gateway.receipt(answer.headers["x-coe-decision-id"])
    comment = b": waiting\n\n"
    assert voted.startswith(comment)
    assert voted.replace(comment, b"") == alone.replace(comment, b"")
    assert (receipt["expert_id"], receipt["outcome"]) == ("a", "complete")
    assert receipt["ttft_ms"] >= 200


def test_what_a_fusion_writes_is_passed_on_as_it_comes(deciding_on):
    with (
        deciding_on("fuse", ("a", "b"), ("slow",)) as gateway,
        stream(gateway, max_tokens=20) as answer,
    ):
        came = [(time.monotonic(), piece) for piece in answer.iter_raw() if b"content" in piece]
        receipt = gateway.receipt(answer.headers["x-coe-decision-id"])
    assert came[-1][0] - came[0][0] > 0.5
    assert receipt["outcome"] == "complete"
    assert [part["expert_id"] for part in receipt["parts"]] == ["a", "b", "slow"]
    assert receipt["expert_id"] == "slow"
    assert receipt["ttft_ms"] < receipt["latency_ms"] - 500


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_stops_everyone(deciding_on, eventually, streamed):
    with deciding_on(
        "rank",
        ("slow",),
    ) as gateway:
        if streamed:
            with stream(gateway) as answer:
                assert next(answer.iter_raw()).startswith(b": waiting")
            receipt = gateway.receipt(answer.headers["x-coe-decision-id"])
            assert (receipt["outcome"], receipt["agreement"]) == ("cancelled", None)
            assert [part["outcome"] for part in receipt["parts"]] == ["cancelled"]
        else:
            body = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}]}
            url = f"{gateway.url}/v1/chat/completions"
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(url, json=body, timeout=0.5, trust_env=False)
        engine = gateway.runtime.engine
        eventually(lambda: engine._loads["slow"].n_in_flight == 0, "an idle expert", 10)


def test_escalations_are_bounded_and_counted(deciding_on):
    with deciding_on("cascade", ("b",), ("other", "a"), threshold=0.85) as gateway:
        gateway.runtime.engine.escalations = Escalations(1e-6, 1, time.monotonic)
        answers = [ask(gateway) for _ in range(2)]
    receipts = [answer.model_extra["coe"]["receipt"] for answer in answers]
    assert [one["agreement"]["escalation"] for one in receipts] == ["asked", "declined"]
    assert [one["agreement"]["n_stages"] for one in receipts] == [2, 1]
    assert [answer.model for answer in answers] == ["a", "b"]
    page = httpx.get(f"{gateway.url}/metrics", timeout=30, trust_env=False).text
    assert 'coe_escalations_total{outcome="asked"} 1.0' in page
    assert 'coe_escalations_total{outcome="declined"} 1.0' in page
    early = re.search(r"^coe_early_ends_total (\S+)$", page, re.M)
    assert early
    assert float(early[1]) >= 1


@pytest.mark.engine
def test_real_engines_are_asked_at_once_and_state_their_tokens(gateway, in_mode):
    engine = gateway.runtime.engine
    before, both = engine.router, ("smollm2-135m", "qwen2.5-coder-0.5b")
    engine.router = in_mode(before, Mode("rank", (both,)))
    try:
        whole = ask(gateway, max_tokens=8, temperature=0)
        chunks = list(ask(gateway, max_tokens=8, temperature=0, stream=True))
    finally:
        engine.router = before
    parts = whole.model_extra["coe"]["receipt"]["parts"]
    assert {part["expert_id"] for part in parts} == {*both}
    assert {part["tokens_source"] for part in parts} == {"stated"}
    assert all(part["output_tokens"] <= 8 for part in parts)
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == whole.choices[0].message.content
    # every event has a choice: the one that states usage was not asked for
    assert all(c.choices for c in chunks)
