"""Recorded answers, served over HTTP at the pace of a device profile."""

import time
from pathlib import Path

import httpx
import openai
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coe.config import DATA, load_config
from coe.core import Message, Request
from coe.errors.files import ConfigError
from coe.experts.replay import Recorded, prompt_key
from coe.routers.outcomes import Outcomes
from coe.services.host.experts import open_host
from coe.services.host.watched import Watch
from coe.services.recording import read_recording

OUTCOMES = Path(__file__).parents[2] / "data" / "outcomes" / "embedded.parquet"
SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
CONFIG = f"""
artefact: {DATA / "artefact"}
budgets: {DATA / "budgets.yaml"}
devices:
  h100: {{ttft_b_ms: 0.1, ttft_c_ms: 200, decode_tokens_per_s: 100, prefill_w: 400, decode_w: 300}}
experts:
  - {{id: {SMALL}, kind: replay, recording: {OUTCOMES}, device: h100}}
  - {{id: {LARGE}, kind: replay, recording: {OUTCOMES}, device: h100, time_scale: 0}}
"""


@pytest.fixture(scope="module")
def replay(tmp_path_factory, serve):
    path = tmp_path_factory.mktemp("replay") / "coe.yaml"
    path.write_text(CONFIG)
    with serve(load_config(path)) as running:
        yield running


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "coe.yaml"
    path.write_text(CONFIG)
    return load_config(path)


def ask(replay, content, model, **more):
    messages = [{"role": "user", "content": content}]
    return replay.client.chat.completions.create(model=model, messages=messages, **more)


def test_a_known_prompt_gets_the_recorded_answer_whole_and_streamed(replay):
    prompt = Outcomes.read(OUTCOMES).prompts[0]
    whole = ask(replay, prompt, LARGE).choices[0].message.content
    assert whole == read_recording(OUTCOMES, LARGE)[prompt_key(prompt)].text
    stream = ask(replay, prompt, LARGE, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == whole


def test_the_pace_is_the_profiles(replay):
    prompt = Outcomes.read(OUTCOMES).prompts[0]
    receipt = ask(replay, prompt, SMALL).model_extra["coe"]["receipt"]
    profile = replay.runtime.fleet.specs[SMALL].profile
    expected = profile.ttft_ms(receipt["prompt_tokens"]) + profile.decode_ms(
        receipt["output_tokens"]
    )
    # sleeping can only take longer than asked for
    assert receipt["latency_ms"] >= expected
    assert receipt["energy_j"] == pytest.approx(
        profile.energy_j(receipt["prompt_tokens"], receipt["output_tokens"]), rel=1e-4
    )


def test_the_receipt_counts_the_tokens_that_were_recorded(replay):
    outcomes = Outcomes.read(OUTCOMES)
    n_tokens = outcomes.tokens[0, outcomes.expert_ids.index(LARGE)]
    answer = ask(replay, outcomes.prompts[0], LARGE)
    assert answer.model_extra["coe"]["receipt"]["output_tokens"] == n_tokens
    assert answer.usage.completion_tokens == n_tokens
    *_, last = ask(replay, outcomes.prompts[0], LARGE, stream=True)
    assert last.usage.completion_tokens == n_tokens


def test_a_fast_clock_and_a_small_time_scale_give_device_time(tmp_path, serve):
    path = tmp_path / "coe.yaml"
    path.write_text(CONFIG.replace("device: h100}", "device: h100, time_scale: 0.01}"))
    prompt = Outcomes.read(OUTCOMES).prompts[0]
    with serve(load_config(path), now=lambda: 100 * time.monotonic()) as fast:
        answers = [ask(fast, prompt, SMALL).model_extra["coe"] for _ in range(2)]
        profile = fast.runtime.fleet.specs[SMALL].profile
    for answer in answers:
        receipt = answer["receipt"]
        expected = profile.ttft_ms(receipt["prompt_tokens"]) + profile.decode_ms(
            receipt["output_tokens"]
        )
        assert receipt["latency_ms"] >= expected
    # what was measured agrees with what is predicted: the expert is not taken for a faster one
    first, second = (answer["predicted"]["latency_ms"] for answer in answers)
    assert second >= first


def test_an_unknown_prompt_has_no_recorded_answer(replay):
    with pytest.raises(openai.NotFoundError, match="no recorded answer"):
        ask(replay, "Nobody ever asked this.", LARGE)


def test_a_recording_without_the_expert_is_named(tmp_path):
    with pytest.raises(ConfigError, match="recording"):
        read_recording(OUTCOMES, "nobody")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recording(tmp_path / "gone.parquet", SMALL)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_process_answers_byte_for_byte_as_the_expert_in_the_gateway(config, stream, replay):
    section = config.experts[1]
    host = open_host(section, config.spec(section), key="secret")
    await host.start()
    try:
        assert await host.settled() == "ready", host.reason
        prompt = Outcomes.read(OUTCOMES).prompts[0]
        body = {"model": LARGE, "messages": [{"role": "user", "content": prompt}]}
        url = f"{host.address}/v1/chat/completions"
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            assert (await client.post(url, json=body)).status_code == 401
            client.headers["authorization"] = "Bearer secret"
            answer = await client.post(url, json={**body, "stream": stream, "max_tokens": 40})
        request = Request(messages=(Message("user", prompt),), stream=stream)
        pieces = replay.runtime.fleet.experts[LARGE].stream(request, 40)
        assert answer.content == b"".join([piece async for piece in pieces])
        assert await host.drain(10)
        report = await host.report()
        assert (report.state, report.n_running, report.slots) == ("draining", 0, 1)
    finally:
        await host.stop()


async def test_a_recording_that_is_gone_fails_with_its_name(config, tmp_path):
    section = config.experts[0].model_copy(update={"recording": tmp_path / "gone.parquet"})
    host = open_host(section, config.spec(section), watch=Watch(first_delay_s=0.01, n_crashes=1))
    await host.start()
    assert await host.settled() == "failed"
    assert "gone.parquet" in host.reason
    await host.stop()


def test_an_expert_with_a_dot_in_its_name_needs_no_counts(tmp_path):
    path = tmp_path / "answers.parquet"
    pq.write_table(pa.table({"prompt": ["Why?"], "answer__llama-3.1": ["Because."]}), path)
    assert read_recording(path, "llama-3.1") == {prompt_key("Why?"): Recorded("Because.")}
