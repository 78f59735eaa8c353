"""Real gateways over fake experts: as processes that can be killed, or in a thread."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from coe.budgets import load_budgets
from coe.config import DATA, load_config
from coe.ledger.limits import Limit
from coe.services.cli.serve import gateway_on, listen
from coe.services.reloading import Outcome
from harness.dump import Book, dumped

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
"""The experts that the shipped artefact knows."""

AGES_S = 10**9
PLENTY = {"tokens": 10**9, "requests": 10**6, "energy_j": 10**9, "cost_usd": 10**6}
_START_S = 60.0

T = TypeVar("T")


class Server(Protocol):
    """Something that experts may be asked at."""

    @property
    def url(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Setup:
    """Files of a gateway in a folder."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "coe.yaml"

    @property
    def journal(self) -> Path:
        return self.folder / "ledger.sqlite"

    @property
    def limits(self) -> tuple[Limit, ...]:
        config = load_config(self.config)
        return tuple(load_budgets(config.budgets, config.specs).as_limits())

    def book(self, name: str = "") -> Book:
        """What the ledger has kept by now."""
        return dumped(self.journal, self.limits, name or self.folder.name)

    def put(self, text: str) -> None:
        """Write ``coe.yaml`` anew, as a whole."""
        draft = self.config.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(self.config)

    def leave_out(self, expert_id: str) -> None:
        """Write ``coe.yaml`` without an expert."""
        document = yaml.safe_load(self.config.read_text())
        document["experts"] = [e for e in document["experts"] if e["id"] != expert_id]
        self.put(yaml.safe_dump(document))


