"""A real gateway watched from outside: spans at a collector, lines on a pipe, metrics."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from coe.answer import completion, pieces_of
from coe.config import DATA, load_config
from coe.services.sockets.server import listening, server

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CANARY = "canary-2f8c1d"
CONFIG = """
artefact: {data}/artefact
telemetry: {{otlp: {{endpoint: "{collector}/v1/traces", sample: {sample}, propagate: true}}}}
devices: {{core: {{ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 1, decode_w: 1}}}}
experts:
  - {{id: {small}, kind: http, base_url: "{expert}/v1", device: core}}
  - {{id: {large}, kind: http, base_url: "{expert}/v1", device: core}}
"""
SERVED = """
gateway: {drain_accept_s: 0}
logging: {format: json}
experts:
  - {id: faq, kind: constant, answers: [{text: Nine to five., patterns: [hours]}]}
"""


@contextmanager
def in_thread(path, answer):
    """An HTTP server: its address."""
    with listening("127.0.0.1", 0) as listener:
        running = server(Starlette(routes=[Route(path, answer, methods=["POST"])]))
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()


class Collector:
    """Keeps the spans that are sent to it."""

    def __init__(self):
        self.spans, self.resources, self.raw = [], [], b""

    async def take(self, http):
        body = await http.body()
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(said(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return Response(b"", media_type="application/x-protobuf")


class Expert:
    """Answers, and keeps the heads of what it was asked; refuses as often as it is told to."""

    def __init__(self):
        self.heads, self.n_refusals = [], 0

    async def answer(self, http):
        self.heads.append(dict(http.headers))
        document = json.loads(await http.body())
        if self.n_refusals:
            self.n_refusals -= 1
            return Response("{}", 500)
        name = document["model"]
        if not document.get("stream"):
            whole = completion("id", name, "yes", 5, 3, "stop")
            return Response(whole, media_type="application/json")
        pieces = pieces_of("id", name, ["I", " am ", name], usage=(5, 3))
        return StreamingResponse(pieces, media_type="text/event-stream")


def said(attributes):
    """Attributes of the wire as values of Python."""
    values = {one.key: one.value for one in attributes}
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values.items()}


@pytest.fixture(scope="module")
def watched(tmp_path_factory, serve):
    """Start a gateway whose traces are collected: (client, collector, expert)."""

    @contextmanager
    def start(sample=1.0):
        collector, expert = Collector(), Expert()
        path = tmp_path_factory.mktemp("watched") / "coe.yaml"
        with (
            in_thread("/v1/traces", collector.take) as collects,
            in_thread("/v1/chat/completions", expert.answer) as answers,
        ):
            urls = {"collector": collects, "expert": answers, "sample": sample}
            path.write_text(CONFIG.format(data=DATA, small=SMALL, large=LARGE, **urls))
            with (
                serve(load_config(path)) as gateway,
                httpx.Client(base_url=gateway.url, timeout=30) as client,
            ):
                yield client, collector, expert

    return start


def ask(client, headers=None, **more):
    document = {"model": "auto", "messages": [{"role": "user", "content": CANARY}], **more}
    return client.post("/v1/chat/completions", json=document, headers=headers)


def test_a_request_is_a_trace_of_its_steps(watched):
    with watched() as (client, collector, expert):
        expert.n_refusals = 1
        secret = {"authorization": f"Bearer {CANARY}", "cookie": CANARY, "x-api-key": CANARY}
        answer = ask(client, {"traceparent": f"00-{TRACE}-{SPAN}-01", **secret}, stream=True)
        page = client.get("/metrics").text
        assert answer.status_code == 200
        heads = list(expert.heads)
    by_name = {}
    for span in collector.spans:
        by_name.setdefault(span.name, []).append(span)
    (root,) = by_name["POST /v1/chat/completions"]
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, SPAN)
    assert [event.name for event in root.events] == ["first piece"]
    about = said(root.attributes)
    assert about["coe.decision_id"] == answer.headers["x-coe-decision-id"]
    assert about["coe.request_id"] == answer.headers["x-request-id"]
    assert about["gen_ai.request.model"] == "auto"
    assert (about["gen_ai.usage.input_tokens"], about["gen_ai.usage.output_tokens"]) == (5, 3)
    assert about["http.response.status_code"] == 200
    inner = [span for span in collector.spans if span is not root]
    assert {span.parent_span_id for span in inner} == {root.span_id}
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert {"parse", "prepare", "decide", "stream", "settle"} <= by_name.keys()
    asked = [span for span in inner if said(span.attributes)["coe.step"] == "dispatch"]
    assert [span.status.code for span in asked].count(2) == len(asked) - 1 == 1
    assert {"coe.embed_ms", "coe.select_ms"} <= said(by_name["decide"][0].attributes).keys()
    for span in inner:
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    expected = f"00-{TRACE}-{root.span_id.hex()}-01"
    assert {head["traceparent"] for head in heads} == {expected}
    assert collector.resources[0]["service.name"] == "coe"
    assert CANARY.encode() not in collector.raw
    assert CANARY not in page


def test_what_is_malformed_is_dropped_and_a_refusal_is_a_trace_too(watched):
    with watched() as (client, collector, expert):
        long = {"tracestate": "a=" + "x" * 10_000, "baggage": "b=" + "y" * 1000}
        assert ask(client, {"traceparent": "00-xyz-01", **long}).status_code == 200
        assert ask(client, model=CANARY).status_code == 404
        assert expert.heads[0]["traceparent"] != "00-xyz-01"
        assert "tracestate" not in expert.heads[0]
        assert "baggage" not in expert.heads[0]
    roots = [span for span in collector.spans if not span.parent_span_id]
    assert [said(span.attributes).get("error.type") for span in roots] == [None, "model_not_found"]
    assert len({span.trace_id for span in roots}) == 2


def test_what_nobody_wants_recorded_is_not_sent(watched):
    with watched(sample=0) as (client, collector, _):
        ask(client)
        ask(client, {"traceparent": f"00-{TRACE}-{SPAN}-00"})
        ask(client, {"traceparent": f"00-{TRACE}-{SPAN}-01"})
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert len([span for span in collector.spans if span.parent_span_id.hex() == SPAN]) == 1


def test_a_collector_that_is_not_there_is_nobody_s_problem(watched, tmp_path, serve):
    expert = Expert()
    with in_thread("/v1/chat/completions", expert.answer) as answers:
        path = tmp_path / "coe.yaml"
        urls = {"collector": "http://127.0.0.1:9", "expert": answers, "sample": 1}
        path.write_text(CONFIG.format(data=DATA, small=SMALL, large=LARGE, **urls))
        with serve(load_config(path)) as gateway:
            client = httpx.Client(base_url=gateway.url, timeout=30)
            with client:
                assert [ask(client).status_code for _ in range(5)] == [200] * 5


@contextmanager
def running(tmp_path, stdout):
    """`coe serve` in a process, its log going to ``stdout``: (process, url)."""
    path = tmp_path / "coe.yaml"
    path.write_text(SERVED)
    command = [sys.executable, "-m", "coe", "serve", "--port", "0", "--config", str(path)]
    process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("ready"):
                break
        yield process, re.search(r"listening on (http://\S+)/v1", "".join(lines)).group(1)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def metric(client, name):
    page = client.get("/metrics").text
    return float(re.search(rf"^{re.escape(name)} (\S+)$", page, re.M).group(1))


def test_there_is_a_line_for_every_request_and_forged_ones_stay_inside(tmp_path):
    reading, writing = os.pipe()
    forged = f'faq\n{{"level":"info","event":"forged"}}\x1b[2J{CANARY}'
    with running(tmp_path, writing) as (process, url), httpx.Client(base_url=url) as client:
        os.close(writing)
        prompt = [{"role": "user", "content": f"opening hours {CANARY}-prompt"}]
        body = {"model": "faq", "messages": prompt, "user": forged}
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200
        assert client.post("/v1/chat/completions", json=body | {"model": forged}).status_code == 400
        client.get("/%1b%5b2J")
        assert client.get("/" + "x" * 9000).status_code == 414
        assert metric(client, 'coe_refusals_total{code="url_too_long"}') == 1
    with os.fdopen(reading) as log:
        lines = log.read().splitlines()
    assert process.returncode == 0
    found = [json.loads(line) for line in lines]
    answered, unknown, lost, long, _ = (line for line in found if line["event"] == "request")
    assert (long["status"], long["code"]) == (414, "url_too_long")
    assert "path" not in long
    assert answered["request_id"] == answer.headers["x-request-id"]
    assert answered["decision_id"] == answer.headers["x-coe-decision-id"]
    assert (answered["status"], answered["expert"], answered["outcome"]) == (200, "faq", "complete")
    assert (unknown["status"], unknown["code"]) == (400, "invalid_value")
    assert unknown["model"] == forged
    assert lost["path"] == "/\x1b[2J"
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert f"{CANARY}-prompt" not in "".join(lines)
    assert {"event": "forged"} not in found


def test_a_reader_who_stops_does_not_stop_the_gateway(tmp_path):
    reading, writing = os.pipe()
    with running(tmp_path, writing) as (process, url), httpx.Client(base_url=url) as client:
        os.close(writing)
        name = "x" * 200
        body = {"model": name, "messages": [{"role": "user", "content": "hours"}]}
        dropped = 'coe_log_lines{fate="dropped"}'
        n_asked = 0
        # a pipe holds 64 KiB, the queue 4,096 lines and the batch that is being written 64
        while metric(client, dropped) == 0:
            for _ in range(500):
                assert client.post("/v1/chat/completions", json=body).status_code == 404
            n_asked += 500
            assert n_asked < 10_000
        lost = metric(client, dropped)
        got = []

        def read():
            with os.fdopen(reading) as log:
                got.extend(log)

        reader = threading.Thread(target=read)
        reader.start()
        while metric(client, 'coe_log_lines{fate="written"}') < n_asked - lost - 1000:
            pass
        client.get("/healthz")
    reader.join(30)
    assert process.returncode == 0
    found = [json.loads(line) for line in got]
    assert any(line["event"] == "log_lines_dropped" and line["n_lines"] >= 1 for line in found)
    assert found[-1]["event"] in ("request", "log_lines_dropped")


def test_a_closed_log_does_not_stop_the_gateway(tmp_path):
    reading, writing = os.pipe()
    with running(tmp_path, writing) as (process, url), httpx.Client(base_url=url) as client:
        os.close(writing)
        os.close(reading)
        assert [client.get("/healthz").status_code for _ in range(50)] == [200] * 50
        assert metric(client, 'coe_log_lines{fate="written"}') == 0
    assert process.returncode == 0
