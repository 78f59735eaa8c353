"""Experts on Ray against the same engines without: added latency, throughput, time to recover.

    python benchmarks/fleet/bench.py [--pairs N] [--kills N]

Needs the extras `embedded` and `fleet`. Makes a Ray cluster of this machine. Prints one JSON
document.

Two gateways take turns in one run: one follows a fleet whose engine a Ray actor hosts, the other
hosts an engine of the same kind itself. Both engines have one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("COE_FLEET_TOKEN", secrets.token_hex(32))

from coe import actors
from coe.config import DATA, Config, load_config
from coe.services.cli.serve import gateway_on, listen
from coe.services.cluster.hosting import deployments, host_opener, supervisor_opener

sys.path.append(str(Path(__file__).parents[1]))
from calibration import calibration

WARM = 20
"""Requests that are not counted: connections are made, pages read."""

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
CONFIG = f"""
artefact: {DATA}/artefact
budgets: {DATA}/budgets.yaml
devices:
  core: {{ttft_b_ms: 5, ttft_c_ms: 200, decode_tokens_per_s: 50, prefill_w: 12, decode_w: 10}}
experts:
  - {{id: {SMALL}, kind: embedded, weights: smollm2-135m-instruct-q4_1, device: core,
     threads: 1, context_tokens: 1024}}
"""
SECOND = f"""
  - {{id: {LARGE}, kind: embedded, weights: qwen2.5-coder-0.5b-instruct-q4_k_m, device: core,
     threads: 1, context_tokens: 1024}}
"""


def configuration(folder: Path, name: str, port: int | None, text: str) -> Config:
    """A configuration, of a fleet where a port is given."""
    path = folder / name
    path.write_text(text + ("" if port is None else f"\nfleet: {{port: {port}}}\n"))
    return load_config(path)


@asynccontextmanager
async def gateway(config: Config) -> AsyncIterator[str]:
    """Address of a gateway of ``config`` in this process, its experts ready."""
    with listen("127.0.0.1", 0) as listener:
        async with gateway_on(config, listener) as (url, runtime):
            async with asyncio.timeout(120):
                await runtime.fleet.settled()
                while set(runtime.fleet.states().values()) != {"ready"}:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            yield url


async def ask(client: httpx.AsyncClient, url: str, max_tokens: int, model: str = SMALL) -> str:
    """Who answered."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Name a colour."}],
        "max_tokens": max_tokens,
    }
    answer = await client.post(f"{url}/v1/chat/completions", json=body)
    answer.raise_for_status()
    return str(answer.json()["model"])


async def paired_ms(client: httpx.AsyncClient, urls: dict[str, str], n: int) -> dict[str, Any]:
    """Latency of one-token answers, asked in turns, and the median of paired differences."""
    spent: dict[str, list[float]] = {name: [] for name in urls}
    for k in range(n + WARM):
        for name in urls if k % 2 else reversed(urls):
            started = time.perf_counter()
            await ask(client, urls[name], 1)
            if k >= WARM:
                spent[name].append((time.perf_counter() - started) * 1000.0)
    added = np.array(spent["ray"]) - np.array(spent["here"])
    draws = np.random.default_rng(0).integers(0, n, (2000, n))
    low, high = np.quantile(np.median(added[draws], axis=1), [0.025, 0.975])
    medians = {name: float(np.median(values)) for name, values in spent.items()}
    return {
        "pairs": n,
        "p50_ms": medians,
        "added_p50_ms": float(np.median(added)),
        "added_p50_ci95_ms": [float(low), float(high)],
        "added_share": float(np.median(added)) / medians["here"],
    }


async def tokens_per_s(client: httpx.AsyncClient, url: str, seconds: float) -> float:
    """Output tokens per second with four requests at once."""
    n_tokens, started = 0, time.perf_counter()

    async def worker() -> None:
        nonlocal n_tokens
        while time.perf_counter() - started < seconds:
            await ask(client, url, 24)
            n_tokens += 24

    await asyncio.gather(*(worker() for _ in range(4)))
    return n_tokens / (time.perf_counter() - started)