def written(
    folder: Path,
    experts: Mapping[str, str],
    ceilings: Mapping[str, float] | None = PLENTY,
    store: Mapping[str, Any] | None = None,
    expert: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    gateway: Mapping[str, Any] | None = None,
    **sections: Any,
) -> Setup:
    """The files of a gateway.

    Parameters
    ----------
    experts : their addresses.
    ceilings : of all requests together; ``None``: no limits.
    store, expert, gateway : fields of the store, of every expert, and of the gateway, that are not
        as usual here.
    policy : the default one; ``None``: one expert makes an answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"device": "here", "slots": 256, "answer_tokens": 64, "context_tokens": 2048}
    usual |= {"first_token_timeout_s": 1.0, "idle_timeout_s": 0.5, "answer_timeout_s": 30.0}
    usual |= {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 2.0, **(expert or {})}
    profile = {"ttft_b_ms": 0.1, "ttft_c_ms": 20, "decode_tokens_per_s": 200}
    document: dict[str, Any] = {
        "artefact": str(DATA / "artefact"),
        "budgets": "budgets.yaml",
        "devices": {"here": profile | {"prefill_w": 40, "decode_w": 30}},
        "store": {"kind": "sqlite", "path": "ledger.sqlite", "lease_s": 2, **(store or {})},
        "experts": [
            {"id": name, "kind": "http", "base_url": url, **usual} for name, url in experts.items()
        ],
        # nobody else asks it, and has to be told that it is being ended
        "gateway": {"drain_accept_s": 0.0, **(gateway or {})},
        **sections,
    }
    limits = {"house": {"scope": "global", "window_s": AGES_S, **ceilings}} if ceilings else {}
    budgets = {
        "policies": {"default": {"combine": "never"} if policy is None else policy},
        "limits": limits,
    }
    (folder / "coe.yaml").write_text(yaml.safe_dump(document))
    (folder / "budgets.yaml").write_text(yaml.safe_dump(budgets))
    return Setup(folder)


@dataclass(slots=True)
class Process:
    """``coe serve`` as a process of its own.

    Parameters
    ----------
    port : where it listens; 0: at a free one.
    command : what it is started by, such as ``taskset``.
    stdout, stderr : where it writes, from its next start on; ``None``: nowhere, and to a file.
    """

    setup: Setup
    port: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    stdout: int | None = None
    stderr: int | None = None
    running: subprocess.Popen[bytes] | None = None
    _n_starts: int = 0

    async def start(self) -> None:
        """Start, where it was before, and wait until it listens."""
        self.running, said = self._launched()
        deadline = time.monotonic() + _START_S
        while not await self._listens(said):
            assert self.running.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            await asyncio.sleep(0.02)

    async def _listens(self, said: Path) -> bool:
        self.port = self.port or _told_port(said)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port or 1)
        except OSError:
            return False
        writer.close()
        return True

    def _launched(self) -> tuple[subprocess.Popen[bytes], Path]:
        self._n_starts += 1
        said = self.setup.folder / f"stderr-{self._n_starts}"
        coe = [sys.executable, "-m", "coe", "serve", "--config", str(self.setup.config)]
        with said.open("wb") as stderr:
            running = subprocess.Popen(
                [*self.command, *coe, "--port", str(self.port)],
                stderr=stderr if self.stderr is None else self.stderr,
                stdout=subprocess.DEVNULL if self.stdout is None else self.stdout,
                env=os.environ | dict(self.environment),
            )
        return running, said

    @property
    def said(self) -> str:
        """What it has written to its standard error since it was last started."""
        return (self.setup.folder / f"stderr-{self._n_starts}").read_text()

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    async def ended(self, within_s: float = 30.0) -> int:
        """Its exit code, once it has ended."""
        assert self.running is not None
        deadline = time.monotonic() + within_s
        while (code := self.running.poll()) is None:
            assert time.monotonic() < deadline, "the gateway does not end"
            await asyncio.sleep(0.02)
        self.running = None
        return code

    async def stop(self) -> int:
        """End it as an operator does."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """End it at once."""
        if self.running is not None:
            self.running.kill()
            await self.ended()


def _told_port(said: Path) -> int:
    """Where a gateway says that it listens; 0: it has not."""
    found = re.search(r"listening on http://[^:]+:(\d+)", said.read_text())
    return int(found[1]) if found else 0


@asynccontextmanager
async def process(setup: Setup, **more: Any) -> AsyncIterator[Process]:
    """A running gateway, killed at the end if it still runs."""
    gateway = Process(setup, **more)
    try:
        await gateway.start()
        yield gateway
    finally:
        await gateway.kill()


@dataclass(slots=True)
class Threaded:
    """A gateway in a thread of this process, on a loop of its own."""

    setup: Setup
    port: int = 0
    runtime: Any = None
    loop: Any = None

    async def flushed(self) -> None:
        """Returns when nothing is held any more, and all of that is in the file."""
        books = self.runtime.engine.store.books
        deadline = time.monotonic() + 10.0
        while books.ledger.held:
            assert time.monotonic() < deadline, books.ledger.held
            await asyncio.sleep(0.01)
        await self.within(books.flush())

    async def within(self, work: Coroutine[Any, Any, T]) -> T:
        """What work on the gateway's own loop comes to."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    async def reloaded(self) -> Outcome:
        """What becomes of its files as they are now."""
        return await self.within(self.runtime.reloads.reload())


@asynccontextmanager
async def threaded(setup: Setup) -> AsyncIterator[Threaded]:
    """A gateway in a thread, which ends with the context."""
    gateway, up, ends = Threaded(setup), threading.Event(), asyncio.Event()

    async def live() -> None:
        with listen("127.0.0.1", 0) as listener:
            config = load_config(setup.config)
            async with gateway_on(config, listener, path=setup.config) as (_, runtime):
                gateway.port, gateway.runtime = listener.getsockname()[1], runtime
                gateway.loop = asyncio.get_running_loop()
                up.set()
                await ends.wait()

    def run() -> None:
        try:
            asyncio.run(live())
        finally:
            up.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    await asyncio.to_thread(up.wait, _START_S)
    assert gateway.loop, "the gateway failed to start"
    try:
        yield gateway
    finally:
        gateway.loop.call_soon_threadsafe(ends.set)
        await asyncio.to_thread(thread.join, _START_S)
