"""Engine processes that die come back; meanwhile the other expert answers."""

import os
import signal

import httpx
import openai
import pytest

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
pytestmark = pytest.mark.engine


def test_a_killed_engine_is_replaced_and_comes_back(gateway, eventually):
    host = gateway.runtime.fleet.hosts[LARGE]
    starts = host.n_starts
    os.kill(host.process_id, signal.SIGKILL)
    answer = gateway.client.chat.completions.create(
        model="auto:best",
        messages=[{"role": "user", "content": "What is 7 times 8?"}],
        max_tokens=8,
    )
    assert answer.model == SMALL
    receipt = answer.model_extra["coe"]["receipt"]
    assert receipt["failed_over"] == [LARGE]
    assert f"{LARGE} did not answer" in answer.model_extra["coe"]["why"]
    eventually(lambda: host.state == "ready" and host.n_starts == starts + 1, "a restart")
    again = gateway.client.chat.completions.create(
        model=LARGE, messages=[{"role": "user", "content": "Hi"}], max_tokens=4
    )
    assert again.model == LARGE


def test_a_pinned_expert_that_is_dead_is_503(gateway, eventually):
    host = gateway.runtime.fleet.hosts[LARGE]
    os.kill(host.process_id, signal.SIGKILL)
    with pytest.raises(openai.InternalServerError) as raised:
        gateway.client.chat.completions.create(
            model=LARGE, messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
    assert raised.value.status_code == 503
    assert raised.value.code == "expert_unavailable"
    eventually(lambda: host.state == "ready", "a restart")


def test_an_engine_killed_in_mid_stream_ends_the_stream_with_an_error(gateway, eventually):
    host = gateway.runtime.fleet.hosts[SMALL]
    stream = gateway.client.chat.completions.create(
        model=SMALL,
        messages=[{"role": "user", "content": "Tell me a very long story about the sea."}],
        max_tokens=1500,
        stream=True,
    )
    decision_id = stream.response.headers["x-coe-decision-id"]
    pieces = iter(stream)
    next(pieces)
    os.kill(host.process_id, signal.SIGKILL)
    with stream, pytest.raises(openai.APIError):
        list(pieces)
    assert gateway.receipt(decision_id)["outcome"] == "failed"
    eventually(lambda: host.state == "ready", "a restart")
    assert httpx.get(f"{gateway.url}/healthz", timeout=30).json() == {"status": "ok"}
