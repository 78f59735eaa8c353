"""Secrets through every way into a gateway, and into nothing that comes out of it.

The gateway is a process whose libraries log all they can. Every secret is a word of its own, so
that one that is found says which way it came.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx
import pytest
import redis
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from coe.config import DATA

# what runs: `coe`, with the loggers of all libraries wide open
LOUD = (
    "import logging; logging.getLogger().setLevel(logging.DEBUG);"
    "from coe.services.cli import app; app()"
)
NAMES = (
    "admin",
    "pepper",
    "expert",
    "redis",
    "badkey",
    "query",
    "cookie",
    "field",
    "header",
    "basic",
    "prompt",
    "metadata",
)
CANARY = {name: f"canary-{name}-{n:02d}-7Hq2vXw9LmZr4TbK1sYc" for n, name in enumerate(NAMES)}
# a caller may read what it wrote itself, in the refusal of it
OWN_WORDS = {"prompt", "metadata"}


def config(port):
    return f"""
artefact: {DATA / "artefact"}
budgets: budgets.yaml
access: {{keys: keys.json}}
logging: {{format: json, level: debug}}
store: {{kind: redis, path: ledger.sqlite}}
devices:
  h100: {{ttft_b_ms: 0.1, ttft_c_ms: 200, decode_tokens_per_s: 100, prefill_w: 40, decode_w: 30}}
experts:
  - {{id: smollm2-135m, kind: http, base_url: "http://127.0.0.1:{port}/v1", device: h100,
     api_key_env: EXPERT_KEY, allow_loopback: true}}
"""


class Parrot:
    """An expert that repeats in errors all that it was sent, its own key included."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.headers = []
        app = Starlette(routes=[Route("/v1/chat/completions", self.answer, methods=["POST"])])
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))
        self.thread.start()

    async def answer(self, http):
        body = await http.json()
        self.headers.append(dict(http.headers))
        text = body["messages"][-1]["content"]
        if found := re.search(r"status (\d+)", text):
            said = f"{http.headers['authorization']} is wrong: {dict(http.headers)}"
            word = http.headers["authorization"].split()[1]
            error = {"message": said, "code": word, "param": word, "type": word}
            return JSONResponse({"error": error}, int(found[1]))
        if "broken" in text:
            return PlainTextResponse(f"{http.headers['authorization']}")
        message = {"role": "assistant", "content": "Yes."}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
        return JSONResponse(
            {"id": "x", "object": "chat.completion", "created": 0, "model": "x"}
            | {"choices": [choice], "usage": usage}
        )

    def stop(self):
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()


@pytest.fixture
def parrot():
    found = Parrot()
    yield found
    found.stop()


