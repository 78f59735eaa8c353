"""A gateway with few descriptors: who is connected is served, others are told, nothing spins."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

LIMIT, N_CLIENTS = 256, 400
CONFIG = """
gateway: {drain_accept_s: 0}
experts:
  - {id: faq, kind: constant, answers: [{text: Nine to five., patterns: [hours]}]}
"""
ASKED = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "hours"}]}).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(ASKED), ASKED)
)

# up to the body, where the length is the last field that is asked for
LENGTH = re.compile(rb"content-length: (\d+)(?:\r\n[^\r]+)*\r\n\r\n")


@pytest.fixture
def process(tmp_path):
    (tmp_path / "coe.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "coe", "serve", "--port", "0"]
    with subprocess.Popen(
        [*command, "--config", str(tmp_path / "coe.yaml")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT)),
    ) as running:
        lines = []
        for line in running.stderr:
            lines.append(line)
            if line.startswith("ready"):
                break
        address = re.search(r"listening on http://(\S+):(\d+)/v1", "".join(lines)).groups()
        yield running, (address[0], int(address[1]))
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
        assert running.returncode == 0
        assert "Traceback" not in said


def cpu_s(process_id):
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answered(connection):
    """The status of a whole answer."""
    connection.sendall(REQUEST)
    answer = b""
    while not (found := LENGTH.search(answer)) or len(answer) < found.end() + int(found[1]):
        if not (piece := connection.recv(65536)):
            raise ConnectionResetError
        answer += piece
    return int(answer.split()[1])


def test_who_is_connected_is_served_while_others_are_turned_away(process):
    running, address = process
    clients = []
    try:
        for _ in range(N_CLIENTS):
            client = socket.create_connection(address, 10)
            client.settimeout(10)
            clients.append(client)
        inside, refused = [], []
        for client in clients:
            try:
                status = answered(client)
            except OSError:
                status = 0
            (inside if status == 200 else refused).append(client)
            assert status in (0, 200, 503)
        # half of the descriptors are kept for experts, and some for files
        assert len(inside) == (LIMIT - 64) // 2
        before, began = cpu_s(running.pid), time.monotonic()
        time.sleep(1.0)
        assert cpu_s(running.pid) - before < 0.5 * (time.monotonic() - began)
        assert {answered(client) for client in inside} == {200}
    finally:
        for client in clients:
            client.close()
    time.sleep(0.2)
    url = "http://{}:{}/healthz".format(*address)
    assert httpx.get(url, timeout=10).json() == {"status": "ok"}


def test_whoever_is_turned_away_is_told_in_json(process):
    _, address = process
    with ExitStack() as stack:
        inside = [
            stack.enter_context(socket.create_connection(address, 10))
            for _ in range((LIMIT - 64) // 2)
        ]
        assert {answered(client) for client in inside} == {200}
        with socket.create_connection(address, 10) as outside:
            head, _, body = outside.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 2" in head
    assert json.loads(body)["error"]["code"] == "overloaded"
