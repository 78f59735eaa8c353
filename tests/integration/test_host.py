"""Engine processes that die come back; meanwhile the other expert answers."""

import asyncio
import os
import signal

import httpx
import openai
import pytest

from coe.services.host.experts import open_host

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
    # who decides at once may not know of its end yet
    asked = receipt["failed_over"] == [LARGE]
    said = f"{LARGE} did not answer" if asked else f"{LARGE}: not running"
    assert said in answer.model_extra["coe"]["why"]
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


async def test_an_engine_is_guarded_reports_and_drains(embedded_config):
    section = next(e for e in embedded_config.experts if e.id == SMALL)
    host = open_host(section, embedded_config.spec(section), bind="127.0.0.2", key="secret")
    await host.start()
    assert await host.settled() == "ready", host.reason
    try:
        await _guarded_drain(host)
    finally:
        await host.stop()


async def _guarded_drain(host):
    assert host.address.startswith("http://127.0.0.2:")
    url, body = f"{host.address}/v1/chat/completions", {"max_tokens": 200}
    body["messages"] = [{"role": "user", "content": "Tell me a very long story about the sea."}]
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        assert (await client.post(url, json=body)).status_code == 401
        key = {"authorization": "Bearer secret"}
        answering = asyncio.create_task(client.post(url, json=body, headers=key))
        async with asyncio.timeout(30):
            while (await host.report()).n_running == 0:
                assert not answering.done()
        assert await host.drain(60)
        answer = await answering
    assert answer.json()["usage"]["completion_tokens"] > 1
    report = await host.report()
    assert (report.state, report.slots, report.n_running, report.n_starts) == ("draining", 4, 0, 1)
    assert report.tokens_per_s > 1
    assert report.memory_bytes > 100_000_000
