"""The program around vLLM's server, with a server that only looks like it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from coe.config import load_config
from coe.services.host import vllm
from coe.services.host.experts import open_host
from coe.services.host.watched import Watch
from coe.services.runnable import missing

SERVER = """
import argparse, http.server, json, os, sys
print("INFO chatter on standard output")
parser = argparse.ArgumentParser()
for name in ("host", "port", "model", "served-model-name", "max-num-seqs", "max-model-len"):
    parser.add_argument("--" + name)
parser.add_argument("--crash")
parser.add_argument("--enforce-eager", action="store_true")
options = parser.parse_args()
if options.crash:
    sys.exit(options.crash)
said = {**vars(options), "process_id": os.getpid(), "coe": os.environ.get("COE_ENGINE_KEY")}
key = os.environ.get("VLLM_API_KEY")
try:
    import coe
    said["has_coe"] = True
except ImportError:
    said["has_coe"] = False
class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.say(200)
    def do_POST(self):
        allowed = not key or self.headers.get("authorization") == f"Bearer {key}"
        self.rfile.read(int(self.headers["content-length"]))
        self.say(200 if allowed else 401)
    def say(self, status):
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer((options.host, int(options.port)), Engine).serve_forever()
"""
CONFIG = """
devices:
  here: {ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 10, decode_w: 10}
experts:
  - {id: v, kind: vllm, weights: some/weights, device: here, slots: 3, context_tokens: 512}
"""


@pytest.fixture
def section(tmp_path, monkeypatch):
    """An expert whose interpreter finds the server above, and nothing that is installed."""
    # where this runs there may be this package's folder
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "site" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text(SERVER)
    bare = tmp_path / "python"
    bare.symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    # another interpreter does not look where this one does
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    path = tmp_path / "coe.yaml"
    path.write_text(CONFIG)
    (expert,) = load_config(path).experts
    return expert.model_copy(
        update={"python": bare, "environment": {"PYTHONPATH": f"{tmp_path}/site"}}
    )


@pytest.fixture
async def started(section, make_spec):
    """Hosts of sections like it, stopped at the end."""
    hosts = []

    async def start(key=None, **changes):
        watch = Watch(first_delay_s=0.01, n_crashes=2)
        changed = section.model_copy(update=changes)
        host = open_host(changed, make_spec("v"), key=key, watch=watch)
        hosts.append(host)
        await host.start()
        await host.settled()
        return host

    yield start
    for host in hosts:
        await host.stop()


async def said(host, path="/health"):
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        return (await client.get(f"{host.address}{path}")).json()


def gone(process_id):
    """Whether a process has ended; whether somebody has taken note of it does not matter."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


async def test_the_server_gets_what_the_section_says(started):
    host = await started(arguments=["--enforce-eager", "--max-num-seqs", "7"])
    assert host.state == "ready", host.reason
    options = await said(host)
    assert (options["model"], options["served_model_name"]) == ("some/weights", "v")
    assert (options["max_model_len"], options["max_num_seqs"]) == ("512", "7")
    assert options["enforce_eager"]
    assert host.address == f"http://127.0.0.1:{options['port']}"
    # an environment with vLLM need not hold this package
    assert not options["has_coe"]


async def test_the_key_gets_the_name_that_vllm_looks_for(started, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "the gateway's own")
    open_to_all, guarded = await started(), await started(key="secret")
    assert (open_to_all.state, guarded.state) == ("ready", "ready")
    for host, status in ((open_to_all, 200), (guarded, 401)):
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            answer = await client.post(f"{host.address}/v1/chat/completions", json={})
        assert answer.status_code == status
        assert (await said(host))["coe"] is None


async def test_the_server_ends_with_the_program(started):
    host = await started()
    server = (await said(host))["process_id"]
    assert server != host.process_id
    await host.stop()
    assert gone(server)


async def test_a_killed_program_takes_the_server_along_and_comes_back(started):
    host = await started()
    server = (await said(host))["process_id"]
    os.kill(host.process_id, signal.SIGKILL)
    await host.changed()
    assert await host.settled() == "ready"
    assert gone(server)
    assert (await said(host))["process_id"] != server
    assert host.n_starts == 2


def test_nobody_has_to_be_there_to_end_the_server_of_a_program_that_is_killed(section):
    options = ["--weights", "w", "--alias", "v", "--slots", "1", "--context", "64"]
    program = subprocess.Popen(
        [section.python, vllm.__file__, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | section.environment,
    )
    with program:
        address = json.loads(program.stdout.readline())["address"]
        server = httpx.get(f"{address}/health", trust_env=False).json()["process_id"]
        program.kill()
    deadline = time.monotonic() + 5.0
    while not gone(server):
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_a_server_that_ends_is_a_crash_with_its_last_words(started):
    host = await started(arguments=["--crash", "no such weights"])
    while host.state != "failed":
        await host.changed()
    assert "no such weights" in host.reason


def test_what_is_missing_is_said(section, tmp_path):
    assert missing(section) is None
    absent = section.model_copy(update={"python": tmp_path / "gone"})
    assert "gone cannot be run: No such file" in missing(absent).reason
    (tmp_path / "site" / "vllm").rename(tmp_path / "site" / "other")
    assert "vLLM is not installed beside" in missing(section).reason
    assert "name in `python`" in missing(section).remedy


def test_weights_are_a_folder_where_there_is_one(tmp_path):
    path = tmp_path / "coe.yaml"
    path.write_text(CONFIG.replace("device: here,", "device: here, python: env/bin/python,"))
    (expert,) = load_config(path).experts
    assert expert.weights == "some/weights"
    assert expert.python == tmp_path / "env/bin/python"
    (tmp_path / "some" / "weights").mkdir(parents=True)
    (expert,) = load_config(path).experts
    assert expert.weights == str(tmp_path / "some/weights")
    assert json.loads(expert.model_dump_json())["python"] == str(tmp_path / "env/bin/python")
