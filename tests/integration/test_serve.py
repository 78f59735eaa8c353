"""`coe serve` and `coe chat` as processes of their own, with real engines."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.engine
ENGINE = "coe.services.host.llama"


def start(*options):
    """A gateway process once its experts are ready: (process, url, what it said)."""
    command = [sys.executable, "-m", "coe", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("ready"):
            break
    url = re.search(r"listening on (http://\S+)/v1", "".join(said)).group(1)
    return process, url, said


def engines_of(process_id):
    """Ids of the engine processes that are children of this process."""
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    lines = {int(c): Path(f"/proc/{c}/cmdline").read_bytes() for c in children}
    return [child for child, line in lines.items() if ENGINE.encode() in line]


def gone(process_id):
    """No such process, or only its exit status is left."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_serve_answers_and_a_sigterm_ends_it_and_its_engines(embedded_config, eventually):
    process, url, said = start()
    engines = engines_of(process.pid)
    try:
        assert len(engines) == 2
        assert "configuration: embedded default\n" in said
        assert httpx.get(f"{url}/readyz", timeout=30).json()["status"] == "ready"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stderr.close()
    eventually(lambda: all(gone(engine) for engine in engines), "the end of the engines", 15)


def test_engines_do_not_outlive_a_gateway_that_is_killed(embedded_config, eventually):
    process, _, _ = start()
    engines = engines_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    process.stderr.close()
    eventually(lambda: all(gone(engine) for engine in engines), "the end of the engines", 15)


def run(*arguments):
    command = [sys.executable, "-m", "coe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_chat_asks_a_running_gateway_and_says_who_answered(gateway):
    done = run("chat", "What is 2 + 3?", "--url", gateway.url, "--max-tokens", "24")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    summary = done.stderr.strip().splitlines()[-1]
    assert re.search(r"^\[\S+ \| maths \| \d+ ms \| \S+ J modelled \| .+\]$", summary)


def test_chat_json_is_one_document(gateway):
    done = run("chat", "Hello!", "--url", gateway.url, "--max-tokens", "8", "--json")
    document = json.loads(done.stdout)
    assert document["answer"]
    assert document["decision"]["receipt"]["expert_id"] == document["decision"]["experts"][0]["id"]


def test_chat_asks_for_several_experts_and_says_whom_it_asked(gateway):
    given = ("--url", gateway.url, "--max-tokens", "24", "--mode", "rank", "-k", "2")
    done = run("chat", "What is 2 + 3?", *given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert re.search(r"^\[(\S+), of \S+, \S+ \| maths", done.stderr.strip().splitlines()[-1])


def test_chat_without_a_gateway_starts_its_own_experts(embedded_config, tmp_path):
    config = tmp_path / "coe.yaml"
    shipped = Path(sys.modules["coe"].__file__).parent / "data"
    text = (shipped / "coe.yaml").read_text().replace("port: 8080", "port: 9")
    for name in ("artefact", "budgets.yaml"):
        text = text.replace(f": {name}\n", f": {shipped / name}\n")
    config.write_text(text)
    done = run("chat", "Hi!", "--max-tokens", "6", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert "starting the experts for this question" in done.stderr
    assert done.stdout.strip()


def test_chat_at_an_address_without_gateway_is_one_line():
    done = run("chat", "Hi!", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
