"""What is known of a running expert: the report of its host, its replicas, a snapshot of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

HostState = Literal["stopped", "starting", "ready", "draining", "failed"]
"""``draining`` answers what it has begun and takes nothing new; ``failed`` is final."""


@dataclass(frozen=True, slots=True)
class HostReport:
    """What a host says of its engine.

    Parameters
    ----------
    address : ``http://host:port`` while requests can be sent there, else ``None``.
    slots : requests that it serves at once.
    n_running, n_waiting : requests in its slots, and in its queue.
    memory_bytes : resident memory of the engine's processes; 0 where it is not known.
    tokens_per_s : output rate measured while it was generating; 0 until it has generated.
    n_starts : how often the engine was started.
    """

    state: HostState
    reason: str = ""
    address: str | None = None
    slots: int = 1
    n_running: int = 0
    n_waiting: int = 0
    memory_bytes: int = 0
    tokens_per_s: float = 0.0
    n_starts: int = 0


class Host(Protocol):
    """Keeps one engine alive: on this machine, or inside an actor on another."""

    async def start(self) -> None:
        """Begin to start and watch the engine; returns at once."""

    async def report(self) -> HostReport:
        """How it is now; asks the engine, and never takes longer than a second."""
        ...

    async def changed(self) -> None:
        """Returns after the next change of state."""

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing new; whether all that had begun has ended within ``timeout_s``."""
        ...

    async def stop(self) -> None:
        """End the engine. Harmless when it is not running."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One running copy of an expert.

    Parameters
    ----------
    replica_id : unique in the fleet.
    node : name of the machine that it runs on.
    key : bearer token that its engine asks for; ``None`` where it asks for none.
    """

    replica_id: str
    expert_id: str
    node: str
    report: HostReport
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All replicas at one moment.

    Parameters
    ----------
    epoch : of the supervisor's life; versions of different epochs cannot be compared.
    version : grows with every change.
    """

    epoch: str
    version: int
    replicas: Mapping[str, Replica]

    def of(self, expert_id: str) -> list[Replica]:
        """The replicas of an expert, in the order of their ids."""
        found = [r for r in self.replicas.values() if r.expert_id == expert_id]
        return sorted(found, key=lambda replica: replica.replica_id)
