"""An address that somebody else serves."""

import asyncio
import http.server
import threading

import pytest

from coe.services.host.external import ExternalHost
from coe.services.host.watched import Watch

QUICK = Watch(health_period_s=0.02, health_timeout_s=2, first_delay_s=0.01, max_delay_s=0.05)
PAGE = 'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_waiting{engine="0"} 1.0\n'


class Server(http.server.ThreadingHTTPServer):
    """Answers ``/v1/models`` with a status of choice, ``/metrics`` with a page or 404."""

    status, page = 200, ""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("authorization")))
        models = self.path == "/v1/models"
        text = "" if models else server.page
        self.send_response(server.status if models else 200 if text else 404)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
async def host(server):
    host = ExternalHost("e", f"{server.url}/v1", slots=8, key="secret", watch=QUICK)
    yield host
    await host.stop()


async def state(host, wanted):
    async with asyncio.timeout(30):
        while host.state != wanted:
            await host.changed()


async def test_an_address_that_answers_is_ready_and_asked_with_its_key(host, server):
    assert host.address is None
    await host.start()
    assert await host.settled() == "ready"
    assert server.asked[0] == ("/v1/models", "Bearer secret")
    report = await host.report()
    assert (report.address, report.slots, report.n_starts) == (server.url, 8, 1)
    assert (report.n_running, report.memory_bytes, report.tokens_per_s) == (0, 0, 0.0)
    await host.stop()
    assert (await host.report()).address is None


async def test_its_load_is_reported_where_it_says_so(host, server):
    server.page = PAGE
    await host.start()
    await host.settled()
    report = await host.report()
    assert (report.n_running, report.n_waiting) == (2, 1)


async def test_a_page_that_is_not_there_is_asked_for_once(host, server):
    await host.start()
    await host.settled()
    await host.report()
    await host.report()
    assert [path for path, _ in server.asked].count("/metrics") == 1


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_without_a_list_of_models_is_one(host, server, status):
    server.status = status
    await host.start()
    assert await host.settled() == "ready"


async def test_it_fails_and_comes_back_however_late(host, server):
    server.status = 401
    await host.start()
    assert await host.settled() == "failed"
    assert "HTTP 401" in host.reason
    assert host.address is None
    server.status = 200
    await state(host, "ready")
    server.status = 503
    await state(host, "failed")
    assert "HTTP 503" in host.reason
    server.status = 200
    await state(host, "ready")
    assert (host.n_starts, host.reason) == (2, "")


async def test_nobody_there_is_a_failure_that_says_so():
    host = ExternalHost("e", "http://127.0.0.1:9/v1", watch=QUICK)
    await host.start()
    assert await host.settled() == "failed"
    assert "gave no answer (ConnectError)" in host.reason
    await host.stop()


async def test_it_is_drained_at_once_and_stays_so(host, server):
    await host.start()
    await host.settled()
    assert await host.drain(0.0)
    server.status = 503
    server.asked.clear()
    async with asyncio.timeout(30):
        while len(server.asked) <= QUICK.n_failed_checks:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.005)
    assert (host.state, host.address) == ("draining", server.url)
    await host.stop()
    assert await host.drain(0.0)
    assert host.state == "stopped"


async def test_what_nobody_foresaw_counts_as_no_answer_and_it_is_asked_on(host, monkeypatch):
    asking, n_failures = host._complaint, 5

    async def complaint(client):
        nonlocal n_failures
        n_failures -= 1
        return 1 / 0 if n_failures >= 0 else await asking(client)

    monkeypatch.setattr(host, "_complaint", complaint)
    await host.start()
    await state(host, "failed")
    assert host.reason == "nobody foresaw ZeroDivisionError"
    await state(host, "ready")
