"""A gateway that gets too little of its processor: it sheds, says that it lives, blames nobody."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest

from harness.gateway import Process
from harness.load import background
from harness.script import Script
from harness.stage import Stage, ends, stage
from harness.watching import command_on_core

N_AT_ONCE, N_BURST = 16, 64
# of the gateway's waits for experts, so short that a gateway that is late would end some, and long
# enough for experts on a busy machine
PATIENCE = {"first_token_timeout_s": 2.5, "idle_timeout_s": 2.0, "limit": "none"}
STOPPED_S = 3.5


def own(two: Stage) -> Process:
    assert isinstance(two.gateway, Process)
    return two.gateway


def spinning() -> subprocess.Popen[bytes]:
    return subprocess.Popen([*command_on_core(0), sys.executable, "-c", "while True: pass"])


@asynccontextmanager
async def spinners(two: Stage) -> AsyncIterator[None]:
    """Two others on its core, who want all of it."""
    running = [spinning() for _ in range(2)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


@asynccontextmanager
async def quota(two: Stage) -> AsyncIterator[None]:
    """Half of the time, as a control group gives it: stopped for 50 ms of every 100 ms.

    A quota of a control group takes root. Once it is stopped for longer than experts may be silent.
    """
    pid = own(two).pid

    async def throttle() -> None:
        for n in range(10_000):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(STOPPED_S if n == 10 else 0.05)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(throttle())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        os.kill(pid, signal.SIGCONT)


async def health(port: int, took_s: list[float], enough: asyncio.Event) -> None:
    """Ask how it is, five times a second."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
        while not enough.is_set():
            asked_s = time.monotonic()
            assert (await client.get("/healthz")).status_code == 200
            took_s.append(time.monotonic() - asked_s)
            await asyncio.sleep(0.2)


async def n_ejections(port: int) -> float:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
        page = (await client.get("/metrics")).text
    found = re.findall(r"^coe_ejections_total\S* (\S+)$", page, re.M)
    assert len(found) == 2, "one figure of each expert"
    return sum(map(float, found))


@pytest.mark.parametrize("starved", [spinners, quota])
async def test_f25_a_gateway_without_a_processor_sheds_and_blames_no_expert(tmp_path, starved):
    run, gateway = {"command": command_on_core(0)}, {"max_in_flight": N_AT_ONCE}
    async with stage(tmp_path, own_process=True, run=run, gateway=gateway, expert=PATIENCE) as two:
        await asyncio.gather(*(two.caller.ask(f"warm{n}", Script()) for n in range(4)))
        took_s: list[float] = []
        enough = asyncio.Event()
        async with starved(two), background(two.caller, 10.0) as seen:
            looking = asyncio.create_task(health(two.gateway.port, took_s, enough))
            script = Script(20, ttft_s=0.3, pace_s=0.02)
            for k in range(2):
                burst = await asyncio.gather(
                    *(two.caller.ask(f"burst{k}-{n}", script, n % 2 == 0) for n in range(N_BURST))
                )
                seen += burst
            enough.set()
            await looking
        assert ends(seen).keys() <= {"done", "whole", "refused overloaded"}, ends(seen)
        assert ends(burst)["refused overloaded"] >= 1
        assert np.median(took_s) < 1.0
        assert await n_ejections(two.gateway.port) == 0
        await two.checked()
