"""The end of a real gateway: answers that end in time are whole, others say so, all are booked."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from coe.answer import DONE, chunk, completion
from coe.config import DATA
from coe.services.sockets.server import listening

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
PIECE_S = 0.02
CONFIG = """
gateway: {{drain_accept_s: 0.3, drain_answers_s: {answers_s}}}
artefact: {artefact}
budgets: budgets.yaml
store: {{kind: sqlite, path: ledger.sqlite}}
devices:
  far: {{ttft_b_ms: 0.1, ttft_c_ms: 20, decode_tokens_per_s: 100, prefill_w: 40, decode_w: 30}}
experts:
  - {{id: {small}, kind: http, device: far, base_url: "{url}/v1", connect_timeout_s: 20}}
  - {{id: {large}, kind: http, device: far, base_url: "{url}/v1", connect_timeout_s: 20}}
"""


async def upstream(scope, receive, send):
    """A word every 20 ms, as many as asked for; whole answers come after as long."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    document = json.loads(body)
    n, name = document["max_tokens"], document["model"]
    stream = document.get("stream", False)
    kind = b"text/event-stream" if stream else b"application/json"
    headers = [(b"content-type", kind)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for k in range(n):
        piece = chunk("a", name, {"role": "assistant", "content": f" {k}"}, None)
        await send({"type": "http.response.body", "body": piece if stream else b"", "more_body": 1})
        await asyncio.sleep(PIECE_S)
    end = chunk("a", name, {}, "stop", (10, n)) + DONE
    last = end if stream else completion("a", name, "whole", 10, n, "stop")
    await send({"type": "http.response.body", "body": last})


@pytest.fixture(scope="module")
def expert():
    """Address of an expert in a thread."""
    with listening("127.0.0.1", 0) as listener:
        config = uvicorn.Config(upstream, log_level="critical", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = server.force_exit = True
        thread.join()


@pytest.fixture
def running(expert, tmp_path):
    """`coe serve` in a process: (process, url, all that it says)."""

    @contextmanager
    def start(answers_s):
        (tmp_path / "budgets.yaml").write_text(
            "policies: {default: {}}\nlimits: {house: {scope: global, window_s: 864000, "
            "tokens: 100000000}}\n"
        )
        path = tmp_path / "coe.yaml"
        paths = {"artefact": DATA / "artefact", "small": SMALL, "large": LARGE}
        path.write_text(CONFIG.format(url=expert, answers_s=answers_s, **paths))
        command = [sys.executable, "-m", "coe", "serve", "--port", "0", "--config", str(path)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if line.startswith("ready"):
                    break
            url = re.search(r"listening on (http://\S+)/v1", "".join(said)).group(1)
            yield process, url, said
        finally:
            if process.poll() is None:
                process.kill()
            said.extend(process.stderr)
            process.stderr.close()
            process.wait(10)

    return start


def asked(n_tokens, **more):
    return {
        "model": SMALL,
        "max_tokens": n_tokens,
        "messages": [{"role": "user", "content": "Hello"}],
        **more,
    }


def stream(url, n_tokens, begun):
    """All that comes of a stream; counts its first piece in."""
    document = asked(n_tokens, stream=True)
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=document, timeout=60) as answer:
        pieces = []
        for piece in answer.iter_raw():
            if not pieces:
                begun.release()
            pieces.append(piece)
        return b"".join(pieces).decode()


def whole(url, n_tokens):
    return httpx.post(f"{url}/v1/chat/completions", json=asked(n_tokens), timeout=60)


def books(tmp_path, coe):
    """What was spent, by an account that holds nothing any more."""
    config = ("--json", "--config", tmp_path / "coe.yaml")
    checked = coe("ledger", "check", *config)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["requests_held"] == 0
    (account,) = json.loads(coe("ledger", "show", *config).stdout)["accounts"]
    return account["spent"]


def test_what_can_end_ends_and_what_cannot_says_so_and_all_is_booked(running, tmp_path, coe):
    n, short, long = 12, 60, 3000
    begun = threading.Semaphore(0)
    with running(2.5) as (process, url, said), ThreadPoolExecutor(64) as clients:
        kept = httpx.Client(timeout=30)
        assert "connection" not in kept.get(f"{url}/readyz").headers
        streams = [clients.submit(stream, url, k, begun) for k in [short] * n + [long] * n]
        answers = [clients.submit(whole, url, k) for k in (short, long)]
        for _ in streams:
            assert begun.acquire(timeout=30)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        ready = kept.get(f"{url}/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        assert ready.headers["connection"] == "close"
        late = whole(url, 2)
        assert (late.status_code, late.headers["connection"]) == (200, "close")
        ended = [one.result(60) for one in streams]
        complete, cut = (one.result(60) for one in answers)
        assert process.wait(30) == 0
        took_s = time.monotonic() - began
        kept.close()
    assert 2.5 < took_s < 2.8 + 3.0
    for text in ended[:n]:
        assert text.endswith("data: [DONE]\n\n")
        assert f'" {short - 1}"' in text
    for text in ended[n:]:
        error = json.loads(text.rstrip().rpartition("data: ")[2])["error"]
        assert (error["code"], error["type"]) == ("shutting_down", "server_error")
        assert "[DONE]" not in text
    assert complete.status_code == 200
    assert (cut.status_code, cut.json()["error"]["code"]) == (503, "shutting_down")
    assert cut.headers["connection"] == "close"
    spent = books(tmp_path, coe)
    assert spent["requests"] == 2 * n + 3
    seen = sum(text.count('"content"') for text in ended[n:])
    least = (n + 1) * (10 + short) + (10 + 2) + seen
    # the prompts of those that were cut are estimated, and of the last event a socket may hold some
    assert least <= spent["tokens"] < least + n * 50
    assert "Traceback" not in "".join(said)


def test_a_second_signal_ends_it_at_once(running, tmp_path, coe):
    begun = threading.Semaphore(0)
    with running(20) as (process, url, _), ThreadPoolExecutor(8) as clients:
        streams = [clients.submit(stream, url, 3000, begun) for _ in range(8)]
        for _ in streams:
            assert begun.acquire(timeout=30)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert time.monotonic() - began < 2.0
        assert all('"code": "shutting_down"' in one.result(10) for one in streams)
    books(tmp_path, coe)


def test_an_idle_gateway_ends_soon(running):
    with running(20) as (process, url, said):
        with httpx.Client() as client:
            client.get(f"{url}/healthz")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert time.monotonic() - began < 2.0
    assert "Traceback" not in "".join(said)
