"""Engines as a worker sees them: run by the process that started it, and told of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coe.core import ExpertSpec
from coe.errors.files import ConfigError
from coe.kinds import ExpertSection
from coe.replica import HostReport, HostState
from coe.services.host.watched import WatchedHost


class ToldHost(WatchedHost):
    """A host that knows of its engine what it was told last, and neither starts nor ends it."""

    def heard(self, state: HostState, reason: str, address: str | None, n_starts: int) -> None:
        """The engine is like this now."""
        self._address, self.n_starts = address, n_starts
        self._become(state, reason)

    async def start(self) -> None:
        """Nothing: it is started."""

    async def stop(self) -> None:
        """Nothing: others may ask it."""

    async def report(self) -> HostReport:
        """How it is, as far as was told."""
        return HostReport(self.state, self.reason, self.address, n_starts=self.n_starts)

    async def drain(self, timeout_s: float) -> bool:
        """Nothing: others may ask it."""
        return True

    async def _supervise(self) -> None:
        """Nothing to watch."""


def told_of(host: WatchedHost) -> list[Any]:
    """What a worker is told of an engine: name, state, reason, address, starts."""
    return [host.name, host.state, host.reason, host.address, host.n_starts]


@dataclass(slots=True)
class Engines:
    """The engines that a worker was told of, by expert."""

    told: dict[str, Sequence[Any]] = field(default_factory=dict)
    hosts: dict[str, ToldHost] = field(default_factory=dict)
    sections: dict[str, ExpertSection] = field(default_factory=dict)

    def hear(self, name: str, *words: Any) -> None:
        """An engine is like this now; to hear it twice changes nothing."""
        if self.told.get(name) == words:
            return
        self.told[name] = words
        if (host := self.hosts.get(name)) is not None:
            host.heard(*words)

    def open_host(
        self,
        section: ExpertSection,
        spec: ExpertSpec,
        *,
        n_engines: int = 1,
        on_change: Callable[[WatchedHost], None] = lambda host: None,
    ) -> ToldHost:
        """The host of an engine that runs; who runs it says what becomes of it, and nobody here.

        Raises
        ------
        ConfigError
            It is new or changed: all workers share one, which is started with them.
        """
        name = section.id
        if name not in self.told or self.sections.setdefault(name, section) != section:
            raise ConfigError(
                f"expert {name}: an engine that several workers share is started with them: "
                "restart the gateway"
            )
        host = self.hosts.get(name) or ToldHost(name)
        self.hosts[name] = host
        host.heard(*self.told[name])
        return host


def state_of(hosts: Mapping[str, WatchedHost]) -> list[list[Any]]:
    """What a new worker is told of all engines."""
    return [told_of(host) for host in hosts.values()]
