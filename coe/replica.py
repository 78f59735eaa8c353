"""Running experts: what a fleet is to run, what hosts report, its replicas, a snapshot of all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from coe.device import Scope

HostState = Literal["stopped", "starting", "ready", "draining", "failed"]
"""``draining`` answers what it has begun and takes nothing new; ``failed`` is final, except
for an expert that is an address: that is asked on and may be ready again."""


@dataclass(frozen=True, slots=True)
class NodeReading:
    """What the meter of a host's machine has counted.

    Parameters
    ----------
    energy_j : joules since an arbitrary beginning; never falls.
    origin : which beginning; no two hosts have the same.
    age_s : time since it was read, when the report was made. Clocks of machines differ, so no
        moment is told.
    scope : what the meter covers.
    meter : its kind, such as ``"rapl"``.
    power_w : mean of the last second or so; ``None`` where it was not watched for long enough.
    """

    energy_j: float
    origin: int
    age_s: float
    scope: Scope
    meter: str
    power_w: float | None = None


@dataclass(frozen=True, slots=True)
class HostReport:
    """What a host says of its engine.

    Parameters
    ----------
    address : ``http://host:port`` while requests can be sent there, else ``None``.
    slots : requests that it serves at once.
    n_running, n_waiting : requests in its slots, and in its queue.
    memory_bytes : resident memory of the engine's processes; 0 where it is not known.
    tokens_per_s : measured output rate of the mean request, over those that ended since the engine
        became ready; 0 until one has.
    n_starts : how often the engine was started.
    meter : of its machine; ``None`` where none is read, and ``unmetered`` says why.
    age_s : time since it was made, as of whoever passes it on.
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
    meter: NodeReading | None = None
    unmetered: str = ""
    age_s: float = 0.0


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
class Deployment:
    """What a fleet is to run of one expert.

    Parameters
    ----------
    engine : JSON text from which a host opens its engine.
    resources : what a node must offer to one copy, by name; ``CPU`` and ``GPU`` are Ray's own.
    labels : what a node must be called, by label.
    memory_gb : memory of one copy; 0 where it is not known.
    least, most : copies; between them, as many as let ``target_queue`` requests wait for each.
    """

    expert_id: str
    engine: str
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    memory_gb: float = 0.0
    least: int = 1
    most: int = 1
    target_queue: float = 1.0

    @property
    def digest(self) -> str:
        """Hash of all that a running copy cannot change: another one needs another copy."""
        fixed = [self.engine, self.resources, self.labels, self.memory_gb]
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Card:
    """What a copy was started as, and where; it keeps that, so that nobody else need remember.

    Parameters
    ----------
    digest : of its deployment.
    node : name of the machine that it runs on.
    key : bearer token that its engine asks for.
    """

    expert_id: str
    digest: str
    key: str | None = field(repr=False)
    node: str = ""


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
    key: str | None = field(default=None, repr=False)


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

    def document(self) -> dict[str, Any]:
        """The snapshot as plain values, for JSON."""
        return asdict(self)
