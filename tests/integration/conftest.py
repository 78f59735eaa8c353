"""A real gateway over two real engines, shared by the session."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from tempfile import TemporaryFile

import httpx
import openai
import pytest

from coe.config import DATA, load_config
from coe.environment import weights_home
from coe.kinds import EmbeddedSection
from coe.services.cli import app
from coe.services.cli.serve import gateway_on, listen
from coe.services.runtime import Runtime
from coe.services.weights import embedded_weights, fetch

RANGE_UJ = 30_000_000


@dataclass(frozen=True)
class Served:
    """A gateway in a thread of this process: its address and what is behind it."""

    url: str
    runtime: Runtime
    client: openai.OpenAI

    def receipt(self, decision_id: str) -> dict:
        """The receipt of a decision, once it is settled."""

        def settled() -> dict | None:
            answer = httpx.get(f"{self.url}/v1/decisions/{decision_id}", timeout=30)
            return answer.json()["receipt"]

        return wait_for(settled, "a receipt")


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 60.0):
    """The first true value of ``condition``, asked every 50 ms."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {timeout_s:g} s")


@contextmanager
def served(config, start_timeout_s=120.0, **more) -> Iterator[Served]:
    """The gateway of ``config`` in a thread, its engines settled; ``more`` is for `gateway_on`."""
    up, down = threading.Event(), asyncio.Event()
    found: list = []

    async def live() -> None:
        loop = asyncio.get_running_loop()
        with listen("127.0.0.1", 0) as listener:
            async with gateway_on(config, listener, **more) as (url, runtime):
                await runtime.fleet.settled()
                client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)
                found.extend([Served(url, runtime, client), loop])
                up.set()
                await down.wait()

    def run() -> None:
        try:
            asyncio.run(live())
        finally:
            up.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert up.wait(start_timeout_s), "the gateway did not start"
    assert found, "the gateway failed to start"
    gateway, loop = found
    try:
        with gateway.client:
            yield gateway
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join(60)


@pytest.fixture(scope="session")
def embedded_config():
    """The embedded default, its weights fetched where they are missing."""
    config = load_config(DATA / "coe.yaml")
    for section in config.experts:
        assert isinstance(section, EmbeddedSection)
        fetch(embedded_weights(section), weights_home())
    return config


@pytest.fixture(scope="session")
def gateway(embedded_config) -> Iterator[Served]:
    with served(embedded_config) as running:
        assert {h.state for h in running.runtime.fleet.hosts.values()} == {"ready"}
        yield running


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    """Wait for a condition: `wait_for`."""
    return wait_for


@pytest.fixture(scope="session")
def serve():
    """The gateway of any configuration: `served`."""
    return served


@pytest.fixture(scope="session")
def coe() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line with these arguments, to its end."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "coe", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture(scope="session")
def coe_here() -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `coe`, in this process: for what is no matter of the process, at a tenth of its time."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [*map(str, arguments)]
        # files, unlike what pytest captures with, can be written to by a descriptor
        with TemporaryFile("w+") as out, TemporaryFile("w+") as notes:
            with redirect_stdout(out), redirect_stderr(notes), pytest.raises(SystemExit) as ended:
                app(words, prog_name="coe")
            said = [(stream.seek(0), stream.read())[1] for stream in (out, notes)]
        return subprocess.CompletedProcess(words, ended.value.code, *said)

    return run


class TurningMeter:
    """A powercap tree whose package draws so many watts, and whose counter turns over."""

    def __init__(self, sysfs, watts):
        self.watts = watts
        self.package = sysfs / "class/powercap/intel-rapl:0"
        self.package.mkdir(parents=True)
        (self.package / "name").write_text("package-0\n")
        (self.package / "max_energy_range_uj").write_text(f"{RANGE_UJ - 1}\n")
        self.started = time.monotonic()
        self.turn()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def turn(self):
        count = int(self.watts * (time.monotonic() - self.started) * 1e6) % RANGE_UJ
        # a reader sees the old file or the new one, as with a real counter
        fresh = self.package / "fresh"
        fresh.write_text(f"{count}\n")
        fresh.replace(self.package / "energy_uj")

    def run(self):
        while not self.stopped.wait(0.005):
            self.turn()

    def stop(self):
        self.stopped.set()
        self.thread.join()


@pytest.fixture(scope="session")
def turning_meter():
    """A sysfs whose meter draws so many watts as long as the context lasts."""

    @contextmanager
    def turning(sysfs, watts):
        meter = TurningMeter(sysfs, watts)
        try:
            yield
        finally:
            meter.stop()

    return turning
