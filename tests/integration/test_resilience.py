"""Experts that die, fail fast, are slow or busy: a real gateway, real HTTP, and exact counts."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import openai
import pytest

from coe.answer import completion
from coe.config import load_config

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
ASKED = [{"role": "user", "content": "What is 17 * 6?"}]
CONFIG = """
devices:
  near: {{ttft_b_ms: 0.01, ttft_c_ms: 1, decode_tokens_per_s: 1000, prefill_w: 1, decode_w: 1}}
resilience: {{ejected_s: {ejected_s}}}
experts:
  - {{id: {small}, kind: http, device: near, base_url: "{small_url}/v1"}}
  - {{id: {large}, kind: http, device: near, base_url: "{large_url}/v1"{more}}}
"""


class Upstream:
    """An OpenAI-compatible server in a thread.

    Parameters
    ----------
    status, headers : of its answers.
    takes_s : how long each takes.
    """

    def __init__(self, name):
        self.name, self.status, self.headers, self.takes_s = name, 200, {}, 0.0
        self.n_asked = self.n_now = self.n_most = 0
        self._lock = threading.Lock()
        self._connections = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                upstream._connections.append(self.connection)

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                with upstream._lock:
                    upstream.n_asked += 1
                    upstream.n_now += 1
                    upstream.n_most = max(upstream.n_most, upstream.n_now)
                time.sleep(upstream.takes_s)
                good = completion("chatcmpl-1", upstream.name, "102", 9, 1, "stop")
                body = good if upstream.status == 200 else json.dumps({"error": "no"}).encode()
                with upstream._lock:
                    upstream.n_now -= 1
                self.send_response(upstream.status)
                for name, value in upstream.headers.items():
                    self.send_header(name, value)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def die(self):
        """Take no more connections, and cut those that there are; harmless when called twice."""
        if self._thread.is_alive():
            self.server.shutdown()
            self._thread.join()
            self.server.server_close()
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def standing(serve, tmp_path):
    """A gateway over two experts, of which the large one is the better at this."""

    @contextmanager
    def build(more="", ejected_s=30):
        small, large = Upstream(SMALL), Upstream(LARGE)
        path = tmp_path / "coe.yaml"
        path.write_text(
            CONFIG.format(
                small=SMALL,
                large=LARGE,
                small_url=small.url,
                large_url=large.url,
                more=more,
                ejected_s=ejected_s,
            )
        )
        try:
            with serve(load_config(path)) as gateway:
                yield gateway, small, large
        finally:
            small.die()
            large.die()

    return build


def ask(gateway, model="auto"):
    return gateway.client.chat.completions.create(model=model, messages=ASKED)


def who(answers):
    return [answer.model for answer in answers]


def tried_before(answer):
    return answer.model_extra["coe"]["receipt"]["failed_over"]


def guards(gateway):
    engine = gateway.runtime.engine
    return engine.guards.figures(engine.now())


def test_an_expert_that_dies_costs_five_requests_a_second_attempt(standing):
    with standing() as (gateway, small, large):
        assert ask(gateway).model == LARGE
        large.die()
        answers = [ask(gateway) for _ in range(20)]
        assert set(who(answers)) == {SMALL}
        assert sum(tried_before(answer) == [LARGE] for answer in answers) == 5
        assert (large.n_asked, small.n_asked, guards(gateway).n_retries) == (1, 20, 5)
        assert answers[-1].model_extra["coe"]["why"].endswith(f"; {LARGE}: failing")
        assert guards(gateway).experts[LARGE].n_ejections == 1


def test_an_expert_that_fails_at_once_attracts_nobody(standing):
    """T-F02."""
    with standing() as (gateway, small, large):
        large.status = 500
        answers = [ask(gateway) for _ in range(100)]
        assert set(who(answers)) == {SMALL}
        assert (large.n_asked, small.n_asked) == (5, 100)
        row = guards(gateway).experts[LARGE].replicas[0]
        assert (row.phase, 24.0 - 10.0 < row.out_s <= 36.0) == ("ejected", True)


def test_it_is_back_after_one_probe(standing):
    with standing(ejected_s=0.5) as (gateway, _, large):
        large.status = 500
        for _ in range(6):
            ask(gateway)
        large.status = 200
        assert ask(gateway).model == SMALL
        time.sleep(0.7)
        assert who(ask(gateway) for _ in range(3)) == [LARGE] * 3
        assert large.n_asked == 5 + 3


def test_in_a_total_outage_attempts_are_few_more_than_requests(standing):
    """T-L4, T-F08: the last one is asked on, and answers the first time that it can."""
    with standing() as (gateway, small, large):
        small.status = large.status = 503
        began_s = time.monotonic()
        seen = [refused(gateway) for _ in range(300)]
        took_s = time.monotonic() - began_s
        assert {error.status_code for error in seen} == {502}
        n_attempts = small.n_asked + large.n_asked
        assert n_attempts == 300 + guards(gateway).n_retries
        # a tenth, and one a second from ten seconds before on
        assert n_attempts <= 300 + 30 + 10 + took_s + 1
        spent = [error.response.headers.get("x-should-retry") for error in seen]
        assert set(spent) == {"false"}
        small.status = large.status = 200
        assert {ask(gateway).model for _ in range(20)} <= {SMALL, LARGE}
        assert large.n_asked + small.n_asked == n_attempts + 20


def refused(gateway, model="auto"):
    with pytest.raises(openai.APIStatusError) as raised:
        ask(gateway, model)
    return raised.value


def test_who_asks_to_be_left_alone_is(standing):
    with standing() as (gateway, small, large):
        large.status, large.headers = 429, {"retry-after": "20"}
        assert set(who(ask(gateway) for _ in range(10))) == {SMALL}
        assert (large.n_asked, small.n_asked) == (1, 10)
        error = refused(gateway, LARGE)
        assert (error.status_code, error.code, large.n_asked) == (503, "overloaded", 1)
        assert 10 < int(error.response.headers["retry-after"]) <= 20


@pytest.mark.parametrize(("model", "elsewhere"), [("auto", 2), (LARGE, 0)])
def test_a_slow_one_gets_what_it_takes_and_the_others_go_elsewhere(standing, model, elsewhere):
    with standing(", slots: 1") as (gateway, small, large), ThreadPoolExecutor(5) as pool:
        large.takes_s = 0.4
        asking = [pool.submit(ask, gateway, model) for _ in range(5)]
        errors = [one.exception() for one in asking]
        answers = [one.result() for one, error in zip(asking, errors, strict=True) if not error]
        assert sorted(who(answers)) == [LARGE] * 3 + [SMALL] * elsewhere
        assert (large.n_asked, small.n_asked) == (3, elsewhere)
        assert large.n_most <= 2, "one at first, two after a good one"
        full = [error for error in errors if error is not None]
        assert len(full) == 2 - elsewhere
        for error in full:
            assert (error.status_code, error.code) == (503, "overloaded")
            assert 1 <= int(error.response.headers["retry-after"]) <= 5
        figures = guards(gateway).experts[LARGE]
        assert (figures.n_waited, figures.n_full, figures.n_queued) == (2, 2, 0)
        assert gateway.runtime.engine.guards.retries.n_spent == 0


def test_who_leaves_while_waiting_is_never_sent(standing):
    with standing(", slots: 1") as (gateway, _, large), ThreadPoolExecutor(1) as pool:
        large.takes_s = 0.6
        first = pool.submit(ask, gateway, LARGE)
        body = {"model": LARGE, "messages": ASKED}
        url = f"{gateway.url}/v1/chat/completions"
        time.sleep(0.2)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=body, timeout=0.1)
        assert first.result().model == LARGE
        assert ask(gateway, LARGE).model == LARGE
        assert large.n_asked == 2
        assert guards(gateway).experts[LARGE].n_queued == 0
