"""One engine process: started, health-checked, restarted with backoff, ended by its id."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import httpx

from coe.errors import CoeError

State = Literal["stopped", "starting", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class Watch:
    """Periods and limits of watching an engine, in seconds unless a count."""

    start_timeout_s: float = 60.0
    health_period_s: float = 2.0
    health_timeout_s: float = 5.0
    n_failed_checks: int = 3
    first_delay_s: float = 0.25
    max_delay_s: float = 30.0
    settled_s: float = 30.0
    n_crashes: int = 8

    def delay_s(self, crashes: int) -> float:
        """Wait before the next start, after that many crashes in a row (1, 2, ...)."""
        return min(self.first_delay_s * 2.0 ** (crashes - 1), self.max_delay_s)


class EngineHost:
    """Keeps one engine process alive.

    Parameters
    ----------
    name : the expert's id, for messages.
    prepare : returns the command line; called in a thread before every start, so that it may
        verify weights. A `CoeError` it raises is final: the state becomes ``failed``.
    environment : variables added to this process's own.
    watch : periods and limits.
    on_change : called with the host after every change of state.
    """

    def __init__(
        self,
        name: str,
        prepare: Callable[[], Sequence[str]],
        environment: Mapping[str, str] | None = None,
        watch: Watch | None = None,
        on_change: Callable[[EngineHost], None] = lambda host: None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.state: State = "stopped"
        self.reason = ""
        self.n_starts = 0
        self._prepare = prepare
        self._environment = dict(environment or {})
        self._watch = watch or Watch()
        self._on_change = on_change
        self._now = now
        self._sleep = sleep
        self._address: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def address(self) -> str | None:
        """``http://host:port`` while the engine is ready, else ``None``."""
        return self._address if self.state == "ready" else None

    @property
    def process_id(self) -> int | None:
        """Id of the running engine process."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Begin to start and watch the engine; returns at once. `settled` waits."""
        if self._supervisor is None:
            self._become("starting", "")
            self._supervisor = asyncio.create_task(self._supervise(), name=f"host {self.name}")

    async def settled(self) -> State:
        """The state once it is no longer ``starting``."""
        while self.state == "starting":
            self._changed.clear()
            await self._changed.wait()
        return self.state

    async def stop(self) -> None:
        """End the engine process and stop watching. Harmless when not started."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
        self._become("stopped", "")

    async def _supervise(self) -> None:
        crashes = 0
        while True:
            started = self._now()
            try:
                reason = await self._run_once()
            except (CoeError, OSError) as error:
                self._become("failed", str(error))
                return
            settled = self._now() - started >= self._watch.settled_s
            crashes = 1 if settled else crashes + 1
            if crashes >= self._watch.n_crashes:
                self._become("failed", f"{reason}; gave up after {crashes} crashes in a row")
                return
            self._become("starting", reason)
            await self._sleep(self._watch.delay_s(crashes))

    async def _run_once(self) -> str:
        """Start the process and wait for its end; returns why it ended."""
        command = await asyncio.to_thread(self._prepare)
        self.n_starts += 1
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self._environment},
            start_new_session=True,
        )
        self._process = process
        assert process.stderr is not None
        assert process.stdout is not None
        announced: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        last_words: deque[str] = deque(maxlen=3)
        # both pipes are read to their end: a full one would block the engine
        readers = {
            asyncio.create_task(_drain(process.stderr, last_words)),
            asyncio.create_task(_listen(process.stdout, announced)),
        }
        try:
            async with asyncio.timeout(self._watch.start_timeout_s):
                self._address = await announced
            if self._address is not None:
                self._become("ready", "")
                return await self._until_end(process, self._address)
        except TimeoutError:
            return f"did not start within {self._watch.start_timeout_s:g} s"
        finally:
            self._process = None
            await _end(process)
            _, unfinished = await asyncio.wait(readers, timeout=1.0)
            for reader in unfinished:
                reader.cancel()
        return f"did not say its address: {' | '.join(last_words) or 'no message'}"

    async def _until_end(self, process: asyncio.subprocess.Process, address: str) -> str:
        ended = asyncio.create_task(process.wait())
        checks = asyncio.create_task(self._until_unhealthy(address))
        try:
            await asyncio.wait({ended, checks}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return f"ended with code {ended.result()}"
            return f"{self._watch.n_failed_checks} health checks in a row failed"
        finally:
            ended.cancel()
            checks.cancel()
            await asyncio.gather(ended, checks, return_exceptions=True)

    async def _until_unhealthy(self, address: str) -> None:
        failed = 0
        async with httpx.AsyncClient(
            timeout=self._watch.health_timeout_s, trust_env=False
        ) as client:
            while failed < self._watch.n_failed_checks:
                await self._sleep(self._watch.health_period_s)
                try:
                    response = await client.get(
                        f"{address}/health", headers={"connection": "close"}
                    )
                    failed = 0 if response.is_success else failed + 1
                except httpx.HTTPError:
                    failed += 1

    def _become(self, state: State, reason: str) -> None:
        self.state, self.reason = state, reason
        self._changed.set()
        self._on_change(self)


async def _listen(stream: asyncio.StreamReader, announced: asyncio.Future[str | None]) -> None:
    """Read to the end; the address in the first JSON line, or ``None``, becomes ``announced``."""
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # a line longer than the buffer, which is dropped
            continue
        if not line:
            break
        if line.startswith(b"{") and not announced.done():
            announced.set_result(_address_in(line))
    if not announced.done():
        announced.set_result(None)


def _address_in(line: bytes) -> str | None:
    try:
        return str(json.loads(line)["address"])
    except (ValueError, KeyError):
        return None


async def _drain(stream: asyncio.StreamReader, last_words: deque[str]) -> None:
    """Read to the end, so that the pipe never fills; keep the last lines for an error message."""
    while chunk := await stream.read(65536):
        lines = chunk.decode(errors="replace").splitlines()
        last_words.extend(line.strip()[:200] for line in lines if line.strip())


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close the engine's standard input, which asks it to end; then insist by its own id."""
    if process.stdin is not None:
        process.stdin.close()
    for wait_s, insist in ((2.0, signal.SIGTERM), (2.0, signal.SIGKILL)):
        try:
            async with asyncio.timeout(wait_s):
                await process.wait()
                return
        except TimeoutError:
            process.send_signal(insist)
    await process.wait()
