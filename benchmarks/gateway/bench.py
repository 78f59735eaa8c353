"""What the gateway adds to a stub expert: requests/s, latency, streamed chunks/s, memory.

Direct, pinned and routed requests take turns in one run. Prints one JSON document.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
import yaml

from coe.config import DATA

sys.path.insert(0, str(Path(__file__).parents[1]))
from calibration import calibration

SECONDS = 4.0
PROMPT = "A shop sells 17 boxes with 6 pens each. How many pens is that in total?"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], url: str) -> Iterator[subprocess.Popen]:
    """A server process that answers at ``url``, ended by its id."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                host, port = url.removeprefix("http://").split(":")
                socket.create_connection((host, int(port)), 1).close()
                break
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(30)


async def load(url: str, model: str, concurrency: int, stream: bool) -> dict[str, float]:
    """Closed-loop load for a few seconds."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": stream,
        "max_tokens": 64,
    }
    spent: list[float] = []
    n_chunks = 0
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        deadline = time.perf_counter() + SECONDS

        async def worker() -> None:
            nonlocal n_chunks
            while time.perf_counter() < deadline:
                started = time.perf_counter()
                async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                    content = await response.read()
                    assert response.status == 200, content[:300]
                spent.append((time.perf_counter() - started) * 1000)
                n_chunks += content.count(b"data:")

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(concurrency)))
        elapsed = time.perf_counter() - began
    p50, p99 = np.percentile(spent, [50, 99])
    row = {
        "requests_per_s": round(len(spent) / elapsed, 1),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
    }
    return row | ({"chunks_per_s": round(n_chunks / elapsed)} if stream else {})


def configuration(folder: Path, expert_url: str, port: int) -> Path:
    """A ``coe.yaml`` with the stub under the names of the shipped artefact's experts."""
    shipped = yaml.safe_load((DATA / "coe.yaml").read_text())
    experts = [
        {"id": e["id"], "kind": "http", "device": e["device"], "base_url": f"{expert_url}/v1"}
        for e in shipped["experts"]
    ]
    document = {
        "gateway": {"port": port},
        "artefact": str(DATA / "artefact"),
        "budgets": str(DATA / "budgets.yaml"),
        "devices": shipped["devices"],
        "experts": experts,
    }
    path = folder / "coe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def main() -> None:
    """Measure and print."""
    stub_port, port = free_port(), free_port()
    direct, gateway = f"http://127.0.0.1:{stub_port}", f"http://127.0.0.1:{port}"
    stub = [sys.executable, str(Path(__file__).with_name("stub.py")), str(stub_port)]
    rows: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, running(stub, direct):
        config = configuration(Path(folder), direct, port)
        serve = [sys.executable, "-m", "coe", "serve", "--config", str(config)]
        with running(serve, gateway) as process:
            for stream in (False, True):
                for concurrency in (1, 16, 64):
                    key = f"{'stream' if stream else 'whole'}, {concurrency} at once"
                    rows[key] = {
                        "direct": asyncio.run(load(direct, "stub", concurrency, stream)),
                        "pinned": asyncio.run(load(gateway, "smollm2-135m", concurrency, stream)),
                        "routed": asyncio.run(load(gateway, "auto", concurrency, stream)),
                    }
            statm = Path(f"/proc/{process.pid}/statm").read_text().split()
            rss_mb = int(statm[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    result = {"machine": calibration(), "gateway_rss_mb": round(rss_mb, 1), "load": rows}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
