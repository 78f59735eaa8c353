"""`coe serve --workers 2` as real processes, over experts behind HTTP that count who asks."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from coe.config import DATA

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
ASKED = {"model": "auto", "messages": [{"role": "user", "content": "Hi!"}], "max_tokens": 9}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
TOKEN = {"authorization": "Bearer secret"}


class Expert(BaseHTTPRequestHandler):
    """Answers at once; a stream takes as long as its server's ``stream_s``."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body["model"])
        if body.get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            for n in range(10):
                time.sleep(self.server.stream_s / 10)
                self.event({"index": 0, "delta": {"content": f"{n} "}, "finish_reason": None})
            self.event({"index": 0, "delta": {}, "finish_reason": "stop"}, usage=USAGE)
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True
            return
        message = {"role": "assistant", "content": "yes"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        said = json.dumps({"model": body["model"], "choices": [choice], "usage": USAGE}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def event(self, choice, **more):
        document = {"id": "x", "object": "chat.completion.chunk", "choices": [choice], **more}
        self.wfile.write(b"data: " + json.dumps(document).encode() + b"\n\n")
        self.wfile.flush()

    def handle(self):
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, *words):
        pass


@pytest.fixture
def expert():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Expert)
    server.asked, server.stream_s, server.daemon_threads = [], 1.0, True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Serving:
    """A gateway of two workers, and connections to each of them."""

    def __init__(self, folder):
        command = [sys.executable, "-m", "coe", "serve", "--workers", "2", "--port", "0"]
        self.said, self.opened = [], []
        self.process = subprocess.Popen(
            [*command, "--config", str(folder / "coe.yaml")],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "COE_ADMIN_TOKEN": "secret"},
        )
        for line in self.process.stderr:
            self.said.append(line)
            if "workers are ready" in line:
                break
        self.reader = threading.Thread(target=self.said.extend, args=[self.process.stderr])
        self.reader.start()
        self.url = re.search(r"listening on (http://\S+)/v1", "".join(self.said)).group(1)

    def workers(self):
        """Ids of the processes that answer."""
        process = self.process.pid
        return Path(f"/proc/{process}/task/{process}/children").read_text().split()

    def clients(self):
        """One client to each worker, over connections that stay."""
        found = {}
        for _ in range(100):
            client = httpx.Client(base_url=self.url, timeout=30)
            self.opened.append(client)
            pid = client.get("/admin/status", headers=TOKEN).json()["process_id"]
            found.setdefault(pid, client)
            if len(found) == 2:
                return found
        raise AssertionError("only one worker answers")

    def ask(self, **more):
        return httpx.post(f"{self.url}/v1/chat/completions", json=ASKED | more, timeout=30)

    def end(self, number=signal.SIGTERM):
        """Its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(40)
        self.reader.join()
        self.process.stderr.close()
        for client in self.opened:
            client.close()
        return code


@pytest.fixture
def site(tmp_path, expert):
    """Files of a gateway: ``site(limits)`` writes them, and starts it."""
    started = []
    rows = "".join(
        f"  - {{id: {name}, kind: http, device: there, "
        f"base_url: 'http://127.0.0.1:{expert.server_address[1]}/v1'}}\n"
        for name in (SMALL, LARGE)
    )
    (tmp_path / "coe.yaml").write_text(
        f"artefact: {DATA / 'artefact'}\nbudgets: budgets.yaml\n"
        "gateway: {drain_accept_s: 0}\nstore: {kind: sqlite, path: ledger.sqlite}\n"
        "devices: {there: {ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 1, decode_w: 1}}\n"
        f"experts:\n{rows}"
    )

    def serve(limits=""):
        (tmp_path / "budgets.yaml").write_text("policies: {default: {}}\n" + limits)
        started.append(Serving(tmp_path))
        return started[-1]

    yield serve
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


LIMIT = "limits: {house: {scope: global, window_s: 1000000000, requests: 20}}\n"


def counted(url, name):
    page = httpx.get(f"{url}/metrics", timeout=30).text
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


def test_two_workers_share_a_limit_exactly_and_sum_their_metrics(site, expert, coe, tmp_path):
    serving = site(LIMIT)
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: serving.ask().status_code, range(60)))
    assert (codes.count(200), codes.count(429)) == (20, 40)
    assert len(expert.asked) == 20
    assert counted(serving.url, "coe_answers_total") == 20
    assert counted(serving.url, 'coe_refusals_total{code="budget_exhausted"') == 40
    assert counted(serving.url, 'coe_ledger_spent{limit="house",resource="requests"') == 20
    assert serving.end() == 0
    checked = coe("ledger", "check", "--config", tmp_path / "coe.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_is_said_to_one_worker_holds_for_both(site, tmp_path, eventually):
    serving = site()
    clients = list(serving.clients().values())
    first, second = clients
    answer = first.post("/v1/chat/completions", json=ASKED).json()["coe"]
    found = second.get(f"/v1/decisions/{answer['decision_id']}").json()
    assert found["receipt"]["expert_id"] == answer["receipt"]["expert_id"]
    assert second.get("/v1/decisions/dec-none").status_code == 404
    body = {"switch": "ban"}
    assert first.put(f"/admin/experts/{SMALL}", json=body, headers=TOKEN).is_success

    def refused():
        told = second.post("/v1/chat/completions", json=ASKED | {"model": SMALL})
        return told.status_code == 400 and told.json()["error"]["code"] == "expert_banned"

    eventually(refused, "the switch")
    (tmp_path / "budgets.yaml").write_text("policies: {default: {}, eco: {}}\n")
    done = second.post("/admin/reload", headers=TOKEN).json()
    tags = {client.get("/readyz").json()["config"] for client in clients}
    assert (done["status"] in ("swapped", "unchanged"), tags) == (True, {done["config"]})
    (tmp_path / "budgets.yaml").write_text("policies: {}\n")
    os.kill(serving.process.pid, signal.SIGHUP)
    eventually(lambda: "refused" in "".join(serving.said), "the refusal")
    assert {client.get("/readyz").json()["config"] for client in clients} == tags
    for client in clients:
        eventually(lambda c=client: c.get("/readyz").json()["reload"] == "refused", "its word")
        told = client.get("/admin/status", headers=TOKEN).json()["reload"]
        assert "budgets.yaml" in told["message"]
    assert serving.end() == 0


def test_a_worker_that_is_killed_is_replaced_and_its_holds_are_booked(
    site, expert, coe, tmp_path, eventually
):
    serving, expert.stream_s = site(LIMIT), 8.0
    (doomed, client), (_, other) = serving.clients().items()
    asked = client.build_request("POST", "/v1/chat/completions", json=ASKED | {"stream": True})
    answer = client.send(asked, stream=True)
    next(answer.iter_bytes())
    before = counted(serving.url, "coe_answers_total")
    os.kill(doomed, signal.SIGKILL)
    assert other.post("/v1/chat/completions", json=ASKED).status_code == 200
    eventually(lambda: "is started again" in "".join(serving.said), "the end of a worker")
    eventually(lambda: len(serving.clients()) == 2 and doomed not in serving.clients(), "the next")
    assert counted(serving.url, "coe_answers_total") == before + 1
    left = [serving.ask().status_code for _ in range(20)]
    assert left.count(200) == 18, "one was answered, and one was booked whole"
    assert serving.end() == 0
    checked = coe("ledger", "check", "--config", tmp_path / "coe.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    answer.close()


def test_who_takes_the_place_of_another_goes_by_what_needs_a_restart(site, tmp_path, eventually):
    serving, path = site(), tmp_path / "coe.yaml"
    path.write_text(path.read_text() + "access: {keys: keys.json}\n")
    eventually(lambda: "left as it is until a restart: access" in "".join(serving.said), "its word")
    doomed = next(iter(serving.clients()))
    os.kill(doomed, signal.SIGKILL)
    eventually(lambda: len(serving.workers()) == 2 and str(doomed) not in serving.workers(), "it")
    eventually(lambda: doomed not in serving.clients(), "the next")
    for client in serving.clients().values():
        assert client.get("/v1/models").status_code == 200, "keys are asked for after a restart"
    assert serving.end() == 0


def test_the_end_waits_for_the_answers_of_all(site, expert):
    serving, expert.stream_s = site(), 2.0
    clients = serving.clients().values()

    def read(client):
        with client.stream("POST", "/v1/chat/completions", json=ASKED | {"stream": True}) as answer:
            return answer.read()

    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(read, client) for client in clients]
        while len(expert.asked) < 2:
            time.sleep(0.02)
        assert serving.end() == 0
        for stream in streams:
            assert stream.result().endswith(b"data: [DONE]\n\n")


def test_a_gateway_that_cannot_start_says_why_and_ends(tmp_path, site):
    command = [sys.executable, "-m", "coe", "serve", "--workers", "2", "--port", "0", "--config"]
    site_ends = subprocess.run(
        [*command, str(tmp_path / "coe.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert site_ends.returncode == 2
    assert "budgets.yaml: cannot be read" in site_ends.stderr
    assert "Traceback" not in site_ends.stderr