async def throughput(
    client: httpx.AsyncClient, urls: dict[str, str], rounds: int
) -> dict[str, Any]:
    """Tokens per second of both in turns, and the median ratio."""
    found: dict[str, list[float]] = {name: [] for name in urls}
    for _ in range(rounds):
        for name, url in urls.items():
            found[name].append(await tokens_per_s(client, url, 6.0))
    ratios = np.array(found["ray"]) / np.array(found["here"])
    return {"tokens_per_s": found, "median_ratio": float(np.median(ratios))}


async def recovery(client: httpx.AsyncClient, url: str, kills: int) -> dict[str, Any]:
    """From the kill of an engine's actor to the first answer by another expert, and to notice."""
    answered_ms: list[float] = []
    noticed_ms: list[float] = []
    back_s: list[float] = []
    for _ in range(kills):
        name = next(n for n in actors.ray.util.list_named_actors() if f":{LARGE}-" in n)
        actor = actors.ray.get_actor(name)
        process_id = await actor.__ray_call__.remote(lambda self: os.getpid())
        os.kill(process_id, signal.SIGKILL)
        killed = time.perf_counter()
        noticing = asyncio.create_task(until(client, url, ready=False))
        assert await ask(client, url, 1, "auto:best") == SMALL
        answered_ms.append((time.perf_counter() - killed) * 1000.0)
        noticed_ms.append((await noticing - killed) * 1000.0)
        back_s.append(await until(client, url, ready=True) - killed)
    return {
        "kills": kills,
        "first_answer_by_another_ms": spread(answered_ms),
        "gateway_knows_ms": spread(noticed_ms),
        "engine_is_back_s": spread(back_s),
    }


async def until(client: httpx.AsyncClient, url: str, ready: bool) -> float:
    """When the gateway first says that the large expert is ready, or is not."""
    async with asyncio.timeout(120):
        while True:
            states = (await client.get(f"{url}/readyz")).json()["experts"]
            if (states[LARGE] == "ready") == ready:
                return time.perf_counter()
            await asyncio.sleep(0.01)


def spread(values: list[float]) -> dict[str, float]:
    """Smallest, median and largest."""
    return {
        "min": round(min(values), 3),
        "p50": round(float(np.median(values)), 3),
        "max": round(max(values), 3),
    }


@asynccontextmanager
async def fleet(config: Config) -> AsyncIterator[None]:
    """The fleet of a configuration, on the cluster of this process, while the context lasts."""
    assert config.fleet is not None
    supervisor = actors.RemoteSupervisor.opened(
        supervisor_opener(config.fleet, os.environ["COE_FLEET_TOKEN"]),
        host_opener(config.fleet.engines),
    )
    await supervisor.want(deployments(config))
    try:
        yield
    finally:
        await supervisor.down()


async def measured(pairs: int, kills: int) -> dict[str, Any]:
    """Everything, as one document."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = configuration(folder, "one.yaml", port, CONFIG)
        both = configuration(folder, "both.yaml", port, CONFIG + SECOND)
        here = configuration(folder, "here.yaml", None, CONFIG)
        found: dict[str, Any] = {"before": calibration()}
        async with httpx.AsyncClient(timeout=120.0) as client:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(fleet(one))
                urls = {
                    "here": await stack.enter_async_context(gateway(here)),
                    "ray": await stack.enter_async_context(gateway(one)),
                }
                found["latency"] = await paired_ms(client, urls, pairs)
                found["throughput"] = await throughput(client, urls, 5)
            async with fleet(both), gateway(both) as url:
                found["recovery"] = await recovery(client, url, kills)
        found["after"] = calibration()
        return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    actors.connect("local", "coe")
    try:
        document = asyncio.run(measured(options.pairs, options.kills))
    finally:
        actors.disconnect()
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