@pytest.fixture
def house(tmp_path, parrot, redis_server):
    """A configuration and the environment that its secrets stand in."""
    (tmp_path / "coe.yaml").write_text(config(parrot.port))
    (tmp_path / "budgets.yaml").write_text(
        "policies: {default: {}}\n"
        "limits: {each: {scope: key, window_s: 1000000000, requests: 100000}}\n"
    )
    client = redis.Redis.from_url(redis_server.url)
    client.config_set("requirepass", CANARY["redis"])
    client.close()
    address = redis_server.url.replace("redis://", f"redis://:{CANARY['redis']}@")
    secrets = {
        "COE_ADMIN_TOKEN": CANARY["admin"],
        "COE_KEY_PEPPER": CANARY["pepper"],
        "EXPERT_KEY": CANARY["expert"],
        "COE_REDIS_URL": address,
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    return tmp_path, os.environ | secrets


def run(house, *arguments):
    """All that a verb prints."""
    folder, environment = house
    done = subprocess.run(
        [sys.executable, "-c", LOUD, *arguments, "--config", str(folder / "coe.yaml")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


@contextmanager
def serving(house, said):
    """The address of a gateway; what it has said is in ``said`` when it has ended."""
    folder, environment = house
    process = subprocess.Popen(
        [sys.executable, "-c", LOUD, "serve", "--port", "0", "--config", folder / "coe.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    ready, url = threading.Event(), []

    def listen():
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"listening on (http\S+)/v1", line):
                url.append(found[1])
            if line.startswith("ready"):
                ready.set()
        ready.set()

    listening = threading.Thread(target=listen)
    listening.start()
    try:
        assert ready.wait(60)
        assert url, "".join(said)
        yield url[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        listening.join(10)
        process.stdout.close()


def wishes(key):
    """Headers, parameters and body of every request that carries something it should not."""
    good = {"authorization": f"Bearer {key}"}

    def body(text, **more):
        content = f"{text} {CANARY['prompt']}"
        return {
            "model": "auto",
            "messages": [{"role": "user", "content": content}],
            "metadata": {"note": CANARY["metadata"]},
        } | more

    plain = body("hello")
    yield good, {}, plain
    yield good, {}, body("hello", stream=True)
    for status in (400, 401, 403, 404, 422, 429, 500, 503):
        yield good, {}, body(f"status {status}")
        yield good, {}, body(f"status {status}", stream=True)
    yield good, {}, body("broken")
    yield good, {}, body("hello", api_key=CANARY["field"])
    yield good, {}, body("hello", coe={"key": CANARY["field"]})
    yield good, {}, body("hello", temperature=CANARY["field"])
    yield good | {"cookie": f"key={CANARY['cookie']}"}, {"key": CANARY["query"]}, plain
    yield good | {"x-api-key": CANARY["header"], "api-key": CANARY["header"]}, {}, plain
    yield {"authorization": f"Bearer {CANARY['badkey']}"}, {}, plain
    yield {"authorization": f"Basic {CANARY['basic']}"}, {}, plain
    yield {"authorization": f"Bearer {key[:-1]}"}, {}, plain
    yield {"authorization": f"Bearer {key}", "traceparent": CANARY["header"]}, {}, plain
    yield {"authorization": f"Bearer {CANARY['admin']}"}, {}, plain
    yield {"cookie": f"key={CANARY['cookie']}"}, {"api_key": CANARY["query"]}, plain


def leaks(where, text, more=(), but=()):
    """Which secrets a text holds, by the way they came in."""
    known = {n: v for n, v in CANARY.items() if n not in but} | dict(more)
    return [(where, name) for name, secret in known.items() if secret in text]


def test_no_secret_comes_out(house, parrot, redis_server):
    made = run(house, "keys", "create", "--json", "--tenant", "acme")
    key = json.loads(made[made.index("{") :])["key"]
    viewer = json.loads(run(house, "keys", "create", "--json", "--role", "viewer"))["key"]
    own = {"key": key.split("-", 2)[2], "viewer": viewer.split("-", 2)[2]}
    found, said, statuses = leaks("keys create", made), [], set()
    with serving(house, said) as url, httpx.Client(base_url=url, timeout=30) as client:
        shown = {"authorization": f"Bearer {viewer}"}
        decided = set()

        def ask():
            for headers, params, body in wishes(key):
                client.cookies.clear()
                answer = client.post(
                    "/v1/chat/completions", headers=headers, params=params, json=body
                )
                statuses.add(answer.status_code)
                told = f"{answer.headers} {answer.text}"
                found.extend(leaks(f"answer {answer.status_code}", told, own.items(), OWN_WORDS))
                decided.add(answer.headers.get("x-coe-decision-id"))

        ask()
        for path in ("/metrics", "/openapi.json", "/readyz", "/admin/status", "/admin/experts"):
            answer = client.get(path, headers=shown)
            assert answer.status_code == 200, path
            found += leaks(path, f"{answer.headers} {answer.text}", own.items())
        for decision_id in decided - {None}:
            answer = client.get(f"/v1/decisions/{decision_id}", headers=shown)
            found += leaks("decision", answer.text, own.items())
        redis_server.kill()
        ask()
        found += leaks("/metrics", client.get("/metrics", headers=shown).text, own.items())
    # the way in was open: the expert had its key, and nobody else's
    assert {h["authorization"] for h in parrot.headers} == {f"Bearer {CANARY['expert']}"}
    assert not any(key in str(headers) for headers in parrot.headers)
    assert {200, 400, 401, 404, 422, 429, 502} <= statuses
    assert any('"level": "debug"' in line for line in said)
    found += leaks("log", "".join(said), own.items())
    for verb in (
        ["doctor"],
        ["doctor", "--json"],
        ["keys", "list"],
        ["keys", "list", "--json"],
        ["keys", "revoke", "nobodys"],
        ["ledger", "show", "--json"],
        ["ledger", "check"],
    ):
        found += leaks(" ".join(verb), run(house, *verb), own.items())
    written = [path for path in house[0].rglob("*") if path.is_file()]
    assert {"keys.json", "ledger.sqlite"} <= {path.name for path in written}
    for path in written:
        # what Redis keeps of its own configuration is not ours
        if "valkey" not in path.name and "redis" not in path.name:
            found += leaks(path.name, path.read_bytes().decode("latin-1"), own.items())
    assert found == []


def test_a_wrong_password_of_redis_is_not_told(house):
    folder, environment = house
    wrong = environment["COE_REDIS_URL"].replace("-7H", "-8H")
    said = run((folder, environment | {"COE_REDIS_URL": wrong}), "doctor")
    said += run((folder, environment | {"COE_REDIS_URL": wrong}), "serve", "--host", "203.0.113.7")
    assert CANARY["redis"].replace("-7H", "-8H") not in said
    assert "cannot listen" in said
