"""Keeps the copies of experts on a cluster as they are wanted, and says what there is."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from coe.errors.gateway import FleetError
from coe.replica import Card, Deployment, HostReport, Replica, Snapshot
from coe.services.cluster.protocol import Cluster, RunningCopy
from coe.services.cluster.reconcile import Copy, changes
from coe.services.cluster.targets import LoadTargets, Target

_UNKNOWN = HostReport("starting", "waits for a node that has what it needs")
_SILENT = "its host does not answer"


@dataclass(frozen=True, slots=True)
class Pace:
    """Periods and limits of supervision, in seconds.

    A copy whose host does not answer within ``watch_s`` and ``grace_s`` counts as gone until it
    answers again, so that gateways hear of a lost node within two seconds. One that is silent for
    ``adopt_s`` has lost its node and is to be placed again; a new supervisor does not adopt it.
    """

    watch_s: float = 0.5
    grace_s: float = 0.8
    reconcile_s: float = 1.0
    drain_s: float = 60.0
    adopt_s: float = 5.0
    again_s: float = 0.1
    retry_failed_s: float = 60.0


@dataclass(slots=True)
class _Record:
    """A copy as the supervisor sees it; its host was last heard at ``heard_s``."""

    copy: RunningCopy
    card: Card
    report: HostReport = _UNKNOWN
    heard_s: float = 0.0
    leaving: bool = False
    avoided: frozenset[str] = frozenset()
    absent_since: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Reconciles what runs on ``cluster`` with what is wanted.

    What is wanted outlives it: a new supervisor recalls it, and adopts the copies that run.

    Parameters
    ----------
    target : how many copies an expert gets that nobody has scaled by hand; kept up to date by
        asking it again and again.
    """

    cluster: Cluster
    pace: Pace = Pace()
    target: Target = field(default_factory=LoadTargets)
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    epoch: str = field(default_factory=lambda: secrets.token_hex(4))
    _wanted: dict[str, Deployment] = field(default_factory=dict)
    _scaled: dict[str, int] = field(default_factory=dict)
    _shunned: set[str] = field(default_factory=set)
    _records: dict[str, _Record] = field(default_factory=dict)
    _tasks: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    _n_ending: int = 0
    _version: int = 0
    _adopted: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _due: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Supervise for ever: adopt what runs, then start and drain as wanted."""
        self._recall()
        async with self._tasks:
            adoptions = [
                self._spawn(self._adopt(replica_id, copy))
                for replica_id, copy in self.cluster.running().items()
            ]
            if adoptions:
                await asyncio.wait(adoptions)
            self._adopted.set()
            while True:
                self._reconcile()
                self._due.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.pace.reconcile_s):
                        await self._due.wait()

    async def want(self, deployments: Sequence[Deployment]) -> None:
        """Run these from now on, and nothing else; what was scaled by hand is forgotten."""
        self._wanted = {d.expert_id: d for d in deployments}
        self._scaled.clear()
        self._decided()

    def scale(self, expert_id: str, n: int | None) -> None:
        """Run ``n`` copies of an expert whatever its load; ``None``: as the load has it.

        Raises
        ------
        FleetError
            There is no such expert.
        """
        if expert_id not in self._wanted:
            known = ", ".join(self._wanted) or "none"
            raise FleetError(f"the fleet has no expert {expert_id!r}; it has {known}")
        if n is None:
            self._scaled.pop(expert_id, None)
        else:
            self._scaled[expert_id] = n
        self._decided()

    def shun(self, node: str, shunned: bool = True) -> None:
        """Empty a node and start nothing there; or use it again.

        Raises
        ------
        FleetError
            Nothing runs on such a node.
        """
        known = {record.card.node for record in self._records.values()} | self._shunned
        if node not in known:
            names = ", ".join(sorted(known - {""})) or "no node"
            raise FleetError(f"nothing runs on a node {node!r}; the fleet runs on {names}")
        (self._shunned.add if shunned else self._shunned.discard)(node)
        self._decided()

    async def down(self) -> None:
        """Drain and end every copy; want nothing."""
        await self.want([])
        await self._adopted.wait()
        while self._records or self._n_ending:
            await self._until_changed()

    def snapshot(self) -> Snapshot:
        """All copies now."""
        return Snapshot(
            self.epoch,
            self._version,
            {
                replica_id: Replica(
                    replica_id,
                    record.card.expert_id,
                    record.card.node,
                    self._told(record),
                    record.card.key,
                )
                for replica_id, record in sorted(self._records.items())
            },
        )

    def _told(self, record: _Record) -> HostReport:
        """The report as others are to read it now."""
        report = record.report
        state = "draining" if record.leaving and report.state == "ready" else report.state
        return replace(report, state=state, age_s=self.now() - record.heard_s)

    async def newer(self, epoch: str, version: int, wait_s: float) -> Snapshot:
        """The snapshot once it is not that version any more, at the latest after ``wait_s``.

        Figures such as queue lengths change without a new version. There is none before all that
        ran already has been asked how it is: gateways would take it for gone.
        """
        await self._adopted.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while (epoch, version) == (self.epoch, self._version):
                    await self._until_changed()
        return self.snapshot()

    def _reconcile(self) -> None:
        self._retry()
        todo = changes(self._wanted, self._targets(), self._copies(), self._shunned)
        for expert_id in todo.start:
            self._start(self._wanted[expert_id])
        for replica_id in todo.drain:
            self._records[replica_id].leaving = True
            self._spawn(self._let_go(replica_id))
        if todo.start or todo.drain:
            self._note()

    def _targets(self) -> dict[str, int]:
        reports = {name: list[HostReport]() for name in self._wanted}
        for record in self._records.values():
            if record.card.expert_id in reports and not record.leaving:
                reports[record.card.expert_id].append(record.report)
        return {
            name: self._scaled.get(name, self.target(deployment, reports[name], self.now()))
            for name, deployment in self._wanted.items()
        }

    def _copies(self) -> list[Copy]:
        return [self._copy(replica_id, record) for replica_id, record in self._records.items()]

    def _copy(self, replica_id: str, record: _Record) -> Copy:
        waits = self._waits(record)
        return Copy(
            replica_id,
            record.card.expert_id,
            record.card.digest,
            record.card.node,
            record.report,
            record.leaving,
            avoided=record.avoided if waits else frozenset(),
            quiet=record.report.reason == _SILENT and not waits,
        )

    def _waits(self, record: _Record) -> bool:
        """Whether a copy has yet to be placed, for the first time or since its node was lost."""
        if not record.card.node:
            return True
        since = record.absent_since if record.report.reason == _SILENT else None
        return since is not None and since <= self.now() - self.pace.adopt_s

    def _retry(self) -> None:
        """A copy that gave up, or is gone for long, makes room for a new one."""
        long_ago = self.now() - self.pace.retry_failed_s
        for replica_id, record in self._records.items():
            since = record.absent_since
            if since is not None and since <= long_ago and not record.leaving:
                record.leaving = True
                self._spawn(self._let_go(replica_id))

    def _start(self, deployment: Deployment) -> None:
        card = Card(deployment.expert_id, deployment.digest, secrets.token_urlsafe(24))
        replica_id = f"{deployment.expert_id}-{secrets.token_hex(3)}"
        avoided = frozenset(self._shunned)
        copy = self.cluster.start(replica_id, deployment, card, avoided)
        self._records[replica_id] = _Record(copy, card, heard_s=self.now(), avoided=avoided)
        self._spawn(self._watch(replica_id))

    async def _adopt(self, replica_id: str, copy: RunningCopy) -> None:
        """Take over a copy that runs already; one that does not say what it is, is ended."""
        try:
            async with asyncio.timeout(self.pace.adopt_s):
                card = await copy.card()
                report = await copy.watch(None, 0.0)
        except (FleetError, TimeoutError):
            await copy.end()
            return
        self._records[replica_id] = _Record(copy, card, report, self.now())
        self._spawn(self._watch(replica_id))

    async def _watch(self, replica_id: str) -> None:
        """Keep the report of a copy up to date for as long as it is kept."""
        record = self._records[replica_id]
        with suppress(FleetError):
            record.card = await record.copy.card()
        while self._records.get(replica_id) is record:
            try:
                async with asyncio.timeout(self.pace.watch_s + self.pace.grace_s):
                    # it may come back elsewhere, or was not there yet when it was asked first
                    if record.report.reason == _SILENT or not record.card.node:
                        record.card = await record.copy.card()
                    report = await record.copy.watch(record.report, self.pace.watch_s)
            except (FleetError, TimeoutError):
                report = replace(record.report, state="starting", reason=_SILENT, address=None)
                await self.sleep(self.pace.again_s)
            self._see(record, report)

    def _see(self, record: _Record, report: HostReport) -> None:
        before, record.report = record.report, report
        if report.reason != _SILENT:
            record.heard_s = self.now()
        if report.state != "failed" and report.reason != _SILENT:
            record.absent_since = None
        elif record.absent_since is None:
            record.absent_since = self.now()
        if (before.state, before.address) != (report.state, report.address):
            self._note()
            self._due.set()

    async def _let_go(self, replica_id: str) -> None:
        record = self._records[replica_id]
        if record.card.node:  # one that waits for a node has begun nothing
            with suppress(FleetError, TimeoutError):
                async with asyncio.timeout(self.pace.drain_s + self.pace.grace_s):
                    await record.copy.drain(self.pace.drain_s)
        del self._records[replica_id]  # not watched any more: that would start it again
        self._n_ending += 1
        await record.copy.end()
        self._n_ending -= 1
        self._note()
        self._due.set()

    def _decided(self) -> None:
        """Somebody asked for something: keep it, and see to it."""
        state = {
            "wanted": [asdict(d) for d in self._wanted.values()],
            "scaled": self._scaled,
            "shunned": sorted(self._shunned),
        }
        self.cluster.remember(json.dumps(state).encode())
        self._due.set()

    def _recall(self) -> None:
        kept = self.cluster.recall()
        if kept is None:
            return
        state: dict[str, Any] = json.loads(kept)
        self._wanted = {d["expert_id"]: Deployment(**d) for d in state["wanted"]}
        self._scaled = state["scaled"]
        self._shunned = set(state["shunned"])

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Work whose failure, if it is none that was foreseen, ends `run`."""
        return self._tasks.create_task(work)

    def _note(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until_changed(self) -> None:
        await self._changed.wait()
