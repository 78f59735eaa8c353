"""One engine process: started, warmed, watched, restarted with backoff, drained, ended."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import httpx

from coe.errors import CoeError
from coe.errors.experts import ExpertUnavailableError
from coe.replica import HostReport
from coe.services.host.child import Child
from coe.services.host.memory import resident_bytes
from coe.services.host.probe import Load, Probe
from coe.services.host.watched import Watch, WatchedHost

KEY_VARIABLE: Final = "COE_ENGINE_KEY"
"""Environment variable in which an engine finds the key that it has to ask for."""

_REPORT_TIMEOUT_S = 0.7
_DRAIN_PERIOD_S = 0.1


class EngineHost(WatchedHost):
    """Keeps one engine process alive. A `coe.replica.Host`.

    Parameters
    ----------
    name : the expert's id, for messages.
    prepare : returns the command line; called in a thread before every start, so that it may
        verify weights. A `CoeError` it raises is final: the state becomes ``failed``.
    environment : variables added to this process's own.
    watch : periods and limits.
    slots : requests that the engine serves at once, for reports.
    key : bearer token that the engine is to ask for; it finds it in ``$COE_ENGINE_KEY``.
    first_request : body of a chat request that has to be answered before the engine counts as
        ready, so that no caller waits for pages to be read or kernels to be made.
    on_change : called with the host after every change of state.
    """

    def __init__(
        self,
        name: str,
        prepare: Callable[[], Sequence[str]],
        environment: Mapping[str, str] | None = None,
        watch: Watch | None = None,
        slots: int = 1,
        key: str | None = None,
        first_request: Mapping[str, Any] | None = None,
        on_change: Callable[[WatchedHost], None] = lambda host: None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(name, on_change)
        self._prepare = prepare
        self._environment = {**(environment or {}), KEY_VARIABLE: key or ""}
        self._watch = watch or Watch()
        self._slots = slots
        self._key = key
        self._first_request = first_request
        self._now = now
        self._sleep = sleep
        self._probe: Probe | None = None
        self._load = self._load_at_first = Load()
        self._child: Child | None = None
        self._ready_s = math.inf

    @property
    def process_id(self) -> int | None:
        """Id of the running engine process."""
        return self._child.id if self._child else None

    async def report(self) -> HostReport:
        """How it is now.

        An engine that is too busy to say within 0.7 s counts what it said last.
        """
        await self._look()
        process_id = self.process_id
        memory = await asyncio.to_thread(resident_bytes, process_id) if process_id else 0
        load = self._load if self.address else Load()
        return HostReport(
            state=self.state,
            reason=self.reason,
            address=self.address,
            slots=self._slots,
            n_running=load.n_running,
            n_waiting=load.n_waiting,
            memory_bytes=memory,
            tokens_per_s=load.tokens_per_s(self._load_at_first) if self.address else 0.0,
            n_starts=self.n_starts,
        )

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing new; whether all that had begun has ended within ``timeout_s``.

        The engine runs on until `stop`, and is not started again when it ends. One that is not
        ready has begun nothing, and is stopped.
        """
        if self.address is None:
            await self.stop()
            return True
        self._become("draining", "")
        deadline = self._now() + timeout_s
        # what was sent just before may not be counted yet: two looks
        n_idle = 0
        while self.state == "draining":
            load = await self._look()
            n_idle = n_idle + 1 if load is not None and load.idle else 0
            if n_idle == 2:
                return True
            if self._now() >= deadline:
                return False
            await self._sleep(_DRAIN_PERIOD_S)
        return False

    async def _supervise(self) -> None:
        crashes = 0
        while True:
            self._ready_s = math.inf
            reason = await self._end_of_one()
            if self.state == "failed":
                return
            if self.state == "draining":
                self._become("stopped", reason)
                return
            settled = self._now() - self._ready_s >= self._watch.settled_s
            crashes = 1 if settled else crashes + 1
            if crashes >= self._watch.n_crashes:
                self._become("failed", f"{reason}; gave up after {crashes} crashes in a row")
                return
            self._become("starting", reason)
            await self._sleep(self._watch.delay_s(crashes))

    async def _end_of_one(self) -> str:
        """Run the process to its end, and say why it ended; final where it cannot be started."""
        with self._keeping:
            try:
                return await self._run_once()
            except (CoeError, OSError) as error:
                self._become("failed", str(error))
                return self.reason
        return self._keeping.why

    async def _run_once(self) -> str:
        """Start the process and wait for its end; returns why it ended."""
        command = await asyncio.to_thread(self._prepare)
        self.n_starts += 1
        child = await Child.spawn(command, {**os.environ, **self._environment})
        self._child = child
        timeout = httpx.Timeout(self._watch.health_timeout_s)
        try:
            async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
                async with asyncio.timeout(self._watch.start_timeout_s):
                    probe = await self._started(child, client)
                if probe is not None:
                    self._ready_s = self._now()
                    self._become("ready", "")
                    return await self._until_end(child, probe)
        except TimeoutError:
            return f"did not start within {self._watch.start_timeout_s:g} s"
        except ExpertUnavailableError as error:
            return error.reason
        finally:
            self._address = self._probe = self._child = None
            await child.end()
        return f"did not say its address: {child.last_words}"

    async def _started(self, child: Child, client: httpx.AsyncClient) -> Probe | None:
        """Who asks the engine, once it serves and is warm; ``None`` when it says no address."""
        address = await child.announced()
        if address is None:
            return None
        probe = Probe(client, address, self._key)
        if self._first_request is not None:
            await probe.first_answer(self.name, self._first_request)
        self._load = self._load_at_first = await probe.load() or Load()
        self._address, self._probe = address, probe
        return probe

    async def _until_end(self, child: Child, probe: Probe) -> str:
        ended = asyncio.create_task(child.ended())
        checks = asyncio.create_task(self._until_unhealthy(probe))
        try:
            await asyncio.wait({ended, checks}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return f"ended with code {ended.result()}"
            checks.result()
            return f"{self._watch.n_failed_checks} health checks in a row failed"
        finally:
            ended.cancel()
            checks.cancel()
            await asyncio.gather(ended, checks, return_exceptions=True)

    async def _until_unhealthy(self, probe: Probe) -> None:
        n_failed = 0
        while n_failed < self._watch.n_failed_checks:
            await self._sleep(self._watch.health_period_s)
            n_failed = 0 if await probe.healthy() else n_failed + 1

    async def _look(self) -> Load | None:
        """The engine's load, which is also kept; ``None`` when it does not say in time."""
        if self._probe is None:
            return None
        load = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REPORT_TIMEOUT_S):
                load = await self._probe.load()
        self._load = load or self._load
        return load
