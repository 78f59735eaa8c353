"""What a host says of its engine, how it warms it, guards it and drains it."""

import asyncio
import os
import signal
import sys

import httpx
import pytest

from coe.services.host.memory import resident_bytes
from coe.services.host.probe import Load, read_load
from coe.services.host.process import EngineHost
from coe.services.host.watched import Watch

# answers in llama.cpp's words; a chat request of "hold" lasts until somebody gets /release
ENGINE = """
import http.server, json, os, sys, threading
held, release, tokens = [], threading.Event(), []
key = os.environ.get("COE_ENGINE_KEY")
class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/release":
            release.set()
        page = f'llamacpp:requests_processing {len(held)}\\nllamacpp:requests_deferred 0\\n'
        page += f'llamacpp:tokens_predicted_total {10 * len(tokens)}\\n'
        page += f'llamacpp:tokens_predicted_seconds_total {0.5 * len(tokens)}\\n'
        if self.path == "/metrics" and key and not self.allowed():
            return self.say(401, "")
        self.say(200, page)
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.allowed():
            return self.say(401, "no key")
        if body["model"] == "broken":
            return self.say(500, "out of memory")
        if body["model"] == "hold":
            held.append(1)
            release.wait()
            held.pop()
        tokens.append(1)
        self.say(200, "{}")
    def allowed(self):
        return not key or self.headers.get("authorization") == f"Bearer {key}"
    def say(self, status, text):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"address": f"http://127.0.0.1:{server.server_port}"}), flush=True)
sys.stdin.read()
os._exit(0)
"""
QUICK = Watch(start_timeout_s=20, health_period_s=0.05, first_delay_s=0.01, n_crashes=2)


@pytest.fixture
async def open_host():
    """Hosts of the engine above, stopped at the end."""
    hosts = []

    async def ready(**options):
        host = EngineHost("e", lambda: [sys.executable, "-c", ENGINE], watch=QUICK, **options)
        hosts.append(host)
        await host.start()
        await host.settled()
        return host

    yield ready
    for host in hosts:
        await host.stop()


async def until(condition):
    async with asyncio.timeout(30):
        while not await condition():
            pass


def chat(model):
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}


async def ask(host, model, key="none"):
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(timeout=60, trust_env=False, headers=headers) as client:
        return await client.post(f"{host.address}/v1/chat/completions", json=chat(model))


async def get(host, path):
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        return await client.get(f"{host.address}{path}")


async def running(host):
    return (await host.report()).n_running == 1


async def test_a_report_says_what_runs_and_how_fast(open_host):
    host = await open_host(slots=3)
    report = await host.report()
    assert (report.state, report.slots, report.n_starts) == ("ready", 3, 1)
    assert report.address == host.address
    assert report.memory_bytes > 2**20
    assert (report.n_running, report.tokens_per_s) == (0, 0.0)
    held = asyncio.create_task(ask(host, "hold"))
    await until(lambda: running(host))
    await get(host, "/release")
    await held
    report = await host.report()
    assert (report.n_running, report.tokens_per_s) == (0, 20.0)
    await host.stop()
    report = await host.report()
    assert (report.state, report.address, report.memory_bytes) == ("stopped", None, 0)


async def test_an_engine_that_hangs_is_reported_as_it_was_within_a_second(open_host):
    host = await open_host()
    os.kill(host.process_id, signal.SIGSTOP)
    try:
        async with asyncio.timeout(1):
            assert (await host.report()).state == "ready"
    finally:
        os.kill(host.process_id, signal.SIGCONT)


async def test_draining_waits_for_what_has_begun(open_host):
    host = await open_host()
    held = asyncio.create_task(ask(host, "hold"))
    await until(lambda: running(host))
    change = asyncio.create_task(host.changed())
    drained = asyncio.create_task(host.drain(30))
    await change
    assert host.state == "draining"
    assert host.address is not None
    assert not drained.done()
    await get(host, "/release")
    assert (await held).status_code == 200
    assert await drained
    assert host.state == "draining"


async def test_draining_gives_up_in_time(open_host):
    host = await open_host()
    held = asyncio.create_task(ask(host, "hold"))
    await until(lambda: running(host))
    assert not await host.drain(0.2)
    assert not held.done()
    await get(host, "/release")
    await held


