"""What only raw bytes can say, to a gateway in a process of its own: it answers, and goes on."""

import json
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

LINES = (Path(__file__).parents[1] / "data" / "bad_inputs.jsonl").read_text().splitlines()
CASES = [case for case in map(json.loads, LINES) if "raw" in case]
GOOD = {"model": "auto", "messages": [{"role": "user", "content": "hours"}]}
TIMEOUT_S = 1.0
CONFIG = f"""
gateway: {{head_timeout_s: {TIMEOUT_S}, body_timeout_s: {TIMEOUT_S}, drain_accept_s: 0}}
experts:
  - {{id: faq, kind: constant, answers: [{{text: Nine to five., patterns: [hours]}}]}}
"""
TIMES = re.compile(r"\$TIMES\(([^$()]*),(\d+)\)")


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """`coe serve` over an expert that computes nothing: its address.

    Without Python's assertions, so that no refusal hangs on one.
    """
    path = tmp_path_factory.mktemp("gateway") / "coe.yaml"
    path.write_text(CONFIG)
    command = [sys.executable, "-O", "-m", "coe", "serve", "--port", "0", "--config", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        lines = []
        for line in running.stderr:
            lines.append(line)
            if line.startswith("ready"):
                break
        yield re.search(r"listening on (http://\S+)/v1", "".join(lines)).group(1)
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
        assert running.returncode == 0
        assert "Traceback" not in said


def connected(url):
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10 * TIMEOUT_S)


def said(connection):
    """All that comes until the other side closes."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def exchanged(url, text):
    """What comes back for these bytes."""
    text = text.replace("$HOST", url.removeprefix("http://"))
    while (longer := TIMES.sub(lambda found: found[1] * int(found[2]), text)) != text:
        text = longer
    with connected(url) as connection:
        try:
            connection.sendall(text.encode("latin-1"))
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was sent
        try:
            return said(connection)
        except ConnectionResetError:
            return b""


def is_well(url):
    answer = httpx.post(f"{url}/v1/chat/completions", json=GOOD, timeout=30)
    return answer.status_code == 200 and "Nine to five." in answer.text


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_it_is_refused_and_the_connection_closed(process, case):
    answer = exchanged(process, case["raw"])
    if case["status"] is None:
        assert answer == b""
    else:
        head, _, body = answer.partition(b"\r\n\r\n")
        allowed = case["status"] if isinstance(case["status"], list) else [case["status"]]
        assert int(head.split()[1]) in allowed, answer[:400]
        error = json.loads(body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == (case["type"], case["code"])
    assert is_well(process)


def status_of(answer):
    return int(answer.split()[1])


def test_a_body_that_dribbles_is_given_up(process):
    head = "POST /v1/route HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    with connected(process) as connection:
        connection.settimeout(TIMEOUT_S / 10)
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode())
        answer = b""
        while not answer:
            connection.sendall(b" ")
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
    assert status_of(answer) == 408
    assert is_well(process)


def test_requests_sent_at_once_are_answered_in_their_order(process):
    paths = [f"/v1/decisions/{n}" if n % 2 else "/healthz" for n in range(200)]
    asked = [f"GET {path} HTTP/1.1\r\nHost: a\r\n" for path in paths]
    asked[-1] += "Connection: close\r\n"
    answer = exchanged(process, "\r\n".join([*asked, ""]))
    statuses = [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", answer)]
    assert statuses == [404 if n % 2 else 200 for n in range(200)]


@pytest.mark.parametrize("linger", [False, True])
def test_who_leaves_in_the_middle_is_let_go(process, linger):
    with connected(process) as connection:
        if linger:  # closing resets the connection
            no_time = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_time)
        connection.sendall(b"POST /v1/route HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n")
        connection.sendall(b"Content-Type: application/json\r\n\r\n{")
        if not linger:
            connection.shutdown(socket.SHUT_WR)
            said(connection)
    assert is_well(process)


def test_the_next_head_on_a_connection_is_due_too(process):
    with connected(process) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while not answer.endswith(b'{"status": "ok"}'):
            answer += connection.recv(65536)
        assert status_of(answer) == 200
        connection.sendall(b"GET /hea")
        assert status_of(said(connection)) == 408


def test_a_head_asks_for_a_head_and_other_origins_get_no_leave(process):
    for path in ("/v1/models", "/healthz", "/readyz", "/metrics"):
        answer = httpx.head(f"{process}{path}", timeout=30)
        assert (answer.status_code, answer.content) == (200, b"")
    asked = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    answer = httpx.options(f"{process}/v1/chat/completions", headers=asked, timeout=30)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers
