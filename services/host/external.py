"""A server that somebody else runs: asked whether it answers, for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import httpx

from coe.replica import HostReport
from coe.services.host.probe import Load, Probe
from coe.services.host.watched import Watch, WatchedHost

WATCH: Final = Watch(health_period_s=10.0)
"""Seldom: it may be a service that counts."""

_REPORT_TIMEOUT_S = 0.7
# there is a server, which knows no list of models
_NO_LIST = frozenset({404, 405, 501})


class ExternalHost(WatchedHost):
    """Says whether an address answers. A `coe.replica.Host` that starts and ends nothing.

    It is ``ready`` once ``{base_url}/models`` answers, and ``failed`` after the watch's number of
    attempts in a row that did not; then it is asked on, ever more seldom, and may be ``ready``
    again, which counts as another start.

    Parameters
    ----------
    name : the expert's id, for messages.
    base_url : address up to and including ``/v1``.
    slots : requests that it serves at once, for reports.
    key : sent as bearer token.
    watch : periods and limits.
    on_change : called with the host after every change of state.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        slots: int = 1,
        key: str | None = None,
        watch: Watch = WATCH,
        on_change: Callable[[WatchedHost], None] = lambda host: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(name, on_change)
        self._base_url = base_url.rstrip("/")
        self._address = self._base_url.removesuffix("/v1")
        self._slots = slots
        self._key = key
        self._watch = watch
        self._sleep = sleep
        self._probe: Probe | None = None
        self._load_at_first = Load()

    async def report(self) -> HostReport:
        """How it is now, with the load where the server has a page of llama.cpp or vLLM."""
        load = None
        if self._probe is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPORT_TIMEOUT_S):
                    load = await self._probe.load()
        load = load or Load()
        return HostReport(
            state=self.state,
            reason=self.reason,
            address=self.address,
            slots=self._slots,
            n_running=load.n_running,
            n_waiting=load.n_waiting,
            tokens_per_s=load.tokens_per_s(self._load_at_first),
            n_starts=self.n_starts,
        )

    async def drain(self, timeout_s: float) -> bool:
        """True at once, or when it did not answer: the server goes on with what it has begun."""
        if self.address is None:
            await self.stop()
        else:
            self._become("draining", "")
        return True

    async def _supervise(self) -> None:
        timeout = httpx.Timeout(self._watch.health_timeout_s)
        async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
            probe = Probe(client, self._base_url.removesuffix("/v1"), self._key)
            n_failed = 0
            while True:
                complaint = await self._asked(client, probe)
                n_failed = n_failed + 1 if complaint else 0
                if n_failed >= self._watch.n_failed_checks:
                    self._failed(complaint)
                watch = self._watch
                await self._sleep(watch.delay_s(n_failed) if complaint else watch.health_period_s)

    async def _asked(self, client: httpx.AsyncClient, probe: Probe) -> str:
        """Ask it once; as `_complaint`."""
        with self._keeping:
            complaint = await self._complaint(client)
            if not complaint:
                await self._answered(probe)
            return complaint
        return self._keeping.why

    async def _answered(self, probe: Probe) -> None:
        if self.state in ("starting", "failed"):
            load = await probe.load()
            # one that has no such page is not asked for it again
            self._probe = None if load is None else probe
            self._load_at_first = load or Load()
            self.n_starts += 1
            self._become("ready", "")

    def _failed(self, complaint: str) -> None:
        if self.state != "draining" and (self.state, self.reason) != ("failed", complaint):
            self._probe = None
            self._become("failed", complaint)

    async def _complaint(self, client: httpx.AsyncClient) -> str:
        """Why it cannot be asked; empty when it can."""
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            response = await client.get(f"{self._base_url}/models", headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{self._base_url} gave no answer ({type(error).__name__})"
        if response.is_success or response.status_code in _NO_LIST:
            return ""
        return f"{self._base_url} answered HTTP {response.status_code}"