async def test_an_engine_that_ends_while_draining_stays_down(open_host):
    host = await open_host()
    assert await host.drain(5)
    ended = asyncio.create_task(host.changed())
    os.kill(host.process_id, signal.SIGKILL)
    await ended
    assert (host.state, host.address, host.n_starts) == ("stopped", None, 1)


async def test_what_is_not_ready_has_nothing_to_drain():
    host = EngineHost("e", lambda: [sys.executable, "-c", "import sys; sys.stdin.read()"])
    await host.start()
    assert await host.drain(5)
    assert host.state == "stopped"


async def test_a_first_request_is_answered_before_the_engine_is_ready(open_host):
    host = await open_host(first_request=chat("e"))
    assert host.state == "ready"
    assert "total 10\n" in (await get(host, "/metrics")).text
    # and does not count as speed
    assert (await host.report()).tokens_per_s == 0.0


async def test_an_engine_that_does_not_answer_at_first_has_crashed():
    host = EngineHost(
        "e",
        lambda: [sys.executable, "-c", ENGINE],
        watch=Watch(first_delay_s=0.01, n_crashes=1),
        first_request=chat("broken"),
    )
    await host.start()
    assert await host.settled() == "failed"
    assert "its first answer was HTTP 500: out of memory" in host.reason
    await host.stop()


async def test_a_key_goes_by_the_environment_and_is_sent(open_host):
    host = await open_host(key="secret", first_request=chat("e"))
    assert host.state == "ready"
    assert (await ask(host, "e")).status_code == 401
    held = asyncio.create_task(ask(host, "hold", "secret"))
    await until(lambda: running(host))
    await get(host, "/release")
    assert (await held).status_code == 200


async def test_a_key_of_the_environment_is_not_the_engines(open_host, monkeypatch):
    monkeypatch.setenv("COE_ENGINE_KEY", "somebody else's")
    host = await open_host(first_request=chat("e"))
    assert host.state == "ready"


@pytest.mark.parametrize(
    ("page", "load"),
    [
        ("llamacpp:requests_processing 2\nllamacpp:requests_deferred 3\n", Load(2, 3)),
        (
            'vllm:num_requests_running{engine="0",model_name="a b"} 2.0\n'
            'vllm:num_requests_running{engine="1",model_name="a b"} 1.0\n'
            'vllm:num_requests_waiting{engine="0"} 4.0\n'
            'vllm:request_generation_tokens_sum{engine="0"} 60.0\n'
            'vllm:request_decode_time_seconds_sum{engine="0"} 1.5\n',
            Load(3, 4, 60.0, 1.5),
        ),
        (
            "vllm:num_requests_running 1\nvllm:num_requests_waiting NaN\n"
            "vllm:request_generation_tokens_sum +Inf\n",
            Load(1),
        ),
        ("vllm:num_requests_running NaN\n", None),
        ("# HELP a b\nhttp_requests_total 3\nnonsense x\n\n", None),
    ],
)
def test_loads_are_read_in_the_words_of_every_engine(page, load):
    assert read_load(page) == load


def test_a_rate_over_no_time_is_none_yet():
    assert Load(output_tokens=1.0, decode_s=1e-6).tokens_per_s(Load()) == 0.0
    assert Load(output_tokens=50.0, decode_s=2.0).tokens_per_s(Load(0, 0, 10.0, 1.0)) == 40.0


def test_memory_is_that_of_a_process_and_all_that_it_started(tmp_path):
    for process_id, parent, pages in [(10, 1, 3), (11, 10, 5), (12, 11, 7), (13, 1, 1000)]:
        folder = tmp_path / str(process_id)
        folder.mkdir()
        filler = " 0" * 19
        (folder / "stat").write_text(f"{process_id} (a ) b) S {parent}{filler} {pages} 0\n")
    (tmp_path / "14").mkdir()
    (tmp_path / "meminfo").write_text("")
    assert resident_bytes(10, tmp_path) == 15 * os.sysconf("SC_PAGE_SIZE")
    assert resident_bytes(99, tmp_path) == 0


def test_this_process_has_memory():
    assert resident_bytes(os.getpid()) > 2**20
