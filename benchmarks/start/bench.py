"""Import time, time from `coe serve` to ready, and to the first routed answer. Prints JSON."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))
from calibration import calibration


def import_ms(module: str) -> float:
    """Median milliseconds that importing ``module`` adds to a bare interpreter start."""

    def run(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - started) * 1000

    pairs = [run(f"import {module}") - run("pass") for _ in range(15)]
    return round(statistics.median(pairs), 1)


def serve() -> dict[str, float]:
    """Seconds until `coe serve` listens, all experts are ready, and one has answered."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "coe", "serve", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    url, marks = "", {}
    try:
        for line in process.stderr or []:
            if found := re.search(r"listening on (http://\S+)/v1", line):
                url = found.group(1)
                marks["listening_s"] = time.perf_counter() - started
            if line.startswith("ready"):
                marks["ready_s"] = time.perf_counter() - started
                break
        body = {
            "model": "auto",
            "messages": [{"role": "user", "content": "Hello, how are you?"}],
            "max_tokens": 8,
        }
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
        answer.raise_for_status()
        marks["first_answer_s"] = time.perf_counter() - started
        marks["gateway_rss_mb"] = rss_mb(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    return {name: round(value, 2) for name, value in marks.items()}


def rss_mb(process_id: int) -> float:
    """Resident memory of one process, in megabytes."""
    status = Path(f"/proc/{process_id}/statm").read_text().split()
    return int(status[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Measure and print."""
    result = {
        "machine": calibration(),
        "import_coe_ms": import_ms("coe"),
        "import_gateway_ms": import_ms("coe.services.gateway"),
        "serve": serve(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
